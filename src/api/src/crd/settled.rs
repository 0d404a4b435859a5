//! Whether a stored object is shown as it stands, found without making a tree of it.
//!
//! What [`super::from_stored`] changes nothing of is nearly everything that is ever written, and whoever writes is kept waiting while that is found out.
//! A yes is certain; a no means that only a closer look can tell (embedded resources, odd metadata, nulls).
use super::Custom;
use super::structural::{Additional, Structural};
use crate::scan::{Malformed, Scanner};

/// Whether [`super::from_stored`], and setting this version and kind, would change nothing of the object, which this process has printed.
pub fn is_settled(custom: &Custom, api_version: &str, kind: &str, json: &[u8]) -> bool {
    let schema = custom.structural();
    let has_odd_metadata = schema.embedded || schema.property("metadata").is_some_and(Structural::has_defaults);
    !has_odd_metadata && Settled { json: Scanner::new(json) }.root(schema, api_version, kind).unwrap_or(false)
}

struct Settled<'j> {
    json: Scanner<'j>,
}

type Answer = Result<bool, Malformed>;

impl Settled<'_> {
    fn root(mut self, schema: &Structural, api_version: &str, kind: &str) -> Answer {
        let (mut has_version, mut has_kind, mut defaulted) = (false, false, 0);
        self.json.expect(b'{')?;
        loop {
            let key = self.json.key()?;
            let is_fine = match &*key {
                b"apiVersion" => {
                    has_version = self.text_is(api_version)?;
                    has_version
                }
                b"kind" => {
                    has_kind = self.text_is(kind)?;
                    has_kind
                }
                b"metadata" => self.metadata()?,
                key => self.field(schema, key)?,
            };
            if !is_fine {
                return Ok(false);
            }
            defaulted += usize::from(has_default(schema, &key));
            if !self.json.another(b'}')? {
                break;
            }
        }
        Ok(has_version && has_kind && defaulted == schema.defaults)
    }

    fn text_is(&mut self, text: &str) -> Answer {
        Ok(self.json.peek() == Some(b'"') && *self.json.string()? == *text.as_bytes())
    }

    fn value(&mut self, schema: &Structural) -> Answer {
        match self.json.peek() {
            Some(b'n') => Ok(schema.nullable && self.json.eat_null()),
            Some(b'{') => self.object(schema),
            Some(b'[') => match &schema.items {
                Some(items) => self.each(|settled| settled.value(items)),
                None if schema.preserve => self.whole(),
                None => self.each(Self::simple),
            },
            _ => self.whole(),
        }
    }

    fn object(&mut self, schema: &Structural) -> Answer {
        if schema.embedded {
            return Ok(false);
        }
        self.json.expect(b'{')?;
        let mut defaulted = 0;
        let mut goes_on = !self.json.eat(b'}');
        while goes_on {
            let key = self.json.key()?;
            if !self.field(schema, &key)? {
                return Ok(false);
            }
            defaulted += usize::from(has_default(schema, &key));
            goes_on = self.json.another(b'}')?;
        }
        Ok(defaulted == schema.defaults)
    }

    fn field(&mut self, schema: &Structural, key: &[u8]) -> Answer {
        let Ok(key) = std::str::from_utf8(key) else { return Ok(false) };
        match (schema.properties.get(key), &schema.additional) {
            (Some(property), _) => self.value(property),
            (None, Some(Additional::Schema(further))) => self.value(further),
            // Below, everything would be unknown.
            (None, Some(Additional::Allowed(_))) => self.simple(),
            (None, None) if schema.preserve => self.whole(),
            (None, None) => Ok(false),
        }
    }

    fn whole(&mut self) -> Answer {
        self.json.raw().map(|_| true)
    }

    /// A value with nothing below it.
    fn simple(&mut self) -> Answer {
        Ok(!matches!(self.json.peek(), Some(b'{' | b'[')) && self.whole()?)
    }

    fn each(&mut self, mut item: impl FnMut(&mut Self) -> Answer) -> Answer {
        self.json.expect(b'[')?;
        let mut goes_on = !self.json.eat(b']');
        while goes_on {
            if !item(self)? {
                return Ok(false);
            }
            goes_on = self.json.another(b']')?;
        }
        Ok(true)
    }

    /// As its type prints it: nothing unknown, and nothing that would be left out.
    fn metadata(&mut self) -> Answer {
        self.fields(|settled, key| match key {
            b"name" | b"generateName" | b"namespace" | b"uid" | b"resourceVersion" | b"selfLink" => settled.text(),
            b"creationTimestamp" | b"deletionTimestamp" => settled.time(),
            b"generation" | b"deletionGracePeriodSeconds" => settled.number(),
            b"labels" | b"annotations" => settled.fields(|settled, _| Ok(settled.json.peek() == Some(b'"') && settled.whole()?)),
            b"finalizers" => settled.some(Self::text),
            b"ownerReferences" => settled.some(Self::owner),
            b"managedFields" => settled.some(|settled| {
                settled.fields(|settled, key| match key {
                    b"apiVersion" | b"fieldsType" | b"manager" | b"operation" | b"subresource" => settled.text(),
                    b"fieldsV1" => Ok(settled.json.peek() == Some(b'{') && settled.whole()?),
                    b"time" => settled.time(),
                    _ => Ok(false),
                })
            }),
            _ => Ok(false),
        })
    }

    /// Four texts that are printed even where they are empty, and two that are not unless they say something.
    fn owner(&mut self) -> Answer {
        let mut texts = 0;
        let is_known = self.fields(|settled, key| match key {
            b"apiVersion" | b"kind" | b"name" | b"uid" => {
                texts += 1;
                Ok(settled.json.peek() == Some(b'"') && settled.whole()?)
            }
            b"blockOwnerDeletion" | b"controller" => Ok(matches!(settled.json.peek(), Some(b't' | b'f')) && settled.whole()?),
            _ => Ok(false),
        })?;
        Ok(is_known && texts == 4)
    }

    /// The fields of an object that has some.
    fn fields(&mut self, mut field: impl FnMut(&mut Self, &[u8]) -> Answer) -> Answer {
        if !self.json.eat(b'{') || self.json.peek() == Some(b'}') {
            return Ok(false);
        }
        loop {
            let key = self.json.key()?;
            if !field(self, &key)? {
                return Ok(false);
            }
            if !self.json.another(b'}')? {
                return Ok(true);
            }
        }
    }

    /// The items of a list that has some.
    fn some(&mut self, mut item: impl FnMut(&mut Self) -> Answer) -> Answer {
        let mut count = 0;
        let is_list = self.json.peek() == Some(b'[');
        let all = is_list && self.each(|settled| {
            count += 1;
            item(settled)
        })?;
        Ok(all && count > 0)
    }

    fn text(&mut self) -> Answer {
        Ok(self.json.peek() == Some(b'"') && !self.json.string()?.is_empty())
    }

    fn time(&mut self) -> Answer {
        const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
        if self.json.peek() != Some(b'"') {
            return Ok(false);
        }
        let text = self.json.string()?;
        let fits = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
        Ok(text.len() == SHAPE.len() && text.iter().zip(SHAPE).all(fits))
    }

    /// One that is printed, and as it stands.
    fn number(&mut self) -> Answer {
        let is_number = matches!(self.json.peek(), Some(b'1'..=b'9'));
        Ok(is_number && self.json.word()?.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

fn has_default(schema: &Structural, key: &[u8]) -> bool {
    schema.defaults > 0 && std::str::from_utf8(key).is_ok_and(|key| schema.properties.get(key).is_some_and(|property| property.default.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    const SCHEMA: &str = r#"{"type":"object","properties":{"kind":{"type":"string"},"metadata":{"type":"object"},"spec":{"type":"object","properties":{
        "a":{"type":"string","default":"x"},"n":{"type":"string","nullable":true},"m":{"type":"string","default":"y","nullable":true},
        "list":{"type":"array","items":{"type":"object","properties":{"p":{"type":"integer","default":1}}}},
        "map":{"type":"object","additionalProperties":{"type":"object","properties":{"q":{"type":"boolean","default":false}}}},
        "open":{"type":"object","additionalProperties":true},"bare":{"type":"array"},
        "kept":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"in":{"type":"object","properties":{"r":{"type":"string","default":"z"}}}}},
        "embedded":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}}}}}"#;

    fn custom() -> Custom {
        super::super::tests::custom_of(Tree::from_json(SCHEMA.as_bytes()).unwrap())
    }

    fn object(metadata: &str, spec: &str) -> String {
        format!(r#"{{"apiVersion":"g/v1","kind":"K","metadata":{metadata},"spec":{spec}}}"#)
    }

    /// A yes is said of nothing that a closer look would change; `expected` says where it is said.
    #[track_caller]
    fn check(json: &str, expected: bool) {
        let custom = custom();
        let tree = Tree::from_json(json.as_bytes()).unwrap();
        let mut shown = tree.clone();
        crate::meta::set_type(&mut shown, "g/v1", "K");
        super::super::from_stored(&custom, &mut shown);
        let is_same = shown == tree;
        let said = is_settled(&custom, "g/v1", "K", json.as_bytes());
        assert!(is_same || !said, "{json} becomes {}", String::from_utf8_lossy(&shown.to_json()));
        assert_eq!(said, expected, "{json}");
    }

    #[test]
    fn what_is_written_every_day_is_settled() {
        let metadata = r#"{"annotations":{"a":""},"creationTimestamp":"2026-11-27T04:00:00Z","finalizers":["a/b"],"generation":12,"labels":{"l":"v"},
            "managedFields":[{"apiVersion":"g/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{}},"manager":"m","operation":"Update","time":"2026-11-27T04:00:00Z"}],
            "name":"n","namespace":"s","resourceVersion":"7","uid":"u",
            "ownerReferences":[{"apiVersion":"v1","controller":true,"kind":"K","name":"n","uid":""}]}"#;
        check(&object(metadata, r#"{"a":"","m":null,"n":null,"list":[{"p":2},{"p":null}]}"#), false);
        for spec in [
            r#"{"a":"","m":null,"n":null}"#,
            r#"{"a":"b","m":"","list":[{"p":2}],"map":{"k":{"q":true},"":{"q":false}},"open":{"x":1,"y":null},"bare":[1,"2",null]}"#,
            r#"{"a":"b","m":"","list":[],"map":{},"kept":{"what":{"ever":[{}]},"in":{"r":"s"},"no":null},"bare":[]}"#,
        ] {
            check(&object(metadata, spec), true);
        }
    }

    #[test]
    fn what_would_be_shown_otherwise_is_not() {
        let fine = r#"{"name":"n"}"#;
        for spec in [
            "{}", "[]", "1", "null",
            r#"{"a":"x"}"#,
            r#"{"a":null,"m":null}"#,
            r#"{"a":"x","m":null,"b":1}"#,
            r#"{"a":"x","m":null,"list":[{}]}"#,
            r#"{"a":"x","m":null,"list":[null]}"#,
            r#"{"a":"x","m":null,"list":[{"p":1,"o":1}]}"#,
            r#"{"a":"x","m":null,"map":{"k":{}}}"#,
            r#"{"a":"x","m":null,"open":{"k":{"l":1}}}"#,
            r#"{"a":"x","m":null,"open":{"k":[1]}}"#,
            r#"{"a":"x","m":null,"bare":[{"k":1}]}"#,
            r#"{"a":"x","m":null,"kept":{"in":{}}}"#,
            r#"{"a":"x","m":null,"kept":{"in":{"r":"s","t":1}}}"#,
            r#"{"a":"x","m":null,"embedded":{"apiVersion":"v1","kind":"L","metadata":{"name":"o","more":1}}}"#,
        ] {
            // A list or a number where an object should be is left alone, and then everything else is as it was.
            check(&object(fine, spec), matches!(spec, "[]" | "1"));
        }
        let spec = r#"{"a":"x","m":null}"#;
        for metadata in [
            "{}", "null", r#"{"name":""}"#, r#"{"name":1}"#, r#"{"name":"n","generation":0}"#, r#"{"name":"n","generation":1.5}"#, r#"{"labels":{}}"#,
            r#"{"labels":{"a":null}}"#, r#"{"finalizers":[]}"#, r#"{"finalizers":[1]}"#, r#"{"creationTimestamp":null}"#,
            r#"{"creationTimestamp":"2026-11-27T04:00:00+00:00"}"#, r#"{"creationTimestamp":"2026-11-27"}"#, r#"{"managedFields":[]}"#,
            r#"{"managedFields":[{"manager":"m","fieldsV1":null}]}"#, r#"{"managedFields":[{"manager":"m","more":"m"}]}"#, r#"{"more":{}}"#,
            r#"{"ownerReferences":[]}"#, r#"{"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"n"}]}"#,
            r#"{"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"n","uid":null}]}"#,
            r#"{"ownerReferences":[{"apiVersion":"v1","controller":null,"kind":"K","name":"n","uid":"u"}]}"#,
        ] {
            check(&object(metadata, spec), false);
        }
        let settled = object(fine, spec);
        check(&settled, true);
        for (from, to) in [("g/v1", "g/v2"), ("\"K\"", "\"L\""), ("\"kind\":\"K\",", ""), ("\"apiVersion\":\"g/v1\",", ""), ("\"spec\"", "\"more\":1,\"spec\"")] {
            check(&settled.replacen(from, to, 1), false);
        }
        // Where nothing says what is wrong, a closer look does.
        for broken in ["", "{", "[]", r#"{"apiVersion":"g/v1""#] {
            assert!(!is_settled(&custom(), "g/v1", "K", broken.as_bytes()), "{broken}");
        }
    }
}

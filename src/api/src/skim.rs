//! Trees of the few fields that a reader wants of a stored object; everything else is passed over.
//!
//! For what this process has printed itself: brackets and texts are followed, but the syntax of what is passed over is not checked.
pub use crate::scan::Malformed;
use crate::scan::Scanner;
use crate::tree::{Key, Object, Tree};

/// What is wanted of a value.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'w> {
    /// All of it.
    Whole,
    /// That it is there: null.
    Presence,
    /// A text, number or boolean; objects and arrays are null.
    Scalar,
    /// Of each item of an array.
    Items(&'w Wanted<'w>),
    /// Of these fields of an object, sorted or not.
    Fields(&'w [(&'w str, Wanted<'w>)]),
    /// The same, and this of all others.
    Others(&'w [(&'w str, Wanted<'w>)], &'w Wanted<'w>),
    /// Of the fields that paths lead through.
    Paths(&'w Paths),
    /// Not even that it is there.
    Nothing,
}

/// Fields that are known only while the process runs.
#[derive(Clone, Debug)]
pub enum Paths {
    Whole,
    Below(Vec<(Box<str>, Paths)>),
}

impl Default for Paths {
    fn default() -> Self {
        Paths::Below(Vec::new())
    }
}

impl Paths {
    /// All that stands at the end of `path` is wanted, too.
    pub fn insert(&mut self, path: &[&str]) {
        match (path.split_first(), &mut *self) {
            (_, Paths::Whole) => {}
            (None, all) => *all = Paths::Whole,
            (Some((first, rest)), Paths::Below(fields)) => {
                let at = fields.iter().position(|(name, _)| **name == **first).unwrap_or_else(|| {
                    fields.push(((*first).into(), Paths::default()));
                    fields.len() - 1
                });
                fields[at].1.insert(rest);
            }
        }
    }

    pub fn wanted(&self) -> Wanted<'_> {
        match self {
            Paths::Whole => Wanted::Whole,
            Paths::Below(_) => Wanted::Paths(self),
        }
    }
}

/// What was found in a document.
#[derive(Debug)]
pub struct Skimmed<'j> {
    pub tree: Tree,
    /// The object's metadata as it stands; `null` where it has none.
    pub metadata: &'j [u8],
}

/// Reads what is wanted of an object.
pub fn skim<'j>(json: &'j [u8], wanted: &Wanted<'_>) -> Result<Skimmed<'j>, Malformed> {
    let mut skimmer = Skimmer { json: Scanner::new(json), document: json, metadata: b"null" };
    let tree = skimmer.object(*wanted, true)?;
    match skimmer.json.peek() {
        None => Ok(Skimmed { tree, metadata: skimmer.metadata }),
        Some(_) => Err(Malformed(skimmer.json.at())),
    }
}

impl<'w> Wanted<'w> {
    fn field(self, name: &[u8]) -> Wanted<'w> {
        let (named, others) = match self {
            Wanted::Whole | Wanted::Paths(Paths::Whole) => return Wanted::Whole,
            Wanted::Fields(named) => (named, Wanted::Nothing),
            Wanted::Others(named, others) => (named, *others),
            Wanted::Paths(Paths::Below(named)) => {
                return named.iter().find(|(field, _)| field.as_bytes() == name).map_or(Wanted::Nothing, |(_, below)| below.wanted());
            }
            _ => return Wanted::Nothing,
        };
        named.iter().find(|(field, _)| field.as_bytes() == name).map_or(others, |(_, wanted)| *wanted)
    }
}

struct Skimmer<'j> {
    json: Scanner<'j>,
    document: &'j [u8],
    metadata: &'j [u8],
}

impl Skimmer<'_> {
    fn object(&mut self, wanted: Wanted<'_>, is_top: bool) -> Result<Tree, Malformed> {
        let mut fields: Vec<(Key, Tree)> = Vec::new();
        self.json.expect(b'{')?;
        let mut goes_on = !self.json.eat(b'}');
        while goes_on {
            let name = self.json.key()?;
            let start = self.json.at();
            match wanted.field(&name) {
                Wanted::Nothing => _ = self.json.raw()?,
                wanted => {
                    let value = self.value(wanted)?;
                    fields.push((text(&name, start)?.into(), value));
                }
            }
            if is_top && *name == *b"metadata" {
                self.metadata = self.document[start..self.json.at()].trim_ascii();
            }
            goes_on = self.json.another(b'}')?;
        }
        Ok(Tree::Object(fields.into_iter().collect::<Object>()))
    }

    fn value(&mut self, wanted: Wanted<'_>) -> Result<Tree, Malformed> {
        let at = self.json.at();
        match (wanted, self.json.peek()) {
            (Wanted::Whole | Wanted::Scalar, Some(b'"')) => Ok(text(&self.json.string()?, at)?.into()),
            (Wanted::Whole | Wanted::Fields(_) | Wanted::Others(..) | Wanted::Paths(_), Some(b'{')) => self.object(wanted, false),
            (Wanted::Whole, Some(b'[')) => self.items(wanted),
            (Wanted::Items(wanted), Some(b'[')) => self.items(*wanted),
            (Wanted::Whole | Wanted::Scalar, Some(byte)) if !matches!(byte, b'{' | b'[') => scalar(self.json.word()?, at),
            _ => self.json.raw().map(|_| Tree::Null),
        }
    }

    fn items(&mut self, wanted: Wanted<'_>) -> Result<Tree, Malformed> {
        let mut items = Vec::new();
        self.json.expect(b'[')?;
        let mut goes_on = !self.json.eat(b']');
        while goes_on {
            items.push(self.value(wanted)?);
            goes_on = self.json.another(b']')?;
        }
        Ok(Tree::Array(items))
    }
}

fn text(bytes: &[u8], at: usize) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed(at))
}

fn scalar(word: &str, at: usize) -> Result<Tree, Malformed> {
    Ok(match word {
        "null" => Tree::Null,
        "true" => Tree::Bool(true),
        "false" => Tree::Bool(false),
        number => match number.parse() {
            Ok(integer) => Tree::Integer(integer),
            Err(_) => Tree::Float(number.parse().map_err(|_| Malformed(at))?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{"kind":"K","metadata":{"resourceVersion":"7","labels":{"l":"v","\"q\"":"w"},"name":"n"},"count":-3,"part":1.5,
        "big":18446744073709551615,"yes":true,"none":null,"list":[{"a":"1","b":[2]},{"a":"3"},4],"data":{"x":"y","z":{}}}"#;

    fn shows(wanted: &Wanted<'_>) -> String {
        String::from_utf8(skim(OBJECT.as_bytes(), wanted).unwrap().tree.to_json()).unwrap()
    }

    #[test]
    fn nothing_but_what_is_wanted_is_read() {
        assert_eq!(skim(OBJECT.as_bytes(), &Wanted::Whole).unwrap().tree, Tree::from_json(OBJECT.as_bytes()).unwrap());
        const NAMED: Wanted<'_> = Wanted::Fields(&[
            ("metadata", Wanted::Fields(&[("name", Wanted::Scalar), ("labels", Wanted::Whole)])),
            ("list", Wanted::Items(&Wanted::Fields(&[("a", Wanted::Scalar)]))),
            ("count", Wanted::Scalar),
            ("kind", Wanted::Items(&Wanted::Whole)),
            ("data", Wanted::Others(&[("z", Wanted::Nothing)], &Wanted::Presence)),
        ]);
        assert_eq!(
            shows(&NAMED),
            r#"{"count":-3,"data":{"x":null},"kind":null,"list":[{"a":"1"},{"a":"3"},null],"metadata":{"labels":{"\"q\"":"w","l":"v"},"name":"n"}}"#
        );
        assert_eq!(
            shows(&Wanted::Others(&[("metadata", Wanted::Nothing)], &Wanted::Scalar)),
            r#"{"big":1.8446744073709552e+19,"count":-3,"data":null,"kind":"K","list":null,"none":null,"part":1.5,"yes":true}"#
        );
        assert_eq!(shows(&Wanted::Nothing), "{}");
        let mut paths = Paths::default();
        for path in [&["metadata", "labels", "l"][..], &["list"], &["metadata", "name"], &["metadata", "name", "more"], &["count", "more"], &["list", "a"]] {
            paths.insert(path);
        }
        let expected = r#"{"count":null,"list":[{"a":"1","b":[2]},{"a":"3"},4],"metadata":{"labels":{"l":"v"},"name":"n"}}"#;
        assert_eq!(shows(&paths.wanted()), expected);
        assert_eq!(shows(&Paths::default().wanted()), "{}");
    }

    #[test]
    fn metadata_is_found_whether_it_is_wanted_or_not() {
        let metadata = br#"{"resourceVersion":"7","labels":{"l":"v","\"q\"":"w"},"name":"n"}"#;
        for wanted in [Wanted::Whole, Wanted::Nothing] {
            assert_eq!(skim(OBJECT.as_bytes(), &wanted).unwrap().metadata, metadata);
        }
        assert_eq!(skim(br#"{"a":{"metadata":{}}}"#, &Wanted::Whole).unwrap().metadata, b"null");
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", "[]", r#"{"a":[1,}"#, r#"{"a":1}x"#, r#"{"a":tru}"#, r#"{"a":"}"#] {
            assert!(skim(text.as_bytes(), &Wanted::Whole).is_err(), "{text}");
        }
    }
}

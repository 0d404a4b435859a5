//! Printed columns of custom kinds, and the part of kubectl's JSONPath that they use.
//!
//! Models apiextensions-apiserver/pkg/registry/customresource/tableconvertor and client-go/util/jsonpath: fields, indices, `*`, and filters
//! that compare one field with a text or number. Left out: ranges, unions, recursion; a column that uses them stays empty.
use jiff::Timestamp;

use crate::skim::Paths;
use crate::table::human_duration;
use crate::tree::Tree;

/// `additionalPrinterColumns[*]`.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: Box<str>,
    pub kind: Box<str>,
    pub format: Box<str>,
    pub description: Box<str>,
    pub priority: i32,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(Box<str>),
    Index(i64),
    Each,
    Filter {
        path: Vec<Box<str>>,
        operator: Operator,
        value: Tree,
    },
    /// Not understood: finds nothing.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Exists,
}

impl Column {
    pub fn compile(column: &Tree) -> Self {
        let text = |key: &str| column.str_at(&[key]);
        let path = text("jsonPath");
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}").into(),
            own => own.into(),
        };
        Self {
            name: text("name").into(),
            kind: text("type").into(),
            format: text("format").into(),
            description,
            priority: column.get("priority").and_then(Tree::as_i64).and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
            steps: parse(path),
        }
    }

    /// The column of kinds that name none.
    pub fn age() -> Self {
        Self {
            name: "Age".into(),
            kind: "date".into(),
            format: "".into(),
            description: "Custom resource definition column (in JSONPath format): .metadata.creationTimestamp".into(),
            priority: 0,
            steps: parse(".metadata.creationTimestamp"),
        }
    }

    /// The fields that these columns, and that of the name, are made of. A path is followed through objects; what an array holds is wanted whole.
    pub fn shown(columns: &[Column]) -> Paths {
        let mut shown = Paths::default();
        shown.insert(&["metadata", "name"]);
        for column in columns {
            let fields = column.steps.iter().map_while(|step| if let Step::Field(name) = step { Some(&**name) } else { None });
            shown.insert(&fields.collect::<Vec<&str>>());
        }
        shown
    }

    pub fn cell(&self, object: &Tree, now: Timestamp) -> Tree {
        let found = find(object, &self.steps);
        let Some(value) = found.first() else { return Tree::Null };
        match (&*self.kind, value) {
            ("string", Tree::String(_)) => (*value).clone(),
            ("string", Tree::Null) => Tree::Null,
            ("string", other) => String::from_utf8_lossy(&other.to_json()).into_owned().into(),
            ("integer", Tree::Integer(_)) | ("number", Tree::Integer(_) | Tree::Float(_)) | ("boolean", Tree::Bool(_)) => (*value).clone(),
            ("integer", Tree::Float(f)) => Tree::Integer(*f as i64),
            ("date", Tree::String(text)) => match text.parse::<Timestamp>() {
                Ok(at) => human_duration(now.duration_since(at)).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Tree::Null,
        }
    }
}

fn parse(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some(end) = closing(inner) else {
                steps.push(Step::Nothing);
                break;
            };
            steps.push(bracket(&inner[..end]));
            rest = &inner[end + 1..];
            continue;
        }
        let name = rest.strip_prefix('.').unwrap_or(rest);
        let (field, length) = field(name);
        rest = &name[length..];
        match field.as_str() {
            "" => {}
            "*" => steps.push(Step::Each),
            field => steps.push(Step::Field(field.into())),
        }
        if length == 0 && !rest.starts_with(['[', '.']) {
            break;
        }
    }
    steps
}

/// A name up to the next dot or bracket; a backslash keeps the character after it.
fn field(text: &str) -> (String, usize) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, at),
            c => name.push(c),
        }
    }
    (name, text.len())
}

/// Where the bracket closes, strings and inner brackets passed over.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

fn bracket(inner: &str) -> Step {
    let inner = inner.trim();
    if inner == "*" {
        return Step::Each;
    }
    if let Ok(index) = inner.parse() {
        return Step::Index(index);
    }
    if let Some(name) = unquoted(inner) {
        return Step::Field(name.into());
    }
    let filter = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')).and_then(filter);
    filter.unwrap_or(Step::Nothing)
}

fn filter(text: &str) -> Option<Step> {
    let operators = [("==", Operator::Equal), ("!=", Operator::NotEqual)];
    let found = operators.into_iter().find_map(|(word, operator)| Some((text.find(word)?, word.len(), operator)));
    let (left, operator, value) = match found {
        Some((at, length, operator)) => {
            let right = text[at + length..].trim();
            let value = match unquoted(right) {
                Some(text) => text.into(),
                None => Tree::from_json(right.as_bytes()).ok()?,
            };
            (&text[..at], operator, value)
        }
        None => (text, Operator::Exists, Tree::Null),
    };
    let path = parse(left.trim().strip_prefix('@')?);
    let path = path.into_iter().map(|step| if let Step::Field(name) = step { Some(name) } else { None }).collect::<Option<_>>()?;
    Some(Step::Filter { path, operator, value })
}

fn find<'t>(object: &'t Tree, steps: &[Step]) -> Vec<&'t Tree> {
    let mut found = vec![object];
    for step in steps {
        found = found.into_iter().flat_map(|tree| next(tree, step)).collect();
    }
    found
}

fn next<'t>(tree: &'t Tree, step: &Step) -> Vec<&'t Tree> {
    match (step, tree) {
        (Step::Field(name), Tree::Object(object)) => object.get(name).into_iter().collect(),
        (Step::Index(index), Tree::Array(items)) => {
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let at = if *index < 0 { length + index } else { *index };
            usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
        }
        (Step::Each, Tree::Array(items)) => items.iter().collect(),
        (Step::Each, Tree::Object(object)) => object.iter().map(|(_, value)| value).collect(),
        (Step::Filter { path, operator, value }, Tree::Array(items)) => {
            let keeps = |item: &&Tree| {
                let found = path.iter().try_fold(*item, |tree, name| tree.get(name));
                match operator {
                    Operator::Equal => found == Some(value),
                    Operator::NotEqual => found.is_some_and(|found| found != value),
                    Operator::Exists => found.is_some(),
                }
            };
            items.iter().filter(keeps).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_columns_usually_ask_for() {
        let object = Tree::from_json(
            br#"{"spec":{"a":[1,{"b.c":"x"}]},"status":{"conditions":[{"type":"Ready","status":"True"},{"type":"Other","status":"False"}]}}"#,
        )
        .unwrap();
        let check = |path: &str, expected: &str| {
            let found: Vec<String> = find(&object, &parse(path)).into_iter().map(|t| String::from_utf8(t.to_json()).unwrap()).collect();
            assert_eq!(found.join(" "), expected, "{path}");
        };
        check(".spec.a[0]", "1");
        check(".spec.a[-1]['b.c']", r#""x""#);
        check(r".spec.a[1].b\.c", r#""x""#);
        check(r#".status.conditions[?(@.type=="Ready")].status"#, r#""True""#);
        check(r#".status.conditions[?(@.type == 'Other')].status"#, r#""False""#);
        check(".status.conditions[*].type", r#""Ready" "Other""#);
        check(".spec.missing.more", "");
        check(".spec.a[0:1]", "");
    }
}

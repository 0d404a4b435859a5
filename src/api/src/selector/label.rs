//! Label selectors: text form and `metav1.LabelSelector` form.
//!
//! Models apimachinery/pkg/labels/selector.go and apimachinery/pkg/apis/meta/v1/helpers.go.
use std::fmt;

use super::SelectorError;
use super::lexer::{Token, scan};
use crate::field_error::{FieldError, aggregate, quote};
use crate::names;
use crate::tree::Tree;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: Box<str>,
    operator: Operator,
    values: Vec<Box<str>>,
}

/// All of the requirements, or nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    matches_nothing: bool,
}

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    pub const fn everything() -> Self {
        Self { requirements: Vec::new(), matches_nothing: false }
    }

    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), matches_nothing: true }
    }

    /// Parses the text form: `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = Parser { items: scan(text), at: 0 }.parse().map_err(SelectorError)?;
        Ok(Self::of(requirements))
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, matches_nothing: false }
    }

    /// Exactly these labels; an empty set matches everything.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::of(
            labels
                .into_iter()
                .map(|(key, value)| Requirement { key: key.into(), operator: Operator::Equals, values: vec![value.into()] })
                .collect(),
        )
    }

    /// From a `metav1.LabelSelector`: an absent one matches nothing, an empty one everything.
    pub fn from_tree(selector: Option<&Tree>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Tree::as_object).into_iter().flat_map(|o| o.iter()) {
            requirements.push(requirement(key, Operator::Equals, vec![value.as_str().unwrap_or("").into()])?);
        }
        for expression in selector.array_at(&["matchExpressions"]) {
            let operator = match expression.str_at(&["operator"]) {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{} is not a valid label selector operator", quote(other)))),
            };
            let values = expression.array_at(&["values"]).iter().filter_map(Tree::as_str).map(Into::into).collect();
            requirements.push(requirement(expression.str_at(&["key"]), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// The same, from the typed form.
    pub fn from_typed(
        selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    ) -> Result<Self, SelectorError> {
        let tree = selector.map(Tree::from_typed).transpose().map_err(|e| SelectorError(e.to_string()))?;
        Self::from_tree(tree.as_ref())
    }

    pub fn matches<'a>(&self, get: &impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.matches_nothing && self.requirements.iter().all(|r| r.matches(get))
    }

    /// Matches against `metadata.labels`-like object; absent means no labels.
    pub fn matches_tree(&self, labels: Option<&Tree>) -> bool {
        self.matches(&|key| labels.and_then(|l| l.get(key)).and_then(Tree::as_str))
    }

    pub fn matches_map(&self, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
        self.matches(&|key| labels.and_then(|l| l.get(key)).map(String::as_str))
    }

    /// Whether nothing is asked, so that everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.matches_nothing
    }

    pub fn matches_nothing(&self) -> bool {
        self.matches_nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The one value that `label` must have, where the selector says so.
    pub fn exact(&self, label: &str) -> Option<&str> {
        let requirement = self.requirements.iter().find(|r| &*r.key == label)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl Requirement {
    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = &str> {
        self.values.iter().map(AsRef::as_ref)
    }

    pub fn matches<'a>(&self, get: &impl Fn(&str) -> Option<&'a str>) -> bool {
        let value = get(&self.key);
        let has = |v: &str| self.values.iter().any(|x| &**x == v);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (value.and_then(|v| v.parse::<i64>().ok()), bound) {
                    (Some(v), Some(bound)) if self.operator == Operator::GreaterThan => v > bound,
                    (Some(v), Some(bound)) => v < bound,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values().collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

fn requirement(key: &str, operator: Operator, values: Vec<Box<str>>) -> Result<Requirement, SelectorError> {
    let mut errors = Vec::new();
    check_key(key, "key", &mut errors);
    let list = || Tree::from(values.iter().map(|v| Tree::from(&**v)).collect::<Vec<_>>());
    let mut wrong = |detail: &str| errors.push(FieldError::invalid("values", &list(), detail));
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => wrong("for 'in', 'notin' operators, values set can't be empty"),
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            wrong("exact-match compatibility requires one single value");
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            wrong("values set must be empty for exists and does not exist");
        }
        Operator::GreaterThan | Operator::LessThan => {
            if values.len() != 1 {
                wrong("for 'Gt', 'Lt' operators, exactly one value is required");
            }
            for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(format_args!("values[{i}]"), &**value, detail));
            }
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let texts = names::label_value(value);
        if !texts.is_empty() {
            errors.push(FieldError::invalid(format_args!("values[{i}][{key}]"), &**value, texts.join("; ")));
        }
    }
    if errors.is_empty() {
        Ok(Requirement { key: key.into(), operator, values })
    } else {
        Err(SelectorError(aggregate(&errors)))
    }
}

fn check_key(key: &str, path: &str, errors: &mut Vec<FieldError>) {
    let texts = names::qualified_name(key);
    if !texts.is_empty() {
        errors.push(FieldError::invalid(path, key, texts.join("; ")));
    }
}

struct Parser {
    items: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    /// The next token where a value may stand: there `in` and `notin` are words like any other.
    fn peek(&self) -> (Token, &str) {
        let (token, text) = &self.items[self.at.min(self.items.len() - 1)];
        let token = if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { *token };
        (token, text)
    }

    fn next(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let item = (token, text.to_owned());
        self.at += 1;
        item
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            let (token, text) = self.peek();
            match token {
                Token::Identifier | Token::Not => {
                    let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
                    requirements.push(requirement);
                    match self.next() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => {
                            let (after, text) = self.peek();
                            if !matches!(after, Token::Identifier | Token::Not) {
                                return Err(format!("found '{text}', expected: identifier after ','"));
                            }
                        }
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                Token::End => return Ok(requirements),
                _ => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let mut errors = Vec::new();
        check_key(&key, "<nil>", &mut errors); // the parser's path is nil upstream, and prints so
        if let Some(error) = errors.pop() {
            return Err(error.to_string());
        }
        if negated || matches!(self.peek().0, Token::End | Token::Comma) {
            let operator = if negated { Operator::DoesNotExist } else { Operator::Exists };
            return requirement(&key, operator, Vec::new()).map_err(|e| e.0);
        }
        let (token, text) = self.items[self.at.min(self.items.len() - 1)].clone();
        self.at += 1;
        let operator = match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort_unstable();
        values.dedup();
        requirement(&key, operator, values).map_err(|e| e.0)
    }

    fn exact_value(&mut self) -> Result<Box<str>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok("".into());
        }
        match self.next() {
            (Token::Identifier, text) => Ok(text.into()),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<Box<str>>, String> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let (token, text) = self.peek();
        match token {
            Token::Identifier | Token::Comma => {
                let text = text.to_owned();
                let values = self.identifiers()?;
                match self.next() {
                    (Token::Close, _) => Ok(values),
                    _ => Err(format!("found '{text}', expected: ')'")),
                }
            }
            Token::Close => {
                self.at += 1;
                Ok(vec!["".into()])
            }
            _ => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    fn identifiers(&mut self) -> Result<Vec<Box<str>>, String> {
        let mut values: Vec<Box<str>> = Vec::new();
        loop {
            match self.next() {
                (Token::Identifier, text) => {
                    values.push(text.into());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push("".into());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.push("".into());
                            return Ok(values);
                        }
                        Token::Comma => values.push("".into()),
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }
}

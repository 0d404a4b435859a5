//! The expressions of an issuer: what they may speak of, and what came of them.
//!
//! Models k8s.io/apiserver/pkg/authentication/cel and, for how claims and users are read, plugin/pkg/authenticator/token/oidc/oidc.go newClaimsValue:
//! numbers are doubles, and a key may be written as it would be as a field (`claims.a__dot__b`).
use std::sync::LazyLock;

use api::field_error::FieldError;
use api::tree::Tree;
use cel::{CostLimit, Declared, Environment, Json, ObjectType, Program, Type, Value, Version, View};

use crate::auth::UserInfo;

/// What an expression speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Claims,
    User,
}

impl About {
    fn variable(self) -> &'static str {
        match self {
            About::Claims => "claims",
            About::User => "user",
        }
    }
}

static CLAIMS: LazyLock<Environment> =
    LazyLock::new(|| Environment::base(Version::CURRENT).with_variable("claims", Declared::map(Declared::any())));
static USER: LazyLock<Environment> = LazyLock::new(|| Environment::base(Version::CURRENT).with_variable("user", USER_INFO.clone()));
static USER_INFO: LazyLock<Declared> = LazyLock::new(|| {
    let texts = || Declared::list(Declared::string());
    let field = |name: &str, of: Declared| (Box::from(name), of, false);
    let fields = [
        field("username", Declared::string()),
        field("uid", Declared::string()),
        field("groups", texts()),
        field("extra", Declared::map(texts())),
    ];
    Declared::object(ObjectType::new("kubernetes.UserInfo", fields))
});
static ANYTHING: Declared = Declared::any();

#[derive(Debug)]
pub struct Expression {
    pub text: String,
    about: About,
    program: Program,
}

impl Expression {
    /// `is_rule`: it must be a bool.
    pub fn compile(text: &str, about: About, is_rule: bool, path: &dyn std::fmt::Display) -> Result<Self, FieldError> {
        let environment: &Environment = match about {
            About::Claims => &CLAIMS,
            About::User => &USER,
        };
        let invalid = |detail: String| FieldError::invalid(path, text, detail);
        let program = environment.compile(text).map_err(|issues| invalid(format!("compilation failed: {issues}")))?;
        if is_rule && *program.output_type() != Type::Bool {
            return Err(invalid("must evaluate to bool".into()));
        }
        if let Some(defect) = program.defect() {
            return Err(FieldError::internal(path, format!("program instantiation failed: {defect}")));
        }
        Ok(Self { text: text.to_owned(), about, program })
    }

    /// Whether it reads this claim.
    pub fn reads(&self, claim: &str) -> bool {
        self.program.selects(Some("claims"), claim)
    }

    pub fn evaluate<'a>(&'a self, of: &'a Node) -> Result<Value<'a>, String> {
        let value = match self.about {
            About::Claims => Value::read(of, &ANYTHING),
            About::User => Value::read(of, &USER_INFO),
        };
        let variables = [(self.about.variable(), value)];
        let evaluation = self.program.evaluate(&variables.as_slice(), CostLimit::PER_CALL);
        evaluation.value.map_err(|error| format!("expression '{}' resulted in error: {error}", self.text))
    }

    /// `Err`: it does not hold.
    pub fn holds(&self, of: &Node, message: &str) -> Result<(), String> {
        match self.evaluate(of)?.as_bool() {
            Some(true) => Ok(()),
            Some(false) => Err(format!("validation expression '{}' failed: {message}", self.text)),
            None => Err("validation expression must return a boolean".into()),
        }
    }
}

/// A text or a list of texts; what is empty is not there.
pub fn texts(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let mut texts = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.to_string()],
        Value::List(list) => list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    texts.retain(|text| !text.is_empty());
    Ok(texts)
}

/// Claims or a user, as expressions see them.
#[derive(Debug)]
pub enum Node {
    Null,
    Bool(bool),
    Number(f64),
    Text(Box<str>),
    List(Vec<Node>),
    Object(Vec<(Box<str>, Node)>),
}

impl Node {
    pub fn of(tree: &Tree) -> Self {
        match tree {
            Tree::Null => Node::Null,
            Tree::Bool(b) => Node::Bool(*b),
            Tree::Integer(i) => Node::Number(*i as f64),
            Tree::Float(f) => Node::Number(*f),
            Tree::String(text) => Node::Text(text.clone()),
            Tree::Array(items) => Node::List(items.iter().map(Node::of).collect()),
            Tree::Object(fields) => Node::Object(fields.iter().map(|(name, field)| (name.into(), Node::of(field))).collect()),
        }
    }

    pub fn of_user(user: &UserInfo) -> Self {
        let text = |text: &str| Node::Text(text.into());
        let texts = |all: &[String]| Node::List(all.iter().map(|one| text(one)).collect());
        let extra = user.extra.iter().map(|(key, values)| (key.as_str().into(), texts(values))).collect();
        Node::Object(vec![
            ("username".into(), text(&user.name)),
            ("uid".into(), text(&user.uid)),
            ("groups".into(), texts(&user.groups)),
            ("extra".into(), Node::Object(extra)),
        ])
    }
}

impl Json for Node {
    fn view(&self) -> View<'_> {
        match self {
            Node::Null => View::Null,
            Node::Bool(b) => View::Bool(*b),
            Node::Number(number) => View::Double(*number),
            Node::Text(text) => View::String(text),
            Node::List(_) => View::Array,
            Node::Object(_) => View::Object,
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::List(items) => items.len(),
            Node::Object(fields) => fields.len(),
            _ => 0,
        }
    }

    fn item(&self, index: usize) -> Option<&dyn Json> {
        let Node::List(items) = self else { return None };
        items.get(index).map(|item| item as &dyn Json)
    }

    fn field(&self, name: &str) -> Option<&dyn Json> {
        let Node::Object(fields) = self else { return None };
        let unescaped = if name.contains("__") { cel::unescape(name) } else { None };
        let name = unescaped.as_deref().unwrap_or(name);
        fields.iter().find(|(known, _)| &**known == name).map(|(_, field)| field as &dyn Json)
    }

    fn entry(&self, index: usize) -> Option<(&str, &dyn Json)> {
        let Node::Object(fields) = self else { return None };
        fields.get(index).map(|(name, field)| (&**name, field as &dyn Json))
    }
}

//! The caller's data, read in place.

/// A node of a JSON tree that the caller owns.
///
/// The crate asks for nothing that it does not need: an expression that reads `self.spec.replicas` costs three calls of [`Json::field`].
pub trait Json {
    fn view(&self) -> View<'_>;

    /// How many items or fields there are; 0 for scalars.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item of an array.
    fn item(&self, index: usize) -> Option<&dyn Json>;

    /// The field of an object.
    fn field(&self, name: &str) -> Option<&dyn Json>;

    /// The field of an object by its place, in an order that stays the same.
    fn entry(&self, index: usize) -> Option<(&str, &dyn Json)>;
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum View<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(&'a str),
    Array,
    Object,
}

impl View<'_> {
    /// What Go prints for its type.
    pub(crate) fn go_type(self) -> &'static str {
        match self {
            View::Null => "<nil>",
            View::Bool(_) => "bool",
            View::Int(_) => "int64",
            View::Double(_) => "float64",
            View::String(_) => "string",
            View::Array => "[]interface {}",
            View::Object => "map[string]interface {}",
        }
    }
}

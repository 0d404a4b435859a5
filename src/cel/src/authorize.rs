//! What the variable `authorizer` asks of the caller.

/// Decides for the functions of `authorizer`. `Check::service_account` says for whom, if not for the request's user.
pub trait Authorize {
    fn check(&self, check: &Check) -> Decision;
}

/// One question, complete with its verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Namespace and name of the ServiceAccount asked about; `None` is the user of the request.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    pub what: What,
}

/// What is to be done something with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Path(PathCheck),
    Resource(ResourceCheck),
}

/// `authorizer.path(...)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathCheck {
    pub path: String,
}

/// `authorizer.group(...).resource(...)` and what follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceCheck {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// As written; the caller parses it, and answers for what is no selector.
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Set if the question could not be answered.
    pub error: Option<String>,
}

//! Every error that the API answers, in upstream's words.
//!
//! Models k8s.io/apimachinery/pkg/api/errors/errors.go. This is the only place where HTTP codes meet reasons; deeper crates know no HTTP.
use api::tree::{Object, Tree};
use api::field_error::FieldError;
use http::StatusCode;

use crate::cache::Unreadable;

/// Every reason of upstream. Models apimachinery/pkg/apis/meta/v1/types.go StatusReason.
const REASONS: [&str; 21] = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "StorageReadError",
    "StoreReadError",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "Unknown",
    "UnsupportedMediaType",
];

/// A failure as the client reads it: `kind: Status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// Of an expired list: the token with which it can go on, inconsistently.
    pub continue_token: Option<Box<str>>,
    /// What was to be said of the request before it failed.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub name: String,
    pub group: String,
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// `resource` or `resource.group`, as schema.GroupResource prints.
pub fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: None, warnings: Vec::new() }
    }

    fn with(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let cause = Cause { reason: reason.to_owned(), message: message.into(), field: field.to_owned() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn with_uid(mut self, uid: &str) -> Self {
        self.details.get_or_insert_default().uid = uid.to_owned();
        self
    }

    pub fn http_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(group, resource);
        Self::new(404, "NotFound", format!("{what} \"{name}\" not found")).with(group, resource, name)
    }

    /// No such path, or no such kind at it.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with("", "", "")
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(group, resource);
        Self::new(409, "AlreadyExists", format!("{what} \"{name}\" already exists")).with(group, resource, name)
    }

    /// After generateName found only names that are taken.
    pub fn generate_name_conflict(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(group, resource);
        let text = format!("{what} \"{name}\" already exists, the server was not able to generate a unique name for the object");
        Self::new(409, "AlreadyExists", text).with(group, resource, name).retry_after(1)
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {what} \"{name}\": {why}")).with(group, resource, name)
    }

    /// Somebody else was faster.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let text = match (name, resource) {
            (_, "") => format!("forbidden: {why}"),
            ("", _) => format!("{what} is forbidden: {why}"),
            _ => format!("{what} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", text).with(group, resource, name)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 422 with one cause for each error of a field.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let mut status = Self::new(
            422,
            "Invalid",
            format!("{} \"{name}\" is invalid: {}", qualified(group, kind), aggregate(&texts)),
        )
        .with(group, kind, name);
        for error in errors {
            status = status.with_cause(error.reason(), error.body(), &error.path);
        }
        status
    }

    pub fn method_not_allowed(group: &str, resource: &str, verb: &str) -> Self {
        let what = qualified(group, resource);
        Self::new(405, "MethodNotAllowed", format!("{verb} is not supported on resources of kind \"{what}\"")).with(group, resource, "")
    }

    /// A method that the path does not know at all.
    pub fn method_not_allowed_here() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource").with("", "", "")
    }

    pub fn method_not_allowed_because(text: &str) -> Self {
        Self::new(405, "MethodNotAllowed", text).with("", "", "")
    }

    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {}", accepted.join(", ")))
    }

    /// An answer that cannot be given in the form that was asked for.
    pub fn not_as_asked(message: String) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let text = format!("the body of the request was in an unknown format - accepted media types include: {}", accepted.join(", "));
        Self::new(415, "UnsupportedMediaType", text)
    }

    /// The version asked for is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(retry_seconds)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// Took too long; the client should try again after `retry_seconds`.
    pub fn timeout(message: &str, retry_seconds: u32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}")).retry_after(retry_seconds)
    }

    /// A resource version from the future.
    pub fn version_too_large(asked: u64, current: u64) -> Self {
        Self::timeout(&format!("Too large resource version: {asked}, current: {current}"), 1)
            .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
    }

    /// Others own what somebody applies: a message and, for each field, whose it is. Upstream names no object.
    pub fn apply_conflict(message: String, causes: impl Iterator<Item = (String, String)>) -> Self {
        causes.fold(Self::new(409, "Conflict", message), |status, (text, field)| status.with_cause("FieldManagerConflict", text, &field))
    }

    pub fn internal(why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        Self::new(500, "InternalError", format!("Internal error occurred: {why}")).with_cause("", why, "")
    }

    /// What is stored is none of the objects that belong there.
    pub fn unreadable(one: &Unreadable) -> Self {
        Self::internal(corrupt(one))
    }

    /// The same of a list, which cannot be whole; `is_cut`: there are others. Models storage/etcd3/corrupt_obj_deleter.go NewAPIStatusError.
    pub fn list_unreadable(group: &str, resource: &str, all: &[Unreadable], is_cut: bool) -> Self {
        let first = all.first().map(corrupt).unwrap_or_default();
        let mut text = format!("failed to read one or more {} from the storage: {first}", qualified(group, resource));
        if all.len() > 1 {
            text = format!("{text} (and {} more)", all.len() - 1);
        }
        let mut status = Self::new(500, "StorageReadError", text).with(group, resource, "list");
        for one in all {
            status = status.with_cause("UnexpectedServerResponse", corrupt(one), &one.key);
        }
        if is_cut { status.with_cause("FieldValueTooMany", "too many errors, the list is truncated", "") } else { status }
    }

    /// A webhook's refusal. A reason that clients do not know is left out.
    pub fn by_webhook(code: u16, reason: &str, message: String) -> Self {
        Self::new(code, REASONS.iter().find(|known| **known == reason).copied().unwrap_or(""), message)
    }

    /// A failure for which upstream names no reason.
    pub fn unreasoned(code: u16, message: impl Into<String>) -> Self {
        Self::new(code, "", message)
    }

    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// A backend (kubelet, pod) answered something that is no Status.
    pub fn from_backend(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            _ => "InternalError",
        };
        Self::new(code, reason, message)
    }

    pub fn to_tree(&self) -> Tree {
        let mut o = Object::new();
        o.insert("kind", "Status");
        o.insert("apiVersion", "v1");
        let token = self.continue_token.as_deref().map(|token| ("continue", token));
        o.insert("metadata", token.into_iter().collect::<Object>());
        o.insert("status", "Failure");
        o.insert("message", self.message.as_str());
        if !self.reason.is_empty() {
            o.insert("reason", self.reason);
        }
        o.insert("code", i64::from(self.code));
        if let Some(details) = &self.details {
            o.insert("details", details.to_tree());
        }
        Tree::Object(o)
    }

    pub fn to_json(&self) -> Vec<u8> {
        self.to_tree().to_json()
    }
}

impl Details {
    fn to_tree(&self) -> Tree {
        let mut o = Object::new();
        let fields = [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)];
        for (key, value) in fields {
            if !value.is_empty() {
                o.insert(key, value.as_str());
            }
        }
        if !self.causes.is_empty() {
            o.insert("causes", Tree::Array(self.causes.iter().map(Cause::to_tree).collect()));
        }
        if self.retry_after_seconds > 0 {
            o.insert("retryAfterSeconds", i64::from(self.retry_after_seconds));
        }
        Tree::Object(o)
    }
}

impl Cause {
    fn to_tree(&self) -> Tree {
        let fields = [("reason", &self.reason), ("message", &self.message), ("field", &self.field)];
        fields.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k, v.as_str())).collect::<Object>().into()
    }
}

/// Models storage.StorageError of a corrupt object.
fn corrupt(one: &Unreadable) -> String {
    let Unreadable { key, revision, reason, .. } = one;
    let why = format!("object not decodable revision={revision}: {reason}");
    format!("StorageError: corrupt object, Code: 7, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}")
}

/// The success that a delete answers when the object is gone at once.
pub fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Tree {
    let mut details = Object::new();
    details.insert("name", name);
    if !group.is_empty() {
        details.insert("group", group);
    }
    details.insert("kind", resource);
    details.insert("uid", uid);
    success(Some(details))
}

pub fn success(details: Option<Object>) -> Tree {
    let mut o = Object::new();
    o.insert("kind", "Status");
    o.insert("apiVersion", "v1");
    o.insert("metadata", Tree::object());
    o.insert("status", "Success");
    if let Some(details) = details {
        o.insert("details", details);
    }
    Tree::Object(o)
}

/// One message as it is, several in brackets, repetitions once: utilerrors.Aggregate.
pub fn aggregate(messages: &[String]) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for message in messages {
        if !unique.contains(&message.as_str()) {
            unique.push(message);
        }
    }
    match unique.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    }
}

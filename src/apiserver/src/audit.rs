//! The audit log: who asked what, when, and what came of it, as the policy file says.
//!
//! Models k8s.io/apiserver/pkg/audit and pkg/endpoints/filters/audit.go. An event is written before the request goes on (upstream's mode
//! `blocking`) to the log, and goes to the webhook, if there is one, in its own time. Bearer tokens are in no event: the header is gone before anything is recorded.
mod log;
pub mod notes;
pub(crate) mod policy;
mod webhook;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::protobuf;
use api::tree::{Object, Tree};
use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, USER_AGENT};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::auth::webhook::KubeconfigError;
use crate::auth::{Attributes, UserInfo};
use crate::rest::body;
use crate::status::Status;

pub use log::Rotation;
pub use webhook::WebhookOptions;
use webhook::Webhook;
use log::Log;
use notes::Notes;
use policy::{Decision, Level, Policy, PolicyError, Stage};

const USER_AGENT_BYTES_MAX: usize = 1024;

/// Where the policy stands and where events go.
#[derive(Clone, Debug)]
pub struct Options {
    pub policy: PathBuf,
    /// `-`: standard output.
    pub log: Option<PathBuf>,
    pub rotation: Rotation,
    pub webhook: Option<WebhookOptions>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("read the audit policy {path}")]
    Read { path: PathBuf, #[source] source: std::io::Error },
    #[error("audit policy {path}")]
    Policy { path: PathBuf, #[source] source: Box<dyn std::error::Error + Send + Sync> },
    #[error("open the audit log {path}")]
    Log { path: PathBuf, #[source] source: std::io::Error },
    #[error("the audit webhook")]
    Webhook(#[from] KubeconfigError),
}

impl LoadError {
    fn policy(path: &Path, source: PolicyError) -> Self {
        LoadError::Policy { path: path.to_owned(), source: source.into() }
    }
}

/// The policy, and where events go.
pub struct Audit {
    policy: Policy,
    output: Option<Output>,
    webhook: Option<Arc<Webhook>>,
    events: AtomicU64,
}

enum Output {
    Standard,
    Log(Log),
}

impl Audit {
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let path = &options.policy;
        let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
        let policy = Policy::parse(&text).map_err(|source| LoadError::policy(path, source))?;
        let open = |path: &PathBuf| match path.as_os_str() == "-" {
            true => Ok(Output::Standard),
            false => Log::open(path, options.rotation).map(Output::Log).map_err(|source| LoadError::Log { path: path.clone(), source }),
        };
        let output = options.log.as_ref().map(open).transpose()?;
        let webhook = options.webhook.clone().map(Webhook::load).transpose()?.map(Arc::new);
        Ok(Self { policy, output, webhook, events: AtomicU64::new(0) })
    }

    /// Begins the record of a request; `None`: it leaves none.
    pub fn begin(self: &Arc<Self>, id: &str, attributes: &Attributes, request: &Request<Body>, source: &str) -> Option<Entry> {
        let decision = self.policy.decide(attributes).clone();
        if decision.level == Level::None {
            return None;
        }
        let notes = Notes::new(decision.level);
        let mut entry = Entry { audit: self.clone(), decision, event: Tree::object(), received: Timestamp::now(), notes };
        entry.describe(id, attributes, request, source);
        Some(entry)
    }

    /// Sends events to the webhook until `shutdown`, where there is one.
    pub async fn run(&self, shutdown: CancellationToken) {
        match self.webhook.clone() {
            Some(webhook) => webhook.run(shutdown).await,
            None => shutdown.cancelled().await,
        }
    }

    pub fn page(&self) -> String {
        self.webhook.as_ref().map_or_else(String::new, |webhook| webhook.page())
    }

    /// How many there were.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    fn write(&self, event: &Tree, now: Timestamp) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let mut line = event.to_json();
        if let Some(webhook) = &self.webhook {
            webhook.write(line.clone().into());
        }
        line.push(b'\n');
        let written = match &self.output {
            Some(Output::Log(log)) => log.write(&line, now),
            Some(Output::Standard) => std::io::Write::write_all(&mut std::io::stdout().lock(), &line),
            None => Ok(()),
        };
        if let Err(error) = written {
            tracing::error!(%error, "an audit event is lost");
        }
    }
}

/// The record of one request, while it goes on.
pub struct Entry {
    audit: Arc<Audit>,
    decision: Decision,
    event: Tree,
    received: Timestamp,
    notes: Notes,
}

fn user_tree(user: &UserInfo) -> Tree {
    let strings = |items: &[String]| Tree::Array(items.iter().map(|item| item.as_str().into()).collect());
    let mut tree = Tree::object();
    for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            tree.set(&[field], text.as_str());
        }
    }
    if !user.groups.is_empty() {
        tree.set(&["groups"], strings(&user.groups));
    }
    if !user.extra.is_empty() {
        tree.set(&["extra"], Tree::Object(user.extra.iter().map(|(key, values)| (key.as_str(), strings(values))).collect::<Object>()));
    }
    tree
}

/// Cut where a character ends.
fn cut(text: &str) -> String {
    if text.len() <= USER_AGENT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=USER_AGENT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...TRUNCATED", &text[..end])
}

impl Entry {
    fn describe(&mut self, id: &str, attributes: &Attributes, request: &Request<Body>, source: &str) {
        let event = &mut self.event;
        api::meta::set_type(event, "audit.k8s.io/v1", "Event");
        let agent = request.headers().get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let uri = request.uri().path_and_query().map_or("/", |p| p.as_str());
        for (field, text) in [
            ("level", self.decision.level.name().to_owned()),
            ("auditID", id.to_owned()),
            ("requestURI", uri.to_owned()),
            ("verb", attributes.verb.to_owned()),
            ("userAgent", cut(agent)),
            ("requestReceivedTimestamp", format!("{:.6}", self.received)),
        ] {
            if !text.is_empty() {
                event.set(&[field], text);
            }
        }
        event.set(&["user"], user_tree(attributes.user));
        if !source.is_empty() {
            event.set(&["sourceIPs"], Tree::Array(vec![source.into()]));
        }
        if attributes.resource_request {
            for (field, text) in [
                ("resource", attributes.resource),
                ("namespace", attributes.namespace),
                ("name", attributes.name),
                ("apiGroup", attributes.api_group),
                ("apiVersion", attributes.api_version),
                ("subresource", attributes.subresource),
            ] {
                if !text.is_empty() {
                    event.set(&["objectRef", field], text);
                }
            }
        }
    }

    fn stage(&mut self, stage: Stage) {
        if self.decision.omitted.contains(&stage) {
            return;
        }
        let now = Timestamp::now();
        self.event.set(&["stage"], stage.name());
        self.event.set(&["stageTimestamp"], format!("{now:.6}"));
        self.audit.write(&self.event, now);
    }

    /// Where whoever handles the request leaves annotations.
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    pub fn request_received(&mut self) {
        self.stage(Stage::RequestReceived);
    }

    /// `constraint`: the verb that allowed it, if it is bound to what is being done.
    pub fn impersonated(&mut self, user: &UserInfo, constraint: &str) {
        self.event.set(&["impersonatedUser"], user_tree(user));
        if !constraint.is_empty() {
            self.event.set(&["authenticationMetadata", "impersonationConstraint"], constraint);
        }
    }

    /// All that is said of a request whose sender was not believed.
    pub fn refused(mut self, message: &str) {
        self.event.set(&["responseStatus", "metadata"], Tree::object());
        self.event.set(&["responseStatus", "message"], message);
        self.event.set(&["responseStatus", "code"], 401i64);
        self.stage(Stage::ResponseStarted);
    }

    pub fn authorized(&mut self, is_allowed: bool, reason: &str) {
        self.event.set(&["annotations", "authorization.k8s.io/decision"], if is_allowed { "allow" } else { "forbid" });
        self.event.set(&["annotations", "authorization.k8s.io/reason"], reason);
    }

    /// Records what a request carries, and gives it back whole.
    pub async fn request_body(&mut self, request: &mut Request<Body>, bytes_max: usize) -> Result<(), Status> {
        if self.event.get("objectRef").is_none() {
            return Ok(());
        }
        if self.decision.level == Level::RequestResponse {
            // So that the answer can be read here.
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        let bytes = body::read(std::mem::replace(request.body_mut(), Body::empty()), bytes_max).await?;
        let object = object_of(request.headers(), &bytes).unwrap_or_default();
        *request.body_mut() = Body::from(bytes);
        for (field, text) in [
            ("namespace", api::meta::namespace(&object)),
            ("name", api::meta::name(&object)),
            ("uid", api::meta::uid(&object)),
            ("resourceVersion", api::meta::resource_version(&object)),
        ] {
            if !text.is_empty() && self.event.str_at(&["objectRef", field]).is_empty() {
                self.event.set(&["objectRef", field], text);
            }
        }
        if self.decision.level >= Level::Request && !object.is_null() {
            let object = self.shown(object);
            self.event.set(&["requestObject"], object);
        }
        Ok(())
    }

    fn shown(&self, mut object: Tree) -> Tree {
        if self.decision.omit_managed_fields {
            object.remove(&["metadata", "managedFields"]);
            for item in object.get_mut("items").and_then(Tree::as_array_mut).into_iter().flatten() {
                item.remove(&["metadata", "managedFields"]);
            }
        }
        object
    }

    fn answered(&mut self, code: u16, failure: Option<&Status>) {
        let mut status = Tree::object();
        status.set(&["metadata"], Tree::object());
        if let Some(failure) = failure {
            let tree = failure.to_tree();
            for field in ["status", "message", "reason", "details"] {
                if let Some(value) = tree.get(field) {
                    status.set(&[field], value.clone());
                }
            }
        }
        status.set(&["code"], i64::from(code));
        self.event.set(&["responseStatus"], status);
    }

    /// Records the answer, at once or when it has ended.
    pub async fn finish(mut self, response: Response<Body>, failure: Option<&Status>, is_long: bool) -> Response<Body> {
        self.answered(response.status().as_u16(), failure);
        for (key, value) in self.notes.take() {
            self.event.set(&["annotations", &key], value);
        }
        if is_long {
            self.stage(Stage::ResponseStarted);
            return response.map(|body| Body::new(Watched { body, entry: Some(self) }));
        }
        let is_object = self.decision.level == Level::RequestResponse && self.event.get("objectRef").is_some();
        if !is_object {
            self.stage(Stage::ResponseComplete);
            return response;
        }
        let (parts, body) = response.into_parts();
        let bytes = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                tracing::warn!(%error, "an answer broke off while it was recorded");
                Bytes::new()
            }
        };
        if let Some(object) = object_of(&parts.headers, &bytes) {
            let object = self.shown(object);
            self.event.set(&["responseObject"], object);
        }
        self.stage(Stage::ResponseComplete);
        Response::from_parts(parts, Body::from(bytes))
    }
}

/// The object that a body holds; `None`: it is no object in a form that is known.
fn object_of(headers: &HeaderMap, bytes: &[u8]) -> Option<Tree> {
    if bytes.is_empty() {
        return None;
    }
    let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    match media.split(';').next().unwrap_or("").trim() {
        protobuf::MEDIA_TYPE => protobuf::decode(bytes, ("", "v1", "")).ok(),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "application/apply-patch+yaml" => api::codec::parse_yaml(bytes).ok().map(|p| p.tree),
        media if media.ends_with("json") => api::codec::parse_json(bytes).ok().map(|p| p.tree),
        _ => None,
    }
}

/// The body of a long answer; its end, however it comes, is recorded.
struct Watched {
    body: Body,
    entry: Option<Entry>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(mut entry) = self.entry.take() {
            entry.stage(Stage::ResponseComplete);
        }
    }
}

impl Default for Rotation {
    /// Upstream's default: one file that grows.
    fn default() -> Self {
        Self { size_bytes_max: 0, backups_max: 0, age_max: Duration::ZERO }
    }
}

//! patch: JSON patch, merge patch, strategic merge patch, apply.
//!
//! Models k8s.io/apiserver/pkg/endpoints/handlers/patch.go. CBOR is refused as by a server whose gate for it is off.
use std::sync::Mutex;

use api::apply;
use api::codec::{self, Parsed};
use api::meta;
use api::patch::{self as patches, PatchError};
use api::registry::Registry;
use api::schema::go_name;
use api::tree::Tree;
use axum::body::Body;
use http::{Request, Response, StatusCode};

use super::model::{Expected, Untyped};
use super::options::{FieldValidation, WriteOptions};
use super::storage::{Part, Target};
use super::{Call, body, model, read};
use crate::negotiate;
use crate::status::Status;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// What decoding says of a list.
const NO_OBJECT: &str = "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct \
{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";

/// From so many bytes on a patch may take as long as thousands of requests.
const LONG_BYTES: usize = 64 << 10;

/// Does what a patch of so many bytes asks for; where that can be long, others go on with what else this thread has to do.
fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_others = || tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread;
    if bytes >= LONG_BYTES && has_others() { tokio::task::block_in_place(work) } else { work() }
}

pub fn is_apply(media: &str) -> bool {
    media == APPLY
}

/// What can be done to objects of this kind.
fn media_types(expected: &Expected<'_>) -> &'static [&'static str] {
    if expected.custom.is_some() { &[JSON_PATCH, MERGE_PATCH, APPLY] } else { &[JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY] }
}

/// A patch, read once and applied as often as races demand.
pub enum Patch {
    Json(Tree),
    Merge(Tree),
    Strategic(Tree),
}

impl Patch {
    pub fn parse(expected: &Expected<'_>, media: &str, bytes: &[u8]) -> Result<Self, Status> {
        let known = media_types(expected);
        if !known.contains(&media) || is_apply(media) {
            return Err(Status::unsupported_media_type(known));
        }
        let tree = api::codec::parse_json(bytes).map_err(|_| Status::bad_request("invalid JSON patch"))?.tree;
        Ok(match media {
            JSON_PATCH => Patch::Json(tree),
            MERGE_PATCH => Patch::Merge(tree),
            _ => Patch::Strategic(tree),
        })
    }

    /// Upstream decodes what these patches made by its name; what a strategic one made goes into the object as it is.
    fn check_kind(&self, expected: Expected<'_>, made: &Tree) -> Result<(), Status> {
        let kind = meta::kind(made);
        if matches!(self, Patch::Strategic(_)) || expected.custom.is_some() || kind.is_empty() || kind == expected.kind {
            return Ok(());
        }
        let version = meta::api_version(made);
        let text = format!("no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"");
        Err(unfit(shown(made), text))
    }

    /// Complaints about the patch itself come back.
    ///
    /// What a merge patch that is no object comes to is up to the library (evanphx/json-patch v4, merge.go).
    pub fn apply(&self, expected: Expected<'_>, target: &mut Tree, validation: FieldValidation) -> Result<Vec<String>, Status> {
        let failed = |error: PatchError| match error {
            PatchError::BadRequest(text) => Status::bad_request(text),
            PatchError::Unprocessable(_) => unprocessable(),
            PatchError::TooLarge(text) => Status::too_large(text),
            PatchError::Internal(text) => Status::unreasoned(500, text),
        };
        match self {
            Patch::Json(patch) => {
                let complaints = match validation {
                    FieldValidation::Ignore => Vec::new(),
                    FieldValidation::Warn | FieldValidation::Strict => patches::check_json_patch(patch).map_err(failed)?,
                };
                patches::json_patch(target, patch).map_err(failed)?;
                Ok(complaints)
            }
            Patch::Merge(Tree::Null) => Err(Status::bad_request("Invalid JSON Patch")),
            // A list becomes the object, which it cannot be: decoding says so.
            Patch::Merge(patch @ Tree::Array(_)) if validation == FieldValidation::Ignore => {
                *target = patch.clone();
                Ok(Vec::new())
            }
            Patch::Merge(patch) if patch.as_object().is_none() => Err(Status::bad_request(match validation {
                FieldValidation::Ignore => "Invalid JSON Patch".to_owned(),
                _ => format!("error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}", go_name(patch)),
            })),
            Patch::Merge(patch) => {
                patches::merge_patch(target, patch.clone());
                Ok(Vec::new())
            }
            Patch::Strategic(patch) => {
                let schema = Registry::get().kind_schema(expected.group, expected.version, expected.kind).filter(|_| expected.custom.is_none());
                let schema = schema.ok_or_else(|| Status::unsupported_media_type(media_types(&expected)))?;
                patches::strategic_merge(target, patch.clone(), schema).map_err(failed)?;
                Ok(Vec::new())
            }
        }
    }

    /// The patched tree as a typed object, checked as a body would be; `complaints` are those about the patch.
    pub fn retype(
        &self,
        expected: Expected<'_>,
        made: Tree,
        complaints: Vec<String>,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<Tree, Status> {
        if matches!(made, Tree::Array(_)) {
            return Err(unfit(self.shown(&made), NO_OBJECT.to_owned()));
        }
        match model::typed(expected, made.clone(), complaints, validation, warnings) {
            Ok(mut tree) => {
                // Whatever a patch calls it, it is what it was.
                if expected.custom.is_none() {
                    meta::set_type(&mut tree, &api::registry::api_version(expected.group, expected.version), expected.kind);
                }
                Ok(tree)
            }
            Err(Untyped::Strict(why)) => Err(unfit(self.shown(&made), why)),
            Err(Untyped::Wrong(why)) => {
                // Upstream fills its structs from the merged maps themselves, with words of their own.
                let schema = Registry::get().kind_schema(expected.group, expected.version, expected.kind);
                let own = schema.filter(|_| matches!(self, Patch::Strategic(_))).and_then(|schema| api::schema::mismatch(schema, &made));
                Err(unfit(self.shown(&made), own.unwrap_or(why)))
            }
        }
    }

    /// What of it an error shows.
    fn shown(&self, made: &Tree) -> String {
        shown(if let Patch::Strategic(patch) = self { patch } else { made })
    }
}

/// Neither names the object nor says what is wrong. Models apimachinery/pkg/api/errors NewGenericServerResponse, which drops the text.
fn unprocessable() -> Status {
    let mut status = Status::invalid("", "", "", &[]);
    status.message = "the server rejected our request due to an error in our request".to_owned();
    status
}

/// What is written must say which object it is. Models k8s.io/apiserver/pkg/endpoints/handlers/rest.go checkName.
pub(super) fn check_named(object: &Tree, target: &Target) -> Result<(), Status> {
    let namespace = meta::namespace(object);
    if target.resource.namespaced && !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    match meta::name(object).is_empty() {
        true => Err(Status::bad_request(format!("the name of the object ({} based on URL) was undeterminable: name must be provided", target.name))),
        false => Ok(()),
    }
}

/// What a patch made is no object of its kind; upstream names none.
fn unfit(shown: String, why: String) -> Status {
    Status::invalid("", "", "", &[api::field_error::FieldError::invalid("patch", shown, why)])
}

fn shown(tree: &Tree) -> String {
    String::from_utf8_lossy(&tree.to_json()).into_owned()
}

/// A configuration that somebody applies.
pub struct Applied {
    config: Tree,
    duplicates: Vec<String>,
    options: WriteOptions,
}

impl Applied {
    pub fn parse(bytes: &[u8], options: WriteOptions) -> Result<Self, Status> {
        let failed = |why: String| Status::bad_request(format!("error decoding patch: {why}"));
        let Parsed { tree, duplicates } = codec::parse_yaml(bytes).map_err(|error| failed(error.to_string()))?;
        if tree.as_object().is_none() && !tree.is_null() {
            let text = format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", go_name(&tree));
            return Err(failed(format!("error unmarshaling JSON: while decoding JSON: {text}")));
        }
        Ok(Self { config: tree, duplicates, options })
    }

    fn complaint(&self) -> String {
        format!("error converting YAML to JSON: {}", self.duplicates.join(", "))
    }

    /// `live` (nothing, where the object does not exist) with what is applied; typed as any object of its kind.
    pub fn to(&self, write: &apply::Write<'_>, expected: Expected<'_>, live: Option<&Tree>, warnings: &mut Vec<String>) -> Result<Tree, Status> {
        let merged = write.apply(&self.options.field_manager, live, &self.config, self.options.force).map_err(refused)?;
        let called = write.called(&merged);
        let typed = match expected.custom {
            Some(custom) => api::crd::coerce_applied(custom, merged).map_err(Untyped::Wrong),
            None => model::typed(expected, merged, Vec::new(), FieldValidation::Ignore, &mut Vec::new()),
        };
        let object = typed.map_err(|error| {
            let (Untyped::Wrong(text) | Untyped::Strict(text)) = error;
            let kind = match expected.custom {
                Some(_) => String::new(),
                None => format!("unable to convert unstructured object to {}/{}, Kind={}: ", expected.group, expected.version, expected.kind),
            };
            Status::unreasoned(500, format!("failed to convert new object ({called}) to proper version: {kind}{text}"))
        })?;
        match self.options.field_validation {
            FieldValidation::Strict if !self.duplicates.is_empty() => {
                Err(Status::bad_request(format!("error strict decoding patch: {}", self.complaint())))
            }
            FieldValidation::Warn if !self.duplicates.is_empty() => {
                warnings.push(self.complaint());
                Ok(object)
            }
            _ => Ok(object),
        }
    }
}

fn refused(refused: apply::Refused) -> Status {
    match refused {
        apply::Refused::BadRequest(text) => Status::bad_request(text),
        apply::Refused::Failed(text) => Status::unreasoned(500, text),
        apply::Refused::Conflicts(conflicts) => {
            let causes = conflicts.iter().map(|conflict| (conflict.message(), conflict.field()));
            Status::apply_conflict(apply::message(&conflicts), causes)
        }
    }
}

async fn apply(call: &mut Call, part: Part, bytes: &[u8]) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse_patch(&call.query, true)?;
    let dry_run = options.dry_run;
    let applied = aside(bytes.len(), || Applied::parse(bytes, options))?;
    let resource = call.resource.clone();
    let expected = Expected::of(&resource);
    let target = Target { manager: None, ..call.target() };
    let complaints = Mutex::new(Vec::new());
    let change = |old: &Tree| {
        let live = (!old.is_null()).then_some(old);
        // Only the object itself comes to be by being applied.
        if live.is_none() && part != Part::Main {
            return Ok(Tree::Null);
        }
        let mut complaints = complaints.lock().expect("no panic under the lock");
        complaints.clear();
        let object = aside(bytes.len(), || target.managed(part, |write| applied.to(write, expected, live, &mut complaints)))?;
        check_named(&object, &target)?;
        if live.is_none() && !meta::uid(&object).is_empty() {
            let why = format!("uid mismatch: the provided object specified uid {}, and no existing object was found", meta::uid(&object));
            return Err(Status::conflict(&resource.group, &resource.plural, &target.name, &why));
        }
        Ok(object)
    };
    let outcome = target.update(part, true, dry_run, &mut call.warnings, &change).await;
    call.warnings.append(&mut complaints.into_inner().expect("no panic under the lock"));
    let outcome = outcome?;
    read::answer(call, if outcome.created { StatusCode::CREATED } else { StatusCode::OK }, outcome.bytes)
}

pub async fn patch(call: &mut Call, request: Request<Body>, part: Part) -> Result<Response<Body>, Status> {
    let media = negotiate::content_type(&call.headers).to_owned();
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    if is_apply(&media) {
        return apply(call, part, &bytes).await;
    }
    let options = WriteOptions::parse_patch(&call.query, false)?;
    let resource = call.resource.clone();
    let expected = Expected::of(&resource);
    let patch = aside(bytes.len(), || Patch::parse(&expected, &media, &bytes))?;
    let target = call.write_target(&options);
    let complaints = Mutex::new(Vec::new());
    let change = |old: &Tree| {
        // A patch creates nothing.
        if old.is_null() {
            return Ok(Tree::Null);
        }
        let mut complaints = complaints.lock().expect("no panic under the lock");
        complaints.clear();
        aside(bytes.len(), || {
            let mut tree = old.clone();
            let found = patch.apply(expected, &mut tree, options.field_validation)?;
            patch.check_kind(expected, &tree)?;
            let object = patch.retype(expected, tree, found, options.field_validation, &mut complaints)?;
            check_named(&object, &target)?;
            Ok(object)
        })
    };
    let outcome = target.update(part, true, options.dry_run, &mut call.warnings, &change).await;
    // What was asked is complained about whether or not it is done.
    call.warnings.append(&mut complaints.into_inner().expect("no panic under the lock"));
    let outcome = outcome?;
    read::answer(call, StatusCode::OK, outcome.bytes)
}

//! AdmissionReview: what a webhook is told, and what it may answer. No I/O.
//!
//! Models pkg/admission/plugin/webhook/request/admissionreview.go.
use api::tree::{Object, Tree};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hook::ReviewVersion;
use crate::admission::matching::{self, Invocation};
use crate::admission::{Operation, Request};
use crate::audit::notes;

/// What comes with a yes.
#[derive(Debug, Default, PartialEq)]
pub struct Reply {
    pub patch: Option<Tree>,
    pub warnings: Vec<String>,
}

/// A webhook's no, in its own words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Allowed(Reply),
    Denied(Refusal),
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Tree)>) -> Tree {
    Tree::Object(fields.into_iter().collect::<Object>())
}

fn api_version(version: ReviewVersion) -> &'static str {
    match version {
        ReviewVersion::V1 => "admission.k8s.io/v1",
        ReviewVersion::V1Beta1 => "admission.k8s.io/v1beta1",
    }
}

/// `shown`: the request's object and the old one, as the webhook sees them.
pub fn write(version: ReviewVersion, uid: &str, invocation: &Invocation, request: &Request, (object_shown, old_shown): (Tree, Tree)) -> Tree {
    let mut asked = asked(invocation, request);
    asked.set(&["uid"], uid);
    asked.set(&["object"], object_shown);
    asked.set(&["oldObject"], old_shown);
    object([("kind", "AdmissionReview".into()), ("apiVersion", api_version(version).into()), ("request", asked)])
}

/// An AdmissionRequest without its objects: also what expressions see as `request`.
pub fn asked(invocation: &Invocation, request: &Request) -> Tree {
    let of_kind =
        |group: &str, version: &str, kind: &str| object([("group", group.into()), ("version", version.into()), ("kind", kind.into())]);
    let of_resource = |group: &str, version: &str, plural: &str| {
        object([("group", group.into()), ("version", version.into()), ("resource", plural.into())])
    };
    let own = &request.resource;
    let own_kind = match request.subresource {
        "" => own.gvk(),
        name => own.subresource(name).map_or(own.gvk(), |sub| sub.kind.clone()),
    };
    let mut asked = object([
        ("kind", of_kind(&invocation.kind.group, &invocation.kind.version, &invocation.kind.kind)),
        ("resource", of_resource(&invocation.group, &invocation.version, &invocation.plural)),
        ("requestKind", of_kind(&own_kind.group, &own_kind.version, &own_kind.kind)),
        ("requestResource", of_resource(&own.group, &own.version, &own.plural)),
        ("operation", matching::operation(request.operation).into()),
        ("userInfo", user(request)),
        ("dryRun", request.dry_run.into()),
        ("options", options(request)),
    ]);
    for (field, text) in [
        ("subResource", request.subresource),
        ("requestSubResource", request.subresource),
        // Empty where the server makes it up, also once it has.
        ("name", &request.name),
        ("namespace", matching::namespace(request)),
    ] {
        if !text.is_empty() {
            asked.set(&[field], text);
        }
    }
    asked
}

fn user(request: &Request) -> Tree {
    let texts = |all: &[String]| Tree::Array(all.iter().map(|text| text.as_str().into()).collect());
    let mut user = object([("username", request.user.name.as_str().into())]);
    if !request.user.uid.is_empty() {
        user.set(&["uid"], request.user.uid.as_str());
    }
    if !request.user.groups.is_empty() {
        user.set(&["groups"], texts(&request.user.groups));
    }
    for (key, values) in &request.user.extra {
        user.set(&["extra", key], texts(values));
    }
    user
}

fn options(request: &Request) -> Tree {
    let kind = match request.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Tree::Null,
    };
    let mut options = object([("kind", kind.into()), ("apiVersion", "meta.k8s.io/v1".into())]);
    if request.dry_run {
        options.set(&["dryRun"], Tree::Array(vec!["All".into()]));
    }
    options
}

/// The verdict of the answer of the webhook named `hook`; `Err` says what is wrong with it. What it says to the audit log is noted.
pub fn read(hook: &str, version: ReviewVersion, uid: &str, is_mutating: bool, answer: &[u8]) -> Result<Verdict, String> {
    let review = Tree::from_json(answer).map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
    let Some(response) = review.get("response").filter(|r| r.as_object().is_some()) else {
        return Err("webhook response was absent".into());
    };
    let has_type = response.get("patchType").is_some_and(|t| !t.is_null());
    let patch_type = response.str_at(&["patchType"]);
    let patch = response.str_at(&["patch"]);
    if version == ReviewVersion::V1 {
        let got = response.str_at(&["uid"]);
        if got != uid {
            return Err(format!("expected response.uid={uid:?}, got {got:?}"));
        }
        let (kind, group_version) = (review.str_at(&["kind"]), review.str_at(&["apiVersion"]));
        if (kind, group_version) != ("AdmissionReview", api_version(version)) {
            return Err(format!(
                "expected webhook response of {}, Kind=AdmissionReview, got {group_version}, Kind={kind}",
                api_version(version)
            ));
        }
        match (is_mutating, patch.is_empty(), has_type) {
            (false, false, _) => return Err("validating webhook may not return response.patch".into()),
            (false, _, true) => return Err("validating webhook may not return response.patchType".into()),
            (true, false, false) => return Err("webhook returned response.patch but not response.patchType".into()),
            (true, true, true) => return Err("webhook returned response.patchType but not response.patch".into()),
            (true, false, true) if patch_type.is_empty() => return Err("webhook returned invalid response.patchType of \"\"".into()),
            _ => {}
        }
    }
    let annotations = response.get("auditAnnotations").and_then(Tree::as_object);
    for (key, value) in annotations.into_iter().flat_map(Object::iter) {
        notes::annotate_for(hook, key, value.as_str().unwrap_or_default());
    }
    if response.get("allowed").and_then(Tree::as_bool) != Some(true) {
        let status = |field: &str| response.str_at(&["status", field]).to_owned();
        let code = response.at(&["status", "code"]).and_then(Tree::as_i64).and_then(|c| u16::try_from(c).ok()).unwrap_or(0);
        return Ok(Verdict::Denied(Refusal { code, reason: status("reason"), message: status("message") }));
    }
    let mut reply = Reply::default();
    reply.warnings.extend(response.array_at(&["warnings"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned));
    if is_mutating && !patch.is_empty() {
        if version == ReviewVersion::V1 && patch_type != "JSONPatch" {
            return Err(format!("unsupported patch type {patch_type:?}"));
        }
        let undecodable = |error: &dyn std::fmt::Display| format!("received undecodable patch in webhook response: {error}");
        let bytes = STANDARD.decode(patch).map_err(|e| undecodable(&e))?;
        let patch = Tree::from_json(&bytes).map_err(|e| undecodable(&e))?;
        reply.patch = patch.as_array().is_some_and(|steps| !steps.is_empty()).then_some(patch);
    }
    Ok(Verdict::Allowed(reply))
}

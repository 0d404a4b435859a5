//! Where request bytes meet the `api` crate: decoding, defaults, selectors, with upstream's wording of what can go wrong.
use api::codec::{self, Parsed};
use api::registry::{Registry, Resource, split_api_version};
use api::selector::{FieldSelector, LabelSelector};
use api::tree::Tree;
use api::crd::{self, Custom};
use api::{meta, protobuf, schema};

use super::options::FieldValidation;
use crate::cache::Cached;
use crate::negotiate::{ACCEPTED, JSON, YAML};
use crate::request::Query;
use crate::status::Status;

/// Parses a body by its media type; protobuf bodies that do not name their kind are DeleteOptions, the only ones read this way.
pub fn parse(media: &str, bytes: &[u8]) -> Result<Parsed, Status> {
    document(media, bytes, ("", "v1", "DeleteOptions"))?.map_err(Status::bad_request)
}

/// The tree of a body; the inner error is the decoder's text. `default` is what an envelope without a kind holds.
fn document(media: &str, bytes: &[u8], default: (&str, &str, &str)) -> Result<Result<Parsed, String>, Status> {
    Ok(match media {
        JSON => codec::parse_json(bytes).map_err(|e| e.to_string()),
        YAML | "application/x-yaml" | "text/yaml" => codec::parse_yaml(bytes).map_err(|e| e.to_string()),
        protobuf::MEDIA_TYPE => {
            protobuf::decode(bytes, default).map(|tree| Parsed { tree, duplicates: Vec::new() }).map_err(|e| e.to_string())
        }
        _ => return Err(Status::unsupported_media_type(&ACCEPTED)),
    })
}

/// What a decoded object must be.
#[derive(Clone, Copy)]
pub struct Expected<'r> {
    pub group: &'r str,
    pub version: &'r str,
    pub kind: &'r str,
    /// Of a CustomResourceDefinition.
    pub custom: Option<&'r Custom>,
}

impl<'r> Expected<'r> {
    pub const fn built_in(group: &'r str, version: &'r str, kind: &'r str) -> Self {
        Self { group, version, kind, custom: None }
    }

    pub fn of(resource: &'r Resource) -> Self {
        Self { group: &resource.group, version: &resource.version, kind: &resource.kind, custom: resource.custom.as_deref() }
    }
}

/// The Go package of upstream's internal types of a group.
fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        _ => group.split('.').next().unwrap_or(group),
    }
}

/// A request body as a typed object: kind checked, types checked, unknown fields pruned. Strict complaints go to `warnings` or fail.
pub fn decode(
    expected: Expected,
    media: &str,
    bytes: &[u8],
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Tree, Status> {
    let fallible = |error: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {error}",
            expected.kind, expected.version, expected.kind
        ))
    };
    let parsed = document(media, bytes, (expected.group, expected.version, expected.kind))?
        .map_err(|error| Status::bad_request(format!("the object provided is unrecognized (must be of type {}): {error}", expected.kind)))?;
    let Parsed { mut tree, duplicates } = parsed;
    if tree.as_object().is_none() {
        let text = format!("json: cannot unmarshal {} into Go value of type struct", tree.type_name());
        return Err(fallible(&text));
    }
    let api_version = api::registry::api_version(expected.group, expected.version);
    let kind = meta::kind(&tree).to_owned();
    let version = meta::api_version(&tree).to_owned();
    // An untyped object may call itself anything: its validation says what it must be.
    if !kind.is_empty() && kind != expected.kind && expected.custom.is_none() {
        let (group, v) = split_api_version(&version);
        let why = match Registry::get().kind_schema(group, v, &kind) {
            None => format!("no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:111\""),
            Some(_) => format!("converting ({v}.{kind}) to ({}.{}): unknown conversion", internal_package(expected.group), expected.kind),
        };
        return Err(Status::bad_request(format!("{kind} in version \"{v}\" cannot be handled as a {}: {why}", expected.kind)));
    }
    if !version.is_empty() && version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({api_version})"
        )));
    }
    meta::set_type(&mut tree, &api_version, if kind.is_empty() { expected.kind } else { &kind });
    let document = (media == JSON).then_some(bytes);
    typed_from(document, expected, tree, duplicates, validation, warnings).map_err(|e| match e {
        Untyped::Wrong(text) => fallible(&text),
        Untyped::Strict(text) => fallible(&text),
    })
}

/// Why a tree is no object of its kind.
pub enum Untyped {
    Wrong(String),
    Strict(String),
}

/// Checks types and prunes.
pub fn typed(
    expected: Expected,
    tree: Tree,
    duplicates: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Tree, Untyped> {
    typed_from(None, expected, tree, duplicates, validation, warnings)
}

/// The same for a tree that was read from this document.
fn typed_from(
    document: Option<&[u8]>,
    expected: Expected,
    tree: Tree,
    duplicates: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Tree, Untyped> {
    codec::check_bounds(&tree).map_err(|error| Untyped::Wrong(error.to_string()))?;
    // An empty list is a wish: to forget all managers. A typed object would not have it.
    let forgets = tree.at(&MANAGED).and_then(Tree::as_array).is_some_and(<[Tree]>::is_empty);
    let typed = typed_parts(document, expected, tree, duplicates, validation, warnings);
    typed.map(|mut tree| {
        if forgets {
            tree.set(&MANAGED, Tree::Array(vec![Tree::object()]));
        }
        tree
    })
}

const MANAGED: [&str; 2] = ["metadata", "managedFields"];

fn typed_parts(
    document: Option<&[u8]>,
    expected: Expected,
    tree: Tree,
    duplicates: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Tree, Untyped> {
    if let Some(custom) = expected.custom {
        let crd::Coerced { tree, unknown } = crd::coerce(custom, tree).map_err(Untyped::Wrong)?;
        // Duplicates were found before anything was pruned, so all are named.
        let complaints: Vec<String> = duplicates.into_iter().chain(unknown).take(codec::STRICT_ERRORS_MAX).collect();
        return judged(tree, complaints, validation, warnings);
    }
    let Some(schema) = Registry::get().kind_schema(expected.group, expected.version, expected.kind) else {
        return Ok(tree);
    };
    let schema::Decoded { tree, unknown } = schema::decode(schema, tree).map_err(|error| Untyped::Wrong(error.to_string()))?;
    let mixed = !duplicates.is_empty() && !unknown.is_empty();
    let mut complaints = codec::strict_errors(duplicates, unknown);
    if let Some(document) = document.filter(|_| mixed) {
        codec::in_order(document, &mut complaints);
    }
    judged(tree, complaints, validation, warnings)
}

fn judged(tree: Tree, complaints: Vec<String>, validation: FieldValidation, warnings: &mut Vec<String>) -> Result<Tree, Untyped> {
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(complaints),
        FieldValidation::Strict if complaints.is_empty() => {}
        FieldValidation::Strict => return Err(Untyped::Strict(codec::strict_error(&complaints))),
    }
    Ok(tree)
}

/// Which objects of a kind are meant.
#[derive(Clone, Debug)]
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    pub fn parse(resource: &Resource, query: &Query) -> Result<Self, Status> {
        let labels = match query.nonempty("labelSelector") {
            Some(text) => LabelSelector::parse(text).map_err(|error| Status::bad_request(error.to_string()))?,
            None => LabelSelector::everything(),
        };
        let fields = match query.nonempty("fieldSelector") {
            Some(text) => FieldSelector::parse(text)
                .and_then(|fields| fields.for_resource(resource))
                .map_err(|error| Status::bad_request(error.to_string()))?,
            None => FieldSelector::everything(),
        };
        Ok(Self { labels, fields })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && !self.labels.matches_nothing() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Cached) -> bool {
        (self.labels.is_empty() && !self.labels.matches_nothing() || self.labels.matches(&|key| object.label(key)))
            && (self.fields.is_empty() || self.fields.matches(&|name| Some(object.field(name))))
    }
}

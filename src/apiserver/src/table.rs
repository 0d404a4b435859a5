//! Objects as rows of a Table, and as metadata alone: written from their bytes, whose metadata is copied as it stands.
//!
//! Models k8s.io/apiserver/pkg/endpoints/handlers/response.go and pkg/printers/internalversion.
use api::registry::{Resource, ResourceRef};
use api::skim::{Malformed, Wanted, skim};
use api::tree::{Object, Tree};

use crate::request::Query;
use crate::rest::list::Meta;
use crate::status::Status;

/// What each row's `object` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub fn parse(query: &Query) -> Result<Self, Status> {
        match query.get("includeObject").unwrap_or("") {
            "None" => Ok(Include::None),
            "" | "Metadata" => Ok(Include::Metadata),
            "Object" => Ok(Include::Object),
            other => Err(Status::bad_request(format!(
                "Invalid value for query parameter includeObject: unrecognized includeObject value: \"{other}\""
            ))),
        }
    }
}

/// Ends tables and lists of metadata.
pub const END: &[u8] = b"]}";

/// Writes the PartialObjectMetadata of an object.
pub fn partial(out: &mut Vec<u8>, version: &str, object: &[u8]) -> Result<(), Malformed> {
    let found = skim(object, &Wanted::Nothing)?;
    write_partial(out, version, found.metadata);
    Ok(())
}

fn write_partial(out: &mut Vec<u8>, version: &str, metadata: &[u8]) {
    for part in [b"{\"apiVersion\":\"meta.k8s.io/", version.as_bytes(), b"\",\"kind\":\"PartialObjectMetadata\",\"metadata\":", metadata, b"}"] {
        out.extend_from_slice(part);
    }
}

/// What stands before the first object of a PartialObjectMetadataList.
pub fn begin_partial_list(version: &str, meta: &Meta) -> Vec<u8> {
    let mut out = format!("{{\"apiVersion\":\"meta.k8s.io/{version}\",\"kind\":\"PartialObjectMetadataList\",\"metadata\":").into_bytes();
    meta.to_tree().write_json(&mut out);
    out.extend_from_slice(b",\"items\":[");
    out
}

/// The rows of one answer.
pub struct Rows {
    resource: ResourceRef,
    version: &'static str,
    include: Include,
    /// What ages count to.
    now: jiff::Timestamp,
}

impl Rows {
    pub fn new(resource: &ResourceRef, version: &'static str, include: Include) -> Self {
        Self { resource: resource.clone(), version, include, now: jiff::Timestamp::now() }
    }

    /// What stands before the first row; columns are left out of later events of a watch.
    pub fn begin(&self, has_columns: bool, meta: &Meta) -> Vec<u8> {
        let columns = if has_columns { columns(&self.resource) } else { Tree::Null };
        let mut out = format!("{{\"apiVersion\":\"meta.k8s.io/{}\",\"columnDefinitions\":", self.version).into_bytes();
        columns.write_json(&mut out);
        out.extend_from_slice(b",\"kind\":\"Table\",\"metadata\":");
        meta.to_tree().write_json(&mut out);
        out.extend_from_slice(b",\"rows\":[");
        out
    }

    pub fn write(&self, out: &mut Vec<u8>, object: &[u8]) -> Result<(), Malformed> {
        let row = api::table::row(&self.resource, object, self.now)?;
        out.extend_from_slice(b"{\"cells\":");
        Tree::Array(row.cells).write_json(out);
        if !row.conditions.is_empty() {
            out.extend_from_slice(b",\"conditions\":");
            Tree::Array(row.conditions).write_json(out);
        }
        out.extend_from_slice(b",\"object\":");
        match self.include {
            Include::None => out.extend_from_slice(b"null"),
            Include::Metadata => write_partial(out, self.version, row.metadata),
            Include::Object => out.extend_from_slice(object),
        }
        out.push(b'}');
        Ok(())
    }

    /// The table of one object.
    pub fn only(&self, has_columns: bool, object: &[u8]) -> Result<Vec<u8>, Malformed> {
        const VERSION: Wanted = Wanted::Fields(&[("metadata", Wanted::Fields(&[("resourceVersion", Wanted::Scalar)]))]);
        let version = api::meta::resource_version(&skim(object, &VERSION)?.tree).parse().ok();
        let mut out = self.begin(has_columns, &Meta { version, ..Meta::default() });
        self.write(&mut out, object)?;
        out.extend_from_slice(END);
        Ok(out)
    }
}

fn columns(resource: &Resource) -> Tree {
    let columns = api::table::columns(resource);
    let columns = columns.iter().map(|column| {
        let mut o = Object::new();
        o.insert("name", &*column.name);
        o.insert("type", &*column.kind);
        o.insert("format", &*column.format);
        o.insert("description", &*column.description);
        o.insert("priority", i64::from(column.priority));
        Tree::Object(o)
    });
    Tree::Array(columns.collect())
}

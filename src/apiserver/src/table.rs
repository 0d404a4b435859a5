//! Objects as rows of a Table, and as metadata alone.
//!
//! Models k8s.io/apiserver/pkg/endpoints/handlers/response.go and pkg/printers/internalversion.
use api::registry::Resource;
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

pub fn parse(bytes: &[u8]) -> Result<Tree, Status> {
    Tree::from_json(bytes).map_err(Status::internal)
}

/// The object's PartialObjectMetadata.
pub fn partial(bytes: &[u8], version: &str) -> Result<Tree, Status> {
    Ok(partial_tree(&parse(bytes)?, version))
}

pub fn partial_tree(tree: &Tree, version: &str) -> Tree {
    let mut out = Object::new();
    out.insert("kind", "PartialObjectMetadata");
    out.insert("apiVersion", format!("meta.k8s.io/{version}"));
    out.insert("metadata", tree.get("metadata").cloned().unwrap_or_default());
    Tree::Object(out)
}

pub fn partial_list(items: Vec<Tree>, version: &str, meta: &Meta) -> Tree {
    let mut out = Object::new();
    out.insert("kind", "PartialObjectMetadataList");
    out.insert("apiVersion", format!("meta.k8s.io/{version}"));
    out.insert("metadata", meta.to_tree());
    out.insert("items", Tree::Array(items));
    Tree::Object(out)
}

pub fn of_object(resource: &Resource, version: &str, include: Include, bytes: &[u8]) -> Result<Tree, Status> {
    let tree = parse(bytes)?;
    let meta = Meta { version: api::meta::resource_version(&tree).parse().ok(), ..Meta::default() };
    Ok(table(version, Some(resource), vec![row(resource, version, include, tree)], &meta))
}

pub fn row(resource: &Resource, version: &str, include: Include, tree: Tree) -> Tree {
    let cells = api::table::row(resource, &tree, jiff::Timestamp::now());
    let mut row = Object::new();
    row.insert("cells", Tree::Array(cells));
    let conditions = api::table::conditions(resource, &tree);
    if !conditions.is_empty() {
        row.insert("conditions", Tree::Array(conditions));
    }
    row.insert(
        "object",
        match include {
            Include::None => Tree::Null,
            Include::Metadata => partial_tree(&tree, version),
            Include::Object => tree,
        },
    );
    Tree::Object(row)
}

/// `resource`: `None` leaves the columns out (later events of a watch).
pub fn table(version: &str, resource: Option<&Resource>, rows: Vec<Tree>, meta: &Meta) -> Tree {
    let mut out = Object::new();
    out.insert("kind", "Table");
    out.insert("apiVersion", format!("meta.k8s.io/{version}"));
    out.insert("metadata", meta.to_tree());
    let columns = resource.map_or(Tree::Null, |resource| {
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
    });
    out.insert("columnDefinitions", columns);
    out.insert("rows", Tree::Array(rows));
    Tree::Object(out)
}

//! The resource model: what Kubernetes v1.37 knows about every kind, and the generic work on objects that follows from it.
//!
//! No I/O, no clock, no logic of a single controller. One source for every fact about a kind (`facts/`, taken from upstream by
//! `cargo xtask codegen`); everything here reads those tables and nothing is written twice.
//!
//! Start with [`registry::Registry::get`]: a [`registry::Resource`] leads to its [`schema::Schema`], printed columns and documents.
//! Objects are [`Tree`]s; bytes become trees in [`codec`], and trees become valid objects in [`schema::decode()`].
pub mod admission;
pub mod apply;
pub mod cel_types;
pub mod codec;
pub mod crd;
pub mod cron;
pub mod defaults;
pub mod devices;
pub mod facts;
pub mod field_error;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod registry;
#[cfg(test)]
mod pace;
pub mod scan;
pub mod schema;
pub mod selector;
pub mod skim;
pub mod table;
pub mod tree;
mod tree_json;
pub mod validation;
pub mod volume;

pub use cel::names;
pub use codec::{ParseError, Parsed};
pub use registry::{Registry, Resource, ResourceRef, Subresource};
pub use schema::Schema;
pub use tree::{Object, Tree};

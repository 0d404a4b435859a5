//! Container images on this machine: names, registries, archives, unpacked layers, and what a container writes.
//!
//! [`Images`] is the way in: [`Images::pull`] and [`Images::import`] bring an image, [`Images::resolve`] finds it,
//! [`Images::prepare`] gives a container its layers and a directory of its own. The folder is shared between processes
//! (`rk server` and `rk image`): whoever changes the index holds its lock.
//! Invariants: no byte is used before its digest is checked; layers are unpacked only by a confined child process
//! ([`unpack`]); nothing in an image chooses a path of the host. Knows no Kubernetes types.
mod archive;
mod builtin;
mod credentials;
mod digest;
mod error;
mod index;
mod layers;
mod manifest;
mod pull;
mod reference;
mod registries;
mod registry;
mod resolver;
mod snapshot;
mod store;
pub mod unpack;

pub use archive::ImportError;
pub use credentials::Credentials;
pub use digest::Digest;
pub use error::{PullError, StoreError};
pub use index::Record;
pub use manifest::ImageConfig;
pub use pull::Progress;
pub use reference::{ParseReferenceError, Reference};
pub use registries::{Registries, RegistriesError};
pub use snapshot::Snapshot;
pub use store::{Config, Image, Images};

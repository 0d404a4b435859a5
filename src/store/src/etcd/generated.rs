//! What etcd and its clients say to each other; made by `cargo xtask etcd`.
#![allow(clippy::all)]
pub mod etcdserverpb;
pub mod mvccpb;

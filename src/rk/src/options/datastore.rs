//! Where the cluster's state is.
use std::path::PathBuf;

use clap::Args;

/// Where the cluster's state is kept.
#[derive(Args, Clone, Debug)]
pub struct DatastoreOptions {
    /// Where the cluster's state is: sqlite, or the addresses of an etcd cluster, http(s)://HOST:2379[,...]
    #[arg(long, value_name = "ENDPOINT", default_value = "sqlite", value_parser = crate::server::datastore_endpoint, help_heading = "Datastore")]
    pub datastore_endpoint: Datastore,
    /// Authorities that sign etcd's certificates [default: those of this machine]
    #[arg(long, value_name = "FILE", help_heading = "Datastore")]
    pub datastore_cafile: Option<PathBuf>,
    /// Certificate to show to etcd
    #[arg(long, value_name = "FILE", requires = "datastore_keyfile", help_heading = "Datastore")]
    pub datastore_certfile: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "datastore_certfile", help_heading = "Datastore")]
    pub datastore_keyfile: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datastore {
    /// A file in the folder of the cluster's state.
    Sqlite,
    /// Addresses of one cluster, each http(s)://HOST:PORT.
    Etcd(Vec<String>),
}

//! The API server as a value, and its HTTPS listener.
use std::sync::Arc;

use crate::auth::UserInfo;
use crate::config::{Config, Parts};
use crate::local::Local;

/// Certificates of the listener.
pub struct Tls {
    pub config: Arc<rustls::ServerConfig>,
}

/// One API server; clones share it.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub config: Config,
    pub parts: Parts,
}

impl ApiServer {
    pub fn new(config: Config, parts: Parts) -> Self {
        Self(Arc::new(Shared { config, parts }))
    }

    /// The API in process, as `user`: no socket, no authentication; authorization and all else as for everybody.
    pub fn local(&self, user: UserInfo) -> Local {
        Local { server: self.clone(), user: Arc::new(user) }
    }
}

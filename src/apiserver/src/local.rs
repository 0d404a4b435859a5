//! The API without a socket: a tower service for components in the same process.
use std::sync::Arc;

use crate::auth::UserInfo;
use crate::server::ApiServer;

#[derive(Clone)]
pub struct Local {
    pub(crate) server: ApiServer,
    pub(crate) user: Arc<UserInfo>,
}

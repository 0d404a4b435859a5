//! Paths of the house beside Kubernetes' own.
use axum::body::Body;
use http::{Request, Response};

use crate::auth::UserInfo;
use crate::status::Status;

/// One path. Its users are authenticated as everywhere; whether they may is decided in [`Extension::answer`] alone, so that no role
/// can be bound wrongly.
pub trait Extension: Send + Sync + 'static {
    fn path(&self) -> &'static str;

    /// An upgrade may be answered: the request brings what hyper needs for it.
    fn answer(&self, user: &UserInfo, request: Request<Body>) -> Result<Response<Body>, Status>;
}

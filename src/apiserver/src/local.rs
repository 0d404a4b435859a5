//! The API without a socket: a tower service for components in the same process.
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};

use crate::auth::UserInfo;
use crate::pipeline;
use crate::server::ApiServer;

/// Requests as one user. Cheap to clone.
#[derive(Clone)]
pub struct Local {
    server: ApiServer,
    user: Arc<UserInfo>,
}

impl Local {
    pub(crate) fn new(server: ApiServer, user: UserInfo) -> Self {
        Self { server, user: Arc::new(user) }
    }
}

impl<B> tower::Service<Request<B>> for Local
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (self.server.clone(), self.user.clone());
        let request = request.map(Body::new);
        Box::pin(async move { Ok(pipeline::as_user(server, user, request).await) })
    }
}

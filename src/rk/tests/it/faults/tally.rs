//! A service between controllers and their API server that counts what they write.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use apiserver::Local;
use axum::body::Bytes;
use http::{Method, Request};
use tower::Service;

/// Calls by method and path.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<String, usize>>>);

impl Tally {
    pub fn writes(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }

    /// Writes whose method and path begin so.
    pub fn of(&self, prefix: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(call, _)| call.starts_with(prefix)).map(|(_, count)| count).sum()
    }

    pub fn told(&self) -> String {
        format!("{:?}", self.0.lock().unwrap())
    }
}

#[derive(Clone)]
pub struct Tallied {
    pub inner: Local,
    pub tally: Tally,
}

impl<B> Service<Request<B>> for Tallied
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = <Local as Service<Request<B>>>::Response;
    type Error = Infallible;
    type Future = <Local as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, path) = (request.method(), request.uri().path());
        if *method != Method::GET && !path.contains("/events") {
            *self.tally.0.lock().unwrap().entry(format!("{method} {path}")).or_default() += 1;
        }
        self.inner.call(request)
    }
}

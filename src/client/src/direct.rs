//! Calls of a service in this process, without the queue that kube's client puts in front of every service.
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::Body;
use tower::{BoxError, Service};

/// An answer's body, whatever it came over.
pub(crate) type Answer = UnsyncBoxBody<Bytes, Broken>;

/// What went wrong on the way of a body.
#[derive(Debug)]
pub(crate) struct Broken(BoxError);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

type Answered = BoxFuture<'static, Result<Response<Answer>, BoxError>>;

/// A service that takes calls side by side.
#[derive(Clone)]
pub(crate) struct Direct(Arc<dyn Calls>);

pub(crate) trait Calls: Send + Sync {
    fn call(&self, request: Request<Body>) -> Answered;
}

pub(crate) struct Of<S>(S);

impl<S, B> Calls for Of<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(&self, request: Request<Body>) -> Answered {
        let mut service = self.0.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            match service.call(request).await {
                Ok(response) => Ok(boxed(response)),
                Err(error) => Err(error.into()),
            }
        })
    }
}

impl Direct {
    pub fn new<S>(service: S) -> Self
    where
        Of<S>: Calls + 'static,
    {
        Self(Arc::new(Of(service)))
    }

    pub fn send(&self, request: Request<Body>) -> Answered {
        self.0.call(request)
    }
}

pub(crate) fn boxed<B>(response: Response<B>) -> Response<Answer>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    response.map(|body| body.map_err(|error| Broken(error.into())).boxed_unsync())
}

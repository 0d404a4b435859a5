//! HTTPS servers of the load's own: webhooks, and an aggregated API. What is dropped dies with all of its connections.
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub type Handler = fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>>;

pub const CONVERSION_TAKES: Duration = Duration::from_secs(2);
/// The group that is another server's.
pub const FAR: &str = "far.load.example";
const EVENTS_PAUSE: Duration = Duration::from_millis(100);

/// One address with a certificate for it.
pub struct Host {
    address: IpAddr,
    acceptor: TlsAcceptor,
    /// As `caBundle` has it.
    pub bundle: String,
}

/// Listens until it is dropped.
pub struct Listening {
    pub address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    /// `service`: the name under which an aggregated server is asked.
    pub fn new(address: IpAddr, service: &str) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        let authority = pki::Authority::create("load", now)?;
        let leaf = authority.issue(&pki::LeafRequest::api_server("load", &[address], &[service.to_owned()]), now)?;
        let mut config = pki::server_config(pki::Identity::new(&leaf)?, None)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, acceptor: TlsAcceptor::from(Arc::new(config)), bundle: STANDARD.encode(authority.certificate_pem()) })
    }

    /// Port 0: any.
    pub async fn listen(&self, port: u16, handler: Handler) -> anyhow::Result<Listening> {
        let listener = TcpListener::bind((self.address, port)).await.with_context(|| format!("listen at {} port {port}", self.address))?;
        let (address, acceptor) = (listener.local_addr()?, self.acceptor.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| async move { Ok::<_, Infallible>(handler(request).await) });
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await; // the other side has gone
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Listening { address, task: task.abort_handle() })
    }
}

fn answer(object: &Value) -> Response<Body> {
    Response::builder().header("content-type", "application/json").body(object.to_string().into()).unwrap_or_default()
}

/// A webhook that never answers.
pub fn hangs(_: Request<Incoming>) -> BoxFuture<'static, Response<Body>> {
    Box::pin(std::future::pending())
}

/// A conversion webhook that takes its time and changes nothing but the version.
pub fn converts(request: Request<Incoming>) -> BoxFuture<'static, Response<Body>> {
    Box::pin(async move {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        tokio::time::sleep(CONVERSION_TAKES).await;
        let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
        let wanted = review["request"]["desiredAPIVersion"].clone();
        let mut objects = review["request"]["objects"].take();
        for object in objects.as_array_mut().into_iter().flatten() {
            object["apiVersion"] = wanted.clone();
        }
        let response = json!({ "uid": review["request"]["uid"], "convertedObjects": objects, "result": { "status": "Success" } });
        answer(&json!({ "apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response }))
    })
}

/// An aggregated server with one kind, whose watches go on for ever.
pub fn aggregated(request: Request<Incoming>) -> BoxFuture<'static, Response<Body>> {
    let (path, is_watch) = (request.uri().path().to_owned(), request.uri().query().is_some_and(|query| query.contains("watch=")));
    Box::pin(async move {
        let version = format!("{FAR}/v1");
        if path == format!("/apis/{version}") {
            let star = json!({ "name": "stars", "singularName": "star", "namespaced": false, "kind": "Star", "verbs": ["get", "list", "watch"] });
            return answer(&json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [star] }));
        }
        if path != format!("/apis/{version}/stars") {
            let mut missing = answer(&json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404 }));
            *missing.status_mut() = StatusCode::NOT_FOUND;
            return missing;
        }
        if !is_watch {
            return answer(&json!({ "kind": "StarList", "apiVersion": version, "metadata": { "resourceVersion": "1" }, "items": [] }));
        }
        let events = stream::unfold(1u64, move |number| {
            let version = version.clone();
            async move {
                if number > 1 {
                    tokio::time::sleep(EVENTS_PAUSE).await;
                }
                let object = json!({ "apiVersion": version, "kind": "Star", "metadata": { "name": "sun", "resourceVersion": number.to_string() } });
                let line = format!("{}\n", json!({ "type": if number == 1 { "ADDED" } else { "MODIFIED" }, "object": object }));
                Some((Ok::<_, Infallible>(line), number + 1))
            }
        });
        Response::builder().header("content-type", "application/json").body(Body::from_stream(events)).unwrap_or_default()
    })
}

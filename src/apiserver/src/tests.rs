//! The API over a real store in a temporary folder, through [`crate::Local`].
mod access;
mod aggregation;
mod apply;
mod audit;
mod conversion;
mod custom;
pub(crate) mod https;
mod lists;
mod objects;
mod paths;
mod protobuf;
mod services;
mod subresources;
mod unreadable;

use std::io;
use std::sync::Arc;

use api::tree::Tree;
use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use store::Store;
use tower::Service as _;

use crate::admission::AdmitAll;
use crate::auth::*;
use crate::{ApiServer, Cache, Config, Local, NodeDialer, NodeStream, Parts, Status};

struct Everybody;

impl Authenticator for Everybody {
    fn authenticate<'a>(&'a self, credential: Credential<'a>) -> BoxFuture<'a, Result<Option<Authenticated>, String>> {
        let found = match credential {
            Credential::Token { token: "good", audiences } => {
                Some(Authenticated { user: UserInfo::new("jane", &["dev"]), audiences: audiences.to_vec() })
            }
            _ => None,
        };
        Box::pin(async move { Ok(found) })
    }
}

/// Refuses `nobody`, allows the rest.
struct NotNobody;

impl Authorizer for NotNobody {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.name == "nobody" { Decision::no_opinion("") } else { Decision::allow("") }
    }
    fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
        UserRules::default()
    }
}

struct Tokens;

impl TokenIssuer for Tokens {
    fn issue<'a>(&'a self, spec: TokenSpec) -> BoxFuture<'a, Result<IssuedToken, Status>> {
        Box::pin(async move {
            let token = format!("token-of-{}", spec.service_account);
            Ok(IssuedToken { token, audiences: spec.audiences, expiration: "2030-01-01T00:00:00Z".into() })
        })
    }
    fn openid_configuration(&self) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn jwks(&self) -> Vec<u8> {
        b"{}".to_vec()
    }
}

/// A kubelet that answers every path with the path.
struct Echo;

impl NodeDialer for Echo {
    fn dial<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn NodeStream>>> {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(64 << 10);
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                let mut response = http::Response::new(Body::from(request.uri().to_string()));
                if request.uri().path().contains("missing") {
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                }
                Ok::<_, std::convert::Infallible>(response)
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(far), service);
            tokio::spawn(async move { drop(connection.await) });
            Ok(Box::new(near) as Box<dyn NodeStream>)
        })
    }
}

pub struct Fixture {
    pub server: ApiServer,
    pub client: Local,
    _folder: tempfile::TempDir,
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn tree(&self) -> Tree {
        Tree::from_json(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    #[track_caller]
    pub fn ok(self) -> Tree {
        assert!((200..300).contains(&self.code), "{} {}", self.code, String::from_utf8_lossy(&self.bytes));
        self.tree()
    }

    /// Code, reason and message of a failure.
    #[track_caller]
    pub fn failed(self, code: u16, reason: &str, message: &str) -> Tree {
        let tree = self.tree();
        assert_eq!((self.code, tree.str_at(&["reason"]), tree.str_at(&["message"])), (code, reason, message));
        assert_eq!(tree.str_at(&["kind"]), "Status");
        tree
    }
}

pub async fn fixture() -> Fixture {
    fixture_with(None).await
}

pub async fn fixture_with(front_proxy: Option<crate::FrontProxy>) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
    let cache = Cache::start(&store).await.unwrap();
    let parts = Parts {
        store,
        cache,
        authenticator: Arc::new(Everybody),
        authorizer: Arc::new(NotNobody),
        admission: Arc::new(AdmitAll),
        tokens: Arc::new(Tokens),
        nodes: Arc::new(Echo),
        extensions: Vec::new(),
        audit: None,
    };
    let config = Config { advertise_address: std::net::Ipv4Addr::new(192, 0, 2, 1), front_proxy, ..Config::default() };
    let server = ApiServer::new(config, parts);
    server.start().await.unwrap();
    let client = server.local(UserInfo::new("admin", &["system:masters"]));
    Fixture { server, client, _folder: folder }
}

impl Fixture {
    pub async fn send(&self, method: &str, path: &str, media: &str, body: &str) -> Answer {
        self.send_with(method, path, &[("content-type", media)], body).await
    }

    pub async fn send_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.clone().call(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { code, headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send_with("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, "application/json", body).await
    }

    pub async fn put(&self, path: &str, body: &str) -> Answer {
        self.send("PUT", path, "application/json", body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send_with("DELETE", path, &[], "").await
    }

    /// A watch's events, line by line.
    pub async fn watch(&self, path: &str) -> Watch {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.client.clone().call(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Watch { body: response.into_body(), pending: Vec::new() }
    }
}

pub struct Watch {
    body: Body,
    pending: Vec<u8>,
}

impl Watch {
    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Tree> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Some(Tree::from_json(&line).unwrap());
            }
            let frame = tokio::time::timeout(std::time::Duration::from_secs(10), self.body.frame()).await.expect("an event in time")?;
            self.pending.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// `TYPE name`
    pub async fn event(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!("{} {}", event.str_at(&["type"]), event.str_at(&["object", "metadata", "name"]))
    }
}

pub fn config_map(name: &str, value: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"v":"{value}"}}}},"data":{{"k":"{value}"}}}}"#)
}

pub fn pod(name: &str, node: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"a"}}}},"spec":{{"nodeName":"{node}","containers":[{{"name":"c","image":"i"}}]}}}}"#
    )
}

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";

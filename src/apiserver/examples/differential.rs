//! Answers requests as rk's API server does without authorization, and without admission but in one namespace: the subject of
//! `tests/differential`, as `src/xtask/facts/oracle.go` is its oracle.
//!
//! Standard input has one request a line, `{"method", "path", "headers", "body"}`; standard output one answer for each,
//! `{"code", "warnings", "body"}`.
use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

use apiserver::admission::{Plugins, Request as Admitted};
use apiserver::auth::{Authenticated, Authorization, Credential, IssuedToken, TokenSpec, UserRules};
use apiserver::{
    Admission, ApiServer, Attributes, Authenticator, Authorizer, Cache, Config, Decision, Local, NodeDialer, NodeStream, Parts,
};
use apiserver::{Status, TokenIssuer, UserInfo};
use axum::body::Body;
use futures::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use store::Store;
use tower::Service as _;

#[derive(Deserialize)]
struct Question {
    method: String,
    path: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

#[derive(Serialize)]
struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: String,
}

struct Nobody;

impl Authenticator for Nobody {
    fn authenticate<'a>(&'a self, _: Credential<'a>) -> BoxFuture<'a, Result<Option<Authenticated>, String>> {
        Box::pin(async { Ok(None) })
    }
}

struct Everything;

impl Authorizer for Everything {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::allow("")
    }
    fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
        UserRules::default()
    }
}

/// In the namespace of the tests of policies alone. Nothing else acts on the ConfigMaps that they are about.
struct Policed(Plugins);

const POLICED: &str = "differential-policy";

impl Admission for Policed {
    fn admit<'a>(&'a self, request: &'a mut Admitted) -> BoxFuture<'a, Result<(), Status>> {
        match request.namespace == POLICED {
            true => self.0.admit(request),
            false => Box::pin(async { Ok(()) }),
        }
    }
    fn validate<'a>(&'a self, request: &'a mut Admitted) -> BoxFuture<'a, Result<(), Status>> {
        match request.namespace == POLICED {
            true => self.0.validate(request),
            false => Box::pin(async { Ok(()) }),
        }
    }
}

struct NoTokens;

impl TokenIssuer for NoTokens {
    fn issue<'a>(&'a self, _: TokenSpec) -> BoxFuture<'a, Result<IssuedToken, Status>> {
        Box::pin(async { Err(Status::bad_request("no tokens are issued")) })
    }
    fn openid_configuration(&self) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn jwks(&self) -> Vec<u8> {
        b"{}".to_vec()
    }
}

struct NoNodes;

impl NodeDialer for NoNodes {
    fn dial<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn NodeStream>>> {
        Box::pin(async { Err(io::ErrorKind::HostUnreachable.into()) })
    }
}

async fn answer(client: &Local, question: Question) -> Result<Answer, Box<dyn std::error::Error>> {
    let mut request = Request::builder().method(question.method.as_str()).uri(&question.path);
    for (name, value) in &question.headers {
        request = request.header(name, value);
    }
    let response = client.clone().call(request.body(Body::from(question.body))?).await?;
    let code = response.status().as_u16();
    let warnings = response.headers().get_all("warning").iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { code, warnings, body: String::from_utf8_lossy(&body).into() })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn Store> = Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default())?);
    let cache = Cache::start(&store).await?;
    let admission = Policed(Plugins::new(&cache, Arc::new(Authorization::new(&cache))));
    let parts = Parts {
        store,
        cache,
        authenticator: Arc::new(Nobody),
        authorizer: Arc::new(Everything),
        admission: Arc::new(admission),
        tokens: Arc::new(NoTokens),
        nodes: Arc::new(NoNodes),
        extensions: Vec::new(),
        audit: None,
    };
    let server = ApiServer::new(Config::default(), parts);
    server.start().await?;
    let client = server.local(UserInfo::new("admin", &["system:masters", "system:authenticated"]));
    let mut out = io::stdout();
    for line in io::stdin().lock().lines() {
        let mut line = serde_json::to_vec(&answer(&client, serde_json::from_str(&line?)?).await?)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()?;
    }
    Ok(())
}

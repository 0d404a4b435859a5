//! The Service behind an APIService, and requests to it.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::tree::Tree;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderValue, IF_NONE_MATCH};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::connect::{self, BackendClient};
use super::{condition, identity};
use crate::auth::UserInfo;
use crate::cache::Cache;
use crate::config::FrontProxy;
use crate::outbound;

/// A document that describes what a backend serves.
const DOCUMENT_BYTES_MAX: usize = 32 << 20;

/// What a change of makes other connections necessary.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    namespace: String,
    service: String,
    port: u16,
    ca_bundle: String,
    is_insecure: bool,
}

pub struct Backend {
    pub group: Box<str>,
    pub version: Box<str>,
    way: Way,
    pub is_available: bool,
    /// `Err`: why there can be no connection.
    client: Result<BackendClient, String>,
}

/// A short answer, read whole.
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Backend {
    /// `None` for an APIService without a Service. Connections that are still right are taken over from `before`.
    pub fn of(object: &Tree, before: Option<&Backend>, front_proxy: Option<&FrontProxy>) -> Option<Self> {
        let service = object.at(&["spec", "service"]).filter(|service| !service.is_null())?;
        let way = Way {
            namespace: service.str_at(&["namespace"]).to_owned(),
            service: service.str_at(&["name"]).to_owned(),
            port: service.get("port").and_then(Tree::as_i64).and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
            ca_bundle: object.str_at(&["spec", "caBundle"]).to_owned(),
            is_insecure: object.at(&["spec", "insecureSkipTLSVerify"]).and_then(Tree::as_bool).unwrap_or(false),
        };
        let client = match before.filter(|before| before.way == way) {
            Some(before) => before.client.clone(),
            None => client(&way, front_proxy),
        };
        Some(Self {
            group: object.str_at(&["spec", "group"]).into(),
            version: object.str_at(&["spec", "version"]).into(),
            way,
            is_available: condition(object).is_some_and(|c| c.str_at(&["status"]) == "True"),
            client,
        })
    }

    pub fn namespace(&self) -> &str {
        &self.way.namespace
    }

    pub fn service(&self) -> &str {
        &self.way.service
    }

    pub fn port(&self) -> u16 {
        self.way.port
    }

    pub fn client(&self) -> Result<&BackendClient, &str> {
        self.client.as_ref().map_err(String::as_str)
    }

    /// The address for one request.
    pub fn endpoint(&self, cache: &Cache) -> Result<SocketAddr, String> {
        outbound::service_endpoint(cache, &self.way.namespace, &self.way.service, self.way.port)
    }

    /// `/apis/GROUP/VERSION`
    pub fn root(&self) -> String {
        if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) }
    }

    /// A question of the server's own, in the name of `user`. The error names the URL.
    pub async fn get(
        &self,
        cache: &Cache,
        path: &str,
        accept: &str,
        etag: Option<&str>,
        user: &UserInfo,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let address = self.endpoint(cache)?;
        let url = format!("https://{address}{path}");
        let failed = |error: &dyn std::fmt::Display| format!("Get \"{url}\": {error}");
        let client = self.client().map_err(|error| failed(&error))?;
        let mut request = Request::get(&url).body(Body::empty()).map_err(|error| failed(&error))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).map_err(|error| failed(&error))?);
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        identity::set(headers, user);
        let exchange = async {
            let answer = client.request(request).await.map_err(|error| failed(&reason(&error)))?;
            let (parts, body) = answer.into_parts();
            let bytes = Limited::new(body, DOCUMENT_BYTES_MAX).collect().await.map_err(|error| failed(&error))?.to_bytes();
            Ok(Answer { code: parts.status, headers: parts.headers, bytes })
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(failed(&"context deadline exceeded")),
        }
    }
}

/// The deepest cause of a failure: what the wire said.
pub fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn client(way: &Way, front_proxy: Option<&FrontProxy>) -> Result<BackendClient, String> {
    let identity = front_proxy.map(|front_proxy| front_proxy.identity.clone()).ok_or("this server has no identity for aggregated servers")?;
    let tls = if way.is_insecure {
        let mut tls: ClientConfig = pki::unproven_client_config(Some(identity)).map_err(|error| error.to_string())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(tls)
    } else {
        let bundle = STANDARD.decode(&way.ca_bundle).map_err(|error| format!("caBundle: {error}"))?;
        outbound::trusting(&bundle, Some(identity))?
    };
    let name = ServerName::try_from(format!("{}.{}.svc", way.service, way.namespace)).map_err(|error| error.to_string())?;
    Ok(connect::client(tls, name))
}

//! Typed calls over one transport.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status};
use kube::client::{Body, ConfigExt};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tower::{BoxError, Service, ServiceBuilder};

use crate::decode;
use crate::direct::{Answer, Direct, boxed};
use crate::error::ApiError;
use crate::held::HeldObjects;
use crate::object::{ApiResource, Kind, Named, ObjectKey};
use crate::options::{DeleteOptions, ListOptions};
use crate::patch::Patch;

/// One page of a list, or all of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "K: Deserialize<'de>"))]
pub struct List<K> {
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default = "Vec::new", deserialize_with = "null_is_empty")]
    pub items: Vec<K>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, K: Deserialize<'de>>(d: D) -> Result<Vec<K>, D::Error> {
    Ok(Option::<Vec<K>>::deserialize(d)?.unwrap_or_default())
}

/// The connection to a cluster could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read the kubeconfig {path}")]
    Kubeconfig { path: PathBuf, #[source] source: Box<kube::config::KubeconfigError> },
    #[error("read the service account of this pod")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    #[error("set up TLS or authentication for {url}")]
    Transport { url: String, #[source] source: Box<kube::Error> },
    #[error("set up requests for {url}")]
    Connector { url: String, #[source] source: BoxError },
}

fn http_client<C: Connect + Clone>(connector: C) -> legacy::Client<C, Body> {
    // HTTP/2 pings notice a peer that vanished while a watch has nothing to say; as client-go's ReadIdleTimeout.
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(15))
        .http2_keep_alive_while_idle(true)
        .build(connector)
}

/// An API client. Cheap to clone. Must be made inside a tokio runtime.
#[derive(Clone)]
pub struct Client {
    kube: kube::Client,
    /// The same, where nothing need stand between.
    direct: Option<Direct>,
    agent: HeaderValue,
    held: Option<Arc<dyn HeldObjects>>,
}

/// The user agent of whoever has no other name.
const AGENT: HeaderValue = HeaderValue::from_static("rk");

impl Client {
    /// A client over a service in this process; the service has already decided who the user is.
    pub fn from_service<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { kube: kube::Client::new(service, "default"), direct: None, agent: AGENT, held: None }
    }

    /// The same over a service that takes calls side by side: they go there without a queue in between.
    pub fn within<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { direct: Some(Direct::new(service.clone())), ..Self::from_service(service) }
    }

    /// The same client under the name of a component: its user agent, and so the manager of the fields that it sets.
    pub fn named(self, component: &'static str) -> Self {
        Self { agent: HeaderValue::from_static(component), ..self }
    }

    /// The same client, whose informers share what the server in this process holds.
    pub fn sharing(self, held: Arc<dyn HeldObjects>) -> Self {
        Self { held: Some(held), ..self }
    }

    pub(crate) fn held(&self) -> Option<&Arc<dyn HeldObjects>> {
        self.held.as_ref()
    }

    /// A client for the current context of a kubeconfig file.
    pub async fn from_kubeconfig(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
        let file = Kubeconfig::read_from(path).map_err(failed)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?;
        Self::from_config(config)
    }

    /// A client for a pod's own service account. The token is read again when it is renewed.
    pub fn in_cluster() -> Result<Self, ConfigError> {
        Self::from_config(Config::incluster().map_err(|e| ConfigError::InCluster(Box::new(e)))?)
    }

    pub fn from_config(config: Config) -> Result<Self, ConfigError> {
        let url = config.cluster_url.to_string();
        let failed = |source| ConfigError::Transport { url: url.clone(), source: Box::new(source) };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // hyper leaves Nagle's algorithm on, which costs 40 ms in every exchange of small frames.
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(30)));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let https = config.rustls_https_connector_with_connector(tcp).map_err(failed)?;
        let http = http_client(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(failed)?)
            .map_err(BoxError::from)
            .service(http);
        Ok(Self { kube: kube::Client::new(service, config.default_namespace), direct: None, agent: AGENT, held: None })
    }

    /// A client over connections that `connector` makes to a server of its choice; ALPN says whether one speaks HTTP/2. `token` goes
    /// with every request, for those who have no certificate yet.
    pub fn over<C>(connector: C, token: Option<&str>) -> Result<Self, ConfigError>
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        let url = "https://kubernetes.default.svc";
        let failed = |source: BoxError| ConfigError::Connector { url: url.to_owned(), source };
        let config = Config::new(url.parse().map_err(|e: http::uri::InvalidUri| failed(e.into()))?);
        let authorization = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose();
        let mut authorization = authorization.map_err(|e| failed(e.into()))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .map_request(move |mut request: Request<Body>| {
                if let Some(value) = &authorization {
                    request.headers_mut().insert(header::AUTHORIZATION, value.clone());
                }
                request
            })
            .map_err(BoxError::from)
            .service(http_client(connector));
        Ok(Self { kube: kube::Client::new(service, config.default_namespace), direct: None, agent: AGENT, held: None })
    }

    /// The transport underneath, for upgrades and what else kube offers.
    pub fn kube(&self) -> &kube::Client {
        &self.kube
    }

    pub async fn get<K: Kind>(&self, key: &ObjectKey) -> Result<K, ApiError> {
        self.call(Method::GET, ApiResource::of::<K>().object_path(key), None::<&()>).await
    }

    /// One page; `namespace` empty lists all namespaces.
    pub async fn list<K: Kind>(&self, namespace: &str, options: &ListOptions) -> Result<List<K>, ApiError> {
        let path = ApiResource::of::<K>().collection_path(namespace) + &options.query().into_string();
        self.call(Method::GET, path, None::<&()>).await
    }

    /// Creates `object` in the namespace that its metadata names.
    pub async fn create<K: Kind>(&self, object: &K) -> Result<K, ApiError> {
        let path = ApiResource::of::<K>().collection_path(object.namespace());
        self.call(Method::POST, path, Some(object)).await
    }

    /// As [`Self::create`], for who does not care what the server made of it.
    pub async fn create_unread<K: Kind>(&self, object: &K) -> Result<IgnoredAny, ApiError> {
        let path = ApiResource::of::<K>().collection_path(object.namespace());
        self.call(Method::POST, path, Some(object)).await
    }

    pub async fn update<K: Kind>(&self, object: &K) -> Result<K, ApiError> {
        let path = ApiResource::of::<K>().object_path(&ObjectKey::of(object));
        self.call(Method::PUT, path, Some(object)).await
    }

    pub async fn update_status<K: Kind>(&self, object: &K) -> Result<K, ApiError> {
        let path = ApiResource::of::<K>().object_path(&ObjectKey::of(object)) + "/status";
        self.call(Method::PUT, path, Some(object)).await
    }

    pub async fn patch<K: Kind>(&self, key: &ObjectKey, patch: &Patch) -> Result<K, ApiError> {
        self.send_patch(ApiResource::of::<K>().object_path(key), patch).await
    }

    pub async fn patch_status<K: Kind>(&self, key: &ObjectKey, patch: &Patch) -> Result<K, ApiError> {
        self.send_patch(ApiResource::of::<K>().object_path(key) + "/status", patch).await
    }

    /// As [`Self::patch_status`], for who does not care what became of the object.
    pub async fn patch_status_unread<K: Kind>(&self, key: &ObjectKey, patch: &Patch) -> Result<IgnoredAny, ApiError> {
        self.send_patch(ApiResource::of::<K>().object_path(key) + "/status", patch).await
    }

    pub async fn delete<K: Kind>(&self, key: &ObjectKey, options: &DeleteOptions) -> Result<(), ApiError> {
        self.delete_at(&ApiResource::of::<K>(), key, options).await
    }

    pub async fn delete_collection<K: Kind>(
        &self,
        namespace: &str,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<(), ApiError> {
        self.delete_collection_at(&ApiResource::of::<K>(), namespace, options, which).await
    }

    /// POST to a subresource: `binding`, `eviction`, `token` ...
    pub async fn create_subresource<K: Kind, T: Serialize, R: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        body: &T,
    ) -> Result<R, ApiError> {
        let path = format!("{}/{subresource}", ApiResource::of::<K>().object_path(key));
        self.call(Method::POST, path, Some(body)).await
    }

    /// PUT to a subresource: `scale`, `finalize`, `ephemeralcontainers` ...
    pub async fn update_subresource<K: Kind, T: Serialize, R: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        body: &T,
    ) -> Result<R, ApiError> {
        let path = format!("{}/{subresource}", ApiResource::of::<K>().object_path(key));
        self.call(Method::PUT, path, Some(body)).await
    }

    /// Binds a pod to a node, as the scheduler does.
    pub async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError> {
        use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
        let binding = Binding {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(uid.to_owned()),
                ..Default::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..Default::default()
            },
        };
        self.create_subresource::<Pod, _, IgnoredAny>(pod, "binding", &binding).await?;
        Ok(())
    }

    /// Reads an object of a kind known at run time only.
    pub async fn get_at<T: DeserializeOwned>(&self, resource: &ApiResource, key: &ObjectKey) -> Result<T, ApiError> {
        self.call(Method::GET, resource.object_path(key), None::<&()>).await
    }

    pub async fn list_at<T: DeserializeOwned>(
        &self,
        resource: &ApiResource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<List<T>, ApiError> {
        self.call(Method::GET, resource.collection_path(namespace) + &options.query().into_string(), None::<&()>).await
    }

    pub async fn patch_at<T: DeserializeOwned>(
        &self,
        resource: &ApiResource,
        key: &ObjectKey,
        patch: &Patch,
    ) -> Result<T, ApiError> {
        self.send_patch(resource.object_path(key), patch).await
    }

    pub async fn delete_at(
        &self,
        resource: &ApiResource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<(), ApiError> {
        let _: IgnoredAny =
            self.call(Method::DELETE, resource.object_path(key), Some(&options.body())).await?;
        Ok(())
    }

    pub async fn delete_collection_at(
        &self,
        resource: &ApiResource,
        namespace: &str,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<(), ApiError> {
        let path = resource.collection_path(namespace) + &which.query().into_string();
        let _: IgnoredAny = self.call(Method::DELETE, path, Some(&options.body())).await?;
        Ok(())
    }

    /// A GET of any path, for discovery, `/version` and the like.
    pub async fn get_path<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call(Method::GET, path.to_owned(), None::<&()>).await
    }

    /// A PUT of any path: a subresource of a kind known at run time only.
    pub async fn put_path<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ApiError> {
        self.call(Method::PUT, path.to_owned(), Some(body)).await
    }

    async fn send_patch<T: DeserializeOwned>(&self, path: String, patch: &Patch) -> Result<T, ApiError> {
        self.call_with(Method::PATCH, path, Some(patch.body()), patch.content_type()).await
    }

    pub(crate) async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Option<&B>,
    ) -> Result<T, ApiError> {
        self.call_with(method, path, body, "application/json").await
    }

    async fn call_with<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Option<&B>,
        content_type: &'static str,
    ) -> Result<T, ApiError> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|source| ApiError::Encode { method: method.to_string(), path: path.clone(), source })?;
        let bytes = self.bytes(method.clone(), &path, body.unwrap_or_default(), content_type, "application/json").await?;
        decode::bytes(&bytes).map_err(|source| ApiError::Decode { method: method.to_string(), path, source })
    }

    /// One request, the whole answer.
    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        content_type: &'static str,
        accept: &'static str,
    ) -> Result<Bytes, ApiError> {
        let response = self.open(method.clone(), path, body, content_type, accept).await?;
        let body = response.into_body().collect().await.map_err(|source| ApiError::Transport {
            method: method.to_string(),
            path: path.to_owned(),
            source: source.into(),
        })?;
        Ok(body.to_bytes())
    }

    /// One request, the answer as a stream; a failure is read whole and returned as such.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        content_type: &'static str,
        accept: &'static str,
    ) -> Result<Response<Answer>, ApiError> {
        let transport = |source: BoxError| ApiError::Transport { method: method.to_string(), path: path.to_owned(), source };
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::ACCEPT, HeaderValue::from_static(accept))
            .header(header::USER_AGENT, self.agent.clone());
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let request = request.body(Body::from(body)).map_err(|e| transport(e.into()))?;
        let sent = match &self.direct {
            Some(direct) => direct.send(request),
            None => {
                let kube = self.kube.clone();
                Box::pin(async move {
                    match kube.send(request).await {
                        Ok(response) => Ok(boxed(response)),
                        Err(error) => Err(BoxError::from(error)),
                    }
                })
            }
        };
        let response = sent.await.map_err(transport)?;
        match response.status() {
            code if code.is_client_error() || code.is_server_error() => Err(failure(response).await),
            _ => Ok(response),
        }
    }
}

/// Longest failure that is read; upstream's are a few hundred bytes.
const FAILURE_BYTES_MAX: usize = 1 << 20;

async fn failure(response: Response<Answer>) -> ApiError {
    let code = response.status();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = http_body_util::Limited::new(response.into_body(), FAILURE_BYTES_MAX).collect().await;
    let text = body.map(|b| b.to_bytes()).unwrap_or_default();
    let status = serde_json::from_slice::<Status>(&text).unwrap_or_else(|_| Status {
        code: Some(code.as_u16().into()),
        message: Some(String::from_utf8_lossy(&text).trim().to_owned()),
        status: Some("Failure".to_owned()),
        ..Default::default()
    });
    ApiError::Status(Box::new(Status { code: Some(code.as_u16().into()), ..status }), retry_after)
}

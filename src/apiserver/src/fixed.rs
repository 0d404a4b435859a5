//! The paths that are no resources: discovery, OpenAPI, version, health, metrics.
use std::sync::OnceLock;

use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Request, Response, StatusCode};
use tower::ServiceExt as _;

use api::openapi::Documents;
use api::tree::{Object, Tree};

use crate::kinds::Kinds;
use crate::negotiate::{self, Accept};
use crate::request::{Query, RequestInfo};
use crate::server::ApiServer;
use crate::status::Status;
use crate::aggregation::{self, Document, Tie};
use crate::{discovery, health, rest, zpages};

pub const GIT_VERSION: &str = "v1.37.1+rk0";

/// The server's authority, for newcomers who know its hash (`pki::JoinToken`). k3s has the same path. Anybody may ask: who
/// joins has no identity yet, and a certificate is no secret.
pub const CACERTS: &str = "/cacerts";

/// What each route needs; cheap to clone.
#[derive(Clone)]
struct Call {
    server: ApiServer,
    query: Query,
    accept: Accept,
}

pub async fn handle(server: ApiServer, info: RequestInfo, query: Query, request: Request<Body>) -> Result<Response<Body>, Status> {
    static ROUTES: OnceLock<Router> = OnceLock::new();
    if !matches!(info.verb, "get" | "head") {
        return Ok(crate::pipeline::method_not_allowed());
    }
    let accept = Accept::plain(request.headers(), &query);
    let call = Call { server, query, accept };
    // A trailing slash names the same place.
    let mut request = request;
    let path = request.uri().path();
    if path.len() > 1 && path.ends_with('/') {
        let trimmed = path.trim_end_matches('/');
        let uri = if trimmed.is_empty() { "/" } else { trimmed };
        if let Ok(uri) = uri.parse() {
            *request.uri_mut() = uri;
        }
    }
    request.extensions_mut().insert(call);
    let response = ROUTES.get_or_init(routes).clone().oneshot(request).await;
    Ok(response.unwrap_or_else(|never| match never {}))
}

fn routes() -> Router {
    Router::new()
        .route("/", get(index))
        .route("/api", get(|Extension(c): Extension<Call>, h: HeaderMap| async move { discovery::legacy(&c.server, &c.accept, &h) }))
        .route("/api/{version}", get(|Extension(c): Extension<Call>, Path(v): Path<String>| async move { discovery::version(&c.server, &c.accept, "", &v) }))
        .route("/apis", get(|Extension(c): Extension<Call>, h: HeaderMap| async move { discovery::groups(&c.server, &c.accept, &h) }))
        .route("/apis/{group}", get(|Extension(c): Extension<Call>, Path(g): Path<String>| async move { discovery::group(&c.server, &c.accept, &g) }))
        .route(
            "/apis/{group}/{version}",
            get(|Extension(c): Extension<Call>, Path((g, v)): Path<(String, String)>| async move { discovery::version(&c.server, &c.accept, &g, &v) }),
        )
        .route("/version", get(version))
        .route("/openapi/v2", get(openapi_v2))
        .route("/openapi/v3", get(openapi_v3_index))
        .route("/openapi/v3/{*path}", get(openapi_v3))
        .route("/healthz", get(|Extension(c): Extension<Call>| async move { c.server.health("healthz", &c.query).await }))
        .route("/livez", get(|Extension(c): Extension<Call>| async move { c.server.health("livez", &c.query).await }))
        .route("/readyz", get(|Extension(c): Extension<Call>| async move { c.server.health("readyz", &c.query).await }))
        .route("/healthz/{*name}", get(|Extension(c): Extension<Call>, Path(n): Path<String>| async move { c.server.health_check("healthz", &n).await }))
        .route("/livez/{*name}", get(|Extension(c): Extension<Call>, Path(n): Path<String>| async move { c.server.health_check("livez", &n).await }))
        .route("/readyz/{*name}", get(|Extension(c): Extension<Call>, Path(n): Path<String>| async move { c.server.health_check("readyz", &n).await }))
        .route("/metrics", get(metrics))
        .route(
            "/debug/api_priority_and_fairness/{dump}",
            get(|Extension(c): Extension<Call>, Path(dump): Path<String>| async move {
                let flow = &c.server.0.flow;
                let text = match dump.as_str() {
                    "dump_priority_levels" => flow.dump_levels(),
                    "dump_queues" => flow.dump_queues(),
                    "dump_requests" => flow.dump_requests(c.query.nonempty("includeRequestDetails").is_some()),
                    _ => return rest::page_not_found(),
                };
                negotiate::text(StatusCode::OK, text)
            }),
        )
        .route("/metrics/slis", get(slis))
        .route("/statusz", get(|Extension(c): Extension<Call>, h: HeaderMap| async move { zpages::statusz(&c.accept, &h, c.server.0.started, &paths(&c.server)) }))
        .route("/flagz", get(|Extension(c): Extension<Call>, h: HeaderMap| async move { zpages::flagz(&c.accept, &h, &c.server.0.config.flags) }))
        .route("/.well-known/openid-configuration", get(openid_configuration))
        .route("/openid/v1/jwks", get(jwks))
        .route(CACERTS, get(cacerts))
        .fallback(|| async { rest::page_not_found() })
}

/// What is listed at `/`.
fn paths(server: &ApiServer) -> Vec<String> {
    let mut paths: Vec<String> = vec!["/.well-known/openid-configuration".into(), "/api".into(), "/apis".into(), "/apis/".into()];
    for group in aggregation::groups(server, Tie::ServiceName) {
        if group.name.is_empty() {
            paths.extend(group.versions.iter().map(|v| format!("/api/{v}")));
            continue;
        }
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{v}", group.name)));
    }
    for endpoint in health::ENDPOINTS {
        paths.push(format!("/{endpoint}"));
        paths.extend(server.check_names(endpoint).into_iter().map(|name| format!("/{endpoint}/{name}")));
    }
    let others = [
        "/flagz", "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/openid/v1/jwks", "/statusz", "/version",
    ];
    paths.extend(others.map(String::from));
    paths.sort();
    paths
}

async fn index(Extension(call): Extension<Call>) -> Response<Body> {
    let mut tree = Tree::object();
    tree.set(&["paths"], Tree::Array(paths(&call.server).into_iter().map(Tree::from).collect()));
    negotiate::answer_tree(&call.accept, StatusCode::OK, &tree)
}

/// What was built, as upstream's names for it have it.
const BUILD: [(&str, &str); 9] = [
    ("major", "1"),
    ("minor", "37"),
    ("gitVersion", GIT_VERSION),
    ("gitCommit", ""),
    ("gitTreeState", "clean"),
    ("buildDate", "1970-01-01T00:00:00Z"),
    ("goVersion", "rust"),
    ("compiler", "rustc"),
    ("platform", if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }),
];

/// The same as labels of a metric.
pub fn build_labels() -> String {
    let names = ["major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler", "platform"];
    names.iter().zip(BUILD).map(|(name, (_, value))| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(",")
}

async fn version(Extension(call): Extension<Call>) -> Response<Body> {
    let versions = [
        ("emulationMajor", "1"),
        ("emulationMinor", "37"),
        ("minCompatibilityMajor", "1"),
        ("minCompatibilityMinor", "36"),
    ];
    negotiate::answer_tree(&call.accept, StatusCode::OK, &Tree::Object(BUILD.into_iter().chain(versions).collect::<Object>()))
}

async fn metrics(Extension(call): Extension<Call>) -> Response<Body> {
    exposition(call.server.0.metrics.render(&call.server))
}

async fn slis(Extension(call): Extension<Call>) -> Response<Body> {
    let mut out = String::new();
    call.server.0.health.render(&mut out);
    crate::metrics::render_start(&mut out);
    exposition(out)
}

/// Prometheus' text format.
fn exposition(text: String) -> Response<Body> {
    let mut response = negotiate::text(StatusCode::OK, text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores"));
    response
}

fn bytes(media: &'static str, cache: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    if !cache.is_empty() {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    }
    response
}

async fn openid_configuration(Extension(call): Extension<Call>) -> Response<Body> {
    bytes("application/json", "public, max-age=3600", call.server.0.parts.tokens.openid_configuration())
}

async fn jwks(Extension(call): Extension<Call>) -> Response<Body> {
    bytes("application/jwk-set+json", "public, max-age=3600", call.server.0.parts.tokens.jwks())
}

async fn cacerts(Extension(call): Extension<Call>) -> Response<Body> {
    bytes("application/x-pem-file", "", call.server.0.config.server_ca.clone())
}

pub fn with_etag(headers: &HeaderMap, etag: &str, response: impl FnOnce() -> Response<Body>) -> Response<Body> {
    let value = HeaderValue::from_str(etag).ok();
    if headers.get(IF_NONE_MATCH).is_some_and(|asked| asked.as_bytes() == etag.as_bytes()) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        value.map(|v| response.headers_mut().insert(ETAG, v));
        return response;
    }
    let mut response = response();
    value.map(|v| response.headers_mut().insert(ETAG, v));
    response
}

/// A quoted digest of a document that never changes while the process runs.
pub fn etag(document: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, document);
    digest.as_ref()[..32].iter().fold(String::from("\""), |mut out, byte| {
        let _ = write!(out, "{byte:02X}"); // a String takes everything
        out
    }) + "\""
}

/// An OpenAPI document: large, so it is only made when the client does not hold it yet, and under a name once for all who do not. `state` names all it
/// is made of.
fn document(call: &Call, headers: &HeaderMap, media: &'static str, (name, state): (Option<&str>, &str), made: impl FnOnce() -> Bytes) -> Response<Body> {
    with_etag(headers, &format!("\"{state}\""), || {
        let Some(name) = name else { return media_answer(&call.accept, media, made()) };
        let kept = call.server.0.documents.get(name, state, made);
        let kept = kept.get().expect("it was made just now");
        let is_pretty = call.accept.pretty && media.starts_with("application/json");
        if is_pretty || !call.accept.gzip || kept.length <= negotiate::gzip::BYTES_MIN {
            return media_answer(&call.accept, media, kept.document());
        }
        let mut response = media_answer(&Accept::JSON, media, kept.compressed.clone());
        negotiate::say_gzip(&mut response);
        response
    })
}

/// Names the state of the custom kinds among `kinds` that `is_in`: their definitions and how often each has changed.
fn openapi_state(kinds: &Kinds, is_in: impl Fn(&api::Resource) -> bool) -> String {
    let mut state = ring::digest::Context::new(&ring::digest::SHA256);
    let mut any = false;
    for (name, defined) in kinds.definitions() {
        if defined.resources.iter().any(|resource| is_in(resource)) {
            any = true;
            state.update(format!("{name} {} {};", defined.uid, defined.generation).as_bytes());
        }
    }
    let built_in = api::openapi::hash();
    if !any {
        return built_in.to_owned();
    }
    let digest = state.finish();
    digest.as_ref()[..8].iter().fold(format!("{built_in}-"), |text, byte| format!("{text}{byte:02X}"))
}

fn media_answer(accept: &Accept, media: &'static str, document: Bytes) -> Response<Body> {
    let accept = Accept { media: negotiate::Media::Json, pretty: accept.pretty && media.starts_with("application/json"), ..*accept };
    let mut response = negotiate::answer(&accept, StatusCode::OK, document);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response.headers_mut().append(http::header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn answer_with_etag(headers: &HeaderMap, accept: &Accept, media: &'static str, document: Bytes) -> Response<Body> {
    with_etag(headers, &etag(&document), || media_answer(accept, media, document))
}

async fn openapi_v2(Extension(call): Extension<Call>, headers: HeaderMap) -> Response<Body> {
    // Clients ask with an `@`, which no media type may hold (RFC 6838), so the answer's name has none; Go's parser insists.
    const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let wants_protobuf = accept.contains(ASKED) || accept.contains(PROTOBUF);
    let kinds = call.server.0.parts.cache.kinds();
    let others = foreign_documents(&call.server);
    let state = merged_state(&kinds, &others);
    let is_held = headers.get(IF_NONE_MATCH).is_some_and(|asked| asked.to_str().is_ok_and(|etag| etag.contains(state.as_str())));
    let foreign = if is_held || others.is_empty() { Vec::new() } else { aggregation::foreign_openapi(&call.server).await };
    let documents = Documents { custom: kinds.custom(), foreign: &foreign };
    // What another server did not answer just now is missing, and is not to be missing for good.
    let name = |name| others.is_empty().then_some(name);
    if wants_protobuf {
        return document(&call, &headers, PROTOBUF, (name("v2p"), &format!("{state}-v2p")), || documents.v2_protobuf().into());
    }
    document(&call, &headers, "application/json", (name("v2"), &format!("{state}-v2")), || documents.v2().into())
}

async fn openapi_v3_index(Extension(call): Extension<Call>, headers: HeaderMap) -> Response<Body> {
    let kinds = call.server.0.parts.cache.kinds();
    let documents = Documents { custom: kinds.custom(), foreign: &[] };
    let foreign = foreign_documents(&call.server);
    let state = merged_state(&kinds, &foreign);
    let hash = |group: &str, version: &str| openapi_state(&kinds, |r| r.group == group && r.version == version);
    document(&call, &headers, "application/json", (Some("v3"), &format!("{state}-v3")), || documents.v3_index(hash, &foreign).into())
}

/// Names the state of a document that others have a part in.
fn merged_state(kinds: &Kinds, foreign: &[(String, String, String)]) -> String {
    let own = openapi_state(kinds, |_| true);
    if foreign.is_empty() {
        return own;
    }
    let others = etag(format!("{foreign:?}").as_bytes());
    format!("{own}-{}", &others.trim_matches('"')[..16])
}

/// Group, version and hash of the documents that aggregated servers have.
fn foreign_documents(server: &ApiServer) -> Vec<(String, String, String)> {
    let table = server.0.aggregation.table();
    let remote = table.values().filter(|registered| registered.backend.is_some());
    let found = remote.filter_map(|registered| {
        let document = server.0.aggregation.document(&registered.group, &registered.version)?;
        let hash = document.openapi_hash.clone()?;
        Some((registered.group.to_string(), registered.version.to_string(), hash))
    });
    found.collect()
}

async fn openapi_v3(Extension(call): Extension<Call>, Path(path): Path<String>, headers: HeaderMap) -> Response<Body> {
    let parts: Vec<&str> = path.split('/').collect();
    let (group, version) = match parts.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return rest::page_not_found(),
    };
    if let Some(backend) = call.server.0.aggregation.backend(group, version) {
        return match Document::openapi(&call.server.0.parts.cache, &backend).await {
            Some(made) => answer_with_etag(&headers, &call.accept, "application/json", made),
            None => rest::page_not_found(),
        };
    }
    let kinds = call.server.0.parts.cache.kinds();
    if kinds.of_version(group, version).is_empty() {
        return rest::page_not_found();
    }
    let state = openapi_state(&kinds, |r| r.group == group && r.version == version);
    let made = || Documents { custom: kinds.custom(), foreign: &[] }.v3(group, version).unwrap_or_default().into();
    let (name, state) = (format!("{group}/{version}"), format!("{state}-{group}-{version}"));
    let mut response = document(&call, &headers, "application/json", (Some(&name), &state), made);
    // A path with the document's hash can be kept for good.
    if call.query.nonempty("hash").is_some() {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        response.headers_mut().insert(EXPIRES, HeaderValue::from_static("Thu, 31 Dec 2099 23:59:59 GMT"));
    }
    response
}

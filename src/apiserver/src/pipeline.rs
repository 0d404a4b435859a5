//! What every request passes before its handler: who asks, as whom, how many at once, may they, how long.
//!
//! Models k8s.io/apiserver/pkg/server/config.go DefaultBuildHandlerChain and pkg/endpoints/filters.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody as _};
use futures::StreamExt as _;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};

use crate::audit::Entry;
use crate::auth::{Attributes, Chain, Credential, UserInfo, websocket_token};
use crate::extension::Extension;
use crate::flow::Class;
use crate::negotiate::{self, Accept};
use crate::request::{Query, RequestInfo};
use crate::server::ApiServer;
use crate::status::Status;
use crate::rest::body;
use crate::{fixed, impersonation, metrics, rest, subresource};

const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// A request from the network.
pub async fn from_socket(
    server: ApiServer,
    chain: Arc<Chain>,
    peer: SocketAddr,
    mut request: Request<Body>,
) -> Response<Body> {
    let (began, shows_token) = (Instant::now(), request.headers().contains_key(AUTHORIZATION));
    let found = authenticate(&server, &chain, &mut request).await;
    server.0.metrics.access.authenticated(found.as_ref().ok(), shows_token, began.elapsed());
    let user = match found {
        Ok(user) => user,
        Err(status) => {
            tracing::debug!(%peer, "request refused: {}", status.message);
            let query = Query::parse(request.uri());
            record_refusal(&server, &request, &query, !chain.is_empty(), peer);
            body::drain(request.body_mut()).await;
            let mut response = negotiate::answer_status(&Accept::plain(request.headers(), &query), &Status::unauthorized());
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
    };
    // Nobody further down needs the token, and proxies must not pass it on.
    request.headers_mut().remove(AUTHORIZATION);
    handle(server, Arc::new(user), request, Some(peer)).await
}

/// What the audit log keeps of a request whose sender was not believed.
/// Models k8s.io/apiserver/pkg/endpoints/filters/authn_audit.go.
fn record_refusal(server: &ApiServer, request: &Request<Body>, query: &Query, has_certificate: bool, peer: SocketAddr) {
    let Some(audit) = &server.0.parts.audit else { return };
    let (nobody, info) = (UserInfo::default(), RequestInfo::new(request.method(), request.uri(), query));
    let id = uuid::Uuid::new_v4().to_string();
    let Some(entry) = audit.begin(&id, &attributes(&nobody, &info), request, &peer.ip().to_string()) else { return };
    let shown = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("").trim();
    let scheme = shown.split_once(' ').map(|(scheme, _)| scheme.to_ascii_lowercase()).filter(|scheme| scheme == "basic" || scheme == "bearer");
    let token = query.nonempty("access_token").map(|_| "access_token".to_owned());
    let attempted: Vec<String> = scheme.into_iter().chain(token).chain(has_certificate.then(|| "x509".to_owned())).collect();
    entry.refused(&match attempted.is_empty() {
        true => "Authentication failed, no credentials provided".to_owned(),
        false => format!("Authentication failed, attempted: {}", attempted.join(", ")),
    });
}

/// A request from within the process.
pub async fn as_user(server: ApiServer, user: Arc<UserInfo>, request: Request<Body>) -> Response<Body> {
    let user = if needs_group(&user) { Arc::new(grouped((*user).clone())) } else { user };
    handle(server, user, request, None).await
}

fn needs_group(user: &UserInfo) -> bool {
    user.name != "system:anonymous" && !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED)
}

/// Models pkg/authentication/group/authenticated_group_adder.go.
fn grouped(mut user: UserInfo) -> UserInfo {
    if needs_group(&user) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

async fn authenticate(
    server: &ApiServer,
    chain: &Chain,
    request: &mut Request<Body>,
) -> Result<UserInfo, Status> {
    let authenticator = &server.0.parts.authenticator;
    let mut is_refused = false;
    if !chain.is_empty() {
        match authenticator.proxied(chain, request.headers_mut()) {
            Ok(Some(found)) => return Ok(grouped(found.user)),
            Ok(None) => {}
            Err(why) => tracing::debug!(%why, "no proxy's certificate"),
        }
        match authenticator.authenticate(Credential::Certificates(chain)).await {
            Ok(Some(found)) => return Ok(grouped(found.user)),
            Ok(None) => {}
            Err(why) => {
                is_refused = true;
                tracing::debug!(%why, "client certificate refused");
            }
        }
    }
    let path = request.uri().path();
    let header = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("").trim();
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    if let Some(token) = token.filter(|t| !t.is_empty()) {
        return match authenticator.authenticate(Credential::Token { token, audiences: &[] }).await {
            Ok(Some(found)) => Ok(grouped(found.user)),
            Ok(None) => Err(Status::unauthorized()),
            Err(why) => {
                tracing::debug!(%why, "bearer token refused");
                Err(Status::unauthorized())
            }
        };
    }
    match websocket_token::take(request.headers()) {
        Ok(None) => {}
        Ok(Some((token, others))) => {
            return match authenticator.authenticate(Credential::Token { token: &token, audiences: &[] }).await {
                Ok(Some(found)) => {
                    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, others);
                    Ok(grouped(found.user))
                }
                Ok(None) => Err(Status::unauthorized()),
                Err(why) => {
                    tracing::debug!(%why, "bearer token of a WebSocket refused");
                    Err(Status::unauthorized())
                }
            };
        }
        Err(why) => {
            is_refused = true;
            tracing::debug!(%why, "bearer token of a WebSocket refused");
        }
    }
    // Who shows something and is not believed is not treated as if he had shown nothing. Machines that join read the authority before they can
    // know whom they ask, whatever else is closed.
    if !is_refused && (path == fixed::CACERTS || authenticator.lets_anonymous_in(path)) {
        return Ok(UserInfo::anonymous());
    }
    Err(Status::unauthorized())
}

/// What is known of a request on its way.
struct Passage {
    /// Comes from the network, and so takes its turn.
    is_remote: bool,
    is_long: bool,
    /// In the audit log.
    entry: Option<Entry>,
    class: Option<Class>,
}

/// `peer`: who sent a request from the network.
async fn handle(server: ApiServer, user: Arc<UserInfo>, mut request: Request<Body>, peer: Option<SocketAddr>) -> Response<Body> {
    let started = Instant::now();
    let audit_id = uuid::Uuid::new_v4().to_string();
    let query = Query::parse(request.uri());
    let info = RequestInfo::new(request.method(), request.uri(), &query);
    let accept = Accept::plain(request.headers(), &query);
    let is_long = is_long_running(&info, &query);
    let entry = server.0.parts.audit.as_ref().and_then(|audit| {
        let source = peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
        audit.begin(&audit_id, &attributes(&user, &info), &request, &source)
    });
    let mut passage = Passage { is_remote: peer.is_some(), is_long, entry, class: None };
    let request_bytes = request.body().size_hint().exact();
    let long = is_long.then(|| Arc::new(server.0.metrics.long(&server.0.parts.cache, &info, &query)));
    // Connections that are taken over keep it until they end.
    if let Some(long) = &long {
        request.extensions_mut().insert(long.clone());
    }
    let notes = passage.entry.as_ref().map(Entry::notes);
    let (result, elsewhere) = metrics::with_waits(async {
        match (record(&server, passage.entry.as_mut(), &mut request, is_long).await, notes) {
            (Ok(()), None) => admit_and_run(&server, user, &info, &query, &mut request, &mut passage).await,
            (Ok(()), Some(notes)) => notes.of(admit_and_run(&server, user, &info, &query, &mut request, &mut passage)).await,
            (Err(status), _) => Err(status),
        }
    })
    .await;
    let failure = result.as_ref().err().filter(|_| passage.entry.is_some()).cloned();
    let mut response = result.unwrap_or_else(|status| {
        if status.code >= 500 {
            tracing::warn!(path = %info.path, verb = info.verb, code = status.code, "{}", status.message);
        }
        negotiate::answer_status(&accept, &status)
    });
    if let Ok(value) = HeaderValue::from_str(&audit_id) {
        response.headers_mut().insert(HeaderName::from_static("audit-id"), value);
    }
    if let Some(class) = &passage.class {
        class.tell(&mut response);
    }
    if *request.method() == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    let answer_bytes = response.extensions().get::<metrics::AnswerBytes>().map(|bytes| bytes.0).or_else(|| response.body().size_hint().exact());
    let finished =
        metrics::Finished { code: response.status(), took: started.elapsed(), elsewhere, request_bytes, answer_bytes, is_long };
    server.0.metrics.finished(&server.0.parts.cache, &info, &query, &finished);
    server.0.bursts.passed(request_bytes.unwrap_or(0) + answer_bytes.unwrap_or(0));
    if let Some(long) = long.filter(|_| response.status() == StatusCode::OK) {
        response = response.map(|body| while_read(body, long));
    }
    match passage.entry {
        Some(entry) => entry.finish(response, failure.as_ref(), is_long).await,
        None => response,
    }
}

/// The same body, which holds `held` until it ends.
fn while_read(body: Body, held: impl Send + 'static) -> Body {
    Body::from_stream(body.into_data_stream().inspect(move |_| {
        let _ = &held;
    }))
}

/// The first entry in the audit log. Bodies of requests that go on for long are streams, and are not read here.
async fn record(server: &ApiServer, entry: Option<&mut Entry>, request: &mut Request<Body>, is_long: bool) -> Result<(), Status> {
    let Some(entry) = entry else { return Ok(()) };
    entry.request_received();
    if is_long {
        return Ok(());
    }
    entry.request_body(request, server.0.config.body_bytes_max).await
}

fn is_long_running(info: &RequestInfo, query: &Query) -> bool {
    info.is_resource
        && (info.verb == "watch" || (subresource::is_stream(&info.subresource) && (info.subresource != "log" || query.flag("follow"))))
}

async fn admit_and_run(
    server: &ApiServer,
    user: Arc<UserInfo>,
    info: &RequestInfo,
    query: &Query,
    request: &mut Request<Body>,
    passage: &mut Passage,
) -> Result<Response<Body>, Status> {
    let is_long = passage.is_long;
    let user = match impersonation::wanted(request.headers_mut())? {
        None => user,
        Some(wanted) => {
            let found = impersonation::authorize(&*server.0.parts.authorizer, &attributes(&user, info), wanted).await?;
            if let Some(entry) = passage.entry.as_mut() {
                entry.impersonated(&found.user, &found.constraint);
            }
            Arc::new(found.user)
        }
    };
    let limit = query.nonempty("timeout").and_then(go_duration).map_or(server.0.config.request_timeout, |t| t.min(server.0.config.request_timeout));
    let late = || Status::timeout("request did not complete within the allotted timeout", 0);
    let mut _early = None;
    if passage.is_remote && !is_long && !request.body().is_end_stream() {
        let arrived = tokio::time::timeout(limit, body::arrive(request.body_mut(), server.0.config.body_bytes_max)).await;
        _early = Some(arrived.map_err(|_| late())?);
    }
    let mut seat = None;
    if passage.is_remote && (!is_long || info.verb == "watch") {
        let cache = &server.0.parts.cache;
        let watchers = || cache.resource(&info.group, &info.version, &info.resource).map_or(0, |resource| server.0.metrics.watching(&resource));
        let began = Instant::now();
        let entered = server.0.flow.enter(&user, info, query, cache, watchers, &server.0.metrics.load).await;
        metrics::waited(began.elapsed());
        match entered {
            Ok((class, taken)) => (passage.class, seat) = (Some(class), Some(taken)),
            Err(turned_away) => {
                body::drain(request.body_mut()).await;
                return Ok(*turned_away);
            }
        }
    }
    // Until the answer is there; of a watch, until it has begun.
    let _seat = seat;
    let _runs = (!is_long).then(|| server.0.metrics.load.runs(info.verb));
    if let Err(status) = authorize(server, &user, info, passage.entry.as_mut()).await {
        body::drain(request.body_mut()).await;
        return Err(status);
    }
    let parts = request_parts(request);
    let work = run(server.clone(), user, info.clone(), query.clone(), parts);
    if is_long {
        return work.await;
    }
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

/// The request without what the caller still needs of it.
fn request_parts(request: &mut Request<Body>) -> Request<Body> {
    let mut taken = Request::new(std::mem::replace(request.body_mut(), Body::empty()));
    *taken.method_mut() = request.method().clone();
    *taken.uri_mut() = request.uri().clone();
    *taken.version_mut() = request.version();
    *taken.headers_mut() = std::mem::take(request.headers_mut());
    *taken.extensions_mut() = std::mem::take(request.extensions_mut());
    taken
}

async fn run(server: ApiServer, user: Arc<UserInfo>, info: RequestInfo, query: Query, request: Request<Body>) -> Result<Response<Body>, Status> {
    if let Some(backend) = server.0.aggregation.backend_of(&info) {
        let deadline = (!is_long_running(&info, &query)).then(|| tokio::time::Instant::now() + server.0.config.request_timeout);
        return backend.pass_on(&server, &user, request, deadline).await;
    }
    if info.is_resource {
        return rest::handle(server, user, info, query, request).await;
    }
    if let Some(extension) = extension(&server, &info) {
        return extension.answer(&user, request);
    }
    fixed::handle(server, info, query, request).await
}

fn extension<'a>(server: &'a ApiServer, info: &RequestInfo) -> Option<&'a Arc<dyn Extension>> {
    server.0.parts.extensions.iter().find(|extension| !info.is_resource && extension.path() == info.path)
}

/// `30s`, `1m30s`, `500ms`.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        total += number
            * match &rest[digits..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (total > 0.0 && total.is_finite()).then(|| Duration::from_secs_f64(total.min(86_400.0)))
}

pub fn attributes<'a>(user: &'a UserInfo, info: &'a RequestInfo) -> Attributes<'a> {
    Attributes {
        user,
        verb: info.verb,
        api_group: &info.group,
        api_version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        resource_request: info.is_resource,
        path: &info.path,
        fields: &info.fields,
        labels: &info.labels,
    }
}

async fn authorize(server: &ApiServer, user: &UserInfo, info: &RequestInfo, entry: Option<&mut Entry>) -> Result<(), Status> {
    if !info.is_resource && info.path == fixed::CACERTS && matches!(info.verb, "get" | "head") {
        return Ok(());
    }
    if extension(server, info).is_some() {
        return Ok(());
    }
    let attributes = attributes(user, info);
    let began = Instant::now();
    let decision = server.0.parts.authorizer.decide(&attributes).await;
    server.0.metrics.access.authorized(&decision, began.elapsed());
    if let Some(entry) = entry {
        entry.authorized(decision.allowed(), &decision.reason);
    }
    if decision.allowed() {
        return Ok(());
    }
    if !decision.failure.is_empty() {
        return Err(Status::internal(format!("Internal Server Error: {:?}: {}", info.path, decision.failure)));
    }
    Err(forbidden(&attributes, &decision.reason))
}

/// Models k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go forbiddenMessage.
pub fn forbidden(a: &Attributes, reason: &str) -> Status {
    let user = format!("User \"{}\"", a.user.name);
    let mut why = if !a.resource_request {
        format!("{user} cannot {} path \"{}\"", a.verb, a.path)
    } else {
        let resource = if a.subresource.is_empty() { a.resource.to_owned() } else { format!("{}/{}", a.resource, a.subresource) };
        let scope = if a.namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace \"{}\"", a.namespace) };
        format!("{user} cannot {} resource \"{resource}\" in API group \"{}\" {scope}", a.verb, a.api_group)
    };
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    Status::forbidden(a.api_group, a.resource, a.name, &why)
}

/// Answers `405` for methods a fixed path does not know.
pub fn method_not_allowed() -> Response<Body> {
    negotiate::text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n")
}

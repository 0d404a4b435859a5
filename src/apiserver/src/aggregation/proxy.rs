//! Passes one request on to the server behind an APIService.
//!
//! Models kube-aggregator/pkg/apiserver/handler_proxy.go and apimachinery/pkg/util/proxy/upgradeaware.go. Bodies are streamed both ways and
//! never held; an answer that is a redirect is refused, so nobody is sent where the backend likes under the server's name.
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, LOCATION, UPGRADE};
use futures::stream;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::backend::reason;
use super::{Backend, identity};
use crate::auth::UserInfo;
use crate::metrics::Long;
use crate::negotiate;
use crate::server::ApiServer;
use crate::status::Status;
use crate::subresource::relay;

/// Discovery is what clients do first: a backend that hangs must not make them wait.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);

fn unavailable() -> Response<Body> {
    negotiate::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n")
}

impl Backend {
    /// `deadline`: until when the whole answer must have come; watches have none.
    pub async fn pass_on(
        &self,
        server: &ApiServer,
        user: &UserInfo,
        request: Request<Body>,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, Status> {
        if !self.is_available {
            return Ok(unavailable());
        }
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return Ok(negotiate::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
        };
        let address = match self.endpoint(&server.0.parts.cache) {
            Ok(address) => address,
            Err(error) => {
                tracing::warn!(namespace = self.namespace(), service = self.service(), error, "an aggregated server has no address");
                return Ok(unavailable());
            }
        };
        let (mut parts, body) = request.into_parts();
        let is_discovery = parts.uri.path().trim_matches('/') == self.root().trim_matches('/');
        let counted = parts.extensions.remove::<Arc<Long>>();
        let client_side = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let upgrade = relay::is_upgrade(&parts.headers).then(|| parts.headers.get(UPGRADE).cloned()).flatten();
        relay::strip(&mut parts.headers);
        parts.headers.remove(AUTHORIZATION);
        parts.headers.remove(HOST);
        if let Some(protocol) = upgrade.clone() {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            parts.headers.insert(UPGRADE, protocol);
        }
        identity::set(&mut parts.headers, user);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("https://{address}{path}").parse().map_err(|_| Status::bad_request("invalid path"))?;
        let mut outgoing = Request::new(body);
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = parts.headers;
        let exchange = client.request(outgoing);
        let result = match is_discovery {
            true => match tokio::time::timeout(DISCOVERY_TIMEOUT, exchange).await {
                Ok(result) => result.map_err(|error| reason(&error)),
                Err(_) => Err("context deadline exceeded".to_owned()),
            },
            false => exchange.await.map_err(|error| reason(&error)),
        };
        let answer = match result {
            Ok(answer) => answer,
            Err(why) => return Ok(negotiate::text(StatusCode::SERVICE_UNAVAILABLE, format!("error trying to reach service: {why}\n"))),
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return relay::upgraded(answer, client_side.filter(|_| upgrade.is_some()), counted, server.0.shutdown.clone());
        }
        if answer.status().is_redirection() && answer.headers().contains_key(LOCATION) {
            let why = "the backend attempted to redirect this request, which is not permitted";
            return Ok(negotiate::text(StatusCode::BAD_GATEWAY, why));
        }
        let (mut parts, body) = answer.into_parts();
        relay::strip(&mut parts.headers);
        Ok(Response::from_parts(parts, until(body, deadline)))
    }
}

/// The body, or what came of it until the deadline: a backend that stops in the middle must not hold its reader for good.
fn until(body: Incoming, deadline: Option<Instant>) -> Body {
    let Some(deadline) = deadline else { return Body::new(body) };
    let frames = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(frame) => Some((frame?.map_err(axum::Error::new), Some(body))),
            Err(elapsed) => Some((Err(axum::Error::new(elapsed)), None)),
        }
    });
    Body::new(StreamBody::new(frames))
}

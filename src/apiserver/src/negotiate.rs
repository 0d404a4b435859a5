//! Which form of an answer a client asks for, and writing it.
//!
//! Models k8s.io/apiserver/pkg/endpoints/handlers/negotiation. JSON, YAML and protobuf; CBOR is off by default upstream and not served here.
pub mod accept;
pub mod gzip;

use api::protobuf;
use api::tree::Tree;
use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, VARY, WARNING};
use http::{Response, StatusCode};

use crate::request::Query;
use crate::status::Status;

pub use accept::clauses;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
/// What bodies and answers are.
pub const ACCEPTED: [&str; 3] = [JSON, YAML, protobuf::MEDIA_TYPE];
/// What a watch is answered in.
pub const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    /// In the order in which `*/*` takes them.
    pub const ALL: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];

    pub fn name(self) -> &'static str {
        match self {
            Media::Json => JSON,
            Media::Yaml => YAML,
            Media::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
}

/// Another form of the same objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    None,
    /// `meta.k8s.io/<version>` Table.
    Table { version: &'static str },
    /// PartialObjectMetadata, or its List.
    Metadata { version: &'static str, of_list: bool },
}

/// What an endpoint has to offer.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Table and PartialObjectMetadata.
    pub transforms: bool,
    /// Objects themselves in protobuf: custom ones have no such form, but their metadata has.
    pub protobuf: bool,
    /// A stream of events, which YAML cannot be.
    pub stream: bool,
}

impl Offer {
    /// Of what exists in no other form: Status, discovery.
    pub const PLAIN: Offer = Offer { transforms: false, protobuf: true, stream: false };

    /// The transformation that `clause` asks for; `None`: not to be had in this form.
    fn transform(self, media: Media, clause: &accept::Clause) -> Option<Transform> {
        let parameter = |name| clause.parameter(name);
        let (kind, group, version) = (parameter("as"), parameter("g"), parameter("v"));
        if kind.is_none() && group.is_none() && version.is_none() {
            return (self.protobuf || media != Media::Protobuf).then_some(Transform::None);
        }
        let version = match version {
            Some("v1") => "v1",
            Some("v1beta1") => "v1beta1",
            _ => return None,
        };
        match (kind, group) {
            _ if !self.transforms => None,
            // Upstream gave Table no protobuf form.
            (Some("Table"), Some("meta.k8s.io")) if media != Media::Protobuf => Some(Transform::Table { version }),
            (Some(kind @ ("PartialObjectMetadata" | "PartialObjectMetadataList")), Some("meta.k8s.io")) => {
                Some(Transform::Metadata { version, of_list: kind.ends_with("List") })
            }
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Accept {
    pub media: Media,
    pub transform: Transform,
    pub pretty: bool,
    pub gzip: bool,
}

impl Accept {
    pub const JSON: Accept = Accept { media: Media::Json, transform: Transform::None, pretty: false, gzip: false };

    /// For answers that exist in no other form (Status, discovery).
    pub fn plain(headers: &HeaderMap, query: &Query) -> Self {
        Self::parse(headers, query, Offer::PLAIN).unwrap_or(Self::JSON)
    }

    pub fn parse(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Self, Status> {
        let base = Self { pretty: is_pretty(headers, query), gzip: takes_gzip(headers), ..Self::JSON };
        // Upstream reads the first header only.
        let header = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        if header.is_empty() {
            return Ok(base);
        }
        for clause in accept::clauses(header) {
            for media in Media::ALL.into_iter().filter(|media| clause.covers(media.name())) {
                if clause.parameter("stream").is_some_and(|stream| stream != "watch" || media == Media::Yaml) {
                    continue;
                }
                let Some(transform) = offer.transform(media, &clause) else { continue };
                if offer.stream && media == Media::Yaml {
                    return Err(Status::not_acceptable(&["application/json;stream=watch", PROTOBUF_STREAM]));
                }
                let pretty = base.pretty || clause.parameter("pretty") == Some("1");
                return Ok(Self { media, transform, pretty, ..base });
            }
        }
        Err(Status::not_acceptable(if offer.stream { &["application/json;stream=watch", PROTOBUF_STREAM] } else { &ACCEPTED }))
    }

    /// Whether objects are answered as they are stored.
    pub fn is_plain_json(&self) -> bool {
        self.media == Media::Json && self.transform == Transform::None && !self.pretty
    }
}

/// By the query, or because a human seems to look.
fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    match query.nonempty("pretty") {
        Some(value) => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => headers
            .get(http::header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|agent| ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))),
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.split(',').any(|encoding| encoding.trim() == "gzip"))
}

/// The media type of a body: `application/json` when the header is missing.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match value.split(';').next().unwrap_or("").trim() {
        "" => JSON,
        media => media,
    }
}

/// Answers JSON bytes in the form that was asked for; what no kind stands behind is answered in JSON.
pub fn answer(accept: &Accept, code: StatusCode, json: Bytes) -> Response<Body> {
    let (bytes, media) = match accept.media {
        Media::Yaml => (Bytes::from(yaml(&json)), YAML),
        Media::Protobuf => match protobuf::encode(&json) {
            Ok(bytes) => (bytes.into(), protobuf::MEDIA_TYPE),
            Err(protobuf::EncodeError::UnknownKind { .. }) => (json, JSON),
            Err(error) => {
                tracing::error!(%error, "an answer has no protobuf form");
                (json, JSON)
            }
        },
        Media::Json if accept.pretty => (Bytes::from(pretty(&json)), JSON),
        Media::Json => (json, JSON),
    };
    let response = Response::builder().status(code).header(CONTENT_TYPE, media).header(http::header::CACHE_CONTROL, "no-cache, private");
    if accept.gzip && bytes.len() > gzip::BYTES_MIN {
        let response = response.header(CONTENT_ENCODING, "gzip").header(VARY, "Accept-Encoding");
        return finish(response, gzip::whole(&bytes));
    }
    finish(response, bytes)
}

/// Of an answer whose body is compressed already.
pub fn say_gzip(response: &mut Response<Body>) {
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

fn finish(response: http::response::Builder, bytes: Bytes) -> Response<Body> {
    response.body(Body::from(bytes)).expect("constant header names and values are valid")
}

pub fn answer_tree(accept: &Accept, code: StatusCode, tree: &Tree) -> Response<Body> {
    answer(accept, code, tree.to_json().into())
}

pub fn answer_status(accept: &Accept, status: &Status) -> Response<Body> {
    let mut response = answer_tree(accept, status.http_code(), &status.to_tree());
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    add_warnings(&mut response, &status.warnings);
    response
}

pub fn text(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// `Warning: 299 - "text"`, one header each; at most 4 kB of them, as upstream.
pub fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let mut total = 0;
    let mut seen: Vec<&str> = Vec::new();
    for warning in warnings {
        if seen.contains(&warning.as_str()) {
            continue;
        }
        seen.push(warning);
        let clean: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        total += quoted.len();
        if total > 4096 {
            break;
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

fn yaml(json: &[u8]) -> String {
    match serde_json::from_slice::<Tree>(json) {
        Ok(tree) => serde_saphyr::to_string(&tree).unwrap_or_else(|_| String::from_utf8_lossy(json).into_owned()),
        Err(_) => String::from_utf8_lossy(json).into_owned(),
    }
}

fn pretty(json: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Tree>(json).and_then(|tree| serde_json::to_vec_pretty(&tree)) {
        Ok(mut text) => {
            text.push(b'\n');
            text
        }
        Err(_) => json.to_vec(),
    }
}

//! Which form of an answer a client asks for, and writing it.
//!
//! Models k8s.io/apiserver/pkg/endpoints/handlers/negotiation. JSON and YAML; protobuf is passed over, so clients that also accept JSON get JSON.
use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, VARY, WARNING};
use http::{Response, StatusCode};

use api::tree::Tree;

use crate::request::Query;
use crate::status::Status;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
/// Answers larger than this are compressed for clients that accept it (as upstream: 128 KiB).
const COMPRESS_BYTES_MIN: usize = 128 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
}

/// Another form of the same objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    None,
    /// `meta.k8s.io/<version>` Table.
    Table { version: &'static str },
    /// PartialObjectMetadata, or its List.
    Metadata { version: &'static str },
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
        Self::parse(headers, query, false).unwrap_or(Self::JSON)
    }

    /// `transforms`: whether Table and PartialObjectMetadata may be answered.
    pub fn parse(headers: &HeaderMap, query: &Query, transforms: bool) -> Result<Self, Status> {
        let header = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",");
        let pretty = match query.get("pretty") {
            Some(value) => !matches!(value, "0" | "false"),
            None => headers
                .get(http::header::USER_AGENT)
                .and_then(|v| v.to_str().ok())
                .is_some_and(|agent| ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))),
        };
        let gzip = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
        let base = Self { media: Media::Json, transform: Transform::None, pretty, gzip };
        if header.trim().is_empty() {
            return Ok(base);
        }
        let mut clauses: Vec<(f32, &str)> = header.split(',').map(|clause| (quality(clause), clause)).collect();
        clauses.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable
        for (_, clause) in clauses {
            let mut parts = clause.split(';').map(str::trim);
            let media = match parts.next().unwrap_or("") {
                "application/json" | "application/*" | "*/*" => Media::Json,
                "application/yaml" => Media::Yaml,
                _ => continue,
            };
            let (mut kind, mut group, mut version) = ("", "", "");
            for part in parts {
                match part.split_once('=') {
                    Some(("as", value)) => kind = value,
                    Some(("g", value)) => group = value,
                    Some(("v", value)) => version = value,
                    _ => {}
                }
            }
            let version = match version {
                "v1" => "v1",
                "v1beta1" => "v1beta1",
                _ => "",
            };
            let transform = match (kind, group) {
                ("", _) => Transform::None,
                ("Table", "meta.k8s.io") if transforms && !version.is_empty() => Transform::Table { version },
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") if transforms && !version.is_empty() => {
                    Transform::Metadata { version }
                }
                _ => continue,
            };
            return Ok(Self { media, transform, ..base });
        }
        Err(Status::not_acceptable(&[JSON, YAML]))
    }
}

fn quality(clause: &str) -> f32 {
    clause.split(';').find_map(|part| part.trim().strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0)
}

/// The media type of a body: `application/json` when the header is missing.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match value.split(';').next().unwrap_or("").trim() {
        "" => JSON,
        media => media,
    }
}

/// Answers JSON bytes in the form that was asked for.
pub fn answer(accept: &Accept, code: StatusCode, json: Bytes) -> Response<Body> {
    let (bytes, media) = match accept.media {
        Media::Yaml => (Bytes::from(yaml(&json)), YAML),
        Media::Json if accept.pretty => (Bytes::from(pretty(&json)), JSON),
        Media::Json => (json, JSON),
    };
    let mut response = Response::builder().status(code).header(CONTENT_TYPE, media).header(http::header::CACHE_CONTROL, "no-cache, private");
    if accept.gzip && bytes.len() >= COMPRESS_BYTES_MIN {
        response = response.header(CONTENT_ENCODING, "gzip").header(VARY, "Accept-Encoding");
        return finish(response, gzip(&bytes));
    }
    finish(response, bytes)
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

fn gzip(bytes: &[u8]) -> Bytes {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    encoder.write_all(bytes).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail").into()
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

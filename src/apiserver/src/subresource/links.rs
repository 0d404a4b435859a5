//! Links of a proxied page lead back through the proxy.
//!
//! Models apimachinery/pkg/util/proxy/transport.go: in an answer of type text/html, attributes that hold a URL on the same host get the
//! proxy's path in front; so does a `Location`. A page larger than [`PAGE_BYTES_MAX`] or in an encoding is passed on as it is.
use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http_body_util::BodyExt;

const PAGE_BYTES_MAX: usize = 4 << 20;
/// Attributes that hold one URL (HTML's index of attributes).
const URL_ATTRIBUTES: [&str; 16] = [
    "href",
    "src",
    "action",
    "formaction",
    "cite",
    "background",
    "longdesc",
    "usemap",
    "codebase",
    "data",
    "classid",
    "profile",
    "icon",
    "manifest",
    "poster",
    "archive",
];

/// `prefix` is the proxy's path without a slash at its end; `backend` the authority that was asked.
pub async fn rewrite(mut response: Response<Body>, prefix: &str, backend: &str) -> Response<Body> {
    if let Some(location) = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).and_then(|l| through(l, prefix, backend))
        && let Ok(location) = HeaderValue::from_str(&location)
    {
        response.headers_mut().insert(LOCATION, location);
    }
    let is_html = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|t| t.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("text/html")));
    let length = response.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if !is_html || response.headers().contains_key(CONTENT_ENCODING) || length.is_some_and(|l| l > PAGE_BYTES_MAX) {
        return response;
    }
    let (mut parts, mut body) = response.into_parts();
    let mut page = Vec::new();
    while page.len() <= PAGE_BYTES_MAX {
        match body.frame().await {
            Some(Ok(frame)) => page.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
            Some(Err(_)) | None => {
                let page = self::page(&page, prefix, backend);
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(page.len()));
                return Response::from_parts(parts, Body::from(page));
            }
        }
    }
    // Too large after all: what was read, then the rest.
    let head = futures::stream::iter([Ok::<_, axum::Error>(Bytes::from(page))]);
    Response::from_parts(parts, Body::from_stream(futures::StreamExt::chain(head, body.into_data_stream())))
}

/// The URL as seen from outside, if it leads to the backend and not yet through the proxy.
fn through(url: &str, prefix: &str, backend: &str) -> Option<String> {
    let path = match url.split_once("://") {
        Some(("http" | "https", rest)) => {
            let rest = rest.strip_prefix(backend)?;
            if rest.is_empty() { "/" } else { rest }
        }
        Some(_) => return None,
        None => url,
    };
    let absolute = path.starts_with('/') && !path.starts_with("//");
    (absolute && !path.starts_with(&format!("{prefix}/"))).then(|| format!("{prefix}{path}"))
}

fn page(page: &[u8], prefix: &str, backend: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(start) = memchr::memchr(b'<', rest) {
        let (text, tag) = rest.split_at(start);
        out.extend_from_slice(text);
        if let Some(comment) = tag.strip_prefix(b"<!--") {
            let end = memchr::memmem::find(comment, b"-->").map_or(tag.len(), |at| at + 7);
            out.extend_from_slice(&tag[..end]);
            rest = &tag[end..];
            continue;
        }
        let end = tag_end(tag);
        self::tag(&tag[..end], prefix, backend, &mut out);
        rest = &tag[end..];
    }
    out.extend_from_slice(rest);
    out
}

/// Behind the `>` that ends the tag, which quotes may hide.
fn tag_end(tag: &[u8]) -> usize {
    let mut quote = None;
    for (at, byte) in tag.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(q), b) if q == *b => quote = None,
            _ => {}
        }
    }
    tag.len()
}

/// Copies a tag, with its quoted URL attributes rewritten.
fn tag(tag: &[u8], prefix: &str, backend: &str, out: &mut Vec<u8>) {
    let mut done = 0;
    let mut at = 0;
    while let Some(equals) = memchr::memchr(b'=', &tag[at..]).map(|i| at + i) {
        let name_start =
            tag[..equals].iter().rposition(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'<')).map_or(0, |i| i + 1);
        let name = tag[name_start..equals].to_ascii_lowercase();
        let Some(quote) = tag.get(equals + 1).copied().filter(|q| matches!(q, b'"' | b'\'')) else {
            at = equals + 1;
            continue;
        };
        let value_start = equals + 2;
        let Some(value_end) = memchr::memchr(quote, &tag[value_start..]).map(|i| value_start + i) else { break };
        let value = std::str::from_utf8(&tag[value_start..value_end]).ok();
        if URL_ATTRIBUTES.iter().any(|a| a.as_bytes() == name)
            && let Some(url) = value.and_then(|v| through(v.trim(), prefix, backend))
        {
            out.extend_from_slice(&tag[done..value_start]);
            out.extend_from_slice(url.as_bytes());
            done = value_end;
        }
        at = value_end + 1;
    }
    out.extend_from_slice(&tag[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: &str, to: &str) {
        assert_eq!(String::from_utf8(page(from.as_bytes(), "/api/p", "10.0.0.1:80")).expect("text"), to);
    }

    #[test]
    fn urls_of_the_backend_lead_through_the_proxy() {
        check(r#"<a href="/x">t</a>"#, r#"<a href="/api/p/x">t</a>"#);
        check(r#"<img alt='/y' src='/y?z=1'/>"#, r#"<img alt='/y' src='/api/p/y?z=1'/>"#);
        check(r#"<a href="http://10.0.0.1:80/x">"#, r#"<a href="/api/p/x">"#);
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for text in [
            r#"<a href="x">"#,
            r#"<a href="http://other/x">"#,
            r#"<a href="//other/x">"#,
            r#"<a href="/api/p/x">"#,
            "a < b = \"/c\"",
            r#"<!-- <a href="/x"> -->"#,
            r#"<p title="<a href='/x'>">"#,
            "<",
            r#"<a href="/x"#,
            "<a href=/x>",
        ] {
            check(text, text);
        }
    }
}

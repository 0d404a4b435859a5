//! What a path asks for.
//!
//! Models k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.
use api::selector::{FieldSelector, LabelSelector};
use http::{Method, Uri};

/// `/apis/GROUP/VERSION/namespaces/NS/RESOURCE/NAME/SUBRESOURCE/...`, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub path: String,
    /// False for `/version`, `/apis/apps/v1` (discovery) and all that is not below a group version.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, ...; of other requests the method in lower case.
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// What a list, watch or deletecollection asks to be limited to; everything where that cannot be read (and is refused later).
    pub fields: FieldSelector,
    pub labels: LabelSelector,
    /// What follows the subresource (`proxy/a/b`), with its leading slash; `""` when nothing does.
    pub rest: String,
}

impl RequestInfo {
    pub fn new(method: &Method, uri: &Uri, query: &Query) -> Self {
        let path = uri.path();
        let mut info = Self { path: path.to_owned(), verb: lower(method), ..Self::default() };
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.first().copied() {
            Some("api") if parts.len() >= 3 => {
                info.version = parts[1].to_owned();
                parts.drain(..2);
            }
            Some("apis") if parts.len() >= 4 => {
                info.group = parts[1].to_owned();
                info.version = parts[2].to_owned();
                parts.drain(..3);
            }
            _ => return info,
        }
        info.is_resource = true;
        let legacy_watch = parts[0] == "watch" && parts.len() > 1;
        if legacy_watch {
            parts.remove(0);
        }
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = decode(parts[1]);
            // A sub-resource of the namespace itself, not a resource in it.
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts.drain(..2);
            }
        }
        info.resource = decode(parts[0]);
        info.name = parts.get(1).map_or(String::new(), |p| decode(p));
        info.subresource = parts.get(2).map_or(String::new(), |p| decode(p));
        // Keep a trailing slash: a proxied path means something else without it.
        if !info.subresource.is_empty() && parts.len() > 3 {
            info.rest = format!("/{}{}", parts[3..].join("/"), if path.ends_with('/') { "/" } else { "" });
        } else if !info.subresource.is_empty() && path.ends_with('/') {
            info.rest = "/".to_owned();
        }
        if info.name.is_empty() && info.verb == "get" {
            info.verb = if legacy_watch || query.flag("watch") { "watch" } else { "list" };
        } else if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection";
        } else if legacy_watch && info.verb == "get" {
            info.verb = "watch";
        }
        if matches!(info.verb, "list" | "watch" | "deletecollection") {
            // Read as the list reads it: what is authorized must be what is answered.
            info.fields = query.nonempty("fieldSelector").and_then(|text| FieldSelector::parse(text).ok()).unwrap_or_default();
            info.labels = query.nonempty("labelSelector").and_then(|text| LabelSelector::parse(text).ok()).unwrap_or_default();
            if info.name.is_empty()
                && let Some(name) = info.fields.exact("metadata.name").filter(|name| is_segment(name))
            {
                info.name = name.to_owned();
            }
        }
        info
    }
}

/// Whether `name` could stand in a path.
fn is_segment(name: &str) -> bool {
    !name.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '%'])
}

fn lower(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// The query parameters in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or("");
        Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode_form(key), decode_form(value))
                })
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The value, unless absent or empty.
    pub fn nonempty(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|v| !v.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// As Go's conversion of query strings to booleans has it: present and neither `false` nor `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }
}

fn decode_form(text: &str) -> String {
    if text.contains('+') { decode(&text.replace('+', " ")) } else { decode(text) }
}

/// Percent-decoding; what is no valid escape or UTF-8 stays as it is.
pub fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten().and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// Percent-encodes what may not stand in a path segment or query value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        RequestInfo::new(&method.parse().unwrap(), &uri, &Query::parse(&uri))
    }

    #[test]
    fn takes_paths_apart_as_upstream_does() {
        let check = |method: &str, uri: &str, expected: [&str; 7]| {
            let i = info(method, uri);
            assert_eq!([i.verb, &i.group, &i.version, &i.namespace, &i.resource, &i.name, &i.subresource], expected, "{method} {uri}");
        };
        check("GET", "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]);
        check("GET", "/api/v1/namespaces/a", ["get", "", "v1", "a", "namespaces", "a", ""]);
        check("PUT", "/api/v1/namespaces/a/finalize", ["update", "", "v1", "a", "namespaces", "a", "finalize"]);
        check("GET", "/api/v1/namespaces/a/pods?watch=1", ["watch", "", "v1", "a", "pods", "", ""]);
        check("GET", "/api/v1/watch/namespaces/a/pods/b", ["watch", "", "v1", "a", "pods", "b", ""]);
        check("DELETE", "/apis/apps/v1/namespaces/a/deployments", ["deletecollection", "apps", "v1", "a", "deployments", "", ""]);
        check("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", ["list", "", "v1", "", "pods", "x", ""]);
        // Not a name, but the end of a value: who may list one object must not list all.
        check("GET", "/api/v1/pods?fieldSelector=spec.x!%3Da%5C,metadata.name%3Dx", ["list", "", "v1", "", "pods", "", ""]);
        check("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dx", ["list", "", "v1", "", "pods", "", ""]);
        check("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx,%3D", ["list", "", "v1", "", "pods", "x", ""]);
        assert_eq!(info("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Da").fields.exact("spec.nodeName"), Some("a"));
        check("GET", "/api/v1/nodes/n/proxy/stats/summary", ["get", "", "v1", "", "nodes", "n", "proxy"]);
        assert_eq!(info("GET", "/api/v1/nodes/n/proxy/stats/summary").rest, "/stats/summary");
        assert_eq!(info("GET", "/api/v1/nodes/n/proxy/").rest, "/");
        assert!(!info("GET", "/apis/apps/v1").is_resource);
        assert!(!info("GET", "/api/v1").is_resource);
    }
}

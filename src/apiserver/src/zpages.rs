//! `/statusz` and `/flagz`: what this process is and how it was started, for people, and as objects for who names their version.
//!
//! Models k8s.io/apiserver/pkg/server/{statusz,flagz}, on by default since v1.36. What stands for Go's version is said as `/version` says it;
//! of the separators that upstream draws by lot, so that nobody parses the text, this is always the first.
use std::collections::BTreeSet;

use axum::body::Body;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use jiff::Timestamp;

use api::tree::{Object, Tree};

use crate::fixed::GIT_VERSION;
use crate::negotiate::{self, Accept, Media, accept};
use crate::status::Status;

const COMPONENT: &str = "kube-apiserver";
const WARNING: &str =
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.";
/// First folders of paths that are no help to who looks for faults.
const NO_DEBUGGING: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];
const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", "text/plain"];

/// In what form a page is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    Object { media: Media, version: &'static str },
}

/// `kind`: of the page's object.
fn form(headers: &HeaderMap, kind: &str) -> Result<Form, Status> {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("").trim();
    if header.is_empty() {
        return Ok(Form::Text);
    }
    for clause in accept::clauses(header) {
        let asked = ["as", "g", "v"].map(|name| clause.parameter(name));
        for media in [Media::Json, Media::Yaml].into_iter().filter(|media| clause.covers(media.name())) {
            let version = match asked {
                [Some(name), Some("config.k8s.io"), Some("v1beta1")] if name == kind => "v1beta1",
                [Some(name), Some("config.k8s.io"), Some("v1alpha1")] if name == kind => "v1alpha1",
                _ => continue,
            };
            return Ok(Form::Object { media, version });
        }
        if asked == [None; 3] && clause.covers("text/plain") {
            return Ok(Form::Text);
        }
    }
    Err(Status::not_acceptable(&ACCEPTED))
}

fn answer(call: &Accept, headers: &HeaderMap, kind: &str, fields: Object, text: String) -> Response<Body> {
    let (media, version) = match form(headers, kind) {
        Ok(Form::Text) => {
            let head = format!("\n{COMPONENT} {}\n{WARNING}\n", kind.to_lowercase());
            return negotiate::text(StatusCode::OK, head + &text);
        }
        Ok(Form::Object { media, version }) => (media, version),
        Err(status) => return negotiate::answer_status(call, &status),
    };
    let mut tree = Tree::Object(fields);
    api::meta::set_type(&mut tree, &format!("config.k8s.io/{version}"), kind);
    api::meta::set_name(&mut tree, COMPONENT);
    let mut response = negotiate::answer_tree(&Accept { media, ..*call }, StatusCode::OK, &tree);
    if version == "v1alpha1" {
        let warning = format!("299 - \"This version of the {} endpoint is deprecated. Please use a newer version.\"", kind.to_lowercase());
        response.headers_mut().extend(HeaderValue::from_str(&warning).ok().map(|value| (http::header::WARNING, value)));
    }
    response
}

/// `paths`: all that the server lists at `/`.
pub fn statusz(call: &Accept, headers: &HeaderMap, started: Timestamp, paths: &[String]) -> Response<Body> {
    let up = Timestamp::now().duration_since(started).as_secs().max(0);
    let folders: BTreeSet<String> = paths.iter().filter_map(|path| path.split('/').nth(1)).map(|first| format!("/{first}")).collect();
    let folders: Vec<String> = folders.into_iter().filter(|folder| folder != "/" && !NO_DEBUGGING.contains(&folder.as_str())).collect();
    // Without what a build adds to it, as a generic version prints.
    let (go, binary) = ("rust", GIT_VERSION.trim_start_matches('v').split('+').next().unwrap_or_default());
    let text = format!(
        "\nStarted: {}\nUp: {} hr {:02} min {:02} sec\nGo version: {go}\nBinary version: {binary}\nEmulation version: 1.37\nPaths: {}\n",
        started.strftime("%a %b %e %H:%M:%S UTC %Y"),
        up / 3600,
        up / 60 % 60,
        up % 60,
        folders.join(" "),
    );
    let mut fields = Object::new();
    fields.insert("startTime", format!("{started:.0}"));
    fields.insert("uptimeSeconds", up);
    fields.insert("goVersion", go);
    fields.insert("binaryVersion", binary);
    fields.insert("emulationVersion", "1.37");
    fields.insert("paths", Tree::Array(folders.into_iter().map(Tree::from).collect()));
    answer(call, headers, "Statusz", fields, text)
}

/// `flags`: names and values.
pub fn flagz(call: &Accept, headers: &HeaderMap, flags: &[(String, String)]) -> Response<Body> {
    let mut sorted: Vec<&(String, String)> = flags.iter().collect();
    sorted.sort();
    let text: String = sorted.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let mut fields = Object::new();
    if !sorted.is_empty() {
        let all: Object = sorted.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.insert("flags", Tree::Object(all));
    }
    answer(call, headers, "Flagz", fields, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_for_people_and_an_object_for_who_names_its_version() {
        let form = |header: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(header))]);
            super::form(&headers, "Statusz").map_err(|status| status.code)
        };
        for text in ["", " ", "*/*", "text/plain", "text/*", "application/json, text/plain", "application/json;as=Flagz;v=v1beta1;g=config.k8s.io,*/*"] {
            assert_eq!(form(text), Ok(Form::Text), "{text}");
        }
        let object = |media, version| Ok(Form::Object { media, version });
        assert_eq!(form("application/json;as=Statusz;v=v1beta1;g=config.k8s.io"), object(Media::Json, "v1beta1"));
        assert_eq!(form("text/plain;q=0.5,application/yaml;as=Statusz;v=v1alpha1;g=config.k8s.io"), object(Media::Yaml, "v1alpha1"));
        for wrong in ["application/json", "application/vnd.kubernetes.protobuf", "application/json;as=Statusz;v=v1;g=config.k8s.io", "text/plain;as=x"] {
            assert_eq!(form(wrong), Err(406), "{wrong}");
        }
    }
}

//! ConversionReview: asks a webhook for objects in another version, and believes it as far as it may change them.
//!
//! Models apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go, with its texts.
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use api::crd::{Conversion, GROUP};
use api::field_error;
use api::meta;
use api::registry::{api_version, split_api_version};
use api::tree::{Object, Tree};
use api::validation;

use crate::cache::Cache;
use crate::outbound::{self, Destination};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Whom definitions name, with the connections to them: each as long as the definition says the same.
#[derive(Default)]
pub struct Webhooks(Mutex<Vec<(Weak<Conversion>, Arc<Destination>)>>);

impl Webhooks {
    fn of(&self, conversion: &Arc<Conversion>) -> Arc<Destination> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, _)| of.strong_count() > 0);
        if let Some((_, to)) = known.iter().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(conversion))) {
            return to.clone();
        }
        let to = Arc::new(Destination::of(&conversion.client));
        known.push((Arc::downgrade(conversion), to.clone()));
        to
    }
}

/// `group/version, Kind=kind`
fn printed_kind(object: &Tree) -> String {
    format!("{}, Kind={}", meta::api_version(object), meta::kind(object))
}

/// The objects in the version `version`, in the same order. None of them is of it yet.
pub async fn convert(cache: &Cache, conversion: &Arc<Conversion>, objects: &[Tree], group: &str, version: &str) -> Result<Vec<Tree>, String> {
    check_versions(conversion, objects, group, version)?;
    let desired = api_version(group, version);
    let uid = uuid::Uuid::new_v4().to_string();
    let known = conversion.review_versions.iter().find_map(|v| api::crd::REVIEW_VERSIONS.iter().find(|known| **known == v.as_str()));
    let review = *known.ok_or("no supported conversion review versions")?;
    let kind = objects.first().map(printed_kind).unwrap_or_default();
    let failed = |why: String| format!("conversion webhook for {kind} failed: {why}");
    let body = question(review, &uid, &desired, objects);
    let to = cache.webhooks().of(conversion);
    let answer = outbound::post(cache, &to, TIMEOUT, body.to_json()).await.map_err(failed)?;
    let answer = Tree::from_json(&answer).map_err(|error| failed(error.to_string()))?;
    let converted = read(review, &uid, answer).map_err(failed)?;
    if converted.len() != objects.len() {
        return Err(format!("conversion webhook for {kind} returned {} objects, expected {}", converted.len(), objects.len()));
    }
    objects.iter().zip(converted).map(|(original, converted)| accepted(original, converted, &desired)).collect()
}

fn check_versions(conversion: &Conversion, objects: &[Tree], group: &str, version: &str) -> Result<(), String> {
    let is_known = |api_version: &str| {
        let (of, version) = split_api_version(api_version);
        of == group && conversion.versions.iter().any(|v| v == version)
    };
    let desired = api_version(group, version);
    if !is_known(&desired) {
        return Err(format!("request to convert CR to an invalid group/version: {desired}"));
    }
    match objects.iter().map(meta::api_version).find(|version| !is_known(version)) {
        Some(unknown) => Err(format!("request to convert CR from an invalid group/version: {unknown}")),
        None => Ok(()),
    }
}

fn question(review: &str, uid: &str, desired: &str, objects: &[Tree]) -> Tree {
    let mut body = Tree::object();
    body.set(&["kind"], "ConversionReview");
    body.set(&["apiVersion"], format!("{GROUP}/{review}"));
    body.set(&["request", "uid"], uid);
    body.set(&["request", "desiredAPIVersion"], desired);
    body.set(&["request", "objects"], Tree::Array(objects.to_vec()));
    body
}

/// The converted objects of an answer.
fn read(review: &str, uid: &str, mut answer: Tree) -> Result<Vec<Tree>, String> {
    // Webhooks of the first version were never held to these.
    let is_strict = review == "v1";
    if is_strict && (meta::api_version(&answer), meta::kind(&answer)) != ("apiextensions.k8s.io/v1", "ConversionReview") {
        let got = printed_kind(&answer);
        return Err(format!("expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {got}"));
    }
    let Some(response) = answer.get_mut("response").filter(|response| !response.is_null()) else {
        return Err("no response provided".into());
    };
    let got = response.str_at(&["uid"]);
    if is_strict && got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let status = response.str_at(&["result", "status"]);
    if status != "Success" {
        let message = response.str_at(&["result", "message"]);
        return Err(if message.is_empty() { format!("response.result.status was '{status}', not 'Success'") } else { message.to_owned() });
    }
    match response.remove(&["convertedObjects"]) {
        Some(Tree::Array(objects)) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// What a webhook made of `original`, where it kept to what it may change: everything but the identity, and of the metadata labels and
/// annotations only.
fn accepted(original: &Tree, mut converted: Tree, desired: &str) -> Result<Tree, String> {
    let kind = printed_kind(original);
    let invalid = |why: String| format!("conversion webhook for {kind} returned invalid object at index 0: {why}");
    let got = meta::api_version(&converted);
    if got != desired {
        return Err(invalid(format!("invalid groupVersion (expected {desired}, received {got})")));
    }
    if meta::kind(&converted) != meta::kind(original) {
        return Err(invalid(format!("invalid kind (expected {}, received {})", meta::kind(original), meta::kind(&converted))));
    }
    let unlike = |what: &str, a: &str, b: &str| {
        (a != b).then(|| format!("conversion webhook for {kind} returned invalid object: must have the same {what}: {a} != {b}"))
    };
    let pairs: [(&str, fn(&Tree) -> &str); 3] = [("name", meta::name), ("namespace", meta::namespace), ("UID", meta::uid)];
    if let Some(error) = pairs.iter().find_map(|(what, of)| unlike(what, of(original), of(&converted))) {
        return Err(error);
    }
    let metadata = metadata(original, converted.get("metadata"));
    let metadata = metadata.map_err(|why| format!("conversion webhook for {kind} returned invalid metadata: {why}"))?;
    converted.set(&["metadata"], metadata);
    Ok(converted)
}

/// The original's metadata with the labels and annotations of the answer.
fn metadata(original: &Tree, answered: Option<&Tree>) -> Result<Tree, String> {
    let answered = answered.ok_or("missing metadata in converted object")?;
    let Some(answered) = answered.as_object() else {
        return Err(format!("invalid metadata of type {} in converted object", answered.type_name()));
    };
    let mut metadata = original.get("metadata").cloned().unwrap_or_else(Tree::object);
    for field in ["labels", "annotations"] {
        let Some(values) = answered.get(field).filter(|values| !values.is_null()) else {
            metadata.remove(&[field]);
            continue;
        };
        let Some(values) = values.as_object() else {
            return Err(format!("invalid metadata.{field} of type {} in converted object", values.type_name()));
        };
        if let Some((key, value)) = values.iter().find(|(_, value)| value.as_str().is_none()) {
            return Err(format!("metadata.{field}[{key}] must be a string, but is {} in converted object", value.type_name()));
        }
        if metadata.get(field).and_then(Tree::as_object) != Some(values) {
            check(field, values)?;
        }
        metadata.set(&[field], Tree::Object(values.clone()));
    }
    Ok(metadata)
}

fn check(field: &str, values: &Object) -> Result<(), String> {
    let errors = match field {
        "labels" => validation::validate_labels(&Tree::Object(values.clone())),
        _ => validation::validate_annotations(&Tree::Object(values.clone())),
    };
    if errors.is_empty() { Ok(()) } else { Err(field_error::aggregate(&errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).expect("a test's JSON")
    }

    #[test]
    fn an_answer_must_be_one_to_the_question() {
        let check = |answer: &str, expected: Result<usize, &str>| {
            let result = read("v1", "u", tree(answer)).map(|objects| objects.len());
            assert_eq!(result, expected.map_err(ToOwned::to_owned), "{answer}");
        };
        let with = |response: &str| format!(r#"{{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1","response":{response}}}"#);
        check(&with(r#"{"uid":"u","result":{"status":"Success"},"convertedObjects":[{},{}]}"#), Ok(2));
        check(&with(r#"{"uid":"x","result":{"status":"Success"}}"#), Err("expected response.uid=\"u\", got \"x\""));
        check(&with(r#"{"uid":"u","result":{"status":"Failed","message":"no"}}"#), Err("no"));
        check(&with(r#"{"uid":"u"}"#), Err("response.result.status was '', not 'Success'"));
        check(&with("null"), Err("no response provided"));
        check("{}", Err("expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got , Kind="));
    }

    #[test]
    fn a_webhook_changes_labels_and_annotations_but_no_identity() {
        let original = tree(r#"{"apiVersion":"g/v1","kind":"K","metadata":{"name":"n","uid":"u","labels":{"a":"1"},"generation":3},"x":1}"#);
        let check = |converted: &str, expected: Result<&str, &str>| {
            let result = accepted(&original, tree(converted), "g/v2").map(|tree| String::from_utf8_lossy(&tree.to_json()).into_owned());
            assert_eq!(result.as_deref().map_err(String::as_str), expected);
        };
        check(
            r#"{"apiVersion":"g/v2","kind":"K","metadata":{"name":"n","uid":"u","annotations":{"b":"2"},"generation":9},"y":2}"#,
            Ok(r#"{"apiVersion":"g/v2","kind":"K","metadata":{"annotations":{"b":"2"},"generation":3,"name":"n","uid":"u"},"y":2}"#),
        );
        check(
            r#"{"apiVersion":"g/v1","kind":"K","metadata":{"name":"n","uid":"u"}}"#,
            Err("conversion webhook for g/v1, Kind=K returned invalid object at index 0: invalid groupVersion (expected g/v2, received g/v1)"),
        );
        check(
            r#"{"apiVersion":"g/v2","kind":"K","metadata":{"name":"m","uid":"u"}}"#,
            Err("conversion webhook for g/v1, Kind=K returned invalid object: must have the same name: n != m"),
        );
        check(
            r#"{"apiVersion":"g/v2","kind":"K","metadata":{"name":"n","uid":"u","labels":{"a":1}}}"#,
            Err("conversion webhook for g/v1, Kind=K returned invalid metadata: metadata.labels[a] must be a string, but is integer in converted object"),
        );
    }

    #[test]
    fn versions_that_the_definition_has_no_more_are_not_converted() {
        let conversion = Conversion {
            definition: "ks.g".into(),
            client: Tree::Null,
            review_versions: vec!["v1".into()],
            versions: vec!["v1".into(), "v2".into()],
        };
        let check = |from: &str, to: &str| check_versions(&conversion, &[tree(&format!(r#"{{"apiVersion":"g/{from}"}}"#))], "g", to);
        assert_eq!(check("v1", "v2"), Ok(()));
        assert_eq!(check("v0", "v2").unwrap_err(), "request to convert CR from an invalid group/version: g/v0");
        assert_eq!(check("v1", "v3").unwrap_err(), "request to convert CR to an invalid group/version: g/v3");
    }
}

//! Annotations of pods and of their templates that the server knows, most of them older than the fields they stand for.
//!
//! Models pkg/apis/core/validation/validation.go `ValidatePodSpecificAnnotations` and `ValidatePodSpecificAnnotationUpdates`,
//! `validateSeccompAnnotationsAndFields`, `validateAppArmorAnnotationsAndFieldsMatchOnCreate`, and pkg/api/pod/util.go
//! `ApparmorFieldForAnnotation`. Left out: tolerations in an annotation, whose errors are those of Go's JSON.
use super::check::*;
use super::security::app_armor;
use super::volume::descending_path;
use crate::field_error::{FieldError, Path, quote};
use crate::tree::Tree;

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub(super) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const LOCAL: &str = "localhost/";

/// All lists of containers, in upstream's order.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(super) fn check(errors: &mut Errors, metadata: &Tree, spec: &Tree, path: &Path) {
    let annotations = at(metadata, "annotations");
    if let Some(value) = set(annotations, MIRROR)
        && text(spec, "nodeName").is_empty() {
            let detail = "must set spec.nodeName if mirror pod annotation is set";
            errors.push(FieldError::invalid(path.key(MIRROR), value, detail));
        }
    if let Some(cost) = set(annotations, COST) {
        let cost = cost.as_str().unwrap_or("");
        // Upstream refuses the forms that Go's parser reads but would not print.
        let canonical = cost.parse::<i32>().is_ok() && !cost.starts_with('+') && (cost == "0" || !cost.trim_start_matches('-').starts_with('0'));
        if !canonical {
            errors.push(FieldError::invalid(path.key(COST), cost, "must be a 32bit integer"));
        }
    }
    for (key, value) in entries(metadata, "annotations") {
        let value = value.as_str().unwrap_or("");
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp_profile(errors, value, &path.child(key));
        }
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        if !CONTAINERS.iter().flat_map(|kind| list(spec, kind)).any(|one| text(one, "name") == container) {
            errors.push(FieldError::invalid(path.key(key), container, "container not found"));
        }
        if !matches!(value, "" | "runtime/default" | "unconfined") && !value.starts_with(LOCAL) {
            errors.push(FieldError::invalid(path.key(key), value, format!("invalid AppArmor profile name: {}", quote(value))));
        }
    }
}

fn seccomp_profile(errors: &mut Errors, profile: &str, path: &Path) {
    match profile.strip_prefix(LOCAL) {
        Some(file) => descending_path(errors, file, path),
        None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        None => errors.push(FieldError::invalid(path, profile, "must be a valid seccomp profile")),
    }
}

/// Annotations that stay as they are.
pub(super) fn update(errors: &mut Errors, new: &Tree, old: &Tree, path: &Path) {
    let (before, after) = (at(at(old, "metadata"), "annotations"), at(at(new, "metadata"), "annotations"));
    let kept = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, _) in before.as_object().into_iter().flat_map(|o| o.iter()).filter(|(key, value)| after.get(key) != Some(*value)) {
        errors.extend(kept(key).map(|what| FieldError::forbidden(path.key(key), format!("may not remove or update {what}"))));
    }
    for (key, _) in after.as_object().into_iter().flat_map(|o| o.iter()).filter(|(key, _)| before.get(key).is_none()) {
        errors.extend(kept(key).map(|what| FieldError::forbidden(path.key(key), format!("may not add {what}"))));
    }
    check(errors, at(new, "metadata"), at(new, "spec"), path);
}

/// Where an annotation and the field that came after it are both there, they say the same. `path` is that of the spec.
pub(super) fn agree_with_fields(errors: &mut Errors, metadata: &Tree, spec: &Tree, path: &Path) {
    const SECCOMP: (&str, &[&str]) = ("seccomp", &["runtime/default", "docker/default"]);
    const ARMOR: (&str, &[&str]) = ("apparmor", &["runtime/default"]);
    let annotation = |key: &str| set(at(metadata, "annotations"), key).and_then(Tree::as_str);
    let context = path.child("securityContext");
    let of_pod = at(spec, "securityContext");
    if let (Some(field), Some(annotation)) = (set(of_pod, "seccompProfile"), annotation(SECCOMP_POD)) {
        agree(errors, SECCOMP, annotation, field, &context.child("seccompProfile"));
    }
    let of_each = |errors: &mut Errors, prefix: &str, key: &str, what, default: Option<&Tree>| {
        for kind in CONTAINERS {
            let lists = path.child(kind);
            for (i, container) in list(spec, kind).iter().enumerate() {
                let Some(field) = set(at(container, "securityContext"), key).or(default) else { continue };
                let Some(annotation) = annotation(&format!("{prefix}{}", text(container, "name"))) else { continue };
                let item = lists.index(i);
                let context = item.child("securityContext");
                agree(errors, what, annotation, field, &context.child(key));
            }
        }
    };
    of_each(errors, SECCOMP_CONTAINER, "seccompProfile", SECCOMP, None);
    if text(at(spec, "os"), "name") != "windows" {
        of_each(errors, APP_ARMOR, "appArmorProfile", ARMOR, set(of_pod, "appArmorProfile"));
    }
}

fn agree(errors: &mut Errors, (what, defaults): (&str, &[&str]), annotation: &str, field: &Tree, path: &Path) {
    let wrong = match text(field, "type") {
        "Unconfined" if annotation != "unconfined" => Some(("type", "type")),
        "RuntimeDefault" if !defaults.contains(&annotation) => Some(("type", "type")),
        "Localhost" => match annotation.strip_prefix(LOCAL) {
            None => Some(("type", "type")),
            name if set(field, "localhostProfile").and_then(Tree::as_str) != name => Some(("localhostProfile", "profile")),
            Some(_) => None,
        },
        _ => None,
    };
    errors.extend(wrong.map(|(key, noun)| FieldError::forbidden(path.child(key), format!("{what} {noun} in annotation and field must match"))));
}

/// The field that stands for an annotation about AppArmor, where there is a valid one.
pub fn app_armor_profile(annotation: &str) -> Option<Tree> {
    let (kind, name) = match (annotation, annotation.strip_prefix(LOCAL)) {
        ("unconfined", _) => ("Unconfined", None),
        ("runtime/default", _) => ("RuntimeDefault", None),
        (_, Some(name)) if !name.is_empty() => ("Localhost", Some(name)),
        _ => return None,
    };
    let (mut context, mut errors) = (Tree::object(), Errors::new());
    context.set(&["appArmorProfile", "type"], kind);
    if let Some(name) = name {
        context.set(&["appArmorProfile", "localhostProfile"], name);
    }
    app_armor(&mut errors, &context, &Path::new(""));
    context.remove(&["appArmorProfile"]).filter(|_| errors.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(annotations: &str, spec: &str) -> Vec<String> {
        let read = |text: &str| -> Tree { serde_saphyr::from_str(text).unwrap() };
        let (mut metadata, mut errors, spec) = (Tree::object(), Errors::new(), read(spec));
        metadata.set(&["annotations"], read(annotations));
        check(&mut errors, &metadata, &spec, &Path::new("annotations"));
        agree_with_fields(&mut errors, &metadata, &spec, &Path::new("spec"));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn old_annotations_are_read_and_agree_with_the_fields_they_stand_for() {
        const SPEC: &str = "{containers: [{name: a, securityContext: {appArmorProfile: {type: Unconfined}, seccompProfile: {type: Localhost, localhostProfile: x}}}]}";
        let armor = |value: &str| said(&format!("{{'{APP_ARMOR}a': '{value}'}}"), SPEC);
        assert_eq!(armor("unconfined"), [""; 0]);
        let differ = "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match";
        assert_eq!(armor("runtime/default"), [differ]);
        assert_eq!(armor("x"), [&format!("annotations[{APP_ARMOR}a]: Invalid value: \"x\": invalid AppArmor profile name: \"x\""), differ]);
        let stray = said(&format!("{{'{APP_ARMOR}b': unconfined}}"), SPEC);
        assert_eq!(stray, [format!("annotations[{APP_ARMOR}b]: Invalid value: \"b\": container not found")]);
        let seccomp = said(&format!("{{'{SECCOMP_CONTAINER}a': localhost/other, '{SECCOMP_POD}': odd}}"), SPEC);
        assert_eq!(seccomp, [
            format!("annotations.{SECCOMP_POD}: Invalid value: \"odd\": must be a valid seccomp profile"),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation and field must match".to_owned(),
        ]);
    }

    #[test]
    fn an_annotation_becomes_a_field_where_it_is_sound() {
        let shown = |annotation: &str| app_armor_profile(annotation).map(|field| String::from_utf8(field.to_json()).unwrap());
        assert_eq!(shown("localhost/x").as_deref(), Some(r#"{"localhostProfile":"x","type":"Localhost"}"#));
        assert_eq!(shown("runtime/default").as_deref(), Some(r#"{"type":"RuntimeDefault"}"#));
        assert_eq!(["localhost/", "localhost/ x", "x", ""].map(shown), [None, None, None, None]);
    }
}

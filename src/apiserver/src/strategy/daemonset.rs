//! DaemonSets count the changes of their template in an annotation, which stands for a field of an older API version.
//!
//! Models pkg/registry/apps/daemonset/strategy.go and the conversion of spec.templateGeneration in pkg/apis/apps/v1.
use api::meta;
use api::tree::Tree;

const GENERATION: &str = "deprecated.daemonset.template.generation";

/// How often the template changed.
pub fn generation(object: &Tree) -> i64 {
    meta::annotation(object, GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set(object: &mut Tree, generation: i64) {
    object.set(&["metadata", "annotations", GENERATION], generation.to_string());
}

/// Who does not say how often the template changed says never.
pub fn convert(object: &mut Tree) {
    if meta::annotation(object, GENERATION).is_none() {
        set(object, 0);
    }
}

pub fn prepare_create(object: &mut Tree) {
    set(object, generation(object).max(1));
}

/// Nobody but the server changes the count; `by_main` is an update of the object itself, not of its status.
pub fn prepare_update(new: &mut Tree, old: &Tree, by_main: bool) {
    let template = ["spec", "template"];
    let changed = by_main && new.at(&template) != old.at(&template);
    set(new, generation(old) + i64::from(changed));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon_set(image: &str, annotations: &str) -> Tree {
        let text = format!(r#"{{"metadata":{{"annotations":{annotations}}},"spec":{{"template":{{"image":"{image}"}}}}}}"#);
        Tree::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_count_begins_at_one_and_follows_the_template_alone() {
        let mut first = daemon_set("a", "{}");
        prepare_create(&mut first);
        assert_eq!(generation(&first), 1);
        let mut same = daemon_set("a", r#"{"deprecated.daemonset.template.generation":"7"}"#);
        prepare_update(&mut same, &first, true);
        assert_eq!(generation(&same), 1);
        let mut changed = daemon_set("b", "{}");
        prepare_update(&mut changed, &first, true);
        assert_eq!(generation(&changed), 2);
        let mut status = daemon_set("b", "{}");
        prepare_update(&mut status, &changed, false);
        assert_eq!(generation(&status), 2);
    }
}

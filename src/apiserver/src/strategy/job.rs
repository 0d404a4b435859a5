//! Jobs choose their pods by a label that the server makes up.
//!
//! Models pkg/registry/batch/job/strategy.go generateSelector.
use api::meta;
use api::tree::Tree;

const NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const CONTROLLER_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

pub fn select_own_pods(object: &mut Tree) {
    if object.at(&["spec", "manualSelector"]).and_then(Tree::as_bool).unwrap_or(false) {
        return;
    }
    // Labels that are there stay: validation refuses what conflicts.
    let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
    let label = |object: &mut Tree, key: &str, value: &str| {
        let path = ["spec", "template", "metadata", "labels", key];
        if object.at(&path).is_none() {
            object.set(&path, value);
        }
    };
    for key in NAME {
        label(object, key, &name);
    }
    for key in CONTROLLER_UID {
        label(object, key, &uid);
    }
    let selected = ["spec", "selector", "matchLabels", CONTROLLER_UID[1]];
    if object.at(&selected).is_none() {
        object.set(&selected, uid);
    }
}

/// What has no labels of its own has those of its pods: a default of upstream, which it comes upon when it reads the job back.
pub fn label_like_pods(object: &mut Tree) {
    let labels = object.at(&["spec", "template", "metadata", "labels"]).cloned();
    if meta::labels(object).is_empty()
        && let Some(labels) = labels
    {
        object.set(&["metadata", "labels"], labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(json: &str) -> Tree {
        let mut job = Tree::from_json(json.as_bytes()).unwrap();
        select_own_pods(&mut job);
        job
    }

    #[test]
    fn a_selector_is_made_and_labels_given_stay() {
        let job = prepared(
            r#"{"metadata":{"name":"j","uid":"u"},"spec":{"template":{"metadata":{"labels":{"job-name":"other"}}}}}"#,
        );
        assert_eq!(job.str_at(&["spec", "selector", "matchLabels", "batch.kubernetes.io/controller-uid"]), "u");
        let label = |key| job.str_at(&["spec", "template", "metadata", "labels", key]);
        assert_eq!([label("job-name"), label("batch.kubernetes.io/job-name"), label("controller-uid")], ["other", "j", "u"]);
    }

    #[test]
    fn a_manual_selector_is_left_alone() {
        let json = r#"{"metadata":{"name":"j","uid":"u"},"spec":{"manualSelector":true,"template":{}}}"#;
        assert_eq!(prepared(json), Tree::from_json(json.as_bytes()).unwrap());
    }
}

//! The part of a stored object that selectors read: its labels and selectable fields.
use crate::skim::{Malformed, Wanted};
use crate::tree::Tree;

/// `spec` and the like.
const PART: Wanted = Wanted::Others(&[("podIPs", Wanted::Whole)], &Wanted::Scalar);
const METADATA: Wanted = Wanted::Fields(&[("labels", Wanted::Whole), ("name", Wanted::Scalar), ("namespace", Wanted::Scalar)]);
const OBJECT: Wanted =
    Wanted::Others(&[("metadata", METADATA), ("spec", PART), ("status", PART), ("involvedObject", PART), ("source", PART)], &Wanted::Scalar);

/// What [`super::fields`] and label selectors read of an object of a built-in kind.
pub fn skim(json: &[u8]) -> Result<Tree, Malformed> {
    crate::skim::skim(json, &OBJECT).map(|found| found.tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::selector::fields;

    /// All that any built-in kind is selected by.
    const EXAMPLE: &str = r#"{"kind":"K","metadata":{"annotations":{"a":"b"},"labels":{"l":"v","\"q\"":"w"},"name":"n","namespace":"ns",
        "managedFields":[{"fieldsV1":{"f:spec":{}}}]},"reason":"r","type":"t","reportingComponent":"c","message":"m",
        "involvedObject":{"apiVersion":"v1","fieldPath":"f","kind":"Pod","name":"p","namespace":"ns","resourceVersion":"3","uid":"u"},
        "source":{"component":"s","host":"h"},"data":{"k":"v"},
        "spec":{"hostNetwork":true,"nodeName":"n1","restartPolicy":"Never","schedulerName":"s","serviceAccountName":"a","unschedulable":true,
            "clusterIP":"10.0.0.1","type":"ClusterIP","signerName":"x/y","podName":"p","driver":"d","containers":[{"name":"c"}]},
        "status":{"nominatedNodeName":"n2","phase":"Running","podIP":"1.2.3.4","podIPs":[{"ip":"1.2.3.4"},{"ip":"::1"}],"replicas":3,"succeeded":2,
            "conditions":[{"type":"Ready"}]}}"#;

    #[test]
    fn selectors_find_all_that_they_read() {
        let (whole, skimmed) = (Tree::from_json(EXAMPLE.as_bytes()).unwrap(), skim(EXAMPLE.as_bytes()).unwrap());
        for resource in Registry::get().all() {
            let read = |tree| fields(resource, tree).into_iter().map(|(name, value)| (name.to_string(), value)).collect::<Vec<_>>();
            assert_eq!(read(&skimmed), read(&whole), "{}", resource.plural);
        }
        assert_eq!(skimmed.at(&["metadata", "labels"]), whole.at(&["metadata", "labels"]));
        assert_eq!(skimmed.at(&["spec", "containers"]), Some(&Tree::Null));
    }
}

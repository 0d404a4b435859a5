//! A pod shows its node's zone and region.
//!
//! Models plugin/pkg/admission/podtopologylabels/admission.go. The labels go to the Binding, which gives them to the pod, and to pods that are
//! created on a node.
use api::meta;
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::Cache;

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

pub fn admit(cache: &Cache, request: &mut Request) {
    if request.operation != Operation::Create || !request.resource.group.is_empty() || request.resource.plural != "pods" {
        return;
    }
    let node = match request.subresource {
        "" => request.object.str_at(&["spec", "nodeName"]),
        "binding" if request.object.str_at(&["target", "kind"]) == "Node" => request.object.str_at(&["target", "name"]),
        _ => "",
    };
    if node.is_empty() {
        return;
    }
    let Some(node) = cache.get("", "nodes", "", node) else { return };
    copy(&mut request.object, &|key| node.label(key));
}

fn copy<'a>(object: &mut Tree, label: &dyn Fn(&str) -> Option<&'a str>) {
    for key in LABELS {
        if let Some(value) = label(key) {
            meta::set_label(object, key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_and_region_replace_what_was_claimed() {
        let mut pod = Tree::from_json(br#"{"metadata":{"labels":{"topology.kubernetes.io/zone":"mine","app":"a"}}}"#).unwrap();
        copy(&mut pod, &|key| (key == "topology.kubernetes.io/zone").then_some("z1"));
        let expected = Tree::from_json(br#"{"topology.kubernetes.io/zone":"z1","app":"a"}"#).unwrap();
        assert_eq!(pod.at(&["metadata", "labels"]), Some(&expected));
    }
}

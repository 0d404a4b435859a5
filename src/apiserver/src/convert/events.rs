//! events.k8s.io/v1 Event: other names for the same fields.
use api::tree::Tree;

use super::rename;

const NAMES: [(&str, &str); 7] = [
    // core, events.k8s.io
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub fn from_core(tree: &mut Tree) {
    for (core, new) in NAMES {
        rename(tree, core, new);
    }
}

pub fn to_core(tree: &mut Tree) {
    for (core, new) in NAMES {
        rename(tree, new, core);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_both_ways() {
        let core = br#"{"count":2,"involvedObject":{"kind":"Pod"},"message":"m","metadata":{"name":"e"},"reportingComponent":"k"}"#;
        let mut tree = Tree::from_json(core).unwrap();
        from_core(&mut tree);
        assert_eq!(tree.str_at(&["note"]), "m");
        to_core(&mut tree);
        assert_eq!(tree.to_json(), core);
    }
}

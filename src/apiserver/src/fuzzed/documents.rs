//! Documents before they are objects.
use api::{Tree, codec, protobuf as wire};

/// JSON: what is read prints, and reads back as the same.
pub fn json(bytes: &[u8]) {
    let Ok(parsed) = codec::parse_json(bytes) else { return };
    let printed = parsed.tree.to_json();
    let again = Tree::from_json(&printed).expect("what was printed can be read");
    assert_eq!(again.to_json(), printed);
    let mut complaints = parsed.duplicates;
    codec::in_order(bytes, &mut complaints);
}

/// YAML, as bodies and configurations are read: what it makes is JSON.
pub fn yaml(bytes: &[u8]) {
    let Ok(parsed) = codec::parse_yaml(bytes) else { return };
    let printed = parsed.tree.to_json();
    assert!(Tree::from_json(&printed).is_ok());
}

/// Protobuf of the kind that it names (else a pod): what is read is written again, and then reads the same.
pub fn protobuf(bytes: &[u8]) {
    let pod = ("", "v1", "Pod");
    let Ok(tree) = wire::decode(bytes, pod) else { return };
    let Ok(written) = wire::encode(&tree.to_json()) else { return };
    let again = wire::decode(&written, pod).expect("what was written can be read");
    assert_eq!(wire::encode(&again.to_json()).expect("and written again"), written);
}

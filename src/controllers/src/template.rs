//! Comparing and hashing pod templates.
use client::k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// Letters and digits that form no bad words, as k8s.io/apimachinery/pkg/util/rand.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The template without its hash label and without what means the same as nothing.
fn canonical(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    let mut value = serde_json::to_value(&template).expect("a template is plain JSON");
    prune(&mut value);
    value
}

/// Drops nulls, empty lists, and empty maps where a map is not a choice (as `emptyDir: {}` is).
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|key, value| match value {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => {
                    let plain = matches!(key.as_str(), "labels" | "annotations" | "nodeSelector" | "metadata");
                    !(map.is_empty() && plain)
                }
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

pub(crate) fn equal_ignoring_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    canonical(a) == canonical(b)
}

/// The value of `pod-template-hash`: FNV-1a over canonical JSON and the collision count, in upstream's safe alphabet.
pub(crate) fn hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    // Maps of serde_json are sorted, so equal templates have equal text.
    let mut text = canonical(template).to_string().into_bytes();
    if let Some(count) = collision_count {
        text.extend(count.to_le_bytes());
    }
    let hash = text.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    safe_encode(hash)
}

/// A hash as text that forms no bad words.
pub(crate) fn safe_encode(hash: u32) -> String {
    hash.to_string().bytes().map(|digit| ALPHABET[usize::from(digit) % ALPHABET.len()] as char).collect()
}

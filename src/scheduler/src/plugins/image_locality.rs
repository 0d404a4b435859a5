//! ImageLocality: nodes that have the pod's images are a little better.
//!
//! Models pkg/scheduler/framework/plugins/imagelocality/image_locality.go.
use super::{SCORE_MAX, Score, World};
use crate::cache::NodeState;
use crate::pod::PodInfo;

pub struct ImageLocality;

const MEBIBYTE: i64 = 1 << 20;
const MIN_BYTES: i64 = 23 * MEBIBYTE;
const MAX_BYTES_PER_CONTAINER: i64 = 1000 * MEBIBYTE;

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        if pod.images.is_empty() || nodes.len() < 2 {
            return None;
        }
        let names: Vec<_> = pod.images.iter().map(|i| normalized(i)).collect();
        let spread = |name: &str| nodes.iter().filter(|n| n.images.contains_key(name)).count() as i64;
        let total = |node: &NodeState| -> i64 {
            names.iter().filter_map(|n| node.images.get(n).map(|size| size * spread(n) / nodes.len() as i64)).sum()
        };
        let max = MAX_BYTES_PER_CONTAINER * names.len() as i64;
        let score = |node: &NodeState| SCORE_MAX * (total(node).clamp(MIN_BYTES, max) - MIN_BYTES) / (max - MIN_BYTES);
        Some(nodes.iter().map(|n| score(n)).collect())
    }
}

/// Names in a node's status carry a tag; a pod's may not.
fn normalized(image: &str) -> String {
    let tail = image.rsplit('/').next().unwrap_or(image);
    if tail.contains(':') || tail.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

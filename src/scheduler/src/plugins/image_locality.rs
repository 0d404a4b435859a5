//! ImageLocality: nodes that have the pod's images are a little better, the more so where the image is spread wide.
//!
//! Models pkg/scheduler/framework/plugins/imagelocality/image_locality.go, v1.37.
use super::{SCORE_MAX, Score, World};
use crate::cache::NodeState;
use crate::pod::PodInfo;

pub struct ImageLocality;

const MEBIBYTE: i64 = 1 << 20;
const MIN_BYTES: i64 = 23 * MEBIBYTE;
const MAX_BYTES_PER_CONTAINER: i64 = 1000 * MEBIBYTE;

impl Score for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
    fn has_a_say(&self, pod: &PodInfo, world: &World) -> bool {
        pod.images.iter().any(|image| world.cache.nodes_with_image(&normalized(image)) > 0)
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>> {
        let spread = |name: String| (world.cache.nodes_with_image(&name), name);
        let known: Vec<_> = pod.images.iter().map(|i| spread(normalized(i))).filter(|(nodes, _)| *nodes > 0).collect();
        if known.is_empty() {
            return None;
        }
        let all = world.cache.node_count().max(1) as f64;
        let total = |node: &NodeState| -> i64 {
            let found = known.iter().filter_map(|(n, name)| Some((*n, node.images.get(name)?)));
            found.map(|(n, size)| (*size as f64 * (n as f64 / all)) as i64).sum()
        };
        let max = MAX_BYTES_PER_CONTAINER * pod.images.len() as i64;
        let score = |node: &NodeState| SCORE_MAX * (total(node).clamp(MIN_BYTES, max) - MIN_BYTES) / (max - MIN_BYTES);
        Some(nodes.iter().map(|n| score(n)).collect())
    }
}

/// Names in a node's status carry a tag; a pod's may not.
fn normalized(image: &str) -> String {
    let tail = image.rsplit('/').next().unwrap_or(image);
    if tail.contains(':') { image.to_owned() } else { format!("{image}:latest") }
}

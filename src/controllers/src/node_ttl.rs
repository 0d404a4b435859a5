//! Tells nodes how long they may believe what they know of Secrets and ConfigMaps: the longer, the more nodes there are.
//!
//! Models pkg/controller/ttl/ttl_controller.go, v1.37. rk's own kubelet watches what its pods use and needs no such time; clients read it.
//! Reads Node. Writes its annotation. Wakes on nodes; when the number of nodes crosses a bound, on all of them.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::k8s_openapi::api::core::v1::Node;
use client::{Client, Controller, Informer, Named, Next, ObjectKey, Patch};
use serde_json::json;

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "ttl-controller";
const TTL: &str = "node.alpha.kubernetes.io/ttl";

/// Fewest and most nodes of a step, and its seconds. Steps overlap, so that a node that comes and goes changes nothing.
const STEPS: [(usize, usize, u32); 5] = [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

struct Context {
    client: Client,
    nodes: Informer<Node>,
    step: AtomicUsize,
}

pub(crate) async fn run(cx: ControllerContext) {
    let nodes: Informer<Node> = cx.informers.get();
    let context = Context { client: cx.client(NAME), nodes: nodes.clone(), step: AtomicUsize::new(0) };
    Controller::new(NAME, Arc::new(context))
        .on(&nodes, |cx, queue, event| {
            let old = cx.step.load(Ordering::Relaxed);
            let new = step(old, cx.nodes.len());
            if new != old {
                cx.step.store(new, Ordering::Relaxed);
                cx.nodes.list().iter().for_each(|node| queue.add(node.key()));
            }
            queue.add(event.object().key());
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn step(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(node) = cx.nodes.get(key) else { return Ok(Next::Wait) };
    let wanted = STEPS[cx.step.load(Ordering::Relaxed)].2.to_string();
    if node.annotation(TTL) == Some(wanted.as_str()) {
        return Ok(Next::Wait);
    }
    let patch = Patch::Strategic(json!({"metadata": {"annotations": {TTL: wanted}}}));
    unless_gone(cx.client.patch::<Node>(key, &patch).await).during(|| format!("annotate Node {key}"))?;
    Ok(Next::Wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_left_later_than_they_are_entered() {
        assert_eq!((step(0, 100), step(0, 101), step(1, 95), step(1, 89)), (0, 1, 1, 0));
        assert_eq!((step(0, 5000), step(4, 1900), step(4, 3)), (4, 4, 0));
    }
}

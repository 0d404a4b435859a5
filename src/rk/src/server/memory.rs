//! Gives memory back that a burst has used: the heap alone would keep it.
use std::time::Duration;

use apiserver::ApiServer;
use futures::FutureExt as _;
use runtime::heap;

/// Between two looks: a heap tells nobody what was freed. A look costs microseconds.
const INTERVAL: Duration = Duration::from_secs(15);
/// So many looks follow a burst: longer than anything is kept that a burst leaves. Without a burst nobody looks.
const LOOKS: u32 = 40;
/// A change of what is free that is worth the work.
const STEP_BYTES: usize = 1 << 20;

/// For the page of metrics.
pub fn metrics() -> String {
    let heap::Usage { used_bytes, free_bytes } = heap::usage();
    let head = "# HELP rk_heap_bytes Bytes of this process's heap, by whether they are in use; of free ones the kernel may have taken the memory back.";
    format!("{head}\n# TYPE rk_heap_bytes gauge\nrk_heap_bytes{{state=\"used\"}} {used_bytes}\nrk_heap_bytes{{state=\"free\"}} {free_bytes}\n")
}

/// Never ends.
pub async fn keep_small(api: ApiServer) -> anyhow::Result<&'static str> {
    let mut known = 0;
    // The start was a burst.
    loop {
        let mut looks = LOOKS;
        while looks > 0 {
            tokio::time::sleep(INTERVAL).await;
            looks = if api.burst().now_or_never().is_some() { LOOKS } else { looks - 1 };
            // What was given back counts as free all the same: a burst may have used it since, and freed it again.
            let is_just_over = looks == LOOKS - 1;
            if is_just_over || heap::usage().free_bytes.abs_diff(known) >= STEP_BYTES {
                tokio::task::spawn_blocking(heap::give_back).await?;
                known = heap::usage().free_bytes;
            }
        }
        api.burst().await;
    }
}

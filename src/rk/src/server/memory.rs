//! Gives memory back that a burst has used: the heap alone would keep it.
use std::time::Duration;

use runtime::heap;

/// Between two looks. A look costs microseconds.
const INTERVAL: Duration = Duration::from_secs(15);
/// A change of what is free that is worth the work.
const STEP_BYTES: usize = 4 << 20;

/// For the page of metrics.
pub fn metrics() -> String {
    let heap::Usage { used_bytes, free_bytes } = heap::usage();
    let head = "# HELP rk_heap_bytes Bytes of this process's heap, by whether they are in use; of free ones the kernel may have taken the memory back.";
    format!("{head}\n# TYPE rk_heap_bytes gauge\nrk_heap_bytes{{state=\"used\"}} {used_bytes}\nrk_heap_bytes{{state=\"free\"}} {free_bytes}\n")
}

/// Never ends.
pub async fn keep_small() -> anyhow::Result<&'static str> {
    let mut known = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        // What was given back counts as free all the same.
        if heap::usage().free_bytes.abs_diff(known) >= STEP_BYTES {
            tokio::task::spawn_blocking(heap::give_back).await?;
            known = heap::usage().free_bytes;
        }
    }
}

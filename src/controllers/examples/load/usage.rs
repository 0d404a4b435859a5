//! What the processes of the control plane use: seconds on a core, and memory that is theirs now.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(100);
/// Of Linux on every machine that is measured: bytes of a page, and clock ticks of a second.
const PAGE_BYTES: u64 = 4096;
const TICKS: f64 = 100.0;

#[derive(Clone)]
pub struct Processes(Arc<[u32]>);

impl Processes {
    pub fn new(ids: Vec<u32>) -> Self {
        Self(ids.into())
    }

    /// Resident bytes of all of them.
    pub fn memory(&self) -> u64 {
        let of = |id: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
            text.split(' ').nth(1)?.parse::<u64>().ok()
        };
        self.0.iter().filter_map(of).sum::<u64>() * PAGE_BYTES
    }

    /// Seconds on a core of all of them since they began.
    pub fn cpu(&self) -> f64 {
        let of = |id: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        };
        self.0.iter().filter_map(of).sum::<u64>() as f64 / TICKS
    }

    /// Watches the memory until dropped.
    pub fn peak(&self) -> Peak {
        let most = Arc::new(AtomicU64::new(self.memory()));
        let (seen, processes) = (most.clone(), self.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                seen.fetch_max(processes.memory(), Ordering::Relaxed);
            }
        });
        Peak { most, task }
    }
}

pub struct Peak {
    most: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Peak {
    pub fn bytes(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.task.abort();
    }
}

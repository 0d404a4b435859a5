//! What the processes of the control plane use: seconds on a core, and memory that is theirs now.
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(100);
/// Clock ticks of a second, of Linux on every machine that is measured.
const TICKS: f64 = 100.0;

/// Bytes that are resident, and what of them is no file's: pages of the programs come and go with what else the machine does.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub resident: u64,
    pub own: u64,
}

impl Memory {
    pub fn own_mb(self) -> f64 {
        self.own as f64 / 1e6
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} MB ({:.1} own)", self.resident as f64 / 1e6, self.own_mb())
    }
}

#[derive(Clone)]
pub struct Processes(Arc<[u32]>);

impl Processes {
    pub fn new(ids: Vec<u32>) -> Self {
        Self(ids.into())
    }

    /// Of all of them together.
    pub fn memory(&self) -> Memory {
        let mut sum = Memory::default();
        for id in self.0.iter() {
            let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let bytes = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
            };
            sum.resident += bytes("VmRSS:").unwrap_or(0);
            sum.own += bytes("RssAnon:").unwrap_or(0);
        }
        sum
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
        let most = Arc::new(Mutex::new(self.memory()));
        let (seen, processes) = (most.clone(), self.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let now = processes.memory();
                let mut most = seen.lock().expect("no holder panics");
                *most = Memory { resident: most.resident.max(now.resident), own: most.own.max(now.own) };
            }
        });
        Peak { most, task }
    }
}

pub struct Peak {
    most: Arc<Mutex<Memory>>,
    task: tokio::task::JoinHandle<()>,
}

impl Peak {
    pub fn memory(&self) -> Memory {
        *self.most.lock().expect("no holder panics")
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.task.abort();
    }
}

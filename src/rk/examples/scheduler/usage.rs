//! What this process has taken so far.
use std::time::{Duration, Instant};

/// Processor time of all threads, and the memory that is resident.
#[derive(Clone, Copy)]
pub struct Usage {
    at: Instant,
    cpu: Duration,
    pub resident_bytes: usize,
}

impl Usage {
    pub fn now() -> anyhow::Result<Self> {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::new(spent.tv_sec.try_into()?, spent.tv_nsec.try_into()?);
        let pages: usize = std::fs::read_to_string("/proc/self/statm")?.split(' ').nth(1).unwrap_or_default().parse()?;
        Ok(Self { at: Instant::now(), cpu, resident_bytes: pages * rustix::param::page_size() })
    }

    pub fn cpu_since(&self, before: &Self) -> Duration {
        self.cpu.saturating_sub(before.cpu)
    }

    /// Cores that were busy on average.
    pub fn cores_since(&self, before: &Self) -> f64 {
        self.cpu_since(before).as_secs_f64() / self.at.duration_since(before.at).as_secs_f64()
    }

    pub fn resident_mb(&self) -> usize {
        self.resident_bytes / 1_000_000
    }
}

/// Waits until next to nothing is done any more: by then all that was told has been taken in.
pub async fn quiet() -> anyhow::Result<()> {
    const STEP: Duration = Duration::from_millis(300);
    for _ in 0..100 {
        let before = Usage::now()?;
        tokio::time::sleep(STEP).await;
        if Usage::now()?.cores_since(&before) < 0.05 {
            return Ok(());
        }
    }
    anyhow::bail!("it does not come to rest")
}

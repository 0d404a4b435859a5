//! Limits, written.

use std::io;
use std::path::PathBuf;

use super::{Cgroups, write_file};
use crate::spec::Resources;

impl Cgroups {
    /// Writes what is given. A limit whose controller the host lacks is an error that names it.
    pub(crate) fn apply(&self, path: &str, limits: &Resources) -> io::Result<()> {
        if let Some(shares) = limits.cpu_shares {
            match self.v1("cpu") {
                Some(v1) => write_file(&v1.mount.join(path).join("cpu.shares"), &shares.max(2).to_string())?,
                None => self.write_v2(path, "cpu", "cpu.weight", &weight_of_shares(shares).to_string())?,
            }
        }
        self.apply_quota(path, limits)?;
        if let Some(limit) = limits.memory_limit_bytes {
            self.apply_memory(path, limit)?;
        }
        if let Some(limit) = limits.pids_limit {
            let text = if limit <= 0 { "max".to_owned() } else { limit.to_string() };
            match self.v1("pids") {
                Some(v1) => write_file(&v1.mount.join(path).join("pids.max"), &text)?,
                None => self.write_v2(path, "pids", "pids.max", &text)?,
            }
        }
        for (value, file) in [(&limits.cpuset_cpus, "cpuset.cpus"), (&limits.cpuset_mems, "cpuset.mems")] {
            if let Some(value) = value {
                match self.v1("cpuset") {
                    Some(v1) => write_file(&v1.mount.join(path).join(file), value)?,
                    None => self.write_v2(path, "cpuset", file, value)?,
                }
            }
        }
        Ok(())
    }

    fn apply_quota(&self, path: &str, limits: &Resources) -> io::Result<()> {
        if limits.cpu_quota_us.is_none() && limits.cpu_period_us.is_none() {
            return Ok(());
        }
        let period = limits.cpu_period_us.unwrap_or(100_000);
        let quota = limits.cpu_quota_us.unwrap_or(-1);
        if let Some(v1) = self.v1("cpu") {
            let directory = v1.mount.join(path);
            if let Some(period) = limits.cpu_period_us {
                // A new period may clash with the old quota; then the quota goes first and the period again.
                if write_file(&directory.join("cpu.cfs_period_us"), &period.to_string()).is_err() {
                    write_file(&directory.join("cpu.cfs_quota_us"), &quota.to_string())?;
                    write_file(&directory.join("cpu.cfs_period_us"), &period.to_string())?;
                }
            }
            if limits.cpu_quota_us.is_some() {
                write_file(&directory.join("cpu.cfs_quota_us"), &quota.max(-1).to_string())?;
            }
            return Ok(());
        }
        let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
        self.write_v2(path, "cpu", "cpu.max", &format!("{quota} {period}"))
    }

    fn apply_memory(&self, path: &str, limit: i64) -> io::Result<()> {
        let Some(v1) = self.v1("memory") else {
            let text = if limit < 0 { "max".to_owned() } else { limit.to_string() };
            self.write_v2(path, "memory", "memory.max", &text)?;
            // Containers have no swap unless somebody asks; without a swap controller there is nothing to forbid.
            let _no_swap_controller = self.write_v2(path, "memory", "memory.swap.max", if limit < 0 { "max" } else { "0" });
            return Ok(());
        };
        let directory = v1.mount.join(path);
        let (memory, both) = (directory.join("memory.limit_in_bytes"), directory.join("memory.memsw.limit_in_bytes"));
        let text = limit.max(-1).to_string();
        // memory+swap must never be below memory: growing, it goes first, shrinking, second.
        let with_swap = both.exists();
        if with_swap && write_file(&both, &text).is_ok() {
            return write_file(&memory, &text);
        }
        write_file(&memory, &text)?;
        if with_swap { write_file(&both, &text) } else { Ok(()) }
    }

    /// When memory runs out, the whole container goes: one with a hole in it helps nobody (v2 only, as upstream has it).
    pub(crate) fn kill_together(&self, path: &str) {
        if self.v1("memory").is_none() {
            let _not_limited = self.write_v2(path, "memory", "memory.oom.group", "1");
        }
    }

    fn write_v2(&self, path: &str, controller: &str, file: &str, value: &str) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::Unsupported, format!("the cgroup controller {controller} is missing"));
        let target: PathBuf = self.unified().ok_or_else(missing)?.mount.join(path).join(file);
        write_file(&target, value).map_err(|error| if error.kind() == io::ErrorKind::NotFound { missing() } else { error })
    }
}

/// The v2 weight for v1 shares: 1024 shares are 100, 2 are 1, 262144 are 10000.
/// Models opencontainers/cgroups utils.go ConvertCPUSharesToCgroupV2Value (runc 1.3.2 and later).
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    if shares == 0 {
        return 0;
    }
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_runc() {
        for (shares, weight) in [(2, 1), (102, 17), (512, 59), (1024, 100), (262_144, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares} shares");
        }
    }
}

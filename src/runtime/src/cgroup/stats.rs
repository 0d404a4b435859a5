//! Readings.

use std::fs;
use std::io;
use std::time::Duration;

use super::{Cgroups, keyed};
use crate::spec::Stats;

impl Cgroups {
    /// Controllers that are missing leave zeros. A group that does not exist is an error.
    pub(crate) fn stats(&self, path: &str) -> io::Result<Stats> {
        let mut stats = Stats::default();
        let exists = self.hierarchies.iter().any(|h| h.mount.join(path).exists());
        if !exists {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        self.cpu(path, &mut stats);
        self.memory(path, &mut stats);
        let pids = self.v1("pids").or_else(|| self.unified()).map(|h| h.mount.join(path).join("pids.current"));
        stats.pids = match pids.and_then(|file| number(&file)) {
            Some(count) => count,
            None => self.pids(path).len() as u64,
        };
        Ok(stats)
    }

    fn cpu(&self, path: &str, stats: &mut Stats) {
        if let Some(v1) = self.v1("cpuacct") {
            stats.cpu_usage = Duration::from_nanos(number(&v1.mount.join(path).join("cpuacct.usage")).unwrap_or(0));
        } else if let Some(v2) = self.unified() {
            let text = fs::read_to_string(v2.mount.join(path).join("cpu.stat")).unwrap_or_default();
            stats.cpu_usage = Duration::from_micros(keyed(&text, "usage_usec").unwrap_or(0));
        }
    }

    fn memory(&self, path: &str, stats: &mut Stats) {
        let (hierarchy, names) = match self.v1("memory") {
            Some(v1) => (v1, V1),
            None => match self.unified() {
                Some(v2) => (v2, V2),
                None => return,
            },
        };
        let directory = hierarchy.mount.join(path);
        let text = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        stats.memory_usage_bytes = number(&directory.join(names.usage)).unwrap_or(0);
        let inactive = keyed(&text, names.inactive_file).unwrap_or(0);
        stats.memory_working_set_bytes = stats.memory_usage_bytes.saturating_sub(inactive);
        stats.memory_rss_bytes = keyed(&text, names.rss).unwrap_or(0);
        stats.page_faults = keyed(&text, names.faults).unwrap_or(0);
        stats.major_page_faults = keyed(&text, names.major_faults).unwrap_or(0);
        // v1 writes "no limit" as a page-rounded i64::MAX.
        stats.memory_limit_bytes = number(&directory.join(names.limit)).filter(|limit| *limit < 1 << 62);
    }
}

struct Names {
    usage: &'static str,
    limit: &'static str,
    inactive_file: &'static str,
    rss: &'static str,
    faults: &'static str,
    major_faults: &'static str,
}

const V1: Names = Names {
    usage: "memory.usage_in_bytes",
    limit: "memory.limit_in_bytes",
    inactive_file: "total_inactive_file",
    rss: "total_rss",
    faults: "total_pgfault",
    major_faults: "total_pgmajfault",
};
const V2: Names = Names {
    usage: "memory.current",
    limit: "memory.max",
    inactive_file: "inactive_file",
    rss: "anon",
    faults: "pgfault",
    major_faults: "pgmajfault",
};

fn number(path: &std::path::Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

//! What the machine is and has, from /proc, /etc and /sys.

use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub cpu_milli: i64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub architecture: &'static str,
    disk: PathBuf,
}

/// What is left, for the pressure conditions.
#[derive(Debug, Clone, Copy)]
pub struct Free {
    pub memory_available_bytes: u64,
    pub disk_available_fraction: f64,
    pub inodes_available_fraction: f64,
    pub pids_available_fraction: f64,
}

impl Machine {
    /// `disk` is the directory whose file system counts as the node's.
    pub fn read(disk: &Path) -> Self {
        let _ = fs::create_dir_all(disk);
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = meminfo("MemTotal").unwrap_or(0);
        let storage = rustix::fs::statvfs(disk).map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize));
        let release = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release")).unwrap_or_default();
        let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).map(|v| v.trim_matches('"').to_owned());
        Self {
            cpu_milli: i64::try_from(cpus).unwrap_or(1) * 1000,
            memory_bytes: memory,
            storage_bytes: storage,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            os_image: pretty.unwrap_or_else(|| "Linux".into()),
            machine_id: line("/etc/machine-id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            disk: disk.to_owned(),
        }
    }

    /// Less what the hard eviction thresholds keep free.
    pub fn allocatable_memory_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(super::status::MEMORY_MIN_BYTES)
    }

    pub fn allocatable_storage_bytes(&self) -> u64 {
        (self.storage_bytes as f64 * (1.0 - super::status::DISK_MIN)) as u64
    }

    pub fn free(&self) -> Free {
        let fraction = |part: u64, whole: u64| if whole == 0 { 1.0 } else { part as f64 / whole as f64 };
        let disk = rustix::fs::statvfs(&self.disk);
        let (blocks, inodes) = disk.map_or((1.0, 1.0), |s| (fraction(s.f_bavail, s.f_blocks), fraction(s.f_favail, s.f_files)));
        let pid_max: u64 = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|t| t.trim().parse().ok()).unwrap_or(4_194_304);
        // The fourth field is running/all threads.
        let threads: u64 = fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|t| t.split_whitespace().nth(3).and_then(|f| f.split('/').nth(1)?.parse().ok()))
            .unwrap_or(0);
        Free {
            memory_available_bytes: meminfo("MemAvailable").unwrap_or(u64::MAX),
            disk_available_fraction: blocks,
            inodes_available_fraction: inodes,
            pids_available_fraction: fraction(pid_max.saturating_sub(threads), pid_max),
        }
    }
}

fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

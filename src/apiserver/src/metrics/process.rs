//! What Prometheus' client libraries say of their process.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::text;

/// What the kernel says of a process's times, in its ticks.
struct Times {
    cpu: u64,
    /// After the machine came up.
    start: u64,
}

impl Times {
    /// Of /proc/self/stat (proc_pid_stat(5)); the name of the program may hold anything, brackets too.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self { cpu: number(11)? + number(12)?, start: number(19)? })
    }

    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }
}

/// In a second: Linux tells programs of so many on every machine that rk runs on.
const TICKS: f64 = 100.0;

/// The number behind `name` in a file of /proc that has one entry a line.
fn entry(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// When this process began.
fn start_time() -> Option<SystemTime> {
    let boot = entry("/proc/stat", "btime ")?;
    Some(UNIX_EPOCH + Duration::from_secs_f64(boot as f64 + Times::read()?.start as f64 / TICKS))
}

/// When it began, alone: what `/metrics/slis` says.
pub fn render_start(out: &mut String) {
    if let Some(since) = start_time().and_then(|start| start.duration_since(UNIX_EPOCH).ok()) {
        text::single(out, "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", since.as_secs_f64());
    }
}

pub fn render(out: &mut String) {
    if let Some(times) = Times::read() {
        let seconds = times.cpu as f64 / TICKS;
        text::single(out, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", seconds);
    }
    for (name, help, field) in [
        ("process_resident_memory_bytes", "Resident memory size in bytes.", "VmRSS:"),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", "VmSize:"),
    ] {
        if let Some(kibibytes) = entry("/proc/self/status", field) {
            text::single(out, name, "gauge", help, kibibytes << 10);
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the folder itself.
        text::single(out, "process_open_fds", "gauge", "Number of open file descriptors.", open.count().saturating_sub(1));
    }
    if let Some(most) = entry("/proc/self/limits", "Max open files") {
        text::single(out, "process_max_fds", "gauge", "Maximum number of open file descriptors.", most);
    }
    render_start(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_name_may_hold_brackets() {
        let times = Times::parse("7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 4200 8192 3").unwrap();
        assert_eq!((times.cpu, times.start), (200, 4200));
    }
}

//! For tests of what takes moments if it goes through long input in a pass, and minutes if it compares all with all.
use std::time::Duration;

/// Of this thread on a processor, so that a busy machine makes no difference; far from what a pass takes, and from what more would.
const SECONDS_MAX: u64 = 20;

/// Hundredths of a second that this thread has had.
fn spent() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

pub fn in_a_pass(work: impl FnOnce()) {
    let before = spent();
    work();
    let took = Duration::from_millis(10 * (spent() - before));
    assert!(took < Duration::from_secs(SECONDS_MAX), "{took:?} on a processor");
}

//! Texts that several printers share.
use jiff::SignedDuration;

/// `47s`, `5m`, `3h12m`, `45d`. Models k8s.io/apimachinery pkg/util/duration HumanDuration.
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |large: i64, large_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
    };
    match () {
        // Two seconds are forgiven to clocks that differ.
        () if seconds < -1 => "<invalid>".into(),
        () if seconds < 0 => "0s".into(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(hours / 24, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        () => format!("{}y", hours / 24 / 365),
    }
}

/// The first `max` of a list, and how many more there are.
pub(super) fn first_of(list: &[String], max: usize, none: &str) -> String {
    match list.len() {
        0 => none.into(),
        n if n > max => format!("{} + {} more...", list[..max].join(","), n - max),
        _ => list.join(","),
    }
}

/// `RWO,ROX`. Models pkg/apis/core/helper GetAccessModesAsString.
pub(super) fn access_modes<'a>(modes: impl Iterator<Item = &'a str>) -> String {
    let given: Vec<&str> = modes.collect();
    let known = [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let shown: Vec<&str> = known.into_iter().filter(|(long, _)| given.contains(long)).map(|(_, short)| short).collect();
    shown.join(",")
}

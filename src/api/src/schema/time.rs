//! Times and durations in the forms of metav1, with the messages of Go's package time.

const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// metav1.Time: printed in UTC and whole seconds.
pub(super) fn seconds(text: &str) -> Result<String, String> {
    let parts = parse(text, RFC3339)?;
    Ok(parts.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// metav1.MicroTime: six digits after the point, in and out.
pub(super) fn micros(text: &str) -> Result<String, String> {
    let parts = parse(text, RFC3339_MICRO)?;
    Ok(parts.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

/// Seconds since 1970 of `2026-01-02T03:04:05Z`, the form in which times are stored; a pod has a dozen of them.
pub(crate) fn utc_seconds(text: &[u8]) -> Option<i64> {
    let text: &[u8; 20] = text.try_into().ok()?;
    if (text[4], text[7], text[10], text[13], text[16], text[19]) != (b'-', b'-', b'T', b':', b':', b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970 of the proleptic Gregorian calendar, years beginning in March.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Reads `text` as Go's time.Parse does, chunk by chunk, so that the error names the chunk that does not fit.
fn parse(text: &str, layout: &str) -> Result<jiff::Timestamp, String> {
    let mut rest = text;
    let fail = |rest: &str, chunk: &str| {
        format!("parsing time {0} as {1}: cannot parse {2} as {3}", go_quote(text), go_quote(layout), go_quote(rest), go_quote(chunk))
    };
    let mut numbers = [0i64; 6];
    let chunks = [("2006", 4, 9999), ("01", 2, 12), ("02", 2, 31), ("15", 2, 23), ("04", 2, 59), ("05", 2, 59)];
    let separators = ["-", "-", "T", ":", ":", ""];
    let names = ["year", "month", "day", "hour", "minute", "second"];
    for (i, (chunk, width, max)) in chunks.into_iter().enumerate() {
        let digits = rest.get(..width).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let Some(digits) = digits else { return Err(fail(rest, chunk)) };
        numbers[i] = digits.parse().map_err(|_| fail(rest, chunk))?;
        if numbers[i] > max || (i == 1 || i == 2) && numbers[i] == 0 {
            return Err(format!("parsing time {}: {} out of range", go_quote(text), names[i]));
        }
        rest = &rest[width..];
        match rest.strip_prefix(separators[i]) {
            Some(after) => rest = after,
            None => return Err(fail(rest, separators[i])),
        }
    }
    let fraction: String = match rest.strip_prefix(['.', ',']) {
        Some(after) => after.chars().take_while(char::is_ascii_digit).collect(),
        None => String::new(),
    };
    if layout == RFC3339_MICRO && fraction.len() != 6 {
        return Err(fail(rest, ".000000"));
    }
    if !fraction.is_empty() {
        rest = &rest[1 + fraction.len()..];
    }
    let zone = rest;
    let offset = offset_seconds(zone).ok_or_else(|| fail(zone, "Z07:00"))?;
    let after_zone = if zone.starts_with('Z') { &zone[1..] } else { &zone[6..] };
    if !after_zone.is_empty() {
        return Err(format!("parsing time {}: extra text: {}", go_quote(text), go_quote(after_zone)));
    }
    let nanoseconds: i32 = format!("{fraction:0<9}")[..9].parse().unwrap_or(0);
    let out_of_range = || format!("parsing time {}: day out of range", go_quote(text));
    let narrow = |n: i64| i8::try_from(n).unwrap_or(0);
    let civil = jiff::civil::DateTime::new(
        i16::try_from(numbers[0]).unwrap_or(0),
        narrow(numbers[1]),
        narrow(numbers[2]),
        narrow(numbers[3]),
        narrow(numbers[4]),
        narrow(numbers[5]),
        nanoseconds,
    )
    .map_err(|_| out_of_range())?;
    let offset = jiff::tz::Offset::from_seconds(offset).map_err(|_| out_of_range())?;
    offset.to_timestamp(civil).map_err(|_| out_of_range())
}

fn offset_seconds(zone: &str) -> Option<i32> {
    if zone.starts_with('Z') {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours: i32 = zone.get(1..3)?.parse().ok().filter(|h| *h <= 24)?;
    let minutes: i32 = zone.get(4..6)?.parse().ok().filter(|m| *m < 60)?;
    (zone.as_bytes()[3] == b':').then_some(sign * (hours * 3600 + minutes * 60))
}

/// metav1.Duration: `1m30s`, printed in Go's canonical form.
pub(super) fn duration(text: &str) -> Result<String, String> {
    nanoseconds(text).map(print_duration)
}

pub(crate) fn nanoseconds(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", go_quote(text));
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration {}", go_quote(text))),
            unit => return Err(format!("time: unknown unit {} in duration {}", go_quote(unit), go_quote(text))),
        };
        total += number * scale;
        rest = &rest[end..];
    }
    if total > i64::MAX as f64 { Err(invalid()) } else { Ok((sign * total) as i64) }
}

pub(crate) fn print_duration(nanoseconds: i64) -> String {
    let (sign, n) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    let fraction = |n: u64, unit: u64| {
        let digits = (unit as f64).log10() as usize;
        let text = format!("{}.{:0digits$}", n / unit, n % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let text = match n {
        0 => return "0s".into(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(n, 1_000_000)),
        _ => {
            let minutes = n / 60_000_000_000;
            let seconds = format!("{}s", fraction(n % 60_000_000_000, 1_000_000_000));
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

fn go_quote(text: &str) -> String {
    crate::codec::quote(text)
}

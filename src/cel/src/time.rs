//! Durations and times as Go reads and prints them. Models Go's package time and cel-go common/types/{duration,timestamp}.go.
use jiff::civil;

/// A moment, UTC; from year 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
pub(crate) const SECONDS_MIN: i64 = -62_135_596_800;
pub(crate) const SECONDS_MAX: i64 = 253_402_300_799;

const NANOS: i64 = 1_000_000_000;

impl Timestamp {
    /// Since 1970.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    pub fn nanos(self) -> u32 {
        self.nanos
    }

    pub(crate) fn of(seconds: i64, nanos: u32) -> Option<Self> {
        (SECONDS_MIN..=SECONDS_MAX).contains(&seconds).then_some(Self { seconds, nanos })
    }

    pub(crate) fn plus(self, nanos: i64) -> Option<Self> {
        let total = i128::from(self.seconds) * i128::from(NANOS) + i128::from(self.nanos) + i128::from(nanos);
        let seconds = total.div_euclid(i128::from(NANOS));
        Timestamp::of(i64::try_from(seconds).ok()?, total.rem_euclid(i128::from(NANOS)) as u32)
    }

    /// Nanoseconds since `other`.
    pub(crate) fn since(self, other: Self) -> Option<i64> {
        let nanos = |at: Self| i128::from(at.seconds) * i128::from(NANOS) + i128::from(at.nanos);
        i64::try_from(nanos(self) - nanos(other)).ok()
    }

    /// Its date and time of day, so many seconds east of UTC.
    pub(crate) fn civil(self, offset_seconds: i64) -> Option<civil::DateTime> {
        let seconds = self.seconds + offset_seconds;
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let date = civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok()?;
        let time = civil::time((of_day / 3600) as i8, (of_day / 60 % 60) as i8, (of_day % 60) as i8, self.nanos as i32);
        Some(date.to_datetime(time))
    }

    /// RFC 3339 with as many digits of a second as are needed.
    pub(crate) fn print(self) -> String {
        let Some(at) = self.civil(0) else { return String::new() };
        let mut text = format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", at.year(), at.month(), at.day(), at.hour(), at.minute(), at.second());
        if self.nanos > 0 {
            text.push_str(format!(".{:09}", self.nanos).trim_end_matches('0'));
        }
        text.push('Z');
        text
    }
}

/// RFC 3339, as Go's `time.Parse(time.RFC3339, text)`.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let date = parse_civil_date(text.get(..10)?)?;
    if bytes.get(10) != Some(&b'T') {
        return None;
    }
    let part = |at: usize, max: i64| -> Option<i64> {
        let digits = text.get(at..at + 2).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse().ok().filter(|n| *n <= max)
    };
    let (hour, minute, second) = (part(11, 23)?, part(14, 59)?, part(17, 59)?);
    if bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanos = 0;
    if rest.starts_with(['.', ',']) {
        let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        let kept = &rest[1..1 + digits.min(9)];
        nanos = kept.parse::<u32>().ok()? * 10u32.pow(9 - kept.len() as u32);
        rest = &rest[1 + digits..];
    }
    let offset = match rest.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let seconds = part(at, 24)? * 3600 + part(at + 3, 60)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    Timestamp::of(days_since_epoch(date) * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos)
}

fn days_since_epoch(date: civil::Date) -> i64 {
    date.duration_since(civil::date(1970, 1, 1)).as_hours() / 24
}

fn parse_civil_date(text: &str) -> Option<civil::Date> {
    let bytes = text.as_bytes();
    let shaped =
        bytes.len() == 10 && bytes.iter().enumerate().all(|(i, b)| if matches!(i, 4 | 7) { *b == b'-' } else { b.is_ascii_digit() });
    if !shaped {
        return None;
    }
    civil::Date::new(text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?).ok()
}

/// A date alone: its midnight, UTC.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    Timestamp::of(days_since_epoch(parse_civil_date(text)?) * 86_400, 0)
}

/// The shapes that kube-openapi's `date-time` reads beside RFC 3339: a blank for the T, no colon in the offset, small letters.
pub(crate) fn parse_declared_timestamp(text: &str) -> Option<Timestamp> {
    if let Some(at) = parse_timestamp(text) {
        return Some(at);
    }
    let mut fixed = text.to_ascii_uppercase().replacen(' ', "T", 1);
    let tail = fixed.len().checked_sub(5)?;
    if fixed.as_bytes()[tail..].first().is_some_and(|b| matches!(b, b'+' | b'-')) && fixed.is_char_boundary(tail + 3) {
        fixed.insert(tail + 3, ':');
    }
    parse_timestamp(&fixed)
}

/// Go's `time.ParseDuration`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole = rest.bytes().take_while(u8::is_ascii_digit).count();
        let fraction = match rest.as_bytes().get(whole) {
            Some(b'.') => rest[whole + 1..].bytes().take_while(u8::is_ascii_digit).count(),
            _ => 0,
        };
        let dot = usize::from(rest.as_bytes().get(whole) == Some(&b'.'));
        if whole + fraction == 0 {
            return None;
        }
        let unit_at = whole + dot + fraction;
        let unit_end = rest[unit_at..].find(|c: char| c == '.' || c.is_ascii_digit()).map_or(rest.len(), |n| unit_at + n);
        let unit: i128 = match &rest[unit_at..unit_end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let number: i128 = if whole == 0 { 0 } else { rest[..whole].parse().ok()? };
        total = total.checked_add(number.checked_mul(unit)?)?;
        let (mut scale, mut part) = (1i128, 0i128);
        for digit in rest.as_bytes()[whole + dot..unit_at].iter().take(18) {
            part = part * 10 + i128::from(digit - b'0');
            scale *= 10;
        }
        total += part * unit / scale;
        rest = &rest[unit_end..];
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).ok()
}

/// What kube-openapi's `duration` reads: Go's form, or numbers with the units' long names, days and weeks.
pub(crate) fn parse_declared_duration(text: &str) -> Option<i64> {
    if let Some(nanos) = parse_duration(text) {
        return Some(nanos);
    }
    let mut total: i128 = 0;
    let mut rest = text;
    let mut any = false;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[at..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i128 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit: i128 = match &*rest[..letters].to_lowercase() {
            "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1,
            "us" | "µs" | "micro" | "micros" | "microsecond" | "microseconds" => 1_000,
            "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000_000,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000_000_000,
            "d" | "day" | "days" => 86_400_000_000_000,
            "w" | "week" | "weeks" => 604_800_000_000_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        any = true;
        rest = &rest[letters..];
    }
    if any { i64::try_from(total).ok() } else { None }
}

/// What `string(duration)` gives: seconds.
pub(crate) fn print_duration(nanos: i64) -> String {
    format!("{}s", nanos as f64 / NANOS as f64)
}

/// Go's `Duration.String`.
pub(crate) fn go_duration(nanos: i64) -> String {
    let size = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let fraction = |value: u64, unit: u64| -> String {
        let rest = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { (value / unit).to_string() } else { format!("{}.{rest}", value / unit) }
    };
    match size {
        0 => "0s".into(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(size, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(size, 1_000_000)),
        _ => {
            let seconds = size / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = fraction(size % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}s"),
                (0, _) => format!("{sign}{minutes}m{rest}s"),
                _ => format!("{sign}{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

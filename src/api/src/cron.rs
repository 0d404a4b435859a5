//! Cron schedules: five fields or a descriptor, and when they come next.
//!
//! Models github.com/robfig/cron v3 (parser.go `ParseStandard`, spec.go `Next`, constantdelay.go), texts of errors included.
//! Different: without a zone a schedule is in UTC, as in upstream's images, since a library reads no environment.
use std::time::Duration;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

/// Marks a field given as `*`.
const STAR: u64 = 1 << 63;
const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct ScheduleError {
    message: String,
}

fn fail<T>(message: String) -> Result<T, ScheduleError> {
    Err(ScheduleError { message })
}

/// The values that a field may take, and names for them.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: MONTHS },
    Bounds { min: 0, max: 6, names: DAYS },
];

#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    Every(Duration),
    Fields(Fields),
}

/// One bit for each value that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    zone: TimeZone,
}

impl Schedule {
    /// Reads a schedule, which may begin with `TZ=NAME` or `CRON_TZ=NAME`.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return fail("empty spec string".to_owned());
        }
        let (zone, text) = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            None => (TimeZone::UTC, text),
            Some(rest) => {
                let Some((name, rest)) = rest.split_once(' ') else {
                    return fail(format!("provided bad location {rest}: no schedule follows"));
                };
                match TimeZone::get(name) {
                    Ok(zone) => (zone, rest.trim()),
                    Err(_) => return fail(format!("provided bad location {name}: unknown time zone {name}")),
                }
            }
        };
        if text.starts_with('@') {
            return descriptor(text, zone);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != 5 {
            return fail(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        }
        let mut bits = [0; 5];
        for ((bits, text), bounds) in bits.iter_mut().zip(fields).zip(&FIELDS) {
            *bits = field(text, bounds)?;
        }
        let [minute, hour, day, month, weekday] = bits;
        Ok(Self::Fields(Fields { minute, hour, day, month, weekday, zone }))
    }

    /// The first time after `after`; `None` if there is none within five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let second = Timestamp::from_second(after.as_nanosecond().div_euclid(1_000_000_000).try_into().ok()?).ok()?;
        match self {
            Self::Every(delay) => second.checked_add(*delay).ok(),
            Self::Fields(fields) => fields.next(second.checked_add(SignedDuration::from_secs(1)).ok()?),
        }
    }
}

fn descriptor(text: &str, zone: TimeZone) -> Result<Schedule, ScheduleError> {
    let all = |bounds: &Bounds| range_bits(bounds.min, bounds.max, 1) | STAR;
    let [_, hours, days, months, weekdays] = &FIELDS;
    let hourly = Fields { minute: 1, hour: all(hours), day: all(days), month: all(months), weekday: all(weekdays), zone };
    let daily = Fields { hour: 1, ..hourly.clone() };
    let fields = match text {
        "@yearly" | "@annually" => Fields { day: 1 << 1, month: 1 << 1, ..daily },
        "@monthly" => Fields { day: 1 << 1, ..daily },
        "@weekly" => Fields { weekday: 1, ..daily },
        "@daily" | "@midnight" => daily,
        "@hourly" => hourly,
        _ => {
            let Some(duration) = text.strip_prefix("@every ") else {
                return fail(format!("unrecognized descriptor: {text}"));
            };
            let Some(delay) = go_duration(duration) else {
                return fail(format!("failed to parse duration {text}: time: invalid duration \"{duration}\""));
            };
            // Whole seconds, one at least.
            return Ok(Schedule::Every(Duration::from_secs(u64::try_from(delay.as_secs()).unwrap_or(0).max(1))));
        }
    };
    Ok(Schedule::Fields(fields))
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    text.split(',').filter(|p| !p.is_empty()).try_fold(0, |bits, part| Ok(bits | range(part, bounds)?))
}

/// `*`, `N`, `N-M`, each with `/STEP`.
fn range(part: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let pieces: Vec<&str> = part.split('/').collect();
    let ends: Vec<&str> = pieces[0].split('-').collect();
    let (start, mut end, mut extra) = match ends[..] {
        ["*" | "?", ..] => (bounds.min, bounds.max, STAR),
        [one] => {
            let one = number_or_name(one, bounds.names, bounds.min)?;
            (one, one, 0)
        }
        [from, to] => (number_or_name(from, bounds.names, bounds.min)?, number_or_name(to, bounds.names, bounds.min)?, 0),
        _ => return fail(format!("too many hyphens: {part}")),
    };
    let step = match pieces[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            if ends.len() == 1 {
                end = bounds.max;
            }
            if step > 1 {
                extra = 0;
            }
            step
        }
        _ => return fail(format!("too many slashes: {part}")),
    };
    let (min, max) = (bounds.min, bounds.max);
    match () {
        () if start < min => fail(format!("beginning of range ({start}) below minimum ({min}): {part}")),
        () if end > max => fail(format!("end of range ({end}) above maximum ({max}): {part}")),
        () if start > end => fail(format!("beginning of range ({start}) beyond end of range ({end}): {part}")),
        () if step == 0 => fail(format!("step of range should be a positive number: {part}")),
        () => Ok(range_bits(start, end, step) | extra),
    }
}

fn range_bits(start: u32, end: u32, step: u32) -> u64 {
    (start..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX)).fold(0, |bits, n| bits | 1 << n)
}

fn number_or_name(text: &str, names: &[&str], first: u32) -> Result<u32, ScheduleError> {
    match names.iter().zip(first..).find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(value),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, ScheduleError> {
    match text.parse::<i64>() {
        Err(_) => fail(format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")),
        Ok(n) if n < 0 => fail(format!("negative number ({n}) not allowed: {text}")),
        Ok(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
    }
}

/// Go's time.ParseDuration: `1h30m`, `1.5s`.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    const UNITS: &[(&str, f64)] =
        &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number: f64 = rest[..rest.len() - after.len()].parse().ok()?;
        let (unit, factor) = UNITS.iter().filter(|(u, _)| after.starts_with(u)).max_by_key(|(u, _)| u.len())?;
        seconds += number * factor;
        rest = &after[unit.len()..];
    }
    SignedDuration::try_from_secs_f64(if text.starts_with('-') { -seconds } else { seconds }).ok()
}

fn has(bits: u64, value: i8) -> bool {
    bits & (1 << value) != 0
}

impl Fields {
    fn matches_day(&self, at: &Zoned) -> bool {
        let day = has(self.day, at.day());
        let weekday = has(self.weekday, at.weekday().since(Weekday::Sunday));
        match (self.day | self.weekday) & STAR {
            0 => day || weekday,
            _ => day && weekday,
        }
    }

    /// Goes from field to field, the largest first; where one wraps around, it begins again. Whoever is moved has its smaller
    /// fields set to their beginning once.
    fn next(&self, from: Timestamp) -> Option<Timestamp> {
        let mut at = from.to_zoned(self.zone.clone());
        let last_year = at.year().checked_add(5)?;
        let mut moved = false;
        'wrap: while at.year() <= last_year {
            while !has(self.month, at.month()) {
                if !std::mem::replace(&mut moved, true) {
                    at = at.first_of_month().ok()?.start_of_day().ok()?;
                }
                at = at.checked_add(Span::new().months(1)).ok()?;
                if at.month() == 1 {
                    continue 'wrap;
                }
            }
            while !self.matches_day(&at) {
                moved = true;
                // Where daylight saving skips midnight, the day starts later.
                at = at.tomorrow().ok()?.start_of_day().ok()?;
                if at.day() == 1 {
                    continue 'wrap;
                }
            }
            while !has(self.hour, at.hour()) {
                if !std::mem::replace(&mut moved, true) {
                    at = at.checked_sub(SignedDuration::from_secs(i64::from(at.minute()) * 60 + i64::from(at.second()))).ok()?;
                }
                at = at.checked_add(SignedDuration::from_hours(1)).ok()?;
                if at.hour() == 0 {
                    continue 'wrap;
                }
            }
            while !has(self.minute, at.minute()) {
                moved = true;
                at = at.checked_add(SignedDuration::from_secs(60 - i64::from(at.second()))).ok()?;
                if at.minute() == 0 {
                    continue 'wrap;
                }
            }
            // The field of seconds is always 0.
            if at.second() != 0 {
                moved = true;
                at = at.checked_add(SignedDuration::from_secs(60 - i64::from(at.second()))).ok()?;
                // The next minute may be one that does not match.
                continue 'wrap;
            }
            return Some(at.timestamp());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn next(schedule: &str, after: &str, expect: &str) {
        let schedule = Schedule::parse(schedule).unwrap();
        let next = schedule.next(after.parse().unwrap());
        assert_eq!(next, (!expect.is_empty()).then(|| expect.parse().unwrap()));
    }

    /// From robfig/cron's spec_test.go.
    #[test]
    fn the_next_time_is_found() {
        next("0/15 * * * *", "2012-07-09T14:45:00Z", "2012-07-09T15:00:00Z");
        next("0/15 * * * *", "2012-07-09T14:59:59Z", "2012-07-09T15:00:00Z");
        next("20-35/15 * * * *", "2012-07-09T15:45:00Z", "2012-07-09T16:20:00Z");
        next("*/15 * * * *", "2012-07-09T23:46:00Z", "2012-07-10T00:00:00Z");
        next("0/15 0 9 Jul *", "2012-07-09T14:45:00Z", "2013-07-09T00:00:00Z");
        next("0 0 1 * Mon", "2012-07-09T23:35:00Z", "2012-07-16T00:00:00Z");
        next("0 0 * * Mon", "2012-07-09T23:35:00Z", "2012-07-16T00:00:00Z");
        next("0 0 */3 * Mon", "2012-07-09T23:35:00Z", "2012-07-10T00:00:00Z");
        next("0 0 29 Feb ?", "2012-07-09T23:35:00Z", "2016-02-29T00:00:00Z");
        next("@yearly", "2012-07-09T23:35:00Z", "2013-01-01T00:00:00Z");
        next("@every 1h30m", "2012-07-09T14:45:00.5Z", "2012-07-09T16:15:00Z");
        next("@every 10ms", "2012-07-09T14:45:00Z", "2012-07-09T14:45:01Z");
        next("0 0 30 Feb ?", "2012-07-09T23:35:00Z", "");
        next("* * * * *", "2012-07-09T23:59:00Z", "2012-07-10T00:00:00Z");
    }

    #[test]
    fn zones_and_their_daylight_saving_count() {
        // An hour that is skipped in spring, and one that comes twice in autumn.
        next("TZ=America/New_York 30 2 * * *", "2012-03-11T05:00:00Z", "2012-03-12T06:30:00Z");
        next("TZ=America/New_York 0 0 11 Mar ?", "2012-01-01T00:00:00Z", "2012-03-11T05:00:00Z");
        next("TZ=America/New_York 0 1 4 Nov ?", "2012-11-04T04:00:00Z", "2012-11-04T05:00:00Z");
        next("TZ=America/New_York 0 1 4 Nov ?", "2012-11-04T05:00:00Z", "2012-11-04T06:00:00Z");
        next("CRON_TZ=America/Sao_Paulo 0 9 10 Oct ?", "2018-10-01T00:00:00Z", "2018-10-10T12:00:00Z");
        // Midnight does not exist on 4 November 2018 in Sao Paulo.
        next("TZ=America/Sao_Paulo 0 10 * * *", "2018-11-03T20:00:00Z", "2018-11-04T12:00:00Z");
    }

    #[track_caller]
    fn refused(schedule: &str, expect: &str) {
        assert_eq!(Schedule::parse(schedule).unwrap_err().to_string(), expect);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_usual_texts() {
        refused("", "empty spec string");
        refused("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
        refused("60 * * * *", "end of range (60) above maximum (59): 60");
        refused("* * 0 * *", "beginning of range (0) below minimum (1): 0");
        refused("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3");
        refused("*/0 * * * *", "step of range should be a positive number: */0");
        refused("1-2-3 * * * *", "too many hyphens: 1-2-3");
        refused("1/2/3 * * * *", "too many slashes: 1/2/3");
        refused("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
        refused("@never", "unrecognized descriptor: @never");
        refused("@every xyz", "failed to parse duration @every xyz: time: invalid duration \"xyz\"");
        refused("TZ=Mars/Base 0 0 * * *", "provided bad location Mars/Base: unknown time zone Mars/Base");
    }
}

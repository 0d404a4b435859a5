//! Parts of durations and times. Models cel-go common/types/{duration,timestamp}.go.
use jiff::tz::TimeZone;

use super::{Body, Result, error, no_overload};
use crate::time::Timestamp;
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "getFullYear" => |args| part(args, None, |at| i64::from(at.year())),
        "getMonth" => |args| part(args, None, |at| i64::from(at.month()) - 1),
        "getDayOfYear" => |args| part(args, None, |at| i64::from(at.day_of_year()) - 1),
        "getDayOfMonth" => |args| part(args, None, |at| i64::from(at.day()) - 1),
        "getDate" => |args| part(args, None, |at| i64::from(at.day())),
        "getDayOfWeek" => |args| part(args, None, |at| i64::from(at.weekday().to_sunday_zero_offset())),
        "getHours" => |args| part(args, Some(3_600_000_000_000), |at| i64::from(at.hour())),
        "getMinutes" => |args| part(args, Some(60_000_000_000), |at| i64::from(at.minute())),
        "getSeconds" => |args| part(args, Some(1_000_000_000), |at| i64::from(at.second())),
        "getMilliseconds" => |args| part(args, Some(1_000_000), |at| i64::from(at.millisecond())),
        _ => return None,
    })
}

fn part<'a>(args: &[Value<'a>], of_duration: Option<i64>, of_time: fn(jiff::civil::DateTime) -> i64) -> Result<'a> {
    match (&args[0], args.get(1), of_duration) {
        (Value::Duration(nanos), None, Some(unit)) => Ok(Value::Int(nanos / unit)),
        (Value::Timestamp(at), zone, _) => {
            let offset = match zone {
                None => 0,
                Some(zone) => match zone.as_str() {
                    Some(zone) => match offset_seconds(zone, *at) {
                        Ok(offset) => offset,
                        Err(message) => return error(message),
                    },
                    None => return no_overload(),
                },
            };
            at.civil(offset).map_or_else(|| error("timestamp overflow"), |at| Ok(Value::Int(of_time(at))))
        }
        _ => no_overload(),
    }
}

/// `+02:00`, or a zone's name.
fn offset_seconds(zone: &str, at: Timestamp) -> std::result::Result<i64, String> {
    let Some((hours, minutes)) = zone.split_once(':') else {
        if matches!(zone, "" | "UTC") {
            return Ok(0);
        }
        let found = TimeZone::get(zone).map_err(|_| format!("unknown time zone {zone}"))?;
        let at = jiff::Timestamp::new(at.seconds, at.nanos as i32).map_err(|_| "timestamp overflow".to_owned())?;
        return Ok(i64::from(found.to_offset(at).seconds()));
    };
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
    let (negative, hours) = (hours.starts_with('-'), number(hours)?);
    let minutes = number(minutes)?;
    if !(0..=59).contains(&minutes) {
        return Err(format!("timezone offset minutes out of range [0, 59]: {zone}"));
    }
    Ok(hours * 3600 + if negative { -minutes * 60 } else { minutes * 60 })
}

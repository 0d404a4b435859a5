//! How many seats a request takes.
//!
//! Models k8s.io/apiserver/pkg/util/flowcontrol/request (SizeBasedListCostEstimate, on by default).
use std::time::Duration;

use super::queues::Work;
use crate::cache::Cache;
use crate::request::{Query, RequestInfo};

const BYTES_PER_SEAT: usize = 100_000;
/// Lists and watches are answered in pieces, so they hold no more at once.
const BYTES_AT_ONCE_MAX: usize = 1_000_000;
const LIST_SEATS_MAX: usize = 100;
const WRITE_SEATS_MAX: usize = 10;
const WATCHERS_PER_SEAT: usize = 10;
/// What an event costs for each seat's worth of watchers.
const EVENT: Duration = Duration::from_millis(5);

/// `watchers`: how many hear of a change of the resource.
pub fn estimate(info: &RequestInfo, query: &Query, cache: &Cache, seats_max: usize, watchers: impl FnOnce() -> usize) -> Work {
    if !info.is_resource {
        return Work::ONE;
    }
    match info.verb {
        "list" | "watch" => {
            let Some(resource) = cache.resource(&info.group, &info.version, &info.resource) else { return Work::ONE };
            let (count, average) = cache.kind(&resource).map_or((0, 0), |kind| cache.size_of(kind));
            Work { initial: list_seats(info, query, count, average).clamp(1, seats_max.clamp(1, LIST_SEATS_MAX)), ..Work::ONE }
        }
        "create" | "update" | "patch" | "delete" | "deletecollection" if (&*info.resource, &*info.subresource) != ("serviceaccounts", "token") => {
            write_work(watchers(), seats_max.clamp(1, WRITE_SEATS_MAX))
        }
        _ => Work::ONE,
    }
}

fn list_seats(info: &RequestInfo, query: &Query, count: usize, average: usize) -> usize {
    if info.verb == "watch" {
        let has_initial = query.flag("sendInitialEvents") || matches!(query.nonempty("resourceVersion"), None | Some("0"));
        if !has_initial {
            return 1;
        }
    }
    let limit = query.nonempty("limit").and_then(|text| text.parse().ok()).filter(|limit| *limit > 0).unwrap_or(count);
    let objects = if info.name.is_empty() { count.min(limit) } else { 1 };
    (objects * average).min(BYTES_AT_ONCE_MAX).div_ceil(BYTES_PER_SEAT)
}

/// The work of telling all watchers comes after the answer.
fn write_work(watchers: usize, seats_max: usize) -> Work {
    if watchers < WATCHERS_PER_SEAT {
        return Work::ONE;
    }
    let wanted = watchers.div_ceil(WATCHERS_PER_SEAT);
    let last = wanted.min(seats_max);
    Work { initial: 1, last, after: EVENT.mul_f64(wanted as f64 / last as f64) }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;

    fn seats(path: &'static str) -> usize {
        let uri = Uri::from_static(path);
        let query = Query::parse(&uri);
        list_seats(&RequestInfo::new(&Method::GET, &uri, &query), &query, 5000, 1500)
    }

    #[test]
    fn lists_are_as_wide_as_what_they_hold_at_once() {
        assert_eq!(seats("/api/v1/pods"), 10);
        assert_eq!(seats("/api/v1/pods?limit=500"), 8);
        assert_eq!(seats("/api/v1/pods?fieldSelector=metadata.name%3Dx"), 1);
        assert_eq!(seats("/api/v1/pods?watch=1&resourceVersion=7"), 1);
        assert_eq!(seats("/api/v1/pods?watch=1&resourceVersion=7&sendInitialEvents=true"), 10);
    }

    #[test]
    fn writes_that_many_watch_go_on_for_a_while() {
        assert_eq!(write_work(9, 10), Work::ONE);
        assert_eq!(write_work(25, 10), Work { initial: 1, last: 3, after: EVENT });
        assert_eq!(write_work(1000, 10), Work { initial: 1, last: 10, after: EVENT * 10 });
    }
}

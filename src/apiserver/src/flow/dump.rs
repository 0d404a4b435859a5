//! `/debug/api_priority_and_fairness/dump_*`: levels, queues and requests as tables.
//!
//! Models k8s.io/apiserver/pkg/util/flowcontrol/apf_controller_debug.go.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::queues::{Ticket, Work};
use super::{FlowControl, Level, Refusal, Schema};
use crate::auth::UserInfo;
use crate::request::RequestInfo;

/// A request that waits or runs.
struct Listed {
    schema: String,
    flow: String,
    queue: Option<usize>,
    arrived: Timestamp,
    started: Option<Timestamp>,
    work: Work,
    user: String,
    info: RequestInfo,
}

/// The requests of a level, in the order in which they came.
#[derive(Default)]
pub struct Requests(Mutex<BTreeMap<u64, Listed>>);

impl Requests {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<u64, Listed>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lists a request for as long as it is there.
pub struct Listing {
    level: Arc<Level>,
    id: u64,
}

impl Listing {
    pub fn new(level: &Arc<Level>, schema: &Schema, ticket: Ticket, user: &UserInfo, info: &RequestInfo) -> Self {
        let listed = Listed {
            schema: schema.name.clone(),
            flow: schema.distinguished_by(user, info).to_owned(),
            queue: ticket.queue,
            arrived: Timestamp::now(),
            started: None,
            work: ticket.work,
            user: user.name.clone(),
            info: info.clone(),
        };
        level.requests.with(|requests| requests.insert(ticket.id, listed));
        Self { level: level.clone(), id: ticket.id }
    }

    /// Its turn has come.
    pub fn start(&self) {
        self.level.requests.with(|requests| {
            if let Some(listed) = requests.get_mut(&self.id) {
                listed.started = Some(Timestamp::now());
            }
        });
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.level.requests.with(|requests| requests.remove(&self.id));
    }
}

type Row = Vec<String>;

fn head<const N: usize>(columns: [&str; N]) -> Row {
    columns.map(str::to_owned).to_vec()
}

/// As Go's text/tabwriter does it: cells of at least eight, but for the last of a line.
fn table(rows: &[Row]) -> String {
    const LEAST: usize = 8;
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 2).max().unwrap_or(0).max(LEAST);
    let widths: Vec<usize> = (0..count.saturating_sub(1)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            out.push_str(&format!("{:<width$}", format!("{cell},")));
        }
        out.push_str(row.last().map_or("", String::as_str));
        out.push('\n');
    }
    out
}

/// Work in seats and seconds.
fn seat_seconds(amount: f64) -> String {
    format!("{amount:.8}ss")
}

impl FlowControl {
    pub fn dump_levels(&self) -> String {
        let mut rows = vec![head([
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ])];
        for (_, level) in self.0.setup.load().levels.values() {
            let (active, waiting, executing) = {
                let state = level.lock();
                (state.set.digests().filter(|queue| queue.waiting > 0).count(), state.set.waiting, state.set.executing)
            };
            let (mut dispatched, mut rejected) = (0, [0; 3]);
            for counts in level.counts.lock().unwrap_or_else(PoisonError::into_inner).values() {
                dispatched += counts.dispatched;
                rejected.iter_mut().zip(counts.rejected).for_each(|(sum, count)| *sum += count);
            }
            let late = rejected[Refusal::TimeOut as usize];
            let numbers = [waiting as u64, executing as u64, dispatched, rejected.iter().sum::<u64>() - late, late];
            let words = [level.name.clone(), active.to_string(), (waiting + executing == 0).to_string(), false.to_string()];
            let cancelled = level.cancelled.load(Ordering::Relaxed).to_string();
            rows.push(words.into_iter().chain(numbers.map(|number| number.to_string())).chain([cancelled]).collect());
        }
        table(&rows)
    }

    pub fn dump_queues(&self) -> String {
        let mut rows = vec![head([
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ])];
        for (_, level) in self.0.setup.load().levels.values() {
            let state = level.lock();
            for (i, queue) in state.set.digests().enumerate() {
                rows.push(vec![
                    level.name.clone(),
                    i.to_string(),
                    queue.waiting.to_string(),
                    queue.executing.to_string(),
                    queue.seats_in_use.to_string(),
                    seat_seconds(queue.next),
                    queue.initial_seats.to_string(),
                    queue.most_seats.to_string(),
                    seat_seconds(queue.work),
                ]);
            }
        }
        table(&rows)
    }

    /// `is_detailed`: with what each request is about.
    pub fn dump_requests(&self, is_detailed: bool) -> String {
        let mut columns = head([
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
            "StartTime",
        ]);
        if is_detailed {
            columns.extend(head(["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"]));
        }
        let mut rows = vec![columns];
        for (_, level) in self.0.setup.load().levels.values() {
            level.requests.with(|requests| {
                let mut waiting: BTreeMap<Option<usize>, usize> = BTreeMap::new();
                for listed in requests.values() {
                    let place = match listed.started {
                        Some(_) => "-1".to_owned(),
                        None => {
                            let next = waiting.entry(listed.queue).or_default();
                            *next += 1;
                            (*next - 1).to_string()
                        }
                    };
                    rows.push(row(&level.name, listed, place, is_detailed));
                }
            });
        }
        table(&rows)
    }
}

fn row(level: &str, listed: &Listed, place: String, is_detailed: bool) -> Row {
    // Go's zero time, of one that has not begun.
    let started = listed.started.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string());
    let mut row = vec![
        level.to_owned(),
        listed.schema.clone(),
        listed.queue.map_or("-1".to_owned(), |queue| queue.to_string()),
        place,
        listed.flow.clone(),
        listed.arrived.to_string(),
        listed.work.initial.to_string(),
        listed.work.last.to_string(),
        format!("{}s", listed.work.after.as_secs_f64()),
        started,
    ];
    if is_detailed {
        let info = &listed.info;
        let version = api::registry::api_version(&info.group, &info.version);
        let words = [listed.user.as_str(), info.verb, &info.path, &info.namespace, &info.name, &version, &info.resource, &info.subresource];
        row.extend(words.map(str::to_owned));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_as_wide_as_the_widest_of_their_column() {
        let rows = [head(["PriorityLevelName", "Index", "X"]), head(["exempt", "0", "1"])];
        assert_eq!(table(&rows), "PriorityLevelName, Index,  X\nexempt,            0,      1\n");
    }
}

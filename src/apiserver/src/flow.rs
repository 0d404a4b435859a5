//! Priority and fairness: which requests run, which wait for their turn, and which are turned away when the server is busy.
//!
//! Models k8s.io/apiserver/pkg/util/flowcontrol. A request is classified by the FlowSchemas ([`schema`]), and takes seats of its priority level,
//! whose queues are fair to all flows ([`queues`]); the levels lend each other what they do not use ([`share`]). The objects are those of the
//! API: the cache tells of changes. Requests of this process itself do not come here.
mod dump;
mod objects;
mod page;
mod queues;
mod schema;
mod share;
mod work;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use api::meta;
use api::registry::Registry;
use api::tree::Tree;
use arc_swap::ArcSwap;
use axum::body::Body;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use tokio::sync::{Notify, oneshot};

use crate::auth::UserInfo;
use crate::cache::Cache;
use crate::config::Config;
use crate::metrics::{Histogram, Load};
use crate::negotiate;
use crate::request::{Query, RequestInfo};
use dump::{Listing, Requests};
use queues::{Admitted, QueueSet, Refusal, Settings, Ticket, Work};
use schema::Schema;
use share::{Claim, Demand, Seats};

pub use objects::{ensure, run};

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
pub const SCHEMAS: &str = "flowschemas";
pub const LEVELS: &str = "prioritylevelconfigurations";
pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";

const ADJUSTMENT_PERIOD: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Of a level's nominal seats, so much may one request take.
const SEATS_PART_MAX: f64 = 0.15;

/// Where one request's turn is announced.
type Turn = oneshot::Sender<Ticket>;

/// One priority level and its queues, for as long as its object is there.
struct Level {
    name: String,
    is_exempt: bool,
    state: Mutex<LevelState>,
    counts: Mutex<BTreeMap<String, Counts>>,
    /// Requests whose clients went away before their turn.
    cancelled: AtomicU64,
    requests: Requests,
}

struct LevelState {
    set: QueueSet<Turn>,
    seats: Seats,
    demand: Demand,
}

/// What the metrics tell, by FlowSchema.
#[derive(Clone)]
struct Counts {
    dispatched: u64,
    rejected: [u64; 3],
    executing: i64,
    waits: Histogram,
    /// Of watches: until they began, and of all others.
    executions: [Histogram; 2],
    seats: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        let durations = Histogram::new(page::DURATIONS);
        let executions = [durations.clone(), durations.clone()];
        Self { dispatched: 0, rejected: [0; 3], executing: 0, waits: durations, executions, seats: Histogram::new(page::SEATS) }
    }
}

struct Setup {
    /// In the order in which they are tried.
    schemas: Vec<Schema>,
    levels: BTreeMap<String, (String, Arc<Level>)>,
}

struct Inner {
    started: Instant,
    total: usize,
    request_timeout: Duration,
    setup: ArcSwap<Setup>,
    /// Milliseconds since the start.
    adjusted: AtomicU64,
    /// The objects have changed.
    changed: Notify,
}

/// Clones share it.
#[derive(Clone)]
pub struct FlowControl(Arc<Inner>);

/// What a request was classified as; the answer's headers tell it.
#[derive(Clone, Debug, Default)]
pub struct Class {
    schema_uid: String,
    level_uid: String,
}

impl Class {
    pub fn tell(&self, response: &mut Response<Body>) {
        for (name, uid) in [("x-kubernetes-pf-flowschema-uid", &self.schema_uid), ("x-kubernetes-pf-prioritylevel-uid", &self.level_uid)] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// The seats of a request that runs.
pub struct Seat {
    flow: FlowControl,
    level: Arc<Level>,
    schema: String,
    ticket: Ticket,
    began: Instant,
    _listing: Listing,
    is_watch: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flow.finish(self);
    }
}

impl Level {
    fn lock(&self) -> MutexGuard<'_, LevelState> {
        self.state.lock().expect("no panic under the lock")
    }

    fn count(&self, schema: &str, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock().expect("no panic under the lock");
        match counts.get_mut(schema) {
            Some(counts) => change(counts),
            None => change(counts.entry(schema.to_owned()).or_default()),
        }
    }
}

impl LevelState {
    fn note_demand(&mut self, now: Duration) {
        let seats = self.set.seats_in_use + self.set.seats_waiting;
        self.demand.set(now, seats);
    }

    /// What one request may take at most.
    fn seats_max(&self, settings: Settings) -> usize {
        let Settings::Queue { hand, .. } = settings else { return usize::MAX };
        let nominal = self.seats.nominal;
        ((nominal as f64 * SEATS_PART_MAX).ceil() as usize).min(nominal / hand.max(1)).max(1)
    }
}

/// The settings of a level, and its shares, what it lends and what it may borrow.
struct LevelSpec {
    settings: Settings,
    shares: i64,
    lendable: i64,
    borrowing: Option<i64>,
}

impl LevelSpec {
    /// `None`: the object is broken, and is passed over.
    fn of(object: &Tree) -> Option<Self> {
        let kind = object.str_at(&["spec", "type"]);
        let field = match kind {
            "Exempt" if meta::name(object) == EXEMPT => "exempt",
            "Limited" if meta::name(object) != EXEMPT => "limited",
            _ => return None,
        };
        let part = object.at(&["spec", field]);
        let number = |name: &str| part.and_then(|p| p.get(name)).and_then(Tree::as_i64).map(|n| n.max(0));
        let settings = match part.map_or("", |p| p.str_at(&["limitResponse", "type"])) {
            _ if kind == "Exempt" => Settings::Exempt,
            "Queue" => {
                let of = |name: &str, default: i64| {
                    let found = part.and_then(|p| p.at(&["limitResponse", "queuing", name])).and_then(Tree::as_i64).unwrap_or(default);
                    usize::try_from(found).ok().filter(|n| *n > 0)
                };
                let queues = of("queues", 64)?;
                Settings::Queue { queues, hand: of("handSize", 8)?.min(queues), length_max: of("queueLengthLimit", 50)? }
            }
            _ => Settings::Reject,
        };
        let shares = number("nominalConcurrencyShares").unwrap_or(if kind == "Exempt" { 0 } else { 30 });
        Some(Self { settings, shares, lendable: number("lendablePercent").unwrap_or(0), borrowing: number("borrowingLimitPercent") })
    }
}

impl FlowControl {
    /// Follows the cache's objects.
    pub fn new(config: &Config, cache: &Cache) -> Self {
        let flow = Self(Arc::new(Inner {
            started: Instant::now(),
            total: config.max_reads_inflight + config.max_writes_inflight,
            request_timeout: config.request_timeout,
            setup: ArcSwap::from_pointee(Setup { schemas: Vec::new(), levels: BTreeMap::new() }),
            adjusted: AtomicU64::new(0),
            changed: Notify::new(),
        }));
        for plural in [SCHEMAS, LEVELS] {
            let Some(kind) = Registry::get().resource(GROUP, "v1", plural).and_then(|resource| cache.kind(resource)) else { continue };
            let follower = flow.clone();
            cache.listen(kind, Box::new(move |_| follower.0.changed.notify_one()));
        }
        flow.configure(cache);
        flow
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Takes the objects as they are. The mandatory ones count as they should be while they are missing.
    pub fn configure(&self, cache: &Cache) {
        let read = |plural: &str| -> Vec<Tree> { cache.list(GROUP, plural, None).iter().map(|cached| cached.tree()).collect() };
        let with_mandatory = |mut found: Vec<Tree>, kind: &str| {
            for object in objects::mandatory(kind) {
                if !found.iter().any(|known| meta::name(known) == meta::name(&object)) {
                    found.push(object);
                }
            }
            found
        };
        let levels: Vec<(Tree, LevelSpec)> =
            with_mandatory(read(LEVELS), "PriorityLevelConfiguration").into_iter().filter_map(|object| LevelSpec::of(&object).map(|spec| (object, spec))).collect();
        let before = self.0.setup.load();
        let shares: i64 = levels.iter().map(|(_, spec)| spec.shares).sum();
        let mut setup = Setup { schemas: Vec::new(), levels: BTreeMap::new() };
        for (object, spec) in levels {
            let name = meta::name(&object);
            let seats = Seats::of(self.0.total, spec.shares, shares, spec.lendable, spec.borrowing);
            let level = match before.levels.get(name) {
                Some((_, level)) => {
                    let mut state = level.lock();
                    state.seats = seats;
                    state.set.configure(spec.settings);
                    level.clone()
                }
                None => {
                    let set = QueueSet::new(spec.settings, seats.nominal - (seats.nominal - seats.least) / 2);
                    let state = LevelState { set, seats, demand: Demand::default() };
                    let is_exempt = name == EXEMPT;
                    let (counts, cancelled, requests) = Default::default();
                    Arc::new(Level { name: name.to_owned(), is_exempt, state: Mutex::new(state), counts, cancelled, requests })
                }
            };
            setup.levels.insert(name.to_owned(), (meta::uid(&object).to_owned(), level));
        }
        let schemas = with_mandatory(read(SCHEMAS), "FlowSchema");
        // One that names no level is passed over.
        setup.schemas = schemas.iter().map(Schema::of).filter(|schema| setup.levels.contains_key(&schema.level)).collect();
        setup.schemas.sort_by(|a, b| a.order().cmp(&b.order()));
        self.0.setup.store(Arc::new(setup));
        self.adjust(self.now());
    }

    /// Lends seats of levels that need them less to those that need them more.
    fn adjust(&self, now: Duration) {
        self.0.adjusted.store(now.as_millis() as u64, Ordering::Relaxed);
        let setup = self.0.setup.load();
        let (mut claims, mut limited) = (Vec::new(), Vec::new());
        let (mut total, mut exempt) = (0, 0);
        for (_, level) in setup.levels.values() {
            let mut state = level.lock();
            state.demand.settle(now);
            total += state.seats.nominal;
            let most = state.demand.most_before.round() as usize;
            if level.is_exempt {
                exempt += state.seats.least.max(most);
                continue;
            }
            claims.push(Claim { seats: state.seats, most, smoothed: state.demand.smoothed });
            limited.push(level);
        }
        for (level, limit) in limited.into_iter().zip(share::divide(total, exempt, &claims)) {
            let mut state = level.lock();
            state.set.limit = limit;
            let woken = state.set.dispatch();
            drop(state);
            self.wake(level, woken);
        }
    }

    fn adjust_in_time(&self, now: Duration) {
        let before = self.0.adjusted.load(Ordering::Relaxed);
        let is_due = now.as_millis() as u64 >= before + ADJUSTMENT_PERIOD.as_millis() as u64;
        // One request does it for all.
        if is_due && self.0.adjusted.compare_exchange(before, now.as_millis() as u64, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.adjust(now);
        }
    }

    /// Tells those whose turn it is; who has gone away gives its seats to the next.
    fn wake(&self, level: &Arc<Level>, mut woken: Vec<(Ticket, Turn)>) {
        while let Some((ticket, turn)) = woken.pop() {
            if turn.send(ticket).is_err() {
                let now = self.now();
                let mut state = level.lock();
                state.set.finish(now, ticket, Duration::ZERO);
                woken.extend(state.set.release(now, ticket));
            }
        }
    }

    /// Waits for a request's turn. The answer to one that is turned away stands in the error.
    pub async fn enter(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        query: &Query,
        cache: &Cache,
        watchers: impl FnOnce() -> usize,
        load: &Load,
    ) -> Result<(Class, Seat), Box<Response<Body>>> {
        let arrived = Instant::now();
        self.adjust_in_time(self.now());
        let setup = self.0.setup.load_full();
        let found = setup.schemas.iter().find(|schema| schema.matches(user, info)).or_else(|| setup.schemas.iter().find(|schema| schema.name == CATCH_ALL));
        let (schema, (level_uid, level)) = found.and_then(|schema| Some((schema, setup.levels.get(&schema.level)?))).expect("the catch-all is always there");
        let class = Class { schema_uid: schema.uid.clone(), level_uid: level_uid.clone() };
        let timeout = query.nonempty("timeout").and_then(crate::pipeline::go_duration).map_or(self.0.request_timeout, |t| t.min(self.0.request_timeout));
        let deadline = (timeout / 4).min(WAIT_MAX);

        let (sender, turn) = oneshot::channel();
        let flow = if level.is_exempt { 0 } else { schema.flow(user, info) };
        let (admitted, seats) = {
            // The estimate reads the cache, whose lock others may hold for a while: not under the level's, which all its requests need.
            let seats_max = {
                let state = level.lock();
                state.seats_max(state.set.settings())
            };
            let work = if level.is_exempt { Work::ONE } else { work::estimate(info, query, cache, seats_max, watchers) };
            let now = self.now();
            let mut state = level.lock();
            let (admitted, woken) = state.set.enter(now, flow, work, || sender);
            state.note_demand(now);
            drop(state);
            self.wake(level, woken);
            (admitted, work.initial)
        };
        let refused = |why: Refusal| {
            level.count(&schema.name, |counts| counts.rejected[why as usize] += 1);
            let mut response = negotiate::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            class.tell(&mut response);
            Box::new(response)
        };
        let listing = |ticket| Listing::new(level, schema, ticket, user, info);
        let (ticket, listing) = match admitted {
            Err(why) => return Err(refused(why)),
            Ok(Admitted::Now(ticket)) => (ticket, listing(ticket)),
            Ok(Admitted::Waits(ticket)) => {
                let listing = listing(ticket);
                let _counted = load.waits(info.verb);
                let waits = Waits { flow: self, level, ticket, turn: Some(turn) };
                match waits.until(deadline).await {
                    Some(ticket) => (ticket, listing),
                    None => return Err(refused(Refusal::TimeOut)),
                }
            }
        };
        listing.start();
        level.count(&schema.name, |counts| {
            counts.dispatched += 1;
            counts.executing += 1;
            counts.waits.observe(arrived.elapsed().as_secs_f64());
            counts.seats.observe(seats as f64);
        });
        let seat = Seat { flow: self.clone(), level: level.clone(), schema: schema.name.clone(), ticket, began: Instant::now(), is_watch: info.verb == "watch", _listing: listing };
        Ok((class, seat))
    }

    fn finish(&self, seat: &Seat) {
        let (level, ticket) = (&seat.level, seat.ticket);
        level.count(&seat.schema, |counts| {
            counts.executing -= 1;
            counts.executions[usize::from(!seat.is_watch)].observe(seat.began.elapsed().as_secs_f64());
        });
        let now = self.now();
        let kept = level.lock().set.finish(now, ticket, seat.began.elapsed());
        let Some(kept) = kept else { return self.release(level, ticket) };
        let (flow, level) = (self.clone(), level.clone());
        tokio::spawn(async move {
            tokio::time::sleep(kept).await;
            flow.release(&level, ticket);
        });
    }

    fn release(&self, level: &Arc<Level>, ticket: Ticket) {
        let now = self.now();
        let mut state = level.lock();
        let woken = state.set.release(now, ticket);
        state.note_demand(now);
        drop(state);
        self.wake(level, woken);
    }
}

/// A request in a queue, which leaves it when its client goes away.
struct Waits<'f> {
    flow: &'f FlowControl,
    level: &'f Arc<Level>,
    ticket: Ticket,
    turn: Option<oneshot::Receiver<Ticket>>,
}

impl Waits<'_> {
    /// `None`: its turn did not come in time.
    async fn until(mut self, limit: Duration) -> Option<Ticket> {
        let turn = self.turn.as_mut().expect("taken only below");
        if let Ok(Ok(ticket)) = tokio::time::timeout(limit, turn).await {
            self.turn = None;
            return Some(ticket);
        }
        // It may have come at the last moment.
        self.leave()
    }

    fn leave(&mut self) -> Option<Ticket> {
        let mut turn = self.turn.take()?;
        let now = self.flow.now();
        let mut state = self.level.lock();
        let has_left = state.set.cancel(now, self.ticket);
        state.note_demand(now);
        drop(state);
        if has_left {
            return None;
        }
        // Once closed, a turn is here or goes to somebody else.
        turn.close();
        turn.try_recv().ok()
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.turn.is_none() {
            return; // it is served, or was turned away
        }
        self.level.cancelled.fetch_add(1, Ordering::Relaxed);
        // Nobody is there any more to take the seats.
        if let Some(ticket) = self.leave() {
            let now = self.flow.now();
            self.level.lock().set.finish(now, ticket, Duration::ZERO);
            self.flow.release(self.level, ticket);
        }
    }
}

#[cfg(test)]
mod tests;

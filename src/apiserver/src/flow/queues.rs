//! The queues of one priority level: fair queuing, with flows dealt to queues by shuffle sharding. Pure: time comes from the caller.
//!
//! Models k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset and pkg/util/shufflesharding. Virtual time `progress` (R) advances by what one
//! queue gets; each queue keeps the virtual time at which its next request would begin, and the one that would end first is served.
use std::collections::VecDeque;
use std::time::Duration;

/// What a request is guessed to take before it is known (G).
const SERVICE_GUESS: f64 = 0.003;

/// How much of the server a request takes: seats while it runs, and seats for a while after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    pub initial: usize,
    pub last: usize,
    pub after: Duration,
}

impl Work {
    pub const ONE: Work = Work { initial: 1, last: 0, after: Duration::ZERO };

    pub fn seats(&self) -> usize {
        self.initial.max(self.last)
    }

    fn total(&self) -> f64 {
        self.initial as f64 * SERVICE_GUESS + self.last as f64 * self.after.as_secs_f64()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settings {
    /// Nobody waits, nobody is refused.
    Exempt,
    /// Who finds no seat is refused.
    Reject,
    Queue { queues: usize, hand: usize, length_max: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Refusal::ConcurrencyLimit => "concurrency-limit",
            Refusal::QueueFull => "queue-full",
            Refusal::TimeOut => "time-out",
        }
    }
}

/// A request that runs, or waits to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ticket {
    pub id: u64,
    pub queue: Option<usize>,
    pub work: Work,
}

#[derive(Debug)]
pub enum Admitted {
    Now(Ticket),
    /// Its waiter is woken when its turn comes.
    Waits(Ticket),
}

struct Waiting<W> {
    ticket: Ticket,
    arrived: f64,
    waiter: W,
}

struct Queue<W> {
    waiting: VecDeque<Waiting<W>>,
    executing: usize,
    seats_in_use: usize,
    next: f64,
}

/// One queue, for who looks at it.
pub struct Digest {
    pub waiting: usize,
    pub executing: usize,
    pub seats_in_use: usize,
    /// The virtual time at which its next request would begin.
    pub next: f64,
    /// Of what waits: seats at first, seats at most, and all their work.
    pub initial_seats: usize,
    pub most_seats: usize,
    pub work: f64,
}

pub struct QueueSet<W> {
    settings: Settings,
    /// Seats that may be taken.
    pub limit: usize,
    queues: Vec<Queue<W>>,
    progress: f64,
    now: Duration,
    robin: usize,
    enqueued: usize,
    next_id: u64,
    pub waiting: usize,
    pub executing: usize,
    pub seats_in_use: usize,
    pub seats_waiting: usize,
}

impl<W> QueueSet<W> {
    pub fn new(settings: Settings, limit: usize) -> Self {
        let mut set = Self {
            settings,
            limit,
            queues: Vec::new(),
            progress: 0.0,
            now: Duration::ZERO,
            robin: 0,
            enqueued: 0,
            next_id: 0,
            waiting: 0,
            executing: 0,
            seats_in_use: 0,
            seats_waiting: 0,
        };
        set.configure(settings);
        set
    }

    /// More queues are there at once; fewer as they run empty.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        let wanted = self.wanted_queues();
        while self.queues.len() < wanted {
            self.queues.push(Queue { waiting: VecDeque::new(), executing: 0, seats_in_use: 0, next: 0.0 });
        }
        self.drop_empty();
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }

    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.queues.iter().map(|queue| {
            let works = || queue.waiting.iter().map(|waiting| waiting.ticket.work);
            Digest {
                waiting: queue.waiting.len(),
                executing: queue.executing,
                seats_in_use: queue.seats_in_use,
                next: queue.next,
                initial_seats: works().map(|work| work.initial).sum(),
                most_seats: works().map(|work| work.seats()).sum(),
                work: works().map(|work| work.total()).sum(),
            }
        })
    }

    fn wanted_queues(&self) -> usize {
        if let Settings::Queue { queues, .. } = self.settings { queues } else { 0 }
    }

    fn drop_empty(&mut self) {
        while self.queues.len() > self.wanted_queues() && self.queues.last().is_some_and(|q| q.waiting.is_empty() && q.executing == 0 && q.seats_in_use == 0) {
            self.queues.pop();
        }
        self.robin = self.robin.min(self.queues.len().saturating_sub(1));
    }

    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    /// Advances virtual time: what was the case held until now.
    fn sync(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now).as_secs_f64();
        self.now = self.now.max(now);
        let active = self.queues.iter().filter(|q| !q.waiting.is_empty() || q.executing > 0).count();
        if active > 0 {
            let wanted = self.seats_in_use + self.seats_waiting;
            self.progress += passed * wanted.min(self.limit) as f64 / active as f64;
        }
    }

    /// Takes a request in; `waiter` is kept until its turn comes. Who else may run now stands in the second answer.
    pub fn enter(&mut self, now: Duration, flow: u64, work: Work, waiter: impl FnOnce() -> W) -> (Result<Admitted, Refusal>, Vec<(Ticket, W)>) {
        self.sync(now);
        self.next_id += 1;
        let id = self.next_id;
        let Settings::Queue { length_max, .. } = self.settings else {
            if !self.has_room(work.seats()) {
                return (Err(Refusal::ConcurrencyLimit), Vec::new());
            }
            let ticket = Ticket { id, queue: None, work };
            self.executing += 1;
            self.seats_in_use += work.seats();
            return (Ok(Admitted::Now(ticket)), Vec::new());
        };
        let place = self.deal(flow);
        let ticket = Ticket { id, queue: Some(place), work };
        let queue = &mut self.queues[place];
        if self.seats_in_use >= self.limit && queue.waiting.len() >= length_max {
            return (Err(Refusal::QueueFull), Vec::new());
        }
        if queue.waiting.is_empty() && queue.executing == 0 {
            queue.next = self.progress;
        }
        queue.waiting.push_back(Waiting { ticket, arrived: self.progress, waiter: waiter() });
        self.waiting += 1;
        self.seats_waiting += work.seats();
        bound(&mut self.queues[place]);
        let mut woken = self.dispatch();
        match woken.iter().position(|(t, _)| t.id == ticket.id) {
            Some(own) => {
                let (ticket, _) = woken.remove(own);
                (Ok(Admitted::Now(ticket)), woken)
            }
            None => (Ok(Admitted::Waits(ticket)), woken),
        }
    }

    /// Shuffle sharding: of the few queues that the flow's number deals, the one with the least work.
    fn deal(&mut self, flow: u64) -> usize {
        let Settings::Queue { queues, hand, .. } = self.settings else { return 0 };
        let cards = hand_of(flow, queues, hand);
        let offset = self.enqueued % cards.len();
        self.enqueued += 1;
        let work = |place: usize| self.queues[place].waiting.iter().map(|w| w.ticket.work.total()).sum::<f64>();
        let turned = (0..cards.len()).map(|i| cards[(offset + i) % cards.len()]);
        turned.map(|place| (place, work(place))).reduce(|best, other| if other.1 < best.1 { other } else { best }).map_or(0, |(place, _)| place)
    }

    fn has_room(&self, seats: usize) -> bool {
        match self.settings {
            Settings::Exempt => true,
            // Wider than all there is: alone.
            _ if seats > self.limit => self.executing == 0,
            _ => self.seats_in_use + seats <= self.limit,
        }
    }

    /// Starts as many as there are seats for.
    pub fn dispatch(&mut self) -> Vec<(Ticket, W)> {
        let mut woken = Vec::new();
        while self.waiting > 0 && (self.seats_in_use < self.limit || self.settings == Settings::Exempt) {
            let Some(place) = self.first_to_finish() else { break };
            let seats = self.queues[place].waiting.front().map_or(0, |w| w.ticket.work.seats());
            if !self.has_room(seats) {
                break;
            }
            self.robin = place;
            let limit = self.limit;
            let queue = &mut self.queues[place];
            let Some(mut first) = queue.waiting.pop_front() else { break };
            self.waiting -= 1;
            self.seats_waiting -= first.ticket.work.seats();
            // Never wider than all there is; longer instead.
            let work = &mut first.ticket.work;
            if work.last > limit && limit > 0 {
                work.after = work.after.mul_f64(work.last as f64 / limit as f64);
                work.last = limit;
            }
            queue.executing += 1;
            queue.seats_in_use += work.seats();
            queue.next += work.total();
            self.executing += 1;
            self.seats_in_use += work.seats();
            bound(queue);
            woken.push((first.ticket, first.waiter));
        }
        woken
    }

    /// The queue whose oldest request would end first, those after the one served last before those up to it.
    fn first_to_finish(&self) -> Option<usize> {
        let count = self.queues.len();
        let finish = |place: usize| self.queues[place].waiting.front().map(|w| (place, self.queues[place].next + w.ticket.work.total()));
        let turned = (1..=count).filter_map(|i| finish((self.robin + i) % count));
        turned.reduce(|best, other| if other.1 < best.1 { other } else { best }).map(|(place, _)| place)
    }

    /// A request has run for `took`. Its seats are kept for as long as the answer says; then [`QueueSet::release`] is due.
    pub fn finish(&mut self, now: Duration, ticket: Ticket, took: Duration) -> Option<Duration> {
        self.sync(now);
        self.executing -= 1;
        if let Some(queue) = ticket.queue.and_then(|place| self.queues.get_mut(place)) {
            queue.executing -= 1;
            queue.next -= ticket.work.initial as f64 * (SERVICE_GUESS - took.as_secs_f64());
            bound(queue);
        }
        (!ticket.work.after.is_zero()).then_some(ticket.work.after)
    }

    /// Gives a request's seats back.
    pub fn release(&mut self, now: Duration, ticket: Ticket) -> Vec<(Ticket, W)> {
        self.sync(now);
        self.seats_in_use -= ticket.work.seats();
        if let Some(queue) = ticket.queue.and_then(|place| self.queues.get_mut(place)) {
            queue.seats_in_use -= ticket.work.seats();
        }
        self.drop_empty();
        self.dispatch()
    }

    /// Takes a request out that has waited too long; false: its turn has come meanwhile.
    pub fn cancel(&mut self, now: Duration, ticket: Ticket) -> bool {
        self.sync(now);
        let Some(queue) = ticket.queue.and_then(|place| self.queues.get_mut(place)) else { return false };
        let Some(at) = queue.waiting.iter().position(|w| w.ticket.id == ticket.id) else { return false };
        queue.waiting.remove(at);
        bound(queue);
        self.waiting -= 1;
        self.seats_waiting -= ticket.work.seats();
        self.drop_empty();
        true
    }
}

/// A queue that could not use its part does not save it up: nothing begins before it arrived.
fn bound<W>(queue: &mut Queue<W>) {
    if let Some(first) = queue.waiting.front() {
        queue.next = queue.next.max(first.arrived);
    }
}

/// Deals `hand` different cards of a deck, as `flow` says.
fn hand_of(flow: u64, deck: usize, hand: usize) -> Vec<usize> {
    let mut rest = flow;
    let mut cards: Vec<usize> = Vec::with_capacity(hand);
    let mut remainders = Vec::with_capacity(hand);
    for i in 0..hand.clamp(1, deck.max(1)) {
        let left = (deck.max(1) - i) as u64;
        remainders.push((rest % left) as usize);
        rest /= left;
    }
    for i in 0..remainders.len() {
        let mut card = remainders[i];
        for j in (0..i).rev() {
            if card >= remainders[j] {
                card += 1;
            }
        }
        cards.push(card);
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: Settings = Settings::Queue { queues: 8, hand: 2, length_max: 3 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn hands_have_different_cards_and_are_spread() {
        let mut seen = [0; 16];
        for flow in 0..2000u64 {
            let mut cards = hand_of(flow.wrapping_mul(0x9E37_79B9_7F4A_7C15), 16, 4);
            cards.iter().for_each(|c| seen[*c] += 1);
            cards.sort_unstable();
            cards.dedup();
            assert_eq!(cards.len(), 4);
        }
        assert!(seen.iter().all(|count| (350..650).contains(count)), "{seen:?}");
        assert_eq!(hand_of(7, 1, 1), [0]);
    }

    #[test]
    fn who_finds_no_seat_waits_or_is_refused() {
        let mut set: QueueSet<u32> = QueueSet::new(Settings::Reject, 1);
        let (first, _) = set.enter(ms(0), 1, Work::ONE, || 0);
        let Ok(Admitted::Now(ticket)) = first else { panic!("a seat is free") };
        assert_eq!(set.enter(ms(0), 1, Work::ONE, || 0).0.unwrap_err(), Refusal::ConcurrencyLimit);
        assert_eq!(set.finish(ms(1), ticket, ms(1)), None);
        set.release(ms(1), ticket);
        assert!(set.is_idle() && set.seats_in_use == 0);

        let mut set: QueueSet<u32> = QueueSet::new(QUEUE, 1);
        let Ok(Admitted::Now(running)) = set.enter(ms(0), 5, Work::ONE, || 0).0 else { panic!("a seat is free") };
        let mut tickets = Vec::new();
        for i in 1..=6 {
            let Ok(Admitted::Waits(ticket)) = set.enter(ms(0), 5, Work::ONE, || i).0 else { panic!("there is room in two queues") };
            tickets.push(ticket);
        }
        assert_eq!(set.enter(ms(0), 5, Work::ONE, || 9).0.unwrap_err(), Refusal::QueueFull);
        assert!(set.cancel(ms(1), tickets[0]) && !set.cancel(ms(1), tickets[0]));
        assert_eq!(set.finish(ms(2), running, ms(2)), None);
        let woken = set.release(ms(2), running);
        assert_eq!(woken.len(), 1);
        assert_eq!((set.waiting, set.executing, set.seats_in_use, set.seats_waiting), (4, 1, 1, 4));
    }

    #[test]
    fn a_flow_that_floods_does_not_hold_up_another() {
        let mut set: QueueSet<char> = QueueSet::new(Settings::Queue { queues: 64, hand: 1, length_max: 1000 }, 1);
        let Ok(Admitted::Now(mut running)) = set.enter(ms(0), 1, Work::ONE, || 'a').0 else { panic!("a seat is free") };
        for _ in 0..500 {
            assert!(matches!(set.enter(ms(0), 1, Work::ONE, || 'a').0, Ok(Admitted::Waits(_))));
        }
        for _ in 0..5 {
            assert!(matches!(set.enter(ms(0), 2, Work::ONE, || 'b').0, Ok(Admitted::Waits(_))));
        }
        let mut order = String::new();
        for step in 1..=12 {
            set.finish(ms(step * 3), running, ms(3));
            let (ticket, waiter) = set.release(ms(step * 3), running).pop().unwrap();
            running = ticket;
            order.push(waiter);
        }
        assert_eq!(order.chars().filter(|c| *c == 'b').count(), 5, "{order}");
    }

    #[test]
    fn wide_requests_take_their_seats_and_keep_them_for_a_while() {
        let mut set: QueueSet<u32> = QueueSet::new(QUEUE, 10);
        let work = Work { initial: 1, last: 20, after: ms(5) };
        let Ok(Admitted::Now(ticket)) = set.enter(ms(0), 1, work, || 0).0 else { panic!("it is alone") };
        assert_eq!((ticket.work.last, ticket.work.after), (10, ms(10)));
        assert!(matches!(set.enter(ms(0), 1, Work::ONE, || 0).0, Ok(Admitted::Waits(_))));
        assert_eq!(set.finish(ms(1), ticket, ms(1)), Some(ms(10)));
        assert_eq!(set.seats_in_use, 10);
        assert_eq!(set.release(ms(11), ticket).len(), 1);
        assert_eq!(set.seats_in_use, 1);
        let mut exempt: QueueSet<u32> = QueueSet::new(Settings::Exempt, 0);
        assert!(matches!(exempt.enter(ms(0), 1, Work::ONE, || 0).0, Ok(Admitted::Now(_))));
    }

    #[test]
    fn fewer_queues_come_as_they_run_empty() {
        let mut set: QueueSet<u32> = QueueSet::new(QUEUE, 0);
        let tickets: Vec<Ticket> = (0..8u64)
            .filter_map(|flow| match set.enter(ms(0), flow, Work::ONE, || 0).0 {
                Ok(Admitted::Waits(ticket)) => Some(ticket),
                _ => None,
            })
            .collect();
        set.configure(Settings::Queue { queues: 1, hand: 1, length_max: 3 });
        assert!(set.queues.len() > 1);
        tickets.iter().for_each(|ticket| assert!(set.cancel(ms(1), *ticket)));
        assert_eq!(set.queues.len(), 1);
    }
}

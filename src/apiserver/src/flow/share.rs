//! How the server's seats are divided among the priority levels, and lent between them.
//!
//! Models k8s.io/apiserver/pkg/util/flowcontrol/{conc_alloc.go, apf_controller.go updateBorrowing}.
use std::time::Duration;

const SMOOTHING: f64 = 0.977;

/// Seats that a level may always have, at least and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seats {
    pub nominal: usize,
    pub least: usize,
    pub most: usize,
}

impl Seats {
    /// A level's part of `total`, by its shares; `lendable` and `borrowing` are percentages.
    pub fn of(total: usize, shares: i64, all_shares: i64, lendable: i64, borrowing: Option<i64>) -> Self {
        let nominal = if all_shares > 0 { (total as f64 * shares as f64 / all_shares as f64).ceil() as usize } else { 0 };
        let part = |percent: i64| (nominal as f64 * percent as f64 / 100.0).round() as usize;
        let borrowed = borrowing.map_or(total, part);
        Self { nominal, least: nominal - part(lendable).min(nominal), most: nominal + borrowed }
    }
}

/// How many seats were wanted over a period.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    now: f64,
    since: Duration,
    time: f64,
    sum: f64,
    squares: f64,
    most: f64,
    /// Follows rises at once and falls slowly.
    pub smoothed: f64,
    pub most_before: f64,
    /// Of the last period.
    pub average: f64,
    pub deviation: f64,
}

impl Demand {
    pub fn set(&mut self, now: Duration, seats: usize) {
        self.advance(now);
        self.now = seats as f64;
        self.most = self.most.max(self.now);
    }

    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.time += passed;
        self.sum += passed * self.now;
        self.squares += passed * self.now * self.now;
    }

    /// Ends a period.
    pub fn settle(&mut self, now: Duration) {
        self.advance(now);
        let (average, deviation) = if self.time > 0.0 {
            let average = self.sum / self.time;
            (average, (self.squares / self.time - average * average).max(0.0).sqrt())
        } else {
            (self.now, 0.0)
        };
        (self.average, self.deviation) = (average, deviation);
        let envelope = average + deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        self.most_before = self.most;
        (self.time, self.sum, self.squares, self.most) = (0.0, 0.0, 0.0, self.now);
    }
}

/// One level that is not exempt.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub seats: Seats,
    pub most: usize,
    pub smoothed: f64,
}

impl Claim {
    /// What it had at its busiest, within what it may always have.
    fn least(&self) -> usize {
        self.seats.least.max(self.seats.nominal.min(self.most))
    }
}

/// The levels' seats now: `total` of all, of which the exempt ones use `exempt`.
pub fn divide(total: usize, exempt: usize, claims: &[Claim]) -> Vec<usize> {
    let left = total.saturating_sub(exempt);
    let least: usize = claims.iter().map(|c| c.seats.least).sum();
    let wanted: usize = claims.iter().map(Claim::least).sum();
    if left <= least {
        return claims.iter().map(|c| c.seats.least).collect();
    }
    if left <= wanted {
        let part = (left - least) as f64 / (wanted - least) as f64;
        return claims.iter().map(|c| c.seats.least + ((c.least() - c.seats.least) as f64 * part).round() as usize).collect();
    }
    // One factor for all targets, each within its bounds; the sum grows with it, so it is found by halving.
    let target = |c: &Claim| c.smoothed.max(c.least() as f64).max(0.001);
    let given = |factor: f64| claims.iter().map(|c| (factor * target(c)).clamp(c.least() as f64, c.seats.most.max(c.least()) as f64)).collect::<Vec<f64>>();
    let (mut low, mut high) = (0.0, 1.0e9);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if given(middle).iter().sum::<f64>() < total as f64 { low = middle } else { high = middle }
    }
    given(high).into_iter().map(|seats| seats.round() as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(nominal: usize, least: usize, most: usize, demand: usize) -> Claim {
        Claim { seats: Seats { nominal, least, most }, most: demand, smoothed: demand as f64 }
    }

    #[test]
    fn seats_follow_the_shares() {
        assert_eq!(Seats::of(600, 40, 245, 50, None), Seats { nominal: 98, least: 49, most: 698 });
        assert_eq!(Seats::of(600, 5, 245, 0, Some(100)), Seats { nominal: 13, least: 13, most: 26 });
        assert_eq!(Seats::of(600, 0, 245, 0, None), Seats { nominal: 0, least: 0, most: 600 });
    }

    #[test]
    fn a_level_that_is_busy_borrows_of_one_that_is_idle() {
        let (idle, busy) = (claim(100, 50, 700, 0), claim(100, 50, 700, 300));
        assert_eq!(divide(200, 0, &[idle, busy]), [50, 150]);
        assert_eq!(divide(200, 0, &[busy, busy]), [100, 100]);
        assert_eq!(divide(200, 150, &[idle, busy]), [50, 50]);
        assert_eq!(divide(200, 80, &[idle, busy]), [50, 70]);
        let bounded = claim(100, 50, 120, 300);
        assert_eq!(divide(200, 0, &[idle, bounded]), [80, 120]);
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let second = Duration::from_secs;
        let mut demand = Demand::default();
        demand.set(second(0), 10);
        demand.set(second(5), 0);
        demand.settle(second(10));
        assert_eq!((demand.smoothed, demand.most_before), (10.0, 10.0));
        demand.settle(second(20));
        assert!(demand.smoothed > 9.7 && demand.smoothed < 9.8);
        assert_eq!(demand.most_before, 0.0);
    }
}

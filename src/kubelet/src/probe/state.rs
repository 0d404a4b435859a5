//! Turns single results into a verdict that stands: thresholds of successes and failures in a row.

use super::ProbeKind;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Counts as success; the text is worth an event.
    Warning(String),
    Failure(String),
    /// The attempt itself failed; it counts neither way.
    Unknown(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passing,
    Failing,
}

#[derive(Debug)]
pub struct Counter {
    failure_threshold: i32,
    success_threshold: i32,
    /// What has been told so far.
    standing: Option<Verdict>,
    last: Option<Verdict>,
    run: i32,
}

impl Counter {
    /// `ready` is what the container counts as when the probe begins: false for a new one, for an adopted one its last state.
    pub fn new(kind: ProbeKind, failure_threshold: i32, success_threshold: i32, ready: bool) -> Self {
        // As upstream's initial results: not ready, alive, startup unknown.
        let standing = match kind {
            ProbeKind::Startup => None,
            ProbeKind::Liveness => Some(Verdict::Passing),
            ProbeKind::Readiness => Some(if ready { Verdict::Passing } else { Verdict::Failing }),
        };
        Self { failure_threshold: failure_threshold.max(1), success_threshold: success_threshold.max(1), standing, last: None, run: 0 }
    }

    /// `Some` when the verdict changes.
    pub fn count(&mut self, outcome: &Outcome) -> Option<Verdict> {
        let now = match outcome {
            Outcome::Success | Outcome::Warning(_) => Verdict::Passing,
            Outcome::Failure(_) => Verdict::Failing,
            Outcome::Unknown(_) => return None,
        };
        if self.last == Some(now) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(now);
            self.run = 1;
        }
        let needed = match now {
            Verdict::Passing => self.success_threshold,
            Verdict::Failing => self.failure_threshold,
        };
        if self.run < needed || self.standing == Some(now) {
            return None;
        }
        self.standing = Some(now);
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: ProbeKind, failure: i32, success: i32, results: &str, expected: &str) {
        check_from(false, kind, failure, success, results, expected);
    }

    #[track_caller]
    fn check_from(ready: bool, kind: ProbeKind, failure: i32, success: i32, results: &str, expected: &str) {
        let mut counter = Counter::new(kind, failure, success, ready);
        let got: String = results
            .chars()
            .map(|c| {
                let outcome = match c {
                    's' => Outcome::Success,
                    'f' => Outcome::Failure(String::new()),
                    _ => Outcome::Unknown(String::new()),
                };
                match counter.count(&outcome) {
                    None => '.',
                    Some(Verdict::Passing) => 'P',
                    Some(Verdict::Failing) => 'F',
                }
            })
            .collect();
        assert_eq!(got, expected, "{kind:?} {results}");
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        check(ProbeKind::Readiness, 3, 1, "ffsfffs", "..P..FP");
        check(ProbeKind::Readiness, 3, 2, "sfss", "...P");
        check(ProbeKind::Liveness, 3, 1, "sffsfff", "......F");
        check(ProbeKind::Startup, 2, 1, "fs", ".P");
        check(ProbeKind::Startup, 2, 1, "ff", ".F");
        check(ProbeKind::Liveness, 2, 1, "fuf", "..F");
    }

    #[test]
    fn an_adopted_ready_container_becomes_unready_after_the_failure_threshold() {
        check_from(true, ProbeKind::Readiness, 3, 1, "fff", "..F");
        check_from(true, ProbeKind::Readiness, 2, 2, "sffss", "..F.P");
        check_from(false, ProbeKind::Readiness, 3, 1, "ffffs", "....P");
    }
}

//! Which of the candidates hurts least.
use std::sync::Arc;

use super::Candidate;

/// Fewest violations of budgets; then the least important most important victim; the least sum of priorities; the fewest victims; the
/// victims that started last. The first of what is left.
pub fn pick(candidates: Vec<Arc<Candidate>>) -> Option<Arc<Candidate>> {
    let mut left = candidates;
    let highest = |c: &Candidate| c.victims.first().map_or(i64::MIN, |p| i64::from(p.priority));
    // Shifted, so that few pods of a negative priority are no worse than many.
    let sum = |c: &Candidate| c.victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum::<i64>();
    // The first start among the victims of the highest priority; what has not started is the latest.
    let start = |c: &Candidate| {
        let most = c.victims.iter().map(|p| p.priority).max();
        let started = c.victims.iter().filter(|p| Some(p.priority) == most).filter_map(|p| p.start_time.as_ref());
        started.map(|t| t.0.as_nanosecond()).min().unwrap_or(i128::MAX)
    };
    keep_least(&mut left, |c| i128::from(c.violations));
    keep_least(&mut left, |c| i128::from(highest(c)));
    keep_least(&mut left, |c| i128::from(sum(c)));
    keep_least(&mut left, |c| c.victims.len() as i128);
    keep_least(&mut left, |c| i128::MAX - start(c).max(0));
    left.into_iter().next()
}

fn keep_least(left: &mut Vec<Arc<Candidate>>, by: impl Fn(&Candidate) -> i128) {
    if left.len() > 1 {
        let least = left.iter().map(|c| by(c)).min();
        left.retain(|c| Some(by(c)) == least);
    }
}

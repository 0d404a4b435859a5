//! From what metrics ask for to what is done: bounds, rates and stabilization windows. Pure but for the history it is given.
//!
//! Models pkg/controller/podautoscaler/horizontal.go normalizeDesiredReplicas, normalizeDesiredReplicasWithBehaviors and below, v1.37.

use std::time::Duration;

use client::k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use jiff::{SignedDuration, Timestamp};

/// What was recommended and done lately, of one autoscaler. Bounded: what is older than every window makes room for what is new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    recommendations: Vec<(Timestamp, i32)>,
    /// When, and by how many replicas.
    ups: Vec<(Timestamp, i32)>,
    downs: Vec<(Timestamp, i32)>,
}

/// What is to be brought into bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub current: i32,
    pub desired: i32,
    pub min: i32,
    pub max: i32,
}

/// A condition's reason and message.
pub(super) type Why = (&'static str, &'static str);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bounded {
    pub replicas: i32,
    /// Of `AbleToScale`.
    pub able: Why,
    /// Of `ScalingLimited`.
    pub limited: (bool, Why),
}

const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const WITHIN: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const UP_LIMIT: Why = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Why = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Why = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Why = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_STABILIZED: Why = ("ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation");
const DOWN_STABILIZED: Why = ("ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation");

impl History {
    /// The first size seen counts as recommended: a restart shrinks nothing at once.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Notes that the target was rescaled.
    pub fn rescaled(&mut self, behavior: Option<&HorizontalPodAutoscalerBehavior>, from: i32, to: i32, now: Timestamp) {
        let Some(behavior) = behavior else { return };
        let (list, rules) = if to > from { (&mut self.ups, &behavior.scale_up) } else { (&mut self.downs, &behavior.scale_down) };
        let longest = rules.iter().flat_map(|r| r.policies.iter().flatten()).map(|p| p.period_seconds).max().unwrap_or(0);
        list.retain(|(at, _)| *at >= before(now, seconds(longest)));
        list.push((now, (to - from).abs()));
    }

    /// Without behaviour: the highest recommendation of the window, and no more than a doubling at once.
    pub fn bound(&mut self, wish: Wish, window: Duration, now: Timestamp) -> Bounded {
        let cutoff = before(now, window);
        self.recommendations.retain(|(at, _)| *at >= cutoff);
        let highest = self.recommendations.iter().map(|(_, r)| *r).fold(wish.desired, i32::max);
        self.recommendations.push((now, wish.desired));
        let able = if highest == wish.desired { READY } else { DOWN_STABILIZED };
        let limit = (2.0 * f64::from(wish.current)).max(4.0) as i32;
        let (most, reason) = if wish.max > limit { (limit, UP_LIMIT) } else { (wish.max, TOO_MANY) };
        let (replicas, why) = if highest < wish.min {
            (wish.min, TOO_FEW)
        } else if highest > most {
            (most, reason)
        } else {
            (highest, WITHIN)
        };
        Bounded { replicas, able, limited: (replicas != highest, why) }
    }

    /// By the autoscaler's own rules. `window` is how long the way down is watched where they do not say.
    pub fn bound_by(&mut self, behavior: &HorizontalPodAutoscalerBehavior, wish: Wish, window: Duration, now: Timestamp) -> Bounded {
        let (up, down) = (behavior.scale_up.clone().unwrap_or_default(), behavior.scale_down.clone().unwrap_or_default());
        let up_cutoff = before(now, seconds(up.stabilization_window_seconds.unwrap_or(0)));
        let down_cutoff = before(now, down.stabilization_window_seconds.map_or(window, seconds));
        let since = |cutoff: Timestamp| self.recommendations.iter().filter(move |(at, _)| *at > cutoff).map(|(_, r)| *r);
        let lowest = since(up_cutoff).fold(wish.desired, i32::min);
        let highest = since(down_cutoff).fold(wish.desired, i32::max);
        let stable = wish.current.max(lowest).min(highest);
        self.recommendations.retain(|(at, _)| *at >= up_cutoff || *at >= down_cutoff);
        self.recommendations.push((now, wish.desired));
        let able = match () {
            () if stable == wish.desired => READY,
            () if wish.desired >= wish.current => UP_STABILIZED,
            () => DOWN_STABILIZED,
        };
        let (replicas, why) = self.limit_rate(&up, &down, Wish { desired: stable, ..wish }, now);
        Bounded { replicas, able, limited: (replicas != stable, why) }
    }

    fn limit_rate(&self, up: &HPAScalingRules, down: &HPAScalingRules, wish: Wish, now: Timestamp) -> (i32, Why) {
        if wish.desired > wish.current {
            // Growth of the period is over once what was done in it is forgotten.
            let limit = self.proposals(up, wish.current, now, true).max(wish.current);
            let (most, why) = if wish.max > limit { (limit, UP_LIMIT) } else { (wish.max, TOO_MANY) };
            if wish.desired > most {
                return (most, why);
            }
        } else if wish.desired < wish.current {
            let limit = self.proposals(down, wish.current, now, false).min(wish.current);
            let (least, why) = if wish.min < limit { (limit, DOWN_LIMIT) } else { (wish.min, TOO_FEW) };
            if wish.desired < least {
                return (least, why);
            }
        }
        (wish.desired, WITHIN)
    }

    /// How far the rules let it go from where each policy's period began.
    fn proposals(&self, rules: &HPAScalingRules, current: i32, now: Timestamp, up: bool) -> i32 {
        let select = rules.select_policy.as_deref().unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let proposed = rules.policies.iter().flatten().map(|policy| {
            let cutoff = before(now, seconds(policy.period_seconds));
            let sum = |list: &[(Timestamp, i32)]| list.iter().filter(|(at, _)| *at > cutoff).map(|(_, n)| *n).sum::<i32>();
            let start = current - sum(&self.ups) + sum(&self.downs);
            let share = f64::from(policy.value) / 100.0;
            match (policy.type_.as_str(), up) {
                ("Percent", true) => (f64::from(start) * (1.0 + share)).ceil() as i32,
                ("Percent", false) => (f64::from(start) * (1.0 - share)) as i32,
                (_, true) => start.saturating_add(policy.value),
                (_, false) => start.saturating_sub(policy.value),
            }
        });
        // The least change is the lowest number on the way up and the highest on the way down.
        let chosen = if (select == "Min") == up { proposed.min() } else { proposed.max() };
        chosen.unwrap_or(current)
    }
}

fn seconds(n: i32) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_sub(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;

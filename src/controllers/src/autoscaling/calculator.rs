//! How many replicas a metric asks for. Pure.
//!
//! Models pkg/controller/podautoscaler/replica_calculator.go and metrics/utilization.go, v1.37. Amounts are thousandths.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::Named;
use client::k8s_openapi::api::core::v1::{Container, Pod, PodCondition};
use jiff::{SignedDuration, Timestamp};

/// One pod's value of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub value: i64,
    pub timestamp: Timestamp,
    pub window: Duration,
}

/// By the pod's name.
pub(super) type Samples = BTreeMap<String, Sample>;

/// How far from the target nothing is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn hold(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What all metrics are judged by.
pub(super) struct Ground<'a> {
    pub current: i32,
    pub tolerances: Tolerances,
    /// Those that the target's selector names.
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
    pub cpu_initialization: Duration,
    pub initial_readiness_delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub replicas: i32,
    /// Per pod, or of the whole where the target is a whole.
    pub usage: i64,
    /// In percent of the requests.
    pub utilization: Option<i32>,
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NO_METRICS: &str = "did not receive metrics for targeted pods (pods might be unready)";

impl Ground<'_> {
    /// Against a share of what the pods (or one container of each) request.
    pub fn by_utilization(&self, samples: Samples, resource: &str, container: &str, target: i32) -> Result<Answer, String> {
        let groups = self.group(samples, resource)?;
        let requests = requests(self.pods, container, resource)?;
        let (ratio, utilization, usage) = utilization_of(&groups.samples, &requests, target)?;
        let answer = |replicas| Answer { replicas, usage, utilization: Some(utilization) };
        // On the way down what is missing is taken to use all that it asked for.
        let missing = |name: &str| requests.get(name).copied().unwrap_or(0).saturating_mul(i64::from(target.max(100))) / 100;
        match self.settle(&groups, ratio, &missing) {
            Settled::Final(replicas) => Ok(answer(replicas)),
            Settled::Again(samples) => {
                let (again, ..) = utilization_of(&samples, &requests, target)?;
                Ok(answer(self.conclude(ratio, again, samples.len())))
            }
        }
    }

    /// Against an amount per pod. `resource` is empty for what is none.
    pub fn by_amount(&self, samples: Samples, resource: &str, target: i64) -> Result<Answer, String> {
        let groups = self.group(samples, resource)?;
        let (ratio, usage) = usage_of(&groups.samples, target);
        let answer = |replicas| Answer { replicas, usage, utilization: None };
        match self.settle(&groups, ratio, &|_| target) {
            Settled::Final(replicas) => Ok(answer(replicas)),
            Settled::Again(samples) => {
                let (again, _) = usage_of(&samples, target);
                Ok(answer(self.conclude(ratio, again, samples.len())))
            }
        }
    }

    /// Of one object, or of something outside: the whole against a whole.
    pub fn by_whole(&self, usage: i64, target: i64) -> Result<Answer, String> {
        let ratio = usage as f64 / target as f64;
        let answer = |replicas| Answer { replicas, usage, utilization: None };
        if self.current == 0 {
            return Ok(answer(ceil(ratio)));
        }
        if self.tolerances.hold(ratio) {
            return Ok(answer(self.current));
        }
        if self.pods.is_empty() {
            return Err(format!("unable to calculate ready pods: {NO_PODS}"));
        }
        let ready = self.pods.iter().filter(|p| phase(p) == "Running" && ready(p).is_some_and(|c| c.status == "True")).count();
        Ok(answer(ceil(ratio * ready as f64)))
    }

    fn group(&self, mut samples: Samples, resource: &str) -> Result<Groups, String> {
        if self.pods.is_empty() {
            return Err(NO_PODS.to_owned());
        }
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.name().to_owned();
            if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
                samples.remove(&name);
            } else if phase(pod) == "Pending" {
                samples.remove(&name);
                groups.unready.insert(name);
            } else if let Some(sample) = samples.get(&name).copied() {
                if resource == "cpu" && self.is_unready(pod, &sample) {
                    samples.remove(&name);
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        if samples.is_empty() {
            return Err(NO_METRICS.to_owned());
        }
        groups.samples = samples;
        Ok(groups)
    }

    /// A pod that starts uses more than it will; what it used before it was ready says nothing.
    fn is_unready(&self, pod: &Pod, sample: &Sample) -> bool {
        let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        let (Some(condition), Some(started)) = (ready(pod), started) else { return true };
        let changed = condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        let is_false = condition.status == "False";
        if later(started, self.cpu_initialization) > self.now {
            is_false || sample.timestamp < later(changed, sample.window)
        } else {
            // It has never been ready.
            is_false && later(started, self.initial_readiness_delay) > changed
        }
    }

    /// Judges by what is known; where that would be rash, gives samples with guesses for the rest.
    fn settle(&self, groups: &Groups, ratio: f64, missing: &dyn Fn(&str) -> i64) -> Settled {
        let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !up_with_unready && groups.missing.is_empty() {
            let replicas = if self.tolerances.hold(ratio) { self.current } else { ceil(ratio * groups.ready as f64) };
            return Settled::Final(replicas);
        }
        let guess = |value| Sample { value, timestamp: Timestamp::UNIX_EPOCH, window: Duration::ZERO };
        let mut samples = groups.samples.clone();
        for name in &groups.missing {
            if ratio < 1.0 {
                samples.insert(name.clone(), guess(missing(name)));
            } else if ratio > 1.0 {
                samples.insert(name.clone(), guess(0));
            }
        }
        if up_with_unready {
            samples.extend(groups.unready.iter().map(|name| (name.clone(), guess(0))));
        }
        Settled::Again(samples)
    }

    /// With the guesses: nothing that would turn the direction round.
    fn conclude(&self, ratio: f64, again: f64, counted: usize) -> i32 {
        let turns = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
        if self.tolerances.hold(again) || turns {
            return self.current;
        }
        let replicas = ceil(again * counted as f64);
        let turns = (again < 1.0 && replicas > self.current) || (again > 1.0 && replicas < self.current);
        if turns { self.current } else { replicas }
    }
}

/// An amount for each replica that there is. `replicas` are those of the target's status.
pub(super) fn by_share(usage: i64, target: i64, replicas: i32, tolerances: Tolerances) -> Answer {
    let ratio = usage as f64 / (target as f64 * f64::from(replicas));
    let wanted = if tolerances.hold(ratio) { replicas } else { ceil(usage as f64 / target as f64) };
    let share = if usage == i64::MAX { i64::MAX } else { (usage as f64 / f64::from(replicas)).ceil() as i64 };
    Answer { replicas: wanted, usage: share, utilization: None }
}

#[derive(Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    samples: Samples,
}

enum Settled {
    Final(i32),
    Again(Samples),
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn ready(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == "Ready")
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

/// Saturates, as a cast does.
fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

type Requests = BTreeMap<String, i64>;


fn utilization_of(samples: &Samples, requests: &Requests, target: i32) -> Result<(f64, i32, i64), String> {
    let known: Vec<(i64, i64)> = samples.iter().filter_map(|(name, s)| Some((s.value, *requests.get(name)?))).collect();
    let (used, asked): (i64, i64) = known.iter().fold((0, 0), |(u, a), (used, asked)| (u + used, a + asked));
    if asked == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let percent = (i128::from(used) * 100 / i128::from(asked)) as i32;
    let count = i64::try_from(known.len()).unwrap_or(i64::MAX);
    Ok((f64::from(percent) / f64::from(target), percent, used / count))
}

fn usage_of(samples: &Samples, target: i64) -> (f64, i64) {
    let count = i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
    let usage = samples.values().map(|s| s.value).sum::<i64>() / count;
    (usage as f64 / target as f64, usage)
}

/// What each pod requests: of one container, of the pod itself where it says so, or of all that run beside each other.
fn requests(pods: &[Arc<Pod>], container: &str, resource: &str) -> Result<Requests, String> {
    pods.iter().map(|pod| Ok((pod.name().to_owned(), request(pod, container, resource)?))).collect()
}

fn request(pod: &Pod, container: &str, resource: &str) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let milli = |text: &str| api::quantity::Quantity::parse(text).map(|q| q.milli_value()).unwrap_or(0);
    let own = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).filter(|r| !r.is_empty());
    if let (Some(own), "") = (own, container) {
        let overhead = spec.overhead.as_ref().and_then(|o| o.get(resource)).map_or(0, |q| milli(&q.0));
        let asked = own.get(resource).map(|q| milli(&q.0) + overhead);
        return asked.ok_or_else(|| format!("missing pod-level request for {resource} in Pod {}", pod.name()));
    }
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    let mut wanted = all.filter(|c| container.is_empty() || c.name == container).peekable();
    if wanted.peek().is_none() && !container.is_empty() {
        return Err(format!("container {container} not found in Pod {}", pod.name()));
    }
    wanted
        .map(|c| {
            let asked = c.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get(resource));
            asked.map(|q| milli(&q.0)).ok_or_else(|| format!("missing request for {resource} in container {} of Pod {}", c.name, pod.name()))
        })
        .sum()
}

#[cfg(test)]
mod tests;

//! Keeps the size of a target (anything with the subresource `scale`) where its metrics ask for it.
//!
//! Models pkg/controller/podautoscaler/horizontal.go, v1.37. Reads HorizontalPodAutoscaler and Pod, the target's `scale`, and the
//! metrics APIs `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io`, whoever serves them. Writes the target's `scale`,
//! HorizontalPodAutoscaler/status, Event. Wakes on a changed spec, and once in every sync period: metrics tell nobody that they changed.

mod behavior;
mod calculator;
mod metrics;
mod plan;
mod scale;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::selector::LabelSelector;
use client::k8s_openapi::api::autoscaling::v1::Scale;
use client::k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricStatus};
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::{ApiResource, Client, Clock, Controller, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey};
use jiff::Timestamp;
use tracing::{info, warn};

use self::behavior::History;
use self::plan::{Conditions, Gate, Measured, Target};
use crate::context::ControllerContext;
use crate::failure::Failure;

pub use self::plan::Settings;

const NAME: &str = "horizontal-pod-autoscaler";

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    settings: Settings,
    known: Mutex<HashMap<ObjectKey, Known>>,
}

/// What is remembered of an autoscaler between two looks. Gone with it.
#[derive(Default)]
struct Known {
    history: History,
    /// Of its target's pods.
    selector: Option<LabelSelector>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        autoscalers: cx.informers.get(),
        pods: cx.informers.get(),
        clock: cx.clock.clone(),
        settings: cx.config.autoscaling,
        known: Mutex::default(),
        client,
    });
    let (autoscalers, pods) = (cx.autoscalers.clone(), cx.pods.clone());
    Controller::new(NAME, cx)
        .watches(&autoscalers, |_, event| {
            let generation = |hpa: &HorizontalPodAutoscaler| hpa.metadata.generation;
            match event {
                // Of its own writes to the status it need not hear.
                Event::Updated { old, new } if generation(old) == generation(new) => Vec::new(),
                event => vec![event.object().key()],
            }
        })
        // Pods are only looked up.
        .watches(&pods, |_, _| Vec::new())
        .run(|cx, key| async move {
            let wait = cx.settings.sync_period;
            let there = reconcile(&cx, &key).await;
            Ok::<_, Failure>(if there { Next::After(wait) } else { Next::Wait })
        })
        .await;
}

/// One autoscaler while it is worked on.
struct Work<'a> {
    cx: &'a Context,
    key: &'a ObjectKey,
    hpa: Arc<HorizontalPodAutoscaler>,
    conditions: Conditions,
    now: Timestamp,
    /// What the history goes by: a clock that is set makes no recommendation older.
    steady: Timestamp,
}

/// Whether the autoscaler is still there. What fails is said in its status and events, and tried again in the next period.
async fn reconcile(cx: &Context, key: &ObjectKey) -> bool {
    let Some(hpa) = cx.autoscalers.get(key) else {
        cx.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        return false;
    };
    let now = cx.clock.now();
    let mut work = Work { cx, key, conditions: Conditions::of(&hpa, now), hpa, now, steady: cx.clock.steady() };
    if let Err(why) = work.run().await {
        warn!(autoscaler = %key, error = why, "scale");
    }
    true
}

impl Work<'_> {
    fn tell(&self, warning: bool, reason: &str, message: String) {
        self.cx.recorder.record(&*self.hpa, if warning { EventType::Warning } else { EventType::Normal }, reason, message);
    }

    fn known<T>(&self, with: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.cx.known.lock().unwrap_or_else(PoisonError::into_inner);
        with(known.entry(self.key.clone()).or_default())
    }

    async fn run(&mut self) -> Result<(), String> {
        let target = self.hpa.spec.scale_target_ref.clone();
        let reference = format!("{}/{}/{}", target.kind, self.key.namespace, target.name);
        let at = ObjectKey::new(&self.key.namespace, target.name.clone());
        let found = match scale::resource_of(&self.cx.client, target.api_version.as_deref().unwrap_or_default(), &target.kind).await {
            Ok(resource) => scale::get(&self.cx.client, &resource, &at).await.map(|scale| (resource, scale)).map_err(|e| e.to_string()),
            Err(why) => Err(why),
        };
        let (resource, scale) = match found {
            Ok(found) => found,
            Err(why) => {
                self.tell(true, "FailedGetScale", why.clone());
                self.conditions.set("AbleToScale", false, "FailedGetScale", format!("the HPA controller was unable to get the target's current scale: {why}"));
                let old = self.hpa.status.clone().unwrap_or_default();
                self.write(HorizontalPodAutoscalerStatus { conditions: Some(self.conditions.list.clone()), ..old }).await?;
                return Err(format!("failed to query scale subresource for {reference}: {why}"));
            }
        };
        self.conditions.set("AbleToScale", true, "SucceededGetScale", "the HPA controller was able to get the target's current scale");
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let now = self.steady;
        self.known(|k| k.history.begin(current, now));
        let (desired, why, statuses, error) = match plan::gate(&self.hpa, current) {
            Gate::Disabled => {
                self.conditions.set("ScalingActive", false, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero");
                return self.finish(current, current, Vec::new(), false).await;
            }
            Gate::Resize { to, why } => (to, why.to_owned(), Vec::new(), None),
            Gate::Measure => {
                let proposal = self.measure(&scale, current).await;
                for (warning, reason, message) in proposal.events {
                    self.tell(warning, reason, message);
                }
                let Some(wished) = proposal.replicas else {
                    let error = proposal.error.unwrap_or_default();
                    let kept = self.hpa.status.as_ref().map_or(0, |s| s.desired_replicas);
                    self.finish(current, kept, proposal.statuses, false).await?;
                    self.tell(true, "FailedComputeMetricsReplicas", error.clone());
                    return Err(format!("failed to compute desired number of replicas based on listed metrics for {reference}: {error}"));
                };
                let (hpa, settings) = (self.hpa.clone(), self.cx.settings);
                let mut history = self.known(|k| std::mem::take(&mut k.history));
                let (desired, why) = plan::settle(&hpa, current, wished, &proposal.metric, &mut history, &settings, &mut self.conditions, now);
                self.known(|k| k.history = history);
                (desired, why, proposal.statuses, proposal.error)
            }
        };
        let rescale = desired != current;
        if rescale {
            self.rescale(&resource, &at, scale, (current, desired), &why, &statuses).await.map_err(|why| format!("failed to rescale {reference}: {why}"))?;
        }
        self.finish(current, desired, statuses, rescale).await?;
        error.map_or(Ok(()), Err)
    }

    async fn measure(&mut self, scale: &Scale, current: i32) -> plan::Proposal {
        let status = scale.status.clone().unwrap_or_default();
        let selector = status.selector.unwrap_or_default();
        let pods = match self.pods(&selector) {
            Ok(pods) => pods,
            Err(why) => return plan::Proposal { error: Some(why), ..plan::Proposal::default() },
        };
        let mut values = Vec::new();
        for spec in self.hpa.spec.metrics.iter().flatten() {
            values.push(metrics::fetch(&self.cx.client, &self.key.namespace, spec, &selector).await);
        }
        let target = Target { spec_replicas: current, status_replicas: status.replicas };
        let measured = Measured { hpa: &self.hpa, target, pods: &pods, values, settings: &self.cx.settings, now: self.now };
        plan::propose(measured, &mut self.conditions)
    }

    /// The target's pods, which must be no other autoscaler's too.
    fn pods(&mut self, text: &str) -> Result<Vec<Arc<Pod>>, String> {
        if text.is_empty() {
            let why = "selector is required";
            self.tell(true, "SelectorRequired", why.to_owned());
            self.conditions.set("ScalingActive", false, "InvalidSelector", "the HPA target's scale is missing a selector");
            return Err(why.to_owned());
        }
        let selector = LabelSelector::parse(text).map_err(|error| {
            let why = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            self.tell(true, "InvalidSelector", why.clone());
            self.conditions.set("ScalingActive", false, "InvalidSelector", why.clone());
            why
        })?;
        let pods = self.cx.pods.list_labelled(&self.key.namespace, |labels| selector.matches_map(Some(labels)));
        self.known(|k| k.selector = Some(selector));
        let rivals = self.rivals(&pods);
        if rivals.len() > 1 {
            let why = format!("pods by selector {text} are controlled by more than one HPA (e.g. [{}])", rivals.join(" "));
            self.tell(true, "AmbiguousSelector", why.clone());
            self.conditions.set("ScalingActive", false, "AmbiguousSelector", why.clone());
            return Err(why);
        }
        Ok(pods)
    }

    /// Autoscalers that choose one of these pods; two are enough to know.
    fn rivals(&self, pods: &[Arc<Pod>]) -> Vec<String> {
        let known = self.cx.known.lock().unwrap_or_else(PoisonError::into_inner);
        let chooses = |k: &Known| k.selector.as_ref().is_some_and(|s| pods.iter().any(|p| s.matches_map(p.metadata.labels.as_ref())));
        let mut names: Vec<String> =
            known.iter().filter(|(key, k)| key.namespace == self.key.namespace && chooses(k)).map(|(key, _)| format!("{}/{}", key.namespace, key.name)).collect();
        names.sort();
        names.truncate(2);
        names
    }

    async fn rescale(&mut self, resource: &ApiResource, at: &ObjectKey, scale: Scale, (from, to): (i32, i32), why: &str, statuses: &[MetricStatus]) -> Result<(), String> {
        if let Err(error) = scale::set(&self.cx.client, resource, at, scale, to).await {
            self.tell(true, "FailedRescale", format!("New size: {to}; reason: {why}; error: {error}"));
            self.conditions.set("AbleToScale", false, "FailedUpdateScale", format!("the HPA controller was unable to update the target scale: {error}"));
            let kept = self.hpa.status.as_ref().map_or(0, |s| s.desired_replicas);
            self.finish(from, kept, statuses.to_vec(), false).await?;
            return Err(error.to_string());
        }
        self.conditions.set("AbleToScale", true, "SucceededRescale", format!("the HPA controller was able to update the target scale to {to}"));
        self.tell(false, "SuccessfulRescale", format!("New size: {to}; reason: {why}"));
        info!(autoscaler = %self.key, from, to, why, "rescaled");
        let (hpa, now) = (self.hpa.clone(), self.steady);
        self.known(|k| k.history.rescaled(hpa.spec.behavior.as_ref(), from, to, now));
        if from > 0 && to == 0 && plan::min_replicas(&hpa) == 0 && plan::has_outer_metrics(&hpa) {
            self.conditions.set("ScaledToZero", true, "ScaledToZero", "the HPA controller scaled the workload to zero");
        } else {
            self.conditions.set("ScaledToZero", false, "NotScaledToZero", "the HPA controller did not scale the workload to zero");
        }
        Ok(())
    }

    async fn finish(&mut self, current: i32, desired: i32, statuses: Vec<MetricStatus>, rescaled: bool) -> Result<(), String> {
        let old = self.hpa.status.clone().unwrap_or_default();
        let whole = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        let status = HorizontalPodAutoscalerStatus {
            current_replicas: Some(current),
            desired_replicas: desired,
            last_scale_time: if rescaled { Some(Time(whole)) } else { old.last_scale_time.clone() },
            current_metrics: (!statuses.is_empty()).then_some(statuses),
            conditions: Some(self.conditions.list.clone()),
            observed_generation: self.hpa.metadata.generation,
        };
        self.write(status).await
    }

    async fn write(&mut self, status: HorizontalPodAutoscalerStatus) -> Result<(), String> {
        let old = self.hpa.status.clone().unwrap_or_default();
        // Absent and zero are one.
        let plain = |s: &HorizontalPodAutoscalerStatus| HorizontalPodAutoscalerStatus { current_replicas: Some(s.current_replicas.unwrap_or(0)), ..s.clone() };
        if plain(&old) == plain(&status) {
            return Ok(());
        }
        let hpa = HorizontalPodAutoscaler { status: Some(status), ..HorizontalPodAutoscaler::clone(&self.hpa) };
        match self.cx.client.update_status(&hpa).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.tell(true, "FailedUpdateStatus", error.to_string());
                Err(format!("failed to update status for {}: {error}", self.key.name))
            }
        }
    }
}

//! Removes PodCertificateRequests a quarter of an hour after they were made: whatever came of them has been read by then.
//!
//! Models pkg/controller/certificates/cleaner/pcrcleaner.go, v1.37. Different: a timer for each, where upstream looks every five minutes.
//! Reads PodCertificateRequest, deletes it. Wakes on new ones.
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::certificates::v1::PodCertificateRequest;
use client::{Client, Clock, Controller, DeleteOptions, Event, Informer, Named, Next, ObjectKey};
use jiff::Timestamp;

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "podcertificaterequestcleaner";
const KEPT_FOR: Duration = Duration::from_secs(15 * 60);

struct Context {
    client: Client,
    clock: Clock,
    requests: Informer<PodCertificateRequest>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let cx = Arc::new(Context { client: cx.client(NAME), clock: cx.clock.clone(), requests: cx.informers.get() });
    let requests = cx.requests.clone();
    Controller::new("podcertificaterequest-cleaner-controller", cx)
        .workers(1)
        .watches(&requests, |_, event| match event {
            Event::Added(request) => vec![request.key()],
            Event::Updated { .. } | Event::Deleted(_) => Vec::new(),
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(request) = cx.requests.get(key) else { return Ok(Next::Wait) };
    let rest = remaining(&request, cx.clock.now());
    if !rest.is_zero() {
        return Ok(Next::After(rest));
    }
    unless_gone(cx.client.delete::<PodCertificateRequest>(key, &DeleteOptions::uid(request.uid())).await)
        .during(|| format!("delete PodCertificateRequest {key}"))?;
    Ok(Next::Wait)
}

/// How long a request is still kept.
fn remaining(request: &PodCertificateRequest, now: Timestamp) -> Duration {
    let Some(created) = &request.metadata.creation_timestamp else { return KEPT_FOR };
    let age = Duration::try_from(now.duration_since(created.0)).unwrap_or_default();
    KEPT_FOR.saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_request_is_kept_for_a_quarter_of_an_hour() {
        let created = Timestamp::UNIX_EPOCH;
        let mut request = PodCertificateRequest::default();
        request.metadata.creation_timestamp = Some(Time(created));
        let at = |minutes: i64| remaining(&request, Timestamp::from_second(minutes * 60).unwrap());
        assert_eq!((at(0), at(10), at(15), at(99)), (KEPT_FOR, Duration::from_secs(300), Duration::ZERO, Duration::ZERO));
    }
}

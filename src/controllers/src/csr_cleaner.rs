//! Removes requests that are answered, or that nobody answers.
//!
//! Models pkg/controller/certificates/cleaner/cleaner.go, v1.37. Different: a timer for each request, where upstream looks at all of
//! them every hour.
//! Reads and deletes CertificateSigningRequest. Wakes on requests.
use std::sync::Arc;

use client::{Client, Clock, Controller, DeleteOptions, Informer, Named, Next, ObjectKey};
use jiff::{SignedDuration, Timestamp};

use crate::context::ControllerContext;
use crate::csr::{self, APPROVED, Csr, DENIED, FAILED};
use crate::failure::{During, Failure, unless_gone};
use crate::pods::until;

const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

struct Context {
    client: Client,
    clock: Clock,
    requests: Informer<Csr>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let requests = csr::informer(&cx.informers);
    let context = Context { client: cx.client(csr::IDENTITY), clock: cx.clock, requests: requests.clone() };
    Controller::new("certificatesigningrequest-cleaner-controller", Arc::new(context))
        .reconciles(&requests)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(csr) = cx.requests.get(key) else { return Ok(Next::Wait) };
    let now = cx.clock.now();
    let Some(end) = end_of(&csr) else { return Ok(Next::Wait) };
    if now <= end {
        return Ok(Next::After(until(end, now) + std::time::Duration::from_secs(1)));
    }
    unless_gone(cx.client.delete::<Csr>(key, &DeleteOptions::uid(csr.uid())).await).during(|| format!("clean csr {key}"))?;
    Ok(Next::Wait)
}

/// After which a request is no longer kept.
fn end_of(csr: &Csr) -> Option<Timestamp> {
    let after = |time: Option<Timestamp>, kept: SignedDuration| time.map(|time| time.saturating_add(kept).unwrap_or(Timestamp::MAX));
    let created = csr.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let conditions = csr::conditions(csr);
    let mut ends: Vec<Option<Timestamp>> = Vec::new();
    if conditions.is_empty() {
        ends.push(after(created, PENDING));
    }
    let certificate = csr::certificate(csr);
    for condition in conditions {
        let updated = condition.last_update_time.as_ref().map(|time| time.0);
        match condition.type_.as_str() {
            DENIED | FAILED => ends.push(after(updated, ANSWERED)),
            APPROVED if certificate.is_empty() => ends.push(after(updated, PENDING)),
            APPROVED => ends.extend([after(updated, ANSWERED), expiry(certificate)]),
            _ => {}
        }
    }
    ends.into_iter().flatten().min()
}

fn expiry(certificate: &[u8]) -> Option<Timestamp> {
    let pem = String::from_utf8(certificate.to_vec()).ok()?;
    let leaf = pki::Leaf { certificate_pem: pem, key_pem: String::new() };
    Timestamp::try_from(leaf.validity()?.not_after).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_stay_an_hour_and_questions_a_day() {
        let csr = |conditions: serde_json::Value, certificate: &str| -> Csr {
            serde_json::from_value(json!({
                "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"request": "", "signerName": "x"},
                "status": {"conditions": conditions, "certificate": certificate}
            }))
            .unwrap()
        };
        let condition = |kind: &str, hour: u32| json!({"type": kind, "status": "True", "lastUpdateTime": format!("2026-01-01T{hour:02}:00:00Z")});
        let end = |csr: Csr| end_of(&csr).map(|end| end.to_string());
        assert_eq!(end(csr(json!([]), "")).unwrap(), "2026-01-02T00:00:00Z");
        assert_eq!(end(csr(json!([condition(DENIED, 2)]), "")).unwrap(), "2026-01-01T03:00:00Z");
        assert_eq!(end(csr(json!([condition(APPROVED, 2)]), "")).unwrap(), "2026-01-02T02:00:00Z");
        assert_eq!(end(csr(json!([condition(APPROVED, 2)]), "QQ==")).unwrap(), "2026-01-01T03:00:00Z");
        assert_eq!(end(csr(json!([condition(APPROVED, 2), condition(FAILED, 5)]), "")).unwrap(), "2026-01-01T06:00:00Z");
        assert_eq!(end(csr(json!([condition("Other", 2)]), "")), None);
    }
}

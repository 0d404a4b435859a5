use super::*;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minutes * 60).expect("a time")
}

fn request(condition: &str) -> PodCertificateRequest {
    let conditions = match condition {
        "" => serde_json::json!([]),
        kind => {
            serde_json::json!([{"type": kind, "status": "True", "reason": "R", "message": "M", "lastTransitionTime": at(0).to_string()}])
        }
    };
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "req-1", "namespace": "n"},
        "spec": {"signerName": "a.b/c", "podName": "p", "podUID": "1", "serviceAccountName": "s", "serviceAccountUID": "2", "nodeName": "n",
            "nodeUID": "3", "stubPKCS10Request": ""},
        "status": {"conditions": conditions, "certificateChain": "", "beginRefreshAt": at(60).to_string(), "notAfter": at(90).to_string()},
    }))
    .expect("a request")
}

fn pending() -> Pending {
    Pending::new("key".into(), "req-1".into(), at(0), Duration::ZERO)
}

#[test]
fn a_certificate_is_issued_refreshed_and_told_of_when_late() {
    let waiting = Certificate::Waiting(pending());
    let (state, notice) = waiting.observe(Some(&request("")), at(1), Duration::ZERO);
    assert!(notice.is_none());
    let (state, _) = state.expect("still waiting").observe(Some(&request("Issued")), at(2), Duration::from_secs(60));
    let mut state = state.expect("issued");
    assert_eq!(state.wake_at(), Some(at(61)));
    assert!(!state.needs_request(at(60)) && state.needs_request(at(61)));
    let Certificate::Issued { pending: slot, .. } = &mut state else { panic!("not issued") };
    *slot = Some(Pending::new("new".into(), "req-2".into(), at(61), Duration::from_secs(3600)));
    assert_eq!(state.wake_at(), Some(at(71)));
    assert_eq!(state.lateness(at(72)).iter().map(|n| n.reason.as_str()).collect::<Vec<_>>(), ["CertificateOverdueForRefresh"]);
    assert_eq!(state.wake_at(), Some(at(90)));
    assert_eq!(state.lateness(at(91)).iter().map(|n| n.reason.as_str()).collect::<Vec<_>>(), ["CertificateExpired"]);
    assert!(state.lateness(at(92)).is_empty());
    let (state, _) = state.observe(Some(&request("Issued")), at(92), Duration::ZERO);
    assert!(matches!(state, Some(Certificate::Issued { current, pending: None }) if &*current.key == "new"));
}

#[test]
fn a_request_that_vanished_is_made_again() {
    let (state, _) = Certificate::Waiting(pending()).observe(None, at(9), Duration::ZERO);
    assert!(matches!(state, Some(Certificate::Waiting(_))));
    let (state, _) = state.expect("waiting").observe(None, at(10), Duration::ZERO);
    assert!(state.is_none());
}

#[test]
fn a_refusal_is_told_and_final() {
    let (state, notice) = Certificate::Waiting(pending()).observe(Some(&request("Denied")), at(1), Duration::ZERO);
    let notice = notice.expect("a notice");
    assert_eq!(
        (notice.reason.as_str(), notice.message.as_str()),
        ("Denied", "PodCertificateRequest n/req-1 was denied, reason=\"R\", message=\"M\"")
    );
    let state = state.expect("refused");
    assert!(state.wake_at().is_none() && !state.needs_request(at(1000)));
    let all = Certificates([(("v".to_owned(), 0), state)].into());
    let error = all.get("v", 0).err().expect("refused");
    assert_eq!(error.to_string(), "PodCertificateRequest was permanently denied: reason=\"R\" message=\"M\"");
    assert_eq!(all.get("v", 1).err(), Some(CertificateError::NotIssued));
}

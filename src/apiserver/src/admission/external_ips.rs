//! On request: no Service takes addresses that are not its own.
//!
//! Models plugin/pkg/admission/network/denyserviceexternalips/admission.go.
use api::tree::Tree;

use super::{Operation, Request};
use crate::status::Status;

pub fn validate(request: &Request) -> Result<(), Status> {
    if !request.is("", "services") || !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let of = |service: &Tree| service.array_at(&["spec", "externalIPs"]).to_vec();
    let (new, old) = (of(&request.object), request.old.as_deref().map(of).unwrap_or_default());
    // Those that are there may stay.
    if new.iter().all(|address| old.contains(address)) {
        return Ok(());
    }
    Err(request.forbidden("Use of external IPs is denied by admission control"))
}

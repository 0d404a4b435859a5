//! Deletes bootstrap tokens that have expired.
//!
//! Models pkg/controller/bootstrap/tokencleaner.go, v1.37.
//! Reads and deletes Secrets of bootstrap tokens. Wakes on them, and when one expires.
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::Secret;
use client::{Client, Clock, Controller, DeleteOptions, Informer, Named, Next, ObjectKey};

use crate::bootstrap_tokens as tokens;
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::pods::until;

struct Context {
    client: Client,
    clock: Clock,
    secrets: Informer<Secret>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let secrets = tokens::informer(cx.informers.client());
    let context = Context { client: cx.client("token-cleaner"), clock: cx.clock, secrets: secrets.clone() };
    Controller::new("token-cleaner-controller", Arc::new(context))
        .reconciles(&secrets)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(secret) = cx.secrets.get(key) else { return Ok(Next::Wait) };
    let Some(end) = tokens::expiration(&secret) else { return Ok(Next::Wait) };
    let now = cx.clock.now();
    if now < end {
        return Ok(Next::After(until(end, now)));
    }
    match unless_gone(cx.client.delete::<Secret>(key, &DeleteOptions::uid(secret.uid())).await) {
        Err(error) if error.is_conflict() => Ok(Next::Wait), // another of that name
        result => result.during(|| format!("delete the expired token {key}")).map(|_| Next::Wait),
    }
}

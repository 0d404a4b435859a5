//! Gives every namespace its `default` ServiceAccount.
//!
//! Models pkg/controller/serviceaccount/serviceaccounts_controller.go, v1.37.
//! Reads Namespace, ServiceAccount. Writes ServiceAccount. Wakes on namespaces, and on the deletion of a `default` account.
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, Controller, Event, Informer, Named, Next, ObjectKey};

use crate::context::ControllerContext;
use crate::failure::{During, Failure};

const NAME: &str = "service-account-controller";
const ACCOUNT: &str = "default";

struct Context {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context { client, namespaces: cx.informers.get(), accounts: cx.informers.get() });
    let (namespaces, accounts) = (cx.namespaces.clone(), cx.accounts.clone());
    Controller::new(NAME, cx)
        .reconciles(&namespaces)
        .watches(&accounts, |_, event| match event {
            Event::Deleted(account) if account.name() == ACCOUNT => vec![ObjectKey::cluster(account.namespace())],
            _ => Vec::new(),
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(namespace) = cx.namespaces.get(key) else { return Ok(Next::Wait) };
    let account = ObjectKey::new(namespace.name(), ACCOUNT);
    if is_terminating(&namespace) || cx.accounts.get(&account).is_some() {
        return Ok(Next::Wait);
    }
    let object = ServiceAccount {
        metadata: ObjectMeta {
            namespace: Some(account.namespace.clone()),
            name: Some(account.name.clone()),
            ..Default::default()
        },
        ..Default::default()
    };
    match cx.client.create(&object).await {
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() => {}
        result => {
            result.during(|| format!("create ServiceAccount {account}"))?;
        }
    }
    Ok(Next::Wait)
}

pub(crate) fn is_terminating(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    namespace.is_deleting() || phase == Some("Terminating")
}

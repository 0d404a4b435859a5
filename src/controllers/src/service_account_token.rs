//! Fills the Secrets that ask for a ServiceAccount's token, and deletes those whose account is gone.
//!
//! Models pkg/controller/serviceaccount/tokens_controller.go, v1.37.
//! Reads Secrets of type `kubernetes.io/service-account-token`, ServiceAccount. Writes Secret, and the account's list of them.
//! Wakes on the Secrets, and on accounts for the Secrets that name them.
use std::sync::Arc;

use client::k8s_openapi::ByteString;
use client::k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use client::{Client, Controller, DeleteOptions, Event, Informer, Named, Next, ObjectKey};
use pki::{LegacyClaims, ServiceAccountSigner};

use crate::context::{Config, ControllerContext};
use crate::failure::{During, Failure, unless_gone};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Secrets by the account that they name, `namespace/name`.
const BY_ACCOUNT: &str = "account";

struct Context {
    client: Client,
    config: Arc<Config>,
    signer: Arc<ServiceAccountSigner>,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

fn account_key(secret: &Secret) -> ObjectKey {
    ObjectKey::new(secret.namespace(), secret.annotation(ACCOUNT).unwrap_or_default())
}

pub(crate) async fn run(cx: ControllerContext) {
    // Upstream's runs as the controller manager itself.
    let client = cx.informers.client().clone();
    let secrets = Informer::<Secret>::builder(&client).fields(format!("type={TYPE}")).start();
    secrets.add_index(BY_ACCOUNT, |secret: &Secret| vec![account_key(secret).to_string()]);
    let accounts: Informer<ServiceAccount> = cx.informers.get();
    let context = Context { client, config: cx.config, signer: cx.tokens, secrets: secrets.clone(), accounts: accounts.clone() };
    Controller::new("serviceaccount-token-controller", Arc::new(context))
        .reconciles(&secrets)
        .watches(&accounts, |cx, event| {
            let concerns = !matches!(event, Event::Updated { old, new } if old.uid() == new.uid() && old.secrets == new.secrets);
            let secrets = if concerns { cx.secrets.by_index(BY_ACCOUNT, &event.object().key().to_string()) } else { Vec::new() };
            secrets.iter().map(|secret| secret.key()).collect()
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(secret) = cx.secrets.get(key) else { return Ok(Next::Wait) };
    let Some(account) = current_account(cx, &secret).await? else {
        let deleted = unless_gone(cx.client.delete::<Secret>(key, &DeleteOptions::uid(secret.uid())).await);
        return match deleted {
            Err(error) if error.is_conflict() => Ok(Next::Wait), // another of that name
            result => result.during(|| format!("delete Secret {key}, whose ServiceAccount is gone")).map(|_| Next::Wait),
        };
    };
    let root_ca = cx.config.root_ca.as_bytes();
    if filled(&secret, &account, root_ca, String::new).is_none() {
        return Ok(Next::Wait);
    }
    // Fresh, so that a token that was just made is not made again.
    let found = unless_gone(cx.client.get::<Secret>(key).await).during(|| format!("look at Secret {key}"))?;
    let Some(found) = found.filter(|found| found.resource_version() == secret.resource_version()) else { return Ok(Next::Wait) };
    let claims = LegacyClaims {
        namespace: key.namespace.clone(),
        secret: key.name.clone(),
        account: account.name().to_owned(),
        account_uid: account.uid().to_owned(),
        ..LegacyClaims::default()
    };
    let token = cx.signer.sign_legacy(claims).map_err(|error| Failure::Unusable(error.to_string()))?;
    let Some(update) = filled(&found, &account, root_ca, || token) else { return Ok(Next::Wait) };
    match unless_gone(cx.client.update(&update).await) {
        Err(error) if error.is_conflict() => Ok(Next::Wait), // its event is on the way
        result => result.during(|| format!("put a token into Secret {key}")).map(|_| Next::Wait),
    }
}

/// The account that the Secret names: as the cache has it, or, where that may be behind, the server.
async fn current_account(cx: &Context, secret: &Secret) -> Result<Option<ServiceAccount>, Failure> {
    let key = account_key(secret);
    let wanted = secret.annotation(ACCOUNT_UID).unwrap_or_default();
    let is_it = |account: &ServiceAccount| wanted.is_empty() || account.uid() == wanted;
    if let Some(account) = cx.accounts.get(&key).filter(|account| is_it(account)) {
        return Ok(Some((*account).clone()));
    }
    if key.name.is_empty() {
        return Ok(None);
    }
    let found = unless_gone(cx.client.get::<ServiceAccount>(&key).await).during(|| format!("look for ServiceAccount {key}"))?;
    Ok(found.filter(is_it))
}

/// The Secret with all that it must hold; `None` if it does. A token that is there stays.
fn filled(secret: &Secret, account: &ServiceAccount, root_ca: &[u8], token: impl FnOnce() -> String) -> Option<Secret> {
    let mut update = secret.clone();
    let data = update.data.get_or_insert_default();
    let is_empty = |data: &std::collections::BTreeMap<String, ByteString>, key: &str| data.get(key).is_none_or(|bytes| bytes.0.is_empty());
    let mut changed = false;
    if data.get("ca.crt").is_none_or(|bytes| bytes.0 != root_ca) {
        data.insert("ca.crt".to_owned(), ByteString(root_ca.to_vec()));
        changed = true;
    }
    if is_empty(data, "namespace") {
        data.insert("namespace".to_owned(), ByteString(secret.namespace().as_bytes().to_vec()));
        changed = true;
    }
    if is_empty(data, "token") {
        data.insert("token".to_owned(), ByteString(token().into_bytes()));
        changed = true;
    }
    let annotations = update.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT.to_owned(), account.name().to_owned());
    annotations.insert(ACCOUNT_UID.to_owned(), account.uid().to_owned());
    changed.then_some(update)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_filled_once() {
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "bot", "namespace": "n", "uid": "u"}})).unwrap();
        let meta = json!({"name": "s", "namespace": "n", "annotations": {ACCOUNT: "bot"}});
        let secret: Secret = serde_json::from_value(json!({"metadata": meta, "type": TYPE})).unwrap();
        let done = filled(&secret, &account, b"ca", || "token".to_owned()).unwrap();
        let text = |key: &str| String::from_utf8(done.data.as_ref().unwrap()[key].0.clone()).unwrap();
        assert_eq!((text("ca.crt"), text("namespace"), text("token")), ("ca".into(), "n".into(), "token".into()));
        assert_eq!(done.annotation(ACCOUNT_UID), Some("u"));
        assert_eq!(filled(&done, &account, b"ca", || panic!("it has a token")), None);
        let renewed = filled(&done, &account, b"another ca", || panic!("it has a token")).unwrap();
        assert_eq!(renewed.data.unwrap()["token"].0, b"token");
    }
}

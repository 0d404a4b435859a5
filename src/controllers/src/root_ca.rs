//! Publishes the certificate that the API server is trusted by in every namespace, as ConfigMap `kube-root-ca.crt`.
//!
//! Models pkg/controller/certificates/rootcacertpublisher/publisher.go, v1.37.
//! Reads Namespace, ConfigMaps of that name only. Writes ConfigMap. Wakes on namespaces and on any change of the ConfigMap.
use std::collections::BTreeMap;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, Controller, Informer, Named, Next, ObjectKey};

use crate::context::{Config, ControllerContext};
use crate::failure::{During, Failure};
use crate::service_account::is_terminating;

const NAME: &str = "root-ca-cert-publisher";
const CONFIG_MAP: &str = "kube-root-ca.crt";
const ENTRY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such \
as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

struct Context {
    client: Client,
    config: Arc<Config>,
    namespaces: Informer<Namespace>,
    config_maps: Informer<ConfigMap>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let config_maps = Informer::builder(cx.informers.client()).fields(format!("metadata.name={CONFIG_MAP}")).start();
    let cx = Arc::new(Context {
        client: cx.client(NAME),
        config: cx.config.clone(),
        namespaces: cx.informers.get(),
        config_maps,
    });
    let (namespaces, config_maps) = (cx.namespaces.clone(), cx.config_maps.clone());
    Controller::new(NAME, cx)
        .reconciles(&namespaces)
        .watches(&config_maps, |_, event| vec![ObjectKey::cluster(event.object().namespace())])
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(namespace) = cx.namespaces.get(key) else { return Ok(Next::Wait) };
    if is_terminating(&namespace) {
        return Ok(Next::Wait);
    }
    let target = ObjectKey::new(namespace.name(), CONFIG_MAP);
    let existing = cx.config_maps.get(&target);
    let Some(wanted) = plan(&target, existing.as_deref(), &cx.config.root_ca) else { return Ok(Next::Wait) };
    let result = match existing {
        Some(_) => cx.client.update(&wanted).await,
        None => cx.client.create(&wanted).await,
    };
    match result {
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() => {}
        result => {
            result.during(|| format!("publish ConfigMap {target}"))?;
        }
    }
    Ok(Next::Wait)
}

/// The ConfigMap to write, where it is not as it should be.
fn plan(key: &ObjectKey, existing: Option<&ConfigMap>, root_ca: &str) -> Option<ConfigMap> {
    let data = BTreeMap::from([(ENTRY.to_owned(), root_ca.to_owned())]);
    let mut wanted = existing.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            ..Default::default()
        },
        ..Default::default()
    });
    if existing.is_some() && wanted.data.as_ref() == Some(&data) && wanted.annotation(DESCRIPTION_KEY) == Some(DESCRIPTION) {
        return None;
    }
    wanted.data = Some(data);
    wanted.metadata.annotations.get_or_insert_default().insert(DESCRIPTION_KEY.to_owned(), DESCRIPTION.to_owned());
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_put_back_and_what_is_right_is_left_alone() {
        let key = ObjectKey::new("a", CONFIG_MAP);
        let made = plan(&key, None, "PEM").unwrap();
        assert_eq!(made.data.as_ref().unwrap()[ENTRY], "PEM");
        assert!(plan(&key, Some(&made), "PEM").is_none());
        assert_eq!(plan(&key, Some(&made), "NEW").unwrap().data.unwrap()[ENTRY], "NEW");
        let mut bent = made.clone();
        bent.metadata.annotations = None;
        assert!(plan(&key, Some(&bent), "PEM").is_some());
    }
}

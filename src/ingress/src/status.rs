//! Writes the addresses under which an Ingress is reachable into its status, when they are not there yet.
use client::{Client, Named, ObjectKey, Patch};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

pub async fn publish(client: &Client, ingress: &Ingress, service: Option<&Service>) {
    let wanted = addresses(service);
    let current = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    let current: Vec<Value> = current.into_iter().flatten().filter_map(|i| i.ip.as_ref()).map(|ip| json!({"ip": ip})).collect();
    if wanted == current {
        return;
    }
    let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": wanted}}}));
    let key: ObjectKey = ingress.key();
    if let Err(error) = client.patch_status::<Ingress>(&key, &patch).await {
        tracing::debug!(ingress = %key, %error, "status not written");
    }
}

fn addresses(service: Option<&Service>) -> Vec<Value> {
    let ingress = service.and_then(|s| s.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|i| i.ip.as_ref()).map(|ip| json!({"ip": ip})).collect()
}

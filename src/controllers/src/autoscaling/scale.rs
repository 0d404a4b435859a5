//! The target of an autoscaler: any kind with the subresource `scale`, found by discovery.

use client::k8s_openapi::api::autoscaling::v1::Scale;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResourceList};
use client::{ApiError, ApiResource, Client, ObjectKey};

const TRIES: usize = 5;

/// The resource of a kind, in the version that is named or else in one that the server has. Models RESTMapper.RESTMappings.
pub(super) async fn resource_of(client: &Client, api_version: &str, kind: &str) -> Result<ApiResource, String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let mut versions = Vec::new();
    if group.is_empty() {
        versions.push("v1".to_owned());
    } else {
        match client.get_path::<APIGroup>(&format!("/apis/{}", client::percent_encode(group))).await {
            Ok(found) => versions.extend(found.versions.into_iter().map(|v| v.version)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    // Stable: the others stay in the server's order.
    versions.sort_by_key(|v| v != version);
    for version in versions {
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let list: APIResourceList = client.get_path(&root).await.map_err(|e| e.to_string())?;
        if let Some(found) = list.resources.into_iter().find(|r| r.kind == kind && !r.name.contains('/')) {
            return Ok(ApiResource { group: group.to_owned(), version, kind: found.kind, plural: found.name, namespaced: found.namespaced });
        }
    }
    Err(format!("no matches for kind {kind:?} in group {group:?}"))
}

fn path(resource: &ApiResource, key: &ObjectKey) -> String {
    format!("{}/scale", resource.object_path(key))
}

pub(super) async fn get(client: &Client, resource: &ApiResource, key: &ObjectKey) -> Result<Scale, ApiError> {
    client.get_path(&path(resource, key)).await
}

/// Sets the number of replicas; what others changed meanwhile is read again.
pub(super) async fn set(client: &Client, resource: &ApiResource, key: &ObjectKey, mut scale: Scale, replicas: i32) -> Result<(), ApiError> {
    for attempt in 1.. {
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        match client.put_path::<_, Scale>(&path(resource, key), &scale).await {
            Err(error) if error.is_conflict() && attempt < TRIES => scale = get(client, resource, key).await?,
            result => return result.map(drop),
        }
    }
    Ok(())
}

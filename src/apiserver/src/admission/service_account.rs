//! Every pod has a ServiceAccount, and its token where a client library looks for it.
//!
//! Models plugin/pkg/admission/serviceaccount/admission.go. Left out: the annotation enforce-mountable-secrets (deprecated).
use std::sync::Arc;
use std::time::Duration;

use api::tree::{Object, Tree};

use super::{Operation, Request};
use crate::cache::{Cache, Cached};
use crate::rest::storage::generate_name;
use crate::status::Status;

const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The issuer knows this number: such a token lives longer, with a warning (see `auth::issuer`).
const TOKEN_SECONDS: i64 = 3607;

/// A new namespace's account `default` is made by a controller: a pod may come first.
const WAIT_FOR_DEFAULT: Duration = Duration::from_millis(1200);

pub async fn admit(cache: &Cache, request: &mut Request) -> Result<(), Status> {
    if !request.is("", "pods") || request.operation != Operation::Create {
        return Ok(());
    }
    // A changed mirror pod would be deleted by its kubelet.
    if api::meta::annotation(&request.object, MIRROR).is_some() {
        return check_mirror(request);
    }
    let name = match request.object.str_at(&["spec", "serviceAccountName"]) {
        "" => DEFAULT.to_owned(),
        name => name.to_owned(),
    };
    let Some(account) = find(cache, &request.namespace, &name).await else {
        let namespace = &request.namespace;
        return Err(request.forbidden(format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        )));
    };
    let account = account.tree();
    let pod = &mut request.object;
    pod.set(&["spec", "serviceAccountName"], name.as_str());
    pod.set(&["spec", "serviceAccount"], name.as_str());
    let automount = |tree: &Tree, path: &[&str]| tree.at(path).and_then(Tree::as_bool);
    let wanted = automount(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| automount(&account, &["automountServiceAccountToken"]))
        .unwrap_or(true);
    if wanted {
        mount_token(pod);
    }
    if pod.array_at(&["spec", "imagePullSecrets"]).is_empty() {
        let secrets = account.array_at(&["imagePullSecrets"]);
        if !secrets.is_empty() {
            pod.set(&["spec", "imagePullSecrets"], Tree::Array(secrets.to_vec()));
        }
    }
    Ok(())
}

/// A pod that is created by a node says nothing of accounts.
pub fn validate(request: &Request) -> Result<(), Status> {
    if !request.is("", "pods") || request.operation != Operation::Create {
        return Ok(());
    }
    if api::meta::annotation(&request.object, MIRROR).is_some() {
        return check_mirror(request);
    }
    if request.object.str_at(&["spec", "serviceAccountName"]).is_empty() {
        let (namespace, name) = (&request.namespace, api::meta::name(&request.object));
        return Err(request.forbidden(format!("no service account specified for pod {namespace}/{name}")));
    }
    Ok(())
}

fn check_mirror(request: &Request) -> Result<(), Status> {
    let pod = &request.object;
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Err(request.forbidden("a mirror pod may not reference service accounts"));
    }
    if crate::auth::pod_names_secret(pod) {
        return Err(request.forbidden("a mirror pod may not reference secrets"));
    }
    let tokens = |volume: &Tree| {
        volume.array_at(&["projected", "sources"]).iter().any(|s| s.get("serviceAccountToken").is_some())
    };
    if pod.array_at(&["spec", "volumes"]).iter().any(tokens) {
        return Err(request.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

async fn find(cache: &Cache, namespace: &str, name: &str) -> Option<Arc<Cached>> {
    let mut changes = cache.changes("", "serviceaccounts")?;
    changes.borrow_and_update();
    let look = || cache.get("", "serviceaccounts", namespace, name);
    if let Some(found) = look() {
        return Some(found);
    }
    if name != DEFAULT {
        return None;
    }
    let appears = async {
        loop {
            changes.changed().await.ok()?;
            if let Some(found) = look() {
                return Some(found);
            }
        }
    };
    tokio::time::timeout(WAIT_FOR_DEFAULT, appears).await.ok().flatten()
}

fn mount_token(pod: &mut Tree) {
    let existing = pod.array_at(&["spec", "volumes"]).iter().map(|volume| volume.str_at(&["name"]));
    let existing = existing.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next();
    let name = existing.clone().unwrap_or_else(|| generate_name(VOLUME_PREFIX));
    let mut needed = false;
    for containers in ["initContainers", "containers"] {
        let Some(containers) = pod.at_mut(&["spec", containers]).and_then(Tree::as_array_mut) else { continue };
        for container in containers {
            let mounts = container.make_object().entry("volumeMounts", || Tree::Array(Vec::new()));
            if mounts.is_null() {
                *mounts = Tree::Array(Vec::new());
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|mount| mount.str_at(&["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            let mut mount = Object::new();
            mount.insert("name", name.as_str());
            mount.insert("readOnly", true);
            mount.insert("mountPath", MOUNT_PATH);
            mounts.push(mount.into());
            needed = true;
        }
    }
    if !needed || existing.is_some() {
        return;
    }
    let spec = pod.make_object().entry("spec", Tree::object).make_object();
    let volumes = spec.entry("volumes", || Tree::Array(Vec::new()));
    if volumes.is_null() {
        *volumes = Tree::Array(Vec::new());
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(token_volume(&name));
    }
}

fn token_volume(name: &str) -> Tree {
    let json = format!(
        r#"{{"name":"{name}","projected":{{"defaultMode":420,"sources":[
        {{"serviceAccountToken":{{"expirationSeconds":{TOKEN_SECONDS},"path":"token"}}}},
        {{"configMap":{{"name":"kube-root-ca.crt","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}},
        {{"downwardAPI":{{"items":[{{"path":"namespace","fieldRef":{{"apiVersion":"v1","fieldPath":"metadata.namespace"}}}}]}}}}]}}}}"#
    );
    Tree::from_json(json.as_bytes()).expect("the text above is JSON")
}

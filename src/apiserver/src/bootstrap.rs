//! What every cluster has: the first namespaces, the Service `kubernetes` with its endpoints, and `cluster-info`.
//!
//! Models pkg/controlplane/controller/{systemnamespaces,kubernetesservice} and pkg/controlplane/reconcilers. One server: its address is the only one.
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::registry::Registry;
use api::tree::Tree;

use crate::alloc::{ranges, repair};
use crate::auth::UserInfo;
use crate::flow;
use crate::rest::storage::{Part, Target};
use crate::server::ApiServer;
use crate::status::Status;

const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

#[derive(Debug, thiserror::Error)]
#[error("create {what}: {message}")]
pub struct BootstrapError {
    what: String,
    message: String,
}

impl BootstrapError {
    fn new(what: impl Into<String>) -> impl FnOnce(Status) -> Self {
        let what = what.into();
        move |status| Self { what, message: status.message }
    }
}

/// A target for the server's own work.
pub fn own_target(server: &ApiServer, group: &str, version: &str, plural: &str, namespace: &str, name: &str) -> Target {
    Target {
        server: server.clone(),
        user: Arc::new(UserInfo::new("system:apiserver", &["system:masters", "system:authenticated"])),
        resource: Registry::get().resource(group, version, plural).expect("a built-in kind").into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        verb: "update",
        manager: Some(crate::rest::managed::SERVER.into()),
    }
}

pub async fn run(server: &ApiServer) -> Result<(), BootstrapError> {
    for name in NAMESPACES {
        let target = own_target(server, "", "v1", "namespaces", "", name);
        if target.current().is_some() {
            continue;
        }
        let mut namespace = Tree::object();
        api::meta::set_type(&mut namespace, "v1", "Namespace");
        api::meta::set_name(&mut namespace, name);
        create(&target, namespace).await.map_err(BootstrapError::new(format!("namespace {name}")))?;
    }
    let parts = &server.0.parts;
    let policy = crate::auth::bootstrap::reconcile(&parts.store, &parts.cache).await;
    policy.map_err(|error| BootstrapError { what: "the bootstrap policy".into(), message: error.to_string() })?;
    flow::ensure(server).await.map_err(BootstrapError::new("the objects of priority and fairness"))?;
    server.0.flow.configure(&parts.cache);
    service_cidr(server).await.map_err(BootstrapError::new("servicecidr kubernetes"))?;
    // Services of before there were IPAddresses get theirs, so that nobody else does.
    repair::run_once(server).await;
    kubernetes_service(server).await.map_err(BootstrapError::new("service default/kubernetes"))?;
    cluster_info(server).await.map_err(BootstrapError::new("config map kube-public/cluster-info"))?;
    let trust = crate::aggregation::trust::publish(server).await;
    trust.map_err(BootstrapError::new("config map kube-system/extension-apiserver-authentication"))?;
    if server.0.config.advertise_address.is_loopback() {
        tracing::warn!("the advertised address is a loopback address: pods cannot reach the Service kubernetes");
        return Ok(());
    }
    kubernetes_endpoints(server).await.map_err(BootstrapError::new("endpoints default/kubernetes"))
}

async fn create(target: &Target, object: Tree) -> Result<(), Status> {
    match target.create(object, false, &mut Vec::new()).await {
        Err(status) if status.reason != "AlreadyExists" => Err(status),
        _ => Ok(()),
    }
}

/// The range that Services get their addresses from, as an object. One that says otherwise, or is not ready, is the administrator's to mend.
/// Models pkg/controlplane/controller/defaultservicecidr.
pub async fn service_cidr(server: &ApiServer) -> Result<(), Status> {
    let target = own_target(server, "networking.k8s.io", "v1", "servicecidrs", "", ranges::DEFAULT);
    let cidrs = Tree::Array(vec![server.0.config.service_cidr.to_string().as_str().into()]);
    if let Some(cached) = target.current() {
        let range = cached.tree();
        let known = |c: &Tree| c.str_at(&["type"]) == "Ready" && matches!(c.str_at(&["status"]), "True" | "False");
        let is_known = range.array_at(&["status", "conditions"]).iter().any(known);
        if api::meta::deletion_timestamp(&range).is_some() {
            return Ok(());
        }
        if range.at(&["spec", "cidrs"]) != Some(&cidrs) {
            tracing::warn!("the ServiceCIDR {} is not the range that is configured", ranges::DEFAULT);
            return Ok(());
        }
        if is_known {
            return Ok(());
        }
    } else {
        let mut range = Tree::object();
        api::meta::set_type(&mut range, "networking.k8s.io/v1", "ServiceCIDR");
        api::meta::set_name(&mut range, ranges::DEFAULT);
        range.set(&["spec", "cidrs"], cidrs);
        create(&target, range).await?;
    }
    let now = crate::rest::storage::now();
    let mut ready = Tree::object();
    for (field, value) in [
        ("type", "Ready"),
        ("status", "True"),
        ("reason", ""),
        ("message", "Kubernetes default Service CIDR is ready"),
        ("lastTransitionTime", now.as_str()),
    ] {
        ready.set(&[field], value);
    }
    let set_ready = |old: &Tree| {
        let mut new = old.clone();
        if !old.is_null() {
            new.set(&["status", "conditions"], Tree::Array(vec![ready.clone()]));
        }
        Ok(new)
    };
    target.update(Part::Status, true, false, &mut Vec::new(), &set_ready).await.map(drop)
}

fn https_port(server: &ApiServer) -> Tree {
    let mut port = Tree::object();
    port.set(&["name"], "https");
    port.set(&["protocol"], "TCP");
    port.set(&["port"], i64::from(server.0.config.secure_port));
    port
}

/// The first address of the service range.
fn first_address(server: &ApiServer) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(server.0.config.service_cidr.network()) + 1)
}

async fn kubernetes_service(server: &ApiServer) -> Result<(), Status> {
    let target = own_target(server, "", "v1", "services", "default", "kubernetes");
    let mut port = https_port(server);
    port.set(&["port"], 443i64);
    port.set(&["targetPort"], i64::from(server.0.config.secure_port));
    let address = first_address(server).to_string();
    let mut service = Tree::object();
    api::meta::set_type(&mut service, "v1", "Service");
    api::meta::set_name(&mut service, "kubernetes");
    api::meta::set_namespace(&mut service, "default");
    api::meta::set_label(&mut service, "component", "apiserver");
    api::meta::set_label(&mut service, "provider", "kubernetes");
    service.set(&["spec", "type"], "ClusterIP");
    service.set(&["spec", "sessionAffinity"], "None");
    service.set(&["spec", "ports"], Tree::Array(vec![port.clone()]));
    service.set(&["spec", "clusterIP"], address.as_str());
    service.set(&["spec", "clusterIPs"], Tree::Array(vec![address.as_str().into()]));
    if target.current().is_none() {
        return create(&target, service).await;
    }
    let change = |old: &Tree| {
        let mut new = old.clone();
        if old.is_null() {
            return Ok(Tree::Null);
        }
        new.set(&["spec", "ports"], Tree::Array(vec![port.clone()]));
        Ok(new)
    };
    target.update(Part::Main, true, false, &mut Vec::new(), &change).await.map(drop)
}

/// What a newcomer needs to find and trust the cluster; bootstrap-signer signs it for each token.
/// Models cmd/kubeadm/app/phases/bootstraptoken/clusterinfo/clusterinfo.go.
async fn cluster_info(server: &ApiServer) -> Result<(), Status> {
    use base64::Engine as _;
    let config = &server.0.config;
    if config.server_ca.is_empty() {
        return Ok(()); // nothing to be trusted by
    }
    let authority = base64::engine::general_purpose::STANDARD.encode(&config.server_ca);
    let url = format!("https://{}:{}", config.advertise_address, config.secure_port);
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {authority}\n    server: {url}\n  name: \"\"\n\
         contexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n"
    );
    let target = own_target(server, "", "v1", "configmaps", "kube-public", "cluster-info");
    let mut wanted = Tree::object();
    api::meta::set_type(&mut wanted, "v1", "ConfigMap");
    api::meta::set_name(&mut wanted, "cluster-info");
    wanted.set(&["data", "kubeconfig"], kubeconfig.as_str());
    if target.current().is_none() {
        return create(&target, wanted).await;
    }
    let change = |old: &Tree| {
        let mut new = old.clone();
        if !old.is_null() {
            new.set(&["data", "kubeconfig"], kubeconfig.as_str());
        }
        Ok(new)
    };
    target.update(Part::Main, true, false, &mut Vec::new(), &change).await.map(drop)
}

async fn put(target: &Target, wanted: Tree) -> Result<(), Status> {
    if target.current().is_none() {
        return create(target, wanted).await;
    }
    let change = |old: &Tree| {
        if old.is_null() {
            return Ok(Tree::Null);
        }
        let mut new = old.clone();
        for field in ["subsets", "endpoints", "ports", "addressType"] {
            if let Some(value) = wanted.get(field) {
                new.set(&[field], value.clone());
            }
        }
        Ok(new)
    };
    target.update(Part::Main, true, false, &mut Vec::new(), &change).await.map(drop)
}

async fn kubernetes_endpoints(server: &ApiServer) -> Result<(), Status> {
    let ip = server.0.config.advertise_address.to_string();
    let ports = Tree::Array(vec![https_port(server)]);

    let mut subset = Tree::object();
    let mut address = Tree::object();
    address.set(&["ip"], ip.as_str());
    subset.set(&["addresses"], Tree::Array(vec![address]));
    subset.set(&["ports"], ports.clone());
    let mut endpoints = Tree::object();
    api::meta::set_type(&mut endpoints, "v1", "Endpoints");
    api::meta::set_name(&mut endpoints, "kubernetes");
    api::meta::set_namespace(&mut endpoints, "default");
    // Not mirrored: the slice below is its own.
    api::meta::set_label(&mut endpoints, "endpointslice.kubernetes.io/skip-mirror", "true");
    endpoints.set(&["subsets"], Tree::Array(vec![subset]));
    put(&own_target(server, "", "v1", "endpoints", "default", "kubernetes"), endpoints).await?;

    let mut endpoint = Tree::object();
    endpoint.set(&["addresses"], Tree::Array(vec![ip.into()]));
    endpoint.set(&["conditions", "ready"], true);
    let mut slice = Tree::object();
    api::meta::set_type(&mut slice, "discovery.k8s.io/v1", "EndpointSlice");
    api::meta::set_name(&mut slice, "kubernetes");
    api::meta::set_namespace(&mut slice, "default");
    api::meta::set_label(&mut slice, "kubernetes.io/service-name", "kubernetes");
    slice.set(&["addressType"], "IPv4");
    slice.set(&["endpoints"], Tree::Array(vec![endpoint]));
    slice.set(&["ports"], ports);
    put(&own_target(server, "discovery.k8s.io", "v1", "endpointslices", "default", "kubernetes"), slice).await
}

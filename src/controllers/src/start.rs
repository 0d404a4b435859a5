//! Runs all controllers, and runs each again that ends.
use std::time::Duration;

use client::Backoff;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::context::ControllerContext;

type Run = fn(ControllerContext) -> BoxFuture<'static, ()>;

macro_rules! controllers {
    ($($name:literal => $module:ident),* $(,)?) => {
        /// Name, as the logs and upstream's `--controllers` have it, and entry.
        const ALL: &[(&str, Run)] = &[$(($name, |cx| crate::$module::run(cx).boxed())),*];
    };
}

controllers! {
    "deployment-controller" => deployment,
    "replicaset-controller" => replicaset,
    "job-controller" => job,
    "cronjob-controller" => cronjob,
    "ttl-after-finished-controller" => ttl_after_finished,
    "resourcequota-controller" => resource_quota,
    "persistentvolume-binder-controller" => volume_binding,
    "persistentvolumeclaim-protection-controller" => volume_protection,
    "ephemeral-volume-controller" => ephemeral_volume,
    "resourceclaim-controller" => resource_claim,
    "device-taint-eviction-controller" => device_taint_eviction,
    "local-storage-controller" => local_storage,
    "persistentvolume-attach-detach-controller" => attach_detach,
    "persistentvolume-expander-controller" => volume_expansion,
    "volumeattributesclass-protection-controller" => attributes_class_protection,
    "replicationcontroller-controller" => replication,
    "daemonset-controller" => daemonset,
    "statefulset-controller" => statefulset,
    "horizontal-pod-autoscaler-controller" => autoscaling,
    "disruption-controller" => disruption,
    "endpointslice-controller" => endpointslice,
    "endpoints-controller" => endpoints,
    "endpointslicemirroring-controller" => endpointslice_mirroring,
    "serviceaccount-controller" => service_account,
    "serviceaccount-token-controller" => service_account_token,
    "root-ca-certificate-publisher-controller" => root_ca,
    "namespace-controller" => namespace,
    "garbage-collector-controller" => garbage,
    "node-ipam-controller" => node_ipam,
    "ttl-controller" => node_ttl,
    "service-cidr-controller" => service_cidr,
    "node-lifecycle-controller" => node_lifecycle,
    "pod-garbage-collector-controller" => pod_gc,
    "storage-version-migrator-controller" => storage_migration,
    "service-lb-controller" => service_lb,
    "clusterrole-aggregation-controller" => cluster_role_aggregation,
    "certificatesigningrequest-approving-controller" => csr_approving,
    "certificatesigningrequest-signing-controller" => csr_signing,
    "certificatesigningrequest-cleaner-controller" => csr_cleaner,
    "node-keys-controller" => node_keys,
    "token-cleaner-controller" => token_cleaner,
    "bootstrap-signer-controller" => bootstrap_signer,
    "kube-apiserver-serving-clustertrustbundle-publisher-controller" => trust_bundle_publisher,
    "podcertificaterequest-cleaner-controller" => pod_certificate_cleaner,
    "validatingadmissionpolicy-status-controller" => validating_policy_status,
}

/// Runs until the returned set is dropped or shut down; it never becomes empty on its own.
pub fn start(cx: ControllerContext) -> JoinSet<()> {
    let mut set = JoinSet::new();
    for (name, run) in ALL {
        set.spawn(supervise(name, *run, cx.clone()));
    }
    info!(count = ALL.len(), "controllers started");
    set
}

async fn supervise(name: &'static str, run: Run, cx: ControllerContext) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        // A task of its own, so that a panic outside the workers ends this one controller; ends with us.
        let mut task = JoinSet::new();
        task.spawn(run(cx.clone()));
        match task.join_next().await {
            Some(Err(failure)) => error!(controller = name, %failure, "controller died"),
            _ => error!(controller = name, "controller ended"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// One controller by its name, without supervision: whoever drops it has ended it in the middle of what it does.
pub fn only(name: &str, cx: ControllerContext) -> Option<BoxFuture<'static, ()>> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, run)| run(cx))
}

/// The names of all of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

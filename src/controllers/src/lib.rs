//! The controllers: each keeps one promise of the API, in a file of its own.
//!
//! Every controller is an API client like any other, with the identity that upstream's bootstrap policy gives it
//! (`system:serviceaccount:kube-system:<name>-controller`); all read the same shared informers. [`start`] runs them all; one
//! that ends is started again alone.
//!
//! The shape of a file: `run` says what wakes it, `reconcile` does the I/O, `plan` decides and is pure.
mod bootstrap_tokens;
mod context;
mod csr;
mod discovery;
mod failure;
#[cfg(test)]
mod fake;
mod history;
mod intstr;
mod ownership;
mod pod_control;
mod pods;
mod service_pods;
mod start;
mod template;

mod attach_detach;
mod attributes_class_protection;
mod autoscaling;
mod bootstrap_signer;
mod cluster_role_aggregation;
mod cronjob;
mod csr_approving;
mod csr_cleaner;
mod csr_signing;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod device_taint_eviction;
mod ephemeral_volume;
mod garbage;
mod job;
mod local_storage;
mod namespace;
mod node_ipam;
mod node_keys;
mod node_lifecycle;
mod node_ttl;
mod pod_certificate_cleaner;
mod pod_gc;
mod replicaset;
mod resource_claim;
mod resource_quota;
mod replication;
mod root_ca;
mod service_account;
mod service_account_token;
mod service_cidr;
mod service_lb;
mod statefulset;
mod storage_migration;
mod token_cleaner;
mod ttl_after_finished;
mod validating_policy_status;
mod volume_binding;
mod volume_expansion;
mod volume_protection;
mod trust_bundle_publisher;

pub use autoscaling::Settings as AutoscalingSettings;
pub use context::{Config, ControllerContext};
pub use start::{names, only, start};

//! What an informer keeps of a pod: scheduling never reads the rest.
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Volume};

fn container(container: &mut Container) {
    *container = Container {
        name: std::mem::take(&mut container.name),
        image: container.image.take(),
        ports: container.ports.take(),
        resources: container.resources.take(),
        restart_policy: container.restart_policy.take(),
        ..Container::default()
    };
}

fn volume(volume: &mut Volume) {
    *volume = Volume {
        name: std::mem::take(&mut volume.name),
        persistent_volume_claim: volume.persistent_volume_claim.take(),
        ephemeral: volume.ephemeral.take(),
        gce_persistent_disk: volume.gce_persistent_disk.take(),
        aws_elastic_block_store: volume.aws_elastic_block_store.take(),
        iscsi: volume.iscsi.take(),
        rbd: volume.rbd.take(),
        ..Volume::default()
    };
}

fn container_status(status: &mut ContainerStatus) {
    *status = ContainerStatus {
        name: std::mem::take(&mut status.name),
        allocated_resources: status.allocated_resources.take(),
        resources: status.resources.take(),
        ..ContainerStatus::default()
    };
}

/// Drops what scheduling never reads, before an informer stores the pod.
pub fn project(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    pod.metadata.finalizers = None;
    if let Some(spec) = &mut pod.spec {
        spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(container);
        spec.volumes.iter_mut().flatten().for_each(volume);
        spec.ephemeral_containers = None;
        spec.security_context = None;
        spec.dns_config = None;
        spec.host_aliases = None;
        spec.image_pull_secrets = None;
        spec.readiness_gates = None;
    }
    if let Some(status) = &mut pod.status {
        let mut conditions = status.conditions.take();
        if let Some(conditions) = &mut conditions {
            conditions.retain(|c| matches!(c.type_.as_str(), "PodScheduled" | "DisruptionTarget" | "PodResizePending"));
        }
        for list in [&mut status.container_statuses, &mut status.init_container_statuses] {
            list.iter_mut().flatten().for_each(container_status);
            list.take_if(|list| list.iter().all(|s| s.allocated_resources.is_none() && s.resources.is_none()));
        }
        *status = PodStatus {
            phase: status.phase.take(),
            conditions,
            nominated_node_name: status.nominated_node_name.take(),
            start_time: status.start_time.take(),
            resource_claim_statuses: status.resource_claim_statuses.take(),
            extended_resource_claim_status: status.extended_resource_claim_status.take(),
            container_statuses: status.container_statuses.take(),
            init_container_statuses: status.init_container_statuses.take(),
            allocated_resources: status.allocated_resources.take(),
            resources: status.resources.take(),
            ..Default::default()
        };
    }
}

//! What the containers of a pod must agree on with each other and with their pod.
//!
//! Models pkg/apis/core/validation/validation.go `validateFileKeyRefVolumes` and `validateWindowsHostProcessPod`.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::tree::Tree;

/// Every container of a pod with its path.
fn each_container(spec: &Tree, path: &Path, mut visit: impl FnMut(&Tree, &Path)) {
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(key);
        list(spec, key).iter().enumerate().for_each(|(i, container)| visit(container, &path.index(i)));
    }
}

/// Files that environments are read from lie in volumes that last as long as the pod.
pub(super) fn environment_files(errors: &mut Errors, spec: &Tree, path: &Path) {
    each_container(spec, path, |container, path| {
        let path = path.child("env");
        for (i, variable) in list(container, "env").iter().enumerate() {
            let Some(file) = variable.at(&["valueFrom", "fileKeyRef"]).filter(|file| !file.is_null()) else { continue };
            let (name, path) = (text(file, "volumeName"), path.index(i));
            let path = path.child("valueFrom");
            let path = path.child("fileKeyRef");
            let path = path.child("volumeName");
            match list(spec, "volumes").iter().rev().find(|volume| text(volume, "name") == name) {
                None => errors.push(FieldError::not_found(path, name)),
                Some(volume) if set(volume, "emptyDir").is_none() => {
                    errors.push(FieldError::invalid(path, name, "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    });
}

/// Containers of Windows that are processes of their host: all are, or none.
pub(super) fn host_processes(errors: &mut Errors, spec: &Tree, path: &Path) {
    const OPTION: [&str; 3] = ["securityContext", "windowsOptions", "hostProcess"];
    let of_pod = spec.at(&OPTION).and_then(Tree::as_bool);
    let (mut all, mut found) = (0, 0);
    each_container(spec, path, |container, path| {
        all += 1;
        let own = container.at(&OPTION).and_then(Tree::as_bool);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let path = path.child("securityContext");
            let path = path.child("windowsOptions");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.push(FieldError::invalid(path.child("hostProcess"), own, detail));
        }
        found += usize::from(own.or(of_pod) == Some(true));
    });
    if found == 0 {
        return;
    }
    if found != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", detail));
    }
    if !flag(spec, "hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(path.child("hostNetwork"), false, detail));
    }
}

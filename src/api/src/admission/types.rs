//! The types of `request` and `namespaceObject`.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/cel/compile.go BuildRequestType and BuildNamespaceType.
use std::sync::OnceLock;

use cel::{Declared, ObjectType};

/// Names, types, and which of them are required: those before `|`.
fn object(name: &str, required: &[(&str, Declared)], others: &[(&str, Declared)]) -> Declared {
    let fields = |fields: &[(&str, Declared)], required: bool| -> Vec<(Box<str>, Declared, bool)> {
        fields.iter().map(|(name, of)| ((*name).into(), of.clone(), required)).collect()
    };
    Declared::object(ObjectType::new(name, fields(required, true).into_iter().chain(fields(others, false))))
}

/// The request, without its objects, which are variables of their own.
pub fn request() -> &'static Declared {
    static REQUEST: OnceLock<Declared> = OnceLock::new();
    REQUEST.get_or_init(|| {
        let text = Declared::string;
        let kind = || object("kubernetes.GroupVersionKind", &[("group", text()), ("version", text()), ("kind", text())], &[]);
        let resource = || object("kubernetes.GroupVersionResource", &[("group", text()), ("version", text()), ("resource", text())], &[]);
        let extra = Declared::map(Declared::list(text()));
        let user = object(
            "kubernetes.UserInfo",
            &[],
            &[("username", text()), ("uid", text()), ("groups", Declared::list(text())), ("extra", extra)],
        );
        object(
            "kubernetes.AdmissionRequest",
            &[
                ("kind", kind()),
                ("resource", resource()),
                ("requestKind", kind()),
                ("requestResource", resource()),
                ("name", text()),
                ("operation", text()),
                ("userInfo", user),
            ],
            &[
                ("subResource", text()),
                ("requestSubResource", text()),
                ("namespace", text()),
                ("dryRun", Declared::bool()),
                ("options", Declared::any()),
            ],
        )
    })
}

/// The namespace of the request; of its metadata what has a meaning outside.
pub fn namespace() -> &'static Declared {
    static NAMESPACE: OnceLock<Declared> = OnceLock::new();
    NAMESPACE.get_or_init(|| {
        let (text, time) = (Declared::string, Declared::timestamp);
        let texts = || Declared::list(Declared::string());
        let condition = object(
            "kubernetes.NamespaceCondition",
            &[("status", text()), ("type", text()), ("lastTransitionTime", time()), ("message", text()), ("reason", text())],
            &[],
        );
        let metadata = object(
            "kubernetes.NamespaceMetadata",
            &[
                ("name", text()),
                ("generateName", text()),
                ("namespace", text()),
                ("labels", Declared::map(text())),
                ("annotations", Declared::map(text())),
                ("UID", text()),
                ("creationTimestamp", time()),
                ("deletionGracePeriodSeconds", Declared::int()),
                ("deletionTimestamp", time()),
                ("generation", Declared::int()),
                ("resourceVersion", text()),
                ("finalizers", texts()),
            ],
            &[],
        );
        let status = object("kubernetes.NamespaceStatus", &[("conditions", Declared::list(condition)), ("phase", text())], &[]);
        let spec = object("kubernetes.NamespaceSpec", &[("finalizers", texts())], &[]);
        object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)], &[])
    })
}

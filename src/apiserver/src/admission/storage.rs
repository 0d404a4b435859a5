//! New claims get the default storage class; claims, volumes and classes of volume attributes the finalizers that protect them while they are
//! used; a claim grows only where its class lets it.
//!
//! Models plugin/pkg/admission/storage/{storageclass/setdefault,storageobjectinuseprotection,persistentvolume/resize}/admission.go, v1.37.
use api::meta;
use api::quantity::Quantity;
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::Cache;
use crate::status::Status;

const IS_DEFAULT: [&str; 2] = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub fn admit(cache: &Cache, request: &mut Request) {
    if request.operation != Operation::Create {
        return;
    }
    if request.is("", "persistentvolumes") {
        protect(&mut request.object, "kubernetes.io/pv-protection");
    } else if request.is("storage.k8s.io", "volumeattributesclasses") {
        protect(&mut request.object, "kubernetes.io/vac-protection");
    } else if request.is("", "persistentvolumeclaims") {
        protect(&mut request.object, "kubernetes.io/pvc-protection");
        let says_class = request.object.at(&["spec", "storageClassName"]).is_some_and(|name| !name.is_null());
        if says_class || meta::annotation(&request.object, CLASS).is_some() {
            return;
        }
        let classes = cache.list("storage.k8s.io", "storageclasses", None);
        if let Some(name) = default_class(classes.iter().map(|class| class.tree()).collect()) {
            request.object.set(&["spec", "storageClassName"], name);
        }
    }
}

/// Refuses to enlarge what nobody could enlarge.
pub fn validate(cache: &Cache, request: &Request) -> Result<(), Status> {
    let (true, Some(old)) = (request.is("", "persistentvolumeclaims") && request.operation == Operation::Update, &request.old) else {
        return Ok(());
    };
    if requested(&request.object) <= requested(old) {
        return Ok(());
    }
    if old.str_at(&["status", "phase"]) != "Bound" {
        return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = class_of(&request.object);
    let found = cache.get("storage.k8s.io", "storageclasses", "", class).filter(|_| !class.is_empty() && class == class_of(old));
    let allows = found.is_some_and(|class| class.tree().at(&["allowVolumeExpansion"]).and_then(Tree::as_bool) == Some(true));
    match allows {
        true => Ok(()),
        false => Err(request.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        )),
    }
}

fn requested(claim: &Tree) -> Quantity {
    Quantity::parse(claim.str_at(&["spec", "resources", "requests", "storage"])).unwrap_or_default()
}

fn class_of(claim: &Tree) -> &str {
    meta::annotation(claim, CLASS).unwrap_or_else(|| claim.str_at(&["spec", "storageClassName"]))
}

fn protect(object: &mut Tree, finalizer: &str) {
    let mut finalizers = object.array_at(&["metadata", "finalizers"]).to_vec();
    if !finalizers.iter().any(|f| f.as_str() == Some(finalizer)) {
        finalizers.push(finalizer.into());
        object.set(&["metadata", "finalizers"], Tree::Array(finalizers));
    }
}

/// The newest; of equal age the first by name.
fn default_class(mut classes: Vec<Tree>) -> Option<String> {
    classes.retain(|class| IS_DEFAULT.iter().any(|key| meta::annotation(class, key) == Some("true")));
    classes.sort_by(|a, b| {
        let age = meta::creation_timestamp(b).cmp(meta::creation_timestamp(a));
        age.then_with(|| meta::name(a).cmp(meta::name(b)))
    });
    classes.first().map(|class| meta::name(class).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_default_class_is_taken() {
        let class = |name: &str, at: &str, default: &str| {
            let json = format!(
                r#"{{"metadata":{{"name":"{name}","creationTimestamp":"{at}","annotations":{{"{}":"{default}"}}}}}}"#,
                IS_DEFAULT[0]
            );
            Tree::from_json(json.as_bytes()).unwrap()
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let classes = vec![class("a", old, "true"), class("c", new, "true"), class("b", new, "true"), class("x", new, "false")];
        assert_eq!(default_class(classes).as_deref(), Some("b"));
        assert_eq!(default_class(vec![class("x", new, "false")]), None);
    }

    #[test]
    fn a_finalizer_is_added_once() {
        let mut object = Tree::from_json(br#"{"metadata":{"finalizers":["x"]}}"#).unwrap();
        protect(&mut object, "kubernetes.io/pv-protection");
        protect(&mut object, "kubernetes.io/pv-protection");
        assert_eq!(object.array_at(&["metadata", "finalizers"]).len(), 2);
    }
}

//! PersistentVolumeClaims. Models pkg/quota/v1/evaluator/core/persistent_volume_claims.go, v1.37.
use super::{Amounts, meets, one};
use crate::meta;
use crate::quantity::{Format, Quantity};
use crate::tree::Tree;

const NUMBER: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
/// Between the name of a storage class and what is counted of it.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

pub(super) fn measures(name: &str) -> bool {
    let bare = name.split_once(OF_CLASS).map_or(name, |(_, bare)| bare);
    matches!(bare, NUMBER | STORAGE)
}

pub(super) fn usage(claim: &Tree) -> Amounts {
    let mut result = Amounts::from([(NUMBER.to_owned(), one())]);
    if let Some(storage) = storage(claim) {
        result.insert(STORAGE.to_owned(), storage);
    }
    let old = meta::annotation(claim, "volume.beta.kubernetes.io/storage-class");
    let class = old.unwrap_or_else(|| claim.str_at(&["spec", "storageClassName"]));
    if !class.is_empty() {
        let of_class: Vec<_> = result.iter().map(|(name, amount)| (format!("{class}{OF_CLASS}{name}"), *amount)).collect();
        result.extend(of_class);
    }
    result
}

/// Whole bytes of what is asked for, or of what is allocated already.
fn storage(claim: &Tree) -> Option<Quantity> {
    let whole = |amount: Quantity| if amount.is_whole() { amount } else { Quantity::from_whole(amount.value(), Format::DecimalSi) };
    let asked = crate::quantity::from_tree(claim.at(&["spec", "resources", "requests", "storage"])?)?;
    let allocated = claim.at(&["status", "allocatedResources", "storage"]).and_then(crate::quantity::from_tree);
    Some(whole(allocated.filter(|a| *a > asked).unwrap_or(asked)))
}

pub(super) fn is_in_scope(claim: &Tree, scope: &str, operator: &str, values: &[Tree]) -> bool {
    if scope != "VolumeAttributesClass" {
        return false;
    }
    let paths: [&[&str]; 3] = [
        &["spec", "volumeAttributesClassName"],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    let classes: Vec<&str> = paths.iter().map(|path| claim.str_at(path)).filter(|name| !name.is_empty()).collect();
    meets(&classes, operator, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_counts_as_such_and_for_its_class() {
        let claim = Tree::from_json(br#"{"spec":{"storageClassName":"gold","resources":{"requests":{"storage":"1Gi"}}}}"#).unwrap();
        let shown: Vec<_> = usage(&claim).iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(
            shown,
            [
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "gold.storageclass.storage.k8s.io/requests.storage=1Gi",
                "persistentvolumeclaims=1",
                "requests.storage=1Gi",
            ]
        );
        assert!(usage(&claim).keys().all(|name| measures(name)));
    }
}

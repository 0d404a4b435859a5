//! The fields that a table's cells are made of, so that rows are made without reading the rest of their objects.
use crate::registry::Resource;
use crate::skim::Wanted;

/// Nobody's columns show who wrote what.
const METADATA: Wanted<'_> = Wanted::Others(&[("managedFields", Wanted::Nothing)], &Wanted::Whole);
const OBJECT: Wanted<'_> = Wanted::Others(&[("metadata", METADATA)], &Wanted::Whole);

const DATES: Wanted<'_> =
    Wanted::Fields(&[("creationTimestamp", Wanted::Scalar), ("deletionTimestamp", Wanted::Scalar), ("name", Wanted::Scalar)]);

const CONTAINER_STATUSES: Wanted<'_> = Wanted::Items(&Wanted::Fields(&[
    ("lastState", Wanted::Whole),
    ("name", Wanted::Scalar),
    ("ready", Wanted::Scalar),
    ("restartCount", Wanted::Scalar),
    ("started", Wanted::Scalar),
    ("state", Wanted::Whole),
]));
const POD: Wanted<'_> = Wanted::Fields(&[
    ("metadata", DATES),
    (
        "spec",
        Wanted::Fields(&[
            ("containers", Wanted::Items(&Wanted::Presence)),
            ("initContainers", Wanted::Items(&Wanted::Fields(&[("name", Wanted::Scalar), ("restartPolicy", Wanted::Scalar)]))),
            ("nodeName", Wanted::Scalar),
            ("readinessGates", Wanted::Whole),
        ]),
    ),
    (
        "status",
        Wanted::Fields(&[
            (
                "conditions",
                Wanted::Items(&Wanted::Fields(&[("reason", Wanted::Scalar), ("status", Wanted::Scalar), ("type", Wanted::Scalar)])),
            ),
            ("containerStatuses", CONTAINER_STATUSES),
            ("initContainerStatuses", CONTAINER_STATUSES),
            ("nominatedNodeName", Wanted::Scalar),
            ("phase", Wanted::Scalar),
            ("podIPs", Wanted::Whole),
            ("reason", Wanted::Scalar),
        ]),
    ),
]);

/// Entries are counted.
const KEYS: Wanted<'_> = Wanted::Others(&[], &Wanted::Presence);
const CONFIG_MAP: Wanted<'_> = Wanted::Fields(&[("binaryData", KEYS), ("data", KEYS), ("metadata", DATES)]);
const SECRET: Wanted<'_> = Wanted::Fields(&[("data", KEYS), ("metadata", DATES), ("type", Wanted::Scalar)]);

const NODE: Wanted<'_> =
    Wanted::Others(&[("metadata", METADATA), ("status", Wanted::Others(&[("images", Wanted::Nothing)], &Wanted::Whole))], &Wanted::Whole);

/// What is read of an object to make its row.
pub(super) fn wanted(resource: &Resource) -> Wanted<'_> {
    if let Some(custom) = &resource.custom {
        return custom.shown.wanted();
    }
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => POD,
        ("", "configmaps") => CONFIG_MAP,
        ("", "secrets") => SECRET,
        ("", "nodes") => NODE,
        _ => OBJECT,
    }
}

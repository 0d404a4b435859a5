//! Columns and cells of the tables that `kubectl get` shows.
//!
//! Columns come from the facts (`facts/columns.tsv`: group, version, plural, place, name, type, format, priority); cells from printers that
//! model pkg/printers/internalversion/printers.go, v1.37. Upstream's server always makes the cells of wide columns too; kubectl hides them.
//! Rows are made of an object's bytes: printers see a tree of the fields in `wanted.rs` alone.
mod access;
mod cluster;
mod core;
mod format;
mod metrics;
mod pod;
#[cfg(test)]
mod tests;
mod wanted;
mod workloads;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use access::{age, text};
pub use format::human_duration;
use jiff::Timestamp;

use crate::registry::Resource;
use crate::schema::Name;
use crate::skim::{Malformed, skim};
use crate::tree::Tree;

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: Name,
    /// `string`, `integer`, `boolean`.
    pub kind: Name,
    /// `name` for the column that identifies the row.
    pub format: Name,
    pub description: Name,
    /// Zero is always shown; others only in wide output.
    pub priority: i32,
}

const fn column(name: &'static str, kind: &'static str, format: &'static str, description: &'static str) -> Column {
    let (name, kind) = (Name::Borrowed(name), Name::Borrowed(kind));
    Column { name, kind, format: Name::Borrowed(format), description: Name::Borrowed(description), priority: 0 }
}

/// The first column of custom kinds and of metrics.
const NAME: Column = column("Name", "string", "name", NAME_DESCRIPTION);
const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to \
     request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration \
     definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

static DEFAULT: [Column; 2] = [column("Name", "string", "name", ""), column("Created At", "date", "", "")];

type Columns = HashMap<(Name, Name, Name), Vec<Column>>;

/// The columns of a resource's table, in the order of the cells.
pub fn columns(resource: &Resource) -> Cow<'static, [Column]> {
    if let Some(custom) = &resource.custom {
        let own = custom.columns.iter().map(|column| Column {
            name: column.name.to_string().into(),
            kind: column.kind.to_string().into(),
            format: column.format.to_string().into(),
            description: column.description.to_string().into(),
            priority: column.priority,
        });
        return std::iter::once(NAME).chain(own).collect();
    }
    if resource.group == metrics::GROUP {
        return Cow::Borrowed(&metrics::COLUMNS);
    }
    Cow::Borrowed(built_in_columns(resource))
}

fn built_in_columns(resource: &Resource) -> &'static [Column] {
    static COLUMNS: OnceLock<Columns> = OnceLock::new();
    let all = COLUMNS.get_or_init(|| {
        let mut all = Columns::new();
        for line in include_str!("../facts/columns.tsv").lines() {
            let columns: Vec<&'static str> = line.split('\t').collect();
            let [group, version, plural, _, name, kind, format, priority] = columns[..] else {
                unreachable!("codegen wrote a line of another shape: {line}")
            };
            let priority = priority.parse().expect("codegen writes a number");
            all.entry((group.into(), version.into(), plural.into())).or_default().push(Column { priority, ..column(name, kind, format, "") });
        }
        all
    });
    // Names of built-in kinds are borrowed, so the clones cost nothing.
    let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
    all.get(&key).map_or(&DEFAULT, Vec::as_slice)
}

/// What a table shows of one object.
#[derive(Debug)]
pub struct Row<'j> {
    /// One for each column.
    pub cells: Vec<Tree>,
    pub conditions: Vec<Tree>,
    /// The object's metadata as it stands; `null` where it has none.
    pub metadata: &'j [u8],
}

/// The row of the object that `json` holds, of which no more is read than its columns need.
pub fn row<'j>(resource: &Resource, json: &'j [u8], now: Timestamp) -> Result<Row<'j>, Malformed> {
    let found = skim(json, &wanted::wanted(resource))?;
    Ok(Row { cells: cells(resource, &found.tree, now), conditions: conditions(resource, &found.tree), metadata: found.metadata })
}

/// The cells of one object, one for each column.
fn cells(resource: &Resource, object: &Tree, now: Timestamp) -> Vec<Tree> {
    if let Some(custom) = &resource.custom {
        let name = std::iter::once(text(object, &["metadata", "name"]));
        return name.chain(custom.columns.iter().map(|column| column.cell(object, now))).collect();
    }
    if resource.group == metrics::GROUP {
        return metrics::cells(object);
    }
    let mut cells = printer(resource)(object, now);
    let name = text(object, &["metadata", "name"]);
    // All tables but those of events begin with the name; printers leave it out.
    if resource.plural != "events" {
        cells.insert(0, if cells.is_empty() { name } else { named(resource, object, name) });
        if cells.len() == 1 && built_in_columns(resource).len() == 2 {
            cells.push(if built_in_columns(resource)[1].name == "Age" {
                age(object, now)
            } else {
                text(object, &["metadata", "creationTimestamp"])
            });
        }
    }
    cells
}

fn named(resource: &Resource, object: &Tree, name: Tree) -> Tree {
    if resource.plural == "storageclasses" && cluster::is_default_class(object) {
        format!("{} (default)", name.as_str().unwrap_or("")).into()
    } else {
        name
    }
}

/// `TableRow.conditions`: pods that have ended say so, so that kubectl can tell them.
fn conditions(resource: &Resource, object: &Tree) -> Vec<Tree> {
    let phase = object.str_at(&["status", "phase"]);
    let message = match (&*resource.group, &*resource.plural, phase) {
        ("", "pods", "Succeeded") => "The pod has completed successfully.",
        ("", "pods", "Failed") => "The pod failed.",
        _ => return Vec::new(),
    };
    let fields = [("type", "Completed"), ("status", "True"), ("reason", phase), ("message", message)];
    vec![Tree::Object(fields.into_iter().collect())]
}

type Printer = fn(&Tree, Timestamp) -> Vec<Tree>;

fn printer(resource: &Resource) -> Printer {
    match &*resource.plural {
        "pods" => pod::cells,
        "podtemplates" => workloads::pod_template,
        "replicationcontrollers" => workloads::replication_controller,
        "replicasets" => workloads::replica_set,
        "deployments" => workloads::deployment,
        "statefulsets" => workloads::stateful_set,
        "daemonsets" => workloads::daemon_set,
        "jobs" => workloads::job,
        "cronjobs" => workloads::cron_job,
        "controllerrevisions" => workloads::controller_revision,
        "horizontalpodautoscalers" => workloads::autoscaler,
        "poddisruptionbudgets" => workloads::disruption_budget,
        "services" => core::service,
        "endpoints" => core::endpoints,
        "endpointslices" => core::endpoint_slice,
        "ingresses" => core::ingress,
        "ingressclasses" => core::ingress_class,
        "networkpolicies" => core::network_policy,
        "servicecidrs" => core::service_cidr,
        "ipaddresses" => core::ip_address,
        "namespaces" => core::namespace,
        "secrets" => core::secret,
        "configmaps" => core::config_map,
        "nodes" => core::node,
        "events" => core::event,
        "resourcequotas" => core::resource_quota,
        "persistentvolumes" => core::persistent_volume,
        "persistentvolumeclaims" => core::persistent_volume_claim,
        "componentstatuses" => core::component_status,
        "rolebindings" | "clusterrolebindings" => cluster::role_binding,
        "certificatesigningrequests" => cluster::signing_request,
        "clustertrustbundles" => cluster::trust_bundle,
        "podcertificaterequests" => cluster::pod_certificate_request,
        "leases" => cluster::lease,
        "leasecandidates" => cluster::lease_candidate,
        "priorityclasses" => cluster::priority_class,
        "runtimeclasses" => cluster::runtime_class,
        "storageclasses" => cluster::storage_class,
        "csinodes" => cluster::csi_node,
        "csidrivers" => cluster::csi_driver,
        "volumeattachments" => cluster::volume_attachment,
        "volumeattributesclasses" => cluster::volume_attributes_class,
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => cluster::webhooks,
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => cluster::admission_policy,
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => cluster::admission_policy_binding,
        "flowschemas" => cluster::flow_schema,
        "prioritylevelconfigurations" => cluster::priority_level,
        "resourceclaims" => cluster::resource_claim,
        "resourceslices" => cluster::resource_slice,
        "devicetaintrules" => cluster::device_taint_rule,
        "customresourcedefinitions" => cluster::custom_resource_definition,
        "apiservices" => cluster::api_service,
        "storageversionmigrations" => cluster::storage_version_migration,
        // Name and age, or name and date of creation.
        _ => |_, _| Vec::new(),
    }
}

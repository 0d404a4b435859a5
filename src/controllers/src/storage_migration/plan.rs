//! What a migration does next, and what its conditions say. Pure.
use std::sync::Arc;

use client::ApiError;
use client::k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use client::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as Written, Time};
use client::Named;
use jiff::Timestamp;
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Start,
    /// It runs, but does not know up to which version.
    Checkpoint,
    /// Objects of this version or older.
    Migrate(u64),
    /// It has ended, and says that it runs.
    End,
}

pub struct Condition {
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn running(message: String) -> Self {
        Self { kind: "Running", status: "True", reason: "MigrationRunning", message }
    }

    pub fn succeeded() -> Self {
        let message = "Migration completed".to_owned();
        Self { kind: "Succeeded", status: "True", reason: "StorageVersionMigrationSucceeded", message }
    }

    pub fn failed(message: String) -> Self {
        Self { kind: "Failed", status: "True", reason: "StorageVersionMigrationFailed", message }
    }
}

/// What a definition's status is to say.
pub struct DefinitionStatus {
    pub condition: Value,
    /// The only version that is left in the store.
    pub stored_version: Option<String>,
}

fn is_true(migration: &StorageVersionMigration, kind: &str) -> bool {
    let conditions = migration.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Group and plural of what is migrated.
pub fn resource(migration: &StorageVersionMigration) -> (&str, &str) {
    migration.spec.as_ref().map_or(("", ""), |spec| (&spec.resource.group, &spec.resource.resource))
}

fn has_ended(migration: &StorageVersionMigration) -> bool {
    is_true(migration, "Succeeded") || is_true(migration, "Failed")
}

pub fn step(migration: &StorageVersionMigration, all: &[Arc<StorageVersionMigration>]) -> Step {
    match (is_true(migration, "Running"), has_ended(migration)) {
        (true, true) => Step::End,
        (false, true) => Step::Nothing,
        (true, false) => {
            let version = migration.status.as_ref().and_then(|status| status.resource_version.as_deref());
            version.and_then(|version| version.parse().ok()).map_or(Step::Checkpoint, Step::Migrate)
        }
        (false, false) => {
            let others = || all.iter().filter(|other| resource(other) == resource(migration) && !has_ended(other));
            let age = |m: &StorageVersionMigration| (m.metadata.creation_timestamp.as_ref().map(|time| time.0), m.name().to_owned());
            let is_first = others().all(|other| age(migration) <= age(other));
            let is_free = !others().any(|other| is_true(other, "Running"));
            if is_first && is_free { Step::Start } else { Step::Nothing }
        }
    }
}

/// `progress`: objects that are left, and all.
pub fn running_message(progress: Option<(usize, usize)>, error: Option<&str>) -> String {
    let mut text = "The migration is running".to_owned();
    match progress.filter(|(_, total)| *total > 0) {
        Some((0, total)) => text.push_str(&format!(", {total} objects verified migrated")),
        Some((left, total)) => text.push_str(&format!(", {left}/{total} objects not yet migrated")),
        None => {}
    }
    if let Some(error) = error {
        text.push_str(&format!("; transient error: {error}"));
    }
    text
}

/// Whether the next try may fare better.
pub fn is_passing(error: &ApiError) -> bool {
    error.code().is_none_or(|code| matches!(code, 429 | 500 | 503 | 504))
}

pub fn set(conditions: &mut Vec<Written>, wanted: &[Condition], now: Timestamp) {
    for wanted in wanted {
        let found = conditions.iter_mut().find(|condition| condition.type_ == wanted.kind);
        let since = found.as_ref().filter(|found| found.status == wanted.status).map(|found| found.last_transition_time.clone());
        let written = Written {
            type_: wanted.kind.to_owned(),
            status: wanted.status.to_owned(),
            reason: wanted.reason.to_owned(),
            message: wanted.message.clone(),
            last_transition_time: since.unwrap_or(Time(now)),
            observed_generation: None,
        };
        match found {
            Some(found) => *found = written,
            None => conditions.push(written),
        }
    }
}

/// As `set`, for conditions whose type is not at hand.
pub fn set_in(conditions: &mut Value, mut wanted: Value, now: Timestamp) {
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    wanted["lastTransitionTime"] = Value::from(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    match list.iter_mut().find(|condition| condition["type"] == wanted["type"]) {
        Some(found) => *found = wanted,
        None => list.push(wanted),
    }
}

const MIGRATING: &str = "StorageMigrating";

pub fn definition_migrating(migration: &StorageVersionMigration, definition: &CustomResourceDefinition) -> DefinitionStatus {
    let condition = json!({"type": MIGRATING, "status": "True", "reason": "MigrationRunning",
        "message": format!("Migration {} is running", migration.name()), "observedGeneration": definition.metadata.generation.unwrap_or(0)});
    DefinitionStatus { condition, stored_version: None }
}

/// The versions that nothing is stored in any more are forgotten, if the definition is still the one that the migration began with.
pub fn definition_migrated(migration: &StorageVersionMigration, definition: &CustomResourceDefinition) -> Option<DefinitionStatus> {
    let generation = definition.metadata.generation.unwrap_or(0);
    let conditions = definition.status.as_ref().and_then(|status| serde_json::to_value(&status.conditions).ok()).unwrap_or_default();
    let began = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == MIGRATING);
    let is_same = began.is_some_and(|condition| condition["observedGeneration"].as_i64().unwrap_or(0) == generation);
    let (reason, message) = match (is_true(migration, "Succeeded"), is_same) {
        (true, true) => ("MigrationSucceeded", "The migration has succeeded and the stored versions have been updated"),
        (true, false) => {
            ("MigrationSucceeded", "The migration has succeeded but the stored versions have not been updated due to a generation mismatch")
        }
        (false, _) => ("MigrationFailed", "The migration has failed"),
    };
    let storage = definition.spec.versions.iter().find(|version| version.storage).map(|version| version.name.clone());
    Some(DefinitionStatus {
        condition: json!({"type": MIGRATING, "status": "False", "reason": reason, "message": message, "observedGeneration": generation}),
        stored_version: storage.filter(|_| is_same && is_true(migration, "Succeeded")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(name: &str, conditions: &[(&str, &str)], version: Option<&str>) -> Arc<StorageVersionMigration> {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| json!({"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}))
            .collect();
        let object = json!({"apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-0{}T00:00:00Z", name.len())},
            "spec": {"resource": {"group": "g", "resource": "r"}}, "status": {"conditions": conditions, "resourceVersion": version}});
        Arc::new(serde_json::from_value(object).expect("a migration"))
    }

    #[test]
    fn migrations_of_a_resource_run_one_after_the_other() {
        let (first, second) = (migration("a", &[], None), migration("bb", &[], None));
        let both = [first.clone(), second.clone()];
        assert_eq!((step(&first, &both), step(&second, &both)), (Step::Start, Step::Nothing));
        let running = migration("a", &[("Running", "True")], None);
        assert_eq!(step(&running, &[running.clone(), second.clone()]), Step::Checkpoint);
        let marked = migration("a", &[("Running", "True")], Some("7"));
        assert_eq!(step(&marked, &[marked.clone()]), Step::Migrate(7));
        let ended = migration("a", &[("Running", "True"), ("Succeeded", "True")], Some("7"));
        assert_eq!(step(&ended, &[ended.clone(), second.clone()]), Step::End);
        assert_eq!(step(&second, &[ended, second.clone()]), Step::Start);
    }

    #[test]
    fn messages_say_how_far_it_is() {
        assert_eq!(running_message(None, None), "The migration is running");
        assert_eq!(running_message(Some((0, 3)), None), "The migration is running, 3 objects verified migrated");
        assert_eq!(running_message(Some((2, 3)), Some("x")), "The migration is running, 2/3 objects not yet migrated; transient error: x");
    }
}

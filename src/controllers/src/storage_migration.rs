//! Writes the objects of a resource anew, so that all are stored in the storage version of today.
//!
//! Models pkg/controller/storageversionmigrator/{migrationrunner,resourceversion,storageversionmigrator}.go, v1.37, as one controller. One migration
//! of a resource runs at a time, the oldest first. The objects are listed from the server, where upstream asks the garbage collector's cache.
//! Reads StorageVersionMigrations, discovery, metadata of everything. Patches objects with nothing; writes the status of migrations and of the
//! CustomResourceDefinition of a custom resource. Wakes on migrations.
mod plan;

use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use client::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use client::{ApiError, ApiResource, Client, Clock, Controller, Informer, List, ListOptions, Named, Next, ObjectKey, PartialObject, Patch};
use jiff::SignedDuration;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::ControllerContext;
use crate::discovery::{self, Served};
use crate::failure::{During, Failure, unless_gone};
use plan::{Condition, Step};

const NAME: &str = "storage-version-migrator-controller";
const PAGE: u32 = 500;
/// A definition may have come a moment ago.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(2);

struct Context {
    client: Client,
    clock: Clock,
    migrations: Informer<StorageVersionMigration>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let cx = Arc::new(Context { client: cx.client(NAME), migrations: cx.informers.get(), clock: cx.clock });
    let migrations = cx.migrations.clone();
    Controller::new(NAME, cx)
        // One that ends lets the next of its resource run.
        .watches(&migrations, |cx: &Context, event| {
            let of_resource = |other: &&Arc<StorageVersionMigration>| plan::resource(other) == plan::resource(event.object());
            cx.migrations.list().iter().filter(of_resource).map(|migration| migration.key()).chain([event.object().key()]).collect()
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(migration) = cx.migrations.get(key) else { return Ok(Next::Wait) };
    match plan::step(&migration, &cx.migrations.list()) {
        Step::Nothing => {}
        Step::Start => {
            mark_definition(cx, &migration, |definition| Some(plan::definition_migrating(&migration, definition))).await?;
            let running = Condition::running(plan::running_message(None, None));
            write(cx, &migration, &[running], None).await?;
        }
        Step::Checkpoint => return checkpoint(cx, &migration).await,
        Step::Migrate(version) => return migrate(cx, &migration, version).await,
        Step::End => {
            mark_definition(cx, &migration, |definition| plan::definition_migrated(&migration, definition)).await?;
            let done = Condition { kind: "Running", status: "False", reason: "MigrationCompleted", message: "Migration completed".into() };
            write(cx, &migration, &[done], None).await?;
        }
    }
    Ok(Next::Wait)
}

/// The resource as discovery has it.
async fn find(cx: &Context, migration: &StorageVersionMigration) -> Result<Option<Served>, Failure> {
    let (group, plural) = plan::resource(migration);
    let found = discovery::discover(&cx.client).await.during(|| format!("discover the resource of migration {}", migration.name()))?;
    Ok(found.resources.into_iter().find(|s| s.resource.group == group && s.resource.plural == plural))
}

fn is_young(cx: &Context, migration: &StorageVersionMigration) -> bool {
    let made = migration.metadata.creation_timestamp.as_ref().map(|time| time.0);
    made.and_then(|made| made.checked_add(PATIENCE).ok()).is_some_and(|end| end > cx.clock.now())
}

/// Notes the version up to which objects are migrated: what is written later is in the new version anyway.
async fn checkpoint(cx: &Context, migration: &StorageVersionMigration) -> Result<Next, Failure> {
    let Some(served) = find(cx, migration).await? else {
        if is_young(cx, migration) {
            return Ok(Next::After(AGAIN));
        }
        return fail(cx, migration, "resource does not exist in discovery").await;
    };
    if !["update", "patch", "list"].iter().all(|verb| served.can(verb)) {
        let resource = &served.resource;
        let text = format!("resource \"{}, Resource={}\" does not support discovery operations: [update patch list]", resource.api_version(), resource.plural);
        return fail(cx, migration, &text).await;
    }
    let list = page(cx, &served.resource, ListOptions { limit: Some(1), ..ListOptions::default() }).await;
    let list = list.during(|| format!("read the version of {}", served.resource.plural))?;
    write(cx, migration, &[], list.metadata.resource_version).await?;
    Ok(Next::Wait)
}

async fn page(cx: &Context, resource: &ApiResource, options: ListOptions) -> Result<List<PartialObject>, ApiError> {
    cx.client.list_at(resource, "", &options).await
}

async fn migrate(cx: &Context, migration: &StorageVersionMigration, checkpoint: u64) -> Result<Next, Failure> {
    let Some(served) = find(cx, migration).await? else {
        if is_young(cx, migration) {
            return Ok(Next::After(AGAIN));
        }
        return fail(cx, migration, "unable to obtain GVR from discovery").await;
    };
    let resource = &served.resource;
    let (mut total, mut candidates, mut token) = (0, Vec::new(), None);
    loop {
        let options = ListOptions { limit: Some(PAGE), continue_token: token, ..ListOptions::default() };
        let list = page(cx, resource, options).await.during(|| format!("list {} for their migration", resource.plural))?;
        total += list.items.len();
        let is_old = |object: &&PartialObject| object.resource_version().parse::<u64>().is_ok_and(|version| version <= checkpoint);
        candidates.extend(list.items.iter().filter(is_old).map(|object| (object.key(), object.resource_version().to_owned())));
        token = list.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    let mut left = candidates.len();
    for (key, version) in &candidates {
        let patch = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"resourceVersion": version}});
        match cx.client.patch_at::<IgnoredAny>(resource, key, &Patch::Merge(patch)).await {
            Ok(_) => {}
            // Written or deleted meanwhile: it is migrated.
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) if plan::is_passing(&error) => {
                let running = Condition::running(plan::running_message(Some((left, total)), Some(&error.to_string())));
                write(cx, migration, &[running], None).await?;
                return Err(error).during(|| format!("migrate {} {key}", resource.plural));
            }
            Err(error) => {
                let running = Condition::running(plan::running_message(Some((left, total)), None));
                let text = format!("{left}/{total} not yet migrated. migration encountered unhandled error: {error}");
                write(cx, migration, &[running, Condition::failed(text)], None).await?;
                return Ok(Next::Wait);
            }
        }
        left -= 1;
    }
    let running = Condition::running(plan::running_message(Some((left, total)), None));
    write(cx, migration, &[running, Condition::succeeded()], None).await?;
    Ok(Next::Wait)
}

async fn fail(cx: &Context, migration: &StorageVersionMigration, why: &str) -> Result<Next, Failure> {
    write(cx, migration, &[Condition::failed(format!("migration encountered unhandled error: {why}"))], None).await?;
    Ok(Next::Wait)
}

/// Writes the status on the version that was read.
async fn write(cx: &Context, migration: &StorageVersionMigration, conditions: &[Condition], version: Option<String>) -> Result<(), Failure> {
    let mut next = migration.clone();
    let status = next.status.get_or_insert_default();
    plan::set(status.conditions.get_or_insert_default(), conditions, cx.clock.now());
    status.resource_version = version.or(status.resource_version.take());
    if next == *migration {
        return Ok(());
    }
    unless_gone(cx.client.update_status(&next).await).during(|| format!("write the status of migration {}", migration.name()))?;
    Ok(())
}

/// Changes the status of the definition behind a custom resource; other resources have none.
async fn mark_definition(
    cx: &Context,
    migration: &StorageVersionMigration,
    change: impl Fn(&CustomResourceDefinition) -> Option<plan::DefinitionStatus>,
) -> Result<(), Failure> {
    let (group, plural) = plan::resource(migration);
    let key = ObjectKey::cluster(format!("{plural}.{group}"));
    let step = || format!("mark the definition of {key}");
    let Some(definition) = unless_gone(cx.client.get::<CustomResourceDefinition>(&key).await).during(step)? else { return Ok(()) };
    let Some(status) = change(&definition) else { return Ok(()) };
    let mut conditions = definition.status.as_ref().and_then(|status| serde_json::to_value(&status.conditions).ok()).unwrap_or_default();
    plan::set_in(&mut conditions, status.condition, cx.clock.now());
    let mut patch = json!({"metadata": {"resourceVersion": definition.resource_version()}, "status": {"conditions": conditions}});
    if let Some(version) = status.stored_version {
        patch["status"]["storedVersions"] = Value::from(vec![version]);
    }
    unless_gone(cx.client.patch_status::<CustomResourceDefinition>(&key, &Patch::Merge(patch)).await).during(step)?;
    Ok(())
}

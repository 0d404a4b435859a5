//! A controller made with kube-rs: it brings its own definition, owns ConfigMaps, cleans up behind itself, and says so in events.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

const NAME: &str = "poems.books.example.com";

#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "books.example.com", version = "v1alpha1", kind = "Poem", namespaced, status = "PoemStatus")]
#[kube(shortname = "pm", selectable = ".spec.mood")]
#[kube(printcolumn(name = "Mood", type_ = "string", json_path = ".spec.mood"))]
#[kube(scale(spec_replicas_path = ".spec.copies", status_replicas_path = ".status.copies"))]
#[kube(validation = "self.spec.copies <= 3 || self.spec.lines.size() < 3")]
pub struct PoemSpec {
    #[schemars(length(min = 1))]
    lines: Vec<String>,
    #[serde(default = "one")]
    copies: u32,
    #[serde(default)]
    mood: Mood,
    title: Option<String>,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub enum Mood {
    #[default]
    Calm,
    Wild,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct PoemStatus {
    copies: u32,
    letters: usize,
}

struct Context {
    client: Client,
    recorder: Recorder,
}

type Failed = kube::runtime::finalizer::Error<kube::Error>;

async fn reconcile(poem: Arc<Poem>, context: Arc<Context>) -> Result<Action, Failed> {
    let poems: Api<Poem> = Api::namespaced(context.client.clone(), &poem.namespace().unwrap_or_default());
    finalizer(&poems, &format!("{NAME}/burn"), poem, |event| async {
        match event {
            Finalizer::Apply(poem) => print(&context, &poems, &poem).await,
            Finalizer::Cleanup(poem) => {
                say(&context, &poem, "Burnt", "nothing is left").await?;
                Ok(Action::await_change())
            }
        }
    })
    .await
}

async fn print(context: &Context, poems: &Api<Poem>, poem: &Poem) -> Result<Action, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &poem.namespace().unwrap_or_default());
    let params = PatchParams::apply("poet").force();
    for copy in 0..poem.spec.copies {
        let map = ConfigMap {
            metadata: kube::core::ObjectMeta {
                name: Some(format!("{}-{copy}", poem.name_any())),
                owner_references: poem.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..Default::default()
            },
            data: Some(BTreeMap::from([("text".to_owned(), poem.spec.lines.join("\n"))])),
            ..Default::default()
        };
        maps.patch(&map.name_any(), &params, &Patch::Apply(&map)).await?;
    }
    let letters = poem.spec.lines.iter().map(|line| line.chars().count()).sum();
    let status = PoemStatus { copies: poem.spec.copies, letters };
    let said = poem.status.as_ref().map(|status| (status.copies, status.letters));
    if said != Some((status.copies, status.letters)) {
        let patch = json!({"apiVersion": Poem::api_version(&()), "kind": Poem::kind(&()), "status": status});
        poems.patch_status(&poem.name_any(), &params, &Patch::Apply(patch)).await?;
        say(context, poem, "Printed", &format!("{} copies", status.copies)).await?;
    }
    Ok(Action::requeue(Duration::from_secs(300)))
}

async fn say(context: &Context, poem: &Poem, reason: &str, note: &str) -> Result<(), kube::Error> {
    let event =
        Event { type_: EventType::Normal, reason: reason.into(), note: Some(note.into()), action: "Reconcile".into(), secondary: None };
    context.recorder.publish(&event, &poem.object_ref(&())).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::try_default().await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.patch(NAME, &PatchParams::apply("poet").force(), &Patch::Apply(Poem::crd())).await?;
    await_condition(definitions, NAME, conditions::is_crd_established()).await?;

    // A typed object made by the program itself; the schema refuses what its rule forbids.
    let poems: Api<Poem> = Api::default_namespaced(client.clone());
    let mut long = Poem::new("long", PoemSpec { lines: vec!["a".into(); 3], copies: 4, mood: Mood::Wild, title: None });
    match poems.create(&PostParams::default(), &long).await {
        Err(kube::Error::Api(status)) if status.is_invalid() => println!("refused: {}", status.message),
        other => anyhow::bail!("a poem of too many copies: {other:?}"),
    }
    long.spec.copies = 2;
    poems.patch("long", &PatchParams::apply("author"), &Patch::Apply(&long)).await?;

    // Metadata alone, in a streamed list.
    let names =
        watcher(Api::<PartialObjectMeta<Poem>>::all(client.clone()), watcher::Config::default().streaming_lists()).applied_objects();
    tokio::spawn(names.for_each(|seen| async move {
        if let Ok(poem) = seen {
            println!("seen {} {}", poem.name_any(), poem.metadata.generation.unwrap_or_default());
        }
    }));

    let context = Arc::new(Context { client: client.clone(), recorder: Recorder::new(client.clone(), "poet".into()) });
    Controller::new(Api::<Poem>::all(client.clone()), watcher::Config::default())
        .owns(Api::<ConfigMap>::all(client), watcher::Config::default().streaming_lists())
        .shutdown_on_signal()
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), context)
        .for_each(|done| async move {
            match done {
                Ok((poem, _)) => println!("reconciled {}", poem.name),
                Err(error) => println!("failed: {error:?}"),
            }
        })
        .await;
    println!("done");
    Ok(())
}

//! Objects, what defines them, and what changes them.
use std::collections::HashMap;
use std::sync::LazyLock;

use api::apply::{Type, Versions, Write};
use api::registry::Resource;
use api::{Registry, Schema, Tree, codec, crd as definitions, defaults, meta, patch as patches, table, validation};
use jiff::Timestamp;

const NOW: &str = "2026-01-02T03:04:05Z";
const DEFINITION: (&str, &str, &str) = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition");

static POD: LazyLock<Tree> = LazyLock::new(|| {
    let json = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"a":"b"},"finalizers":["x/y"],"ownerReferences":[{"uid":"u"}]},
        "spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"env":[{"name":"A","value":"b"}]},{"name":"d"}],
        "volumes":[{"name":"v","emptyDir":{}}],"tolerations":[{"key":"k"}]}}"#;
    Tree::from_json(json).expect("a pod")
});
static ESTABLISHED: LazyLock<Tree> =
    LazyLock::new(|| Tree::from_json(br#"{"conditions":[{"type":"Established","status":"True"}],"storedVersions":["v1"]}"#).expect("a status"));
/// By version and kind.
static RESOURCES: LazyLock<HashMap<(String, String), &'static Resource>> =
    LazyLock::new(|| Registry::get().served().map(|resource| ((resource.api_version(), resource.kind.to_string()), resource)).collect());

fn pods() -> &'static Schema {
    Registry::get().kind_schema("", "v1", "Pod").expect("pods are known")
}

/// An object, and on the next line what it was before: decoded, defaulted, validated, shown as a row of a table.
pub fn object(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |b| *b == b'\n');
    let Some(Ok(parsed)) = lines.next().map(codec::parse_json) else { return };
    let named = (meta::api_version(&parsed.tree).to_owned(), meta::kind(&parsed.tree).to_owned());
    let Some(resource) = RESOURCES.get(&named) else { return };
    let Some(new) = decoded(resource, parsed.tree) else { return };
    validation::validate(resource, &new, None);
    let _ = table::row(resource, &new.to_json(), Timestamp::UNIX_EPOCH);
    if let Some(Ok(old)) = lines.next().map(codec::parse_json)
        && let Some(old) = decoded(resource, old.tree)
    {
        validation::validate(resource, &new, Some(&old));
        validation::validate_status(resource, &new, &old);
    }
}

fn decoded(resource: &Resource, tree: Tree) -> Option<Tree> {
    let mut tree = api::schema::decode(resource.schema()?, tree).ok()?.tree;
    tree.as_object()?;
    meta::set_type(&mut tree, &resource.api_version(), &resource.kind);
    defaults::apply(resource, &mut tree);
    Some(tree)
}

/// The definition of a custom kind, and on the next line an object: where the definition is sound, it is coerced, defaulted, validated, shown
/// and applied.
pub fn crd(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |b| *b == b'\n');
    let Some(Ok(definition)) = lines.next().map(codec::parse_json) else { return };
    let (group, version, kind) = DEFINITION;
    let schema = Registry::get().kind_schema(group, version, kind).expect("definitions are known");
    let Ok(decoded) = api::schema::decode(schema, definition.tree) else { return };
    let mut definition = decoded.tree;
    if definition.as_object().is_none() {
        return;
    }
    defaults::apply_kind(group, version, kind, &mut definition);
    if !definitions::validate(&definition, None).is_empty() {
        return;
    }
    definition.set(&["status"], ESTABLISHED.clone());
    let Some(Ok(object)) = lines.next().map(codec::parse_json) else { return };
    for resource in definitions::Definition(&definition).resources() {
        let Some(custom) = resource.custom.as_deref() else { continue };
        let Ok(coerced) = definitions::coerce(custom, object.tree.clone()) else { continue };
        if definitions::validate_object(&resource, custom, &coerced.tree, None).is_empty() {
            definitions::validate_object(&resource, custom, &coerced.tree, Some(&coerced.tree));
        }
        let _ = table::row(&resource, &coerced.tree.to_json(), Timestamp::UNIX_EPOCH);
        let api_version = resource.api_version();
        let write = Write {
            versions: &One(Type::custom(custom.structural())),
            api_version: &api_version,
            kind: &resource.kind,
            subresource: "",
            filter: None,
            now: NOW,
        };
        let mut config = object.tree.clone();
        if config.as_object().is_some() {
            meta::set_type(&mut config, &api_version, &resource.kind);
            let _ = write.apply("one", Some(&coerced.tree), &config, false);
        }
    }
}

/// A patch of a pod, JSON, merge or strategic merge, as the first byte says: what it makes is a tree that reads back.
pub fn patch(bytes: &[u8]) {
    let Some((kind, document)) = bytes.split_first() else { return };
    let Ok(parsed) = codec::parse_json(document) else { return };
    let mut pod = POD.clone();
    match kind % 3 {
        0 => {
            let _ = patches::check_json_patch(&parsed.tree);
            let _ = patches::json_patch(&mut pod, &parsed.tree);
        }
        1 => patches::merge_patch(&mut pod, parsed.tree),
        _ => {
            let _ = patches::strategic_merge(&mut pod, parsed.tree, pods());
        }
    }
    let printed = pod.to_json();
    assert_eq!(Tree::from_json(&printed).expect("what was printed can be read").to_json(), printed);
}

/// A kind of one version.
struct One<'t>(Type<'t>);

impl Versions for One<'_> {
    fn type_of(&self, _: &str) -> Option<Type<'_>> {
        Some(self.0)
    }

    fn empty(&self) -> Tree {
        Tree::from_json(br#"{"metadata":{}}"#).expect("an object")
    }

    fn convert(&self, object: &Tree, _: &str) -> Result<Option<Tree>, String> {
        Ok(Some(object.clone()))
    }
}

/// A pod as two managers apply it, the first and third line, and as somebody else writes it, the second and fourth; with managed fields as clients
/// may send them.
pub fn apply(bytes: &[u8]) {
    let write = Write { versions: &One(Type::BuiltIn(pods())), api_version: "v1", kind: "Pod", subresource: "", filter: None, now: NOW };
    let mut live: Option<Tree> = None;
    for (i, line) in bytes.split(|b| *b == b'\n').take(4).enumerate() {
        let Ok(parsed) = codec::parse_json(line) else { continue };
        if api::apply::check_list(parsed.tree.at(&["metadata", "managedFields"])).is_err() {
            continue;
        }
        let made = match i % 2 {
            0 => write.apply(if i == 0 { "one" } else { "two" }, live.as_ref(), &parsed.tree, i == 2).ok(),
            _ => api::schema::decode(pods(), parsed.tree).ok().map(|decoded| decoded.tree).filter(|tree| tree.as_object().is_some()).map(|mut new| {
                write.track("updater", live.as_ref(), &mut new);
                new
            }),
        };
        if let Some(mut made) = made {
            meta::set_uid(&mut made, "u");
            live = Some(made);
        }
    }
}

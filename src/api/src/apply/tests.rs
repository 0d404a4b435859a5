//! What the parts do together: managers through creates, updates and applies.
use super::*;
use crate::Registry;
use crate::meta;
use crate::tree::Tree;

/// Built-in kinds of one version.
struct OneVersion;

impl Versions for OneVersion {
    fn type_of(&self, api_version: &str) -> Option<Type<'_>> {
        let (group, version) = crate::registry::split_api_version(api_version);
        let kind = if group == "apps" { "Deployment" } else { "ConfigMap" };
        Registry::get().kind_schema(group, version, kind).map(Type::BuiltIn)
    }

    fn empty(&self) -> Tree {
        tree(r#"{"metadata":{}}"#)
    }

    fn convert(&self, _: &Tree, _: &str) -> Result<Option<Tree>, String> {
        Ok(None)
    }
}

fn tree(json: &str) -> Tree {
    Tree::from_json(json.as_bytes()).expect("JSON")
}

fn write<'w>(api_version: &'w str, now: &'w str) -> Write<'w> {
    let kind = if api_version == "v1" { "ConfigMap" } else { "Deployment" };
    Write { versions: &OneVersion, api_version, kind, subresource: "", filter: None, now }
}

fn config_map(data: &str) -> Tree {
    tree(&format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"c","namespace":"n"}},"data":{data}}}"#))
}

fn stored(mut object: Tree) -> Tree {
    meta::set_uid(&mut object, "u");
    object
}

/// `manager operation fields`, one a line.
#[track_caller]
fn managed(object: &Tree) -> String {
    let lines = object.array_at(&["metadata", "managedFields"]).iter().map(|entry| {
        let fields = String::from_utf8(entry.get("fieldsV1").expect("fields").to_json()).expect("UTF-8");
        format!("{} {} {} {fields}\n", entry.str_at(&["manager"]), entry.str_at(&["operation"]), entry.str_at(&["time"]))
    });
    lines.collect()
}

#[test]
fn a_create_and_an_update_are_noted() {
    let mut created = config_map(r#"{"a":"1"}"#);
    write("v1", "2026-01-01T00:00:00Z").track("alice", None, &mut created);
    assert_eq!(managed(&created), "alice Update 2026-01-01T00:00:00Z {\"f:data\":{\".\":{},\"f:a\":{}}}\n");
    let live = stored(created);
    let mut updated = live.clone();
    updated.set(&["data", "b"], "2");
    write("v1", "2026-01-02T00:00:00Z").track("bob", Some(&live), &mut updated);
    let expected = "alice Update 2026-01-01T00:00:00Z {\"f:data\":{\".\":{},\"f:a\":{}}}\n\
                    bob Update 2026-01-02T00:00:00Z {\"f:data\":{\"f:b\":{}}}\n";
    assert_eq!(managed(&updated), expected);
    let live = updated.clone();
    let mut taken = live.clone();
    taken.set(&["data", "a"], "3");
    write("v1", "2026-01-03T00:00:00Z").track("bob", Some(&live), &mut taken);
    assert!(managed(&taken).contains("bob Update 2026-01-03T00:00:00Z {\"f:data\":{\"f:a\":{},\"f:b\":{}}}"), "{}", managed(&taken));
    assert!(managed(&taken).contains("alice Update 2026-01-01T00:00:00Z {\"f:data\":{}}"), "{}", managed(&taken));
    let mut same = taken.clone();
    write("v1", "2026-01-04T00:00:00Z").track("carol", Some(&taken), &mut same);
    assert_eq!(same, taken, "a write that changes nothing is not noted");
}

#[test]
fn whoever_applies_less_gives_up_the_rest() {
    let at = write("v1", "2026-01-01T00:00:00Z");
    let live = stored(at.apply("alice", None, &config_map(r#"{"a":"1","b":"2"}"#), false).expect("applied"));
    assert_eq!(live.str_at(&["data", "b"]), "2");
    let less = at.apply("alice", Some(&live), &config_map(r#"{"a":"1"}"#), false).expect("applied");
    assert_eq!(less.get("data"), Some(&tree(r#"{"a":"1"}"#)));
    let other = at.apply("bob", Some(&live), &config_map(r#"{"b":"2"}"#), false).expect("the same value is no conflict");
    let shared = at.apply("alice", Some(&other), &config_map(r#"{"a":"1"}"#), false).expect("applied");
    assert_eq!(shared.str_at(&["data", "b"]), "2", "bob has it, too");
}

#[test]
fn another_value_is_a_conflict_unless_forced() {
    let at = write("v1", "2026-01-01T00:00:00Z");
    let live = stored(at.apply("alice", None, &config_map(r#"{"a":"1","b":"2"}"#), false).expect("applied"));
    let Err(Refused::Conflicts(conflicts)) = at.apply("bob", Some(&live), &config_map(r#"{"a":"9","b":"9"}"#), false) else {
        panic!("no conflict");
    };
    assert_eq!(message(&conflicts), "Apply failed with 2 conflicts: conflicts with \"alice\":\n- .data.a\n- .data.b");
    assert_eq!(conflicts[0].message(), "conflict with \"alice\"");
    let forced = at.apply("bob", Some(&live), &config_map(r#"{"a":"9"}"#), true).expect("forced");
    assert_eq!(forced.str_at(&["data", "a"]), "9");
    assert!(managed(&forced).contains("alice Apply 2026-01-01T00:00:00Z {\"f:data\":{\"f:b\":{}}}"), "{}", managed(&forced));
}

#[test]
fn an_object_of_unknown_managers_is_that_of_before() {
    let live = stored(config_map(r#"{"a":"1"}"#));
    let at = write("v1", "2026-01-01T00:00:00Z");
    let mut updated = live.clone();
    updated.set(&["data", "a"], "2");
    at.track("alice", Some(&live), &mut updated);
    assert_eq!(managed(&updated), "", "without managers there is nothing to keep up");
    let applied = at.apply("bob", Some(&live), &config_map(r#"{"b":"2"}"#), false).expect("applied");
    assert!(managed(&applied).contains("before-first-apply Update"), "{}", managed(&applied));
}

#[test]
fn configurations_are_checked() {
    let at = write("apps/v1", "2026-01-01T00:00:00Z");
    let refused = |config: &str| match at.apply("a", None, &tree(config), false) {
        Err(Refused::Failed(text) | Refused::BadRequest(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(r#"{"apiVersion":"v1","kind":"Pod"}"#), "invalid object type: /v1, Kind=Pod");
    let head = r#""apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","namespace":"n"}"#;
    let called = "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): ";
    assert_eq!(refused(&format!(r#"{{{head},"spec":{{"nope":1}}}}"#)), format!("{called}.spec.nope: field not declared in schema"));
    let twice = r#"{"name":"a","image":"i"},{"name":"a","image":"j"}"#;
    assert_eq!(
        refused(&format!(r#"{{{head},"spec":{{"template":{{"spec":{{"containers":[{twice}]}}}}}}}}"#)),
        format!("{called}.spec.template.spec.containers: duplicate entries for key [name=\"a\"]")
    );
    let managed = r#""apiVersion":"apps/v1","kind":"Deployment","metadata":{"managedFields":[]}"#;
    assert_eq!(refused(&format!("{{{managed}}}")), "metadata.managedFields must be nil");
}

#[test]
fn list_items_are_told_apart_by_keys_and_their_defaults() {
    let at = write("apps/v1", "2026-01-01T00:00:00Z");
    let config = |ports: &str| {
        tree(&format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d"}},"spec":{{"template":{{"spec":{{"containers":[
            {{"name":"a","ports":{ports}}}]}}}}}}}}"#
        ))
    };
    let live = stored(at.apply("a", None, &config(r#"[{"containerPort":80},{"containerPort":80,"protocol":"UDP"}]"#), false).expect("applied"));
    let key = r#"k:{\"containerPort\":80,\"protocol\":\"TCP\"}"#;
    assert!(managed(&live).contains(key), "{}", managed(&live));
    let less = at.apply("a", Some(&live), &config(r#"[{"containerPort":80,"protocol":"UDP"}]"#), false).expect("applied");
    let container = &less.array_at(&["spec", "template", "spec", "containers"])[0];
    assert_eq!(container.get("ports"), Some(&tree(r#"[{"containerPort":80,"protocol":"UDP"}]"#)));
}

#[test]
fn the_oldest_updates_are_put_together() {
    let mut live = stored(config_map("{}"));
    for i in 0..14 {
        let mut next = live.clone();
        next.set(&["data", &format!("k{i}")], "v");
        let now = format!("2026-01-{:02}T00:00:00Z", i + 1);
        let before = (i > 0).then_some(&live);
        write("v1", &now).track(&format!("m{i:02}"), before, &mut next);
        live = next;
    }
    assert_eq!(live.array_at(&["metadata", "managedFields"]).len(), 10);
    assert!(managed(&live).starts_with("ancient-changes Update 2026-01-05T00:00:00Z"), "{}", managed(&live));
}

#[test]
fn a_client_may_name_many_managers() {
    crate::pace::in_a_pass(|| {
        let entry = |i: usize| {
            let fields = format!(r#"{{"f:data":{{"f:k{i}":{{}}}}}}"#);
            format!(r#"{{"manager":"m{i:05}","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{fields}}}"#)
        };
        let mut created = config_map(r#"{"k0":"v","new":"v"}"#);
        let list: Vec<String> = (0..20_000).map(entry).collect();
        created.set(&["metadata", "managedFields"], tree(&format!("[{}]", list.join(","))));
        write("v1", "2026-01-01T00:00:00Z").track("alice", None, &mut created);
        let managed = created.array_at(&["metadata", "managedFields"]);
        assert_eq!(managed.len(), 10);
        assert_eq!(managed[0].str_at(&["manager"]), "ancient-changes");
    });
}

#[test]
fn what_clients_send_as_managed_fields_is_used_reset_or_passed_over() {
    let mut created = config_map(r#"{"a":"1"}"#);
    let at = write("v1", "2026-01-01T00:00:00Z");
    at.track("alice", None, &mut created);
    let live = stored(created);
    let with = |list: &str| {
        let mut new = live.clone();
        new.set(&["metadata", "managedFields"], tree(list));
        at.track("bob", Some(&live), &mut new);
        managed(&new)
    };
    assert_eq!(with("[{}]"), "");
    assert_eq!(with(r#"[{"manager":"x","operation":"Nope","apiVersion":"v1"}]"#), managed(&live));
    let other = r#"[{"manager":"x","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"f:a":{".":{}}}}}]"#;
    assert_eq!(with(other), "x Apply  {\"f:data\":{\"f:a\":{}}}\n");
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_clients_side() {
    let last = r#"{"apiVersion":"v1","data":{"a":"1"},"kind":"ConfigMap","metadata":{"annotations":{},"name":"c","namespace":"n"}}"#;
    let mut created = config_map(r#"{"a":"1"}"#);
    meta::set_annotation(&mut created, "kubectl.kubernetes.io/last-applied-configuration", last);
    let at = write("v1", "2026-01-01T00:00:00Z");
    at.track("kubectl-client-side-apply", None, &mut created);
    let live = stored(created);
    assert!(matches!(at.apply("other", Some(&live), &config_map(r#"{"a":"2"}"#), false), Err(Refused::Conflicts(_))));
    let applied = at.apply("kubectl", Some(&live), &config_map(r#"{"a":"2"}"#), false).expect("no conflict");
    assert_eq!(applied.str_at(&["data", "a"]), "2");
    let annotation = meta::annotation(&applied, "kubectl.kubernetes.io/last-applied-configuration").expect("kept up");
    assert!(annotation.contains(r#""data":{"a":"2"}"#), "{annotation}");
}

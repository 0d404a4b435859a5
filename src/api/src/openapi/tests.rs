use super::*;

const ALL: Documents = Documents { custom: &[], foreign: &[] };

fn document(group: &str, version: &str) -> Tree {
    Tree::from_json(&ALL.v3(group, version).expect("served")).unwrap()
}

#[test]
fn what_kubectl_explain_reads_is_there() {
    let apps = document("apps", "v1");
    let deployment = apps.at(&["components", "schemas", "io.k8s.api.apps.v1.Deployment"]).unwrap();
    assert_eq!(deployment.str_at(&["description"]), "Deployment enables declarative updates for Pods and ReplicaSets.");
    let gvk = deployment.array_at(&["x-kubernetes-group-version-kind"]);
    assert_eq!(gvk[0].to_json(), br#"{"group":"apps","kind":"Deployment","version":"v1"}"#);
    let spec = deployment.at(&["properties", "spec"]).unwrap();
    assert_eq!(spec.array_at(&["allOf"])[0].str_at(&["$ref"]), "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    assert_eq!(spec.get("default"), Some(&Tree::object()));
    let ports = apps.at(&["components", "schemas", "io.k8s.api.core.v1.Container", "properties", "ports"]).unwrap();
    assert_eq!(ports.str_at(&["x-kubernetes-patch-merge-key"]), "containerPort");
    assert_eq!(ports.array_at(&["x-kubernetes-list-map-keys"]).len(), 2);
}

#[test]
fn what_kubectl_looks_for_before_it_lets_the_server_validate_is_there() {
    let core = document("", "v1");
    let patch = core.at(&["paths", "/api/v1/namespaces/{namespace}/pods/{name}", "patch"]).unwrap();
    assert_eq!(patch.str_at(&["x-kubernetes-group-version-kind", "kind"]), "Pod");
    let names: Vec<&str> = patch.array_at(&["parameters"]).iter().map(|p| p.str_at(&["name"])).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
}

#[test]
fn every_reference_of_every_document_leads_somewhere() {
    fn visit(tree: &Tree, found: &mut BTreeSet<String>) {
        match tree {
            Tree::Object(o) => o.iter().for_each(|(key, value)| match (key, value) {
                ("$ref", Tree::String(target)) => drop(found.insert(target.to_string())),
                (_, value) => visit(value, found),
            }),
            Tree::Array(items) => items.iter().for_each(|item| visit(item, found)),
            _ => {}
        }
    }
    let check = |document: Tree, definitions: &[&str], prefix: &str| {
        let mut found = BTreeSet::new();
        visit(&document, &mut found);
        assert!(found.len() > 3);
        for target in found {
            assert!(document.at(definitions).unwrap().get(target.strip_prefix(prefix).unwrap()).is_some(), "{target}");
        }
    };
    for (group, version) in ALL.group_versions() {
        check(document(group, version), &["components", "schemas"], "#/components/schemas/");
    }
    check(Tree::from_json(&ALL.v2()).unwrap(), &["definitions"], "#/definitions/");
}

#[test]
fn the_protobuf_form_is_well_formed() {
    // Walks the outermost fields: swagger, info, paths, definitions.
    let document = ALL.v2_protobuf();
    let (mut at, mut numbers) = (0, Vec::new());
    let read = |at: &mut usize| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = document[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    while at < document.len() {
        let tag = read(&mut at);
        numbers.push(tag >> 3);
        at += usize::try_from(read(&mut at)).unwrap();
    }
    assert_eq!((at, numbers), (document.len(), vec![1, 2, 8, 9]));
}

/// Writes the documents where `OPENAPI_OUT` says, for comparison with upstream's.
#[test]
fn documents_can_be_written_out() {
    let Some(folder) = std::env::var_os("OPENAPI_OUT").map(std::path::PathBuf::from) else { return };
    std::fs::write(folder.join("v2.json"), ALL.v2()).unwrap();
    std::fs::write(folder.join("v2.pb"), ALL.v2_protobuf()).unwrap();
    for (group, version) in ALL.group_versions() {
        let name = format!("v3{}.json", root(group, version).replace('/', "-"));
        std::fs::write(folder.join(name), ALL.v3(group, version).unwrap()).unwrap();
    }
}

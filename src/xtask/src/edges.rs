//! Which crate may use which: dependencies point one way, and only `apiserver` sees `store`.
use serde_json::Value;

/// The crates of the house with those they may use. `rk` may use all of the product, `xtask` none of it.
const ALLOWED: [(&str, &[&str]); 19] = [
    ("api", &["cel"]),
    ("apiserver", &["store", "api", "cel", "pki"]),
    ("cel", &[]),
    ("client", &["api"]),
    ("controllers", &["client", "api", "pki"]),
    ("dns", &["client", "api"]),
    ("images", &[]),
    ("ingress", &["client", "api"]),
    ("kubelet", &["client", "api", "runtime", "images", "network"]),
    ("lab", &[]),
    ("network", &[]),
    ("pki", &[]),
    ("proxy", &["client", "api", "network"]),
    ("runtime", &[]),
    ("scheduler", &["client", "api", "cel"]),
    ("shim", &["runtime"]),
    ("store", &[]),
    ("tunnel", &["client", "pki"]),
    ("xtask", &["lab"]),
];

/// Edges between crates of the workspace that the table does not have, as `from -> to`. Those of tests count too.
pub fn wrong(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let ours: Vec<String> = packages.iter().map(name).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let from = name(package);
        let allowed = ALLOWED.iter().find(|(crate_name, _)| *crate_name == from).map(|(_, allowed)| *allowed);
        let used = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice).iter().map(name);
        for to in used.filter(|to| ours.contains(to)) {
            let fine = from == "rk" || allowed.is_some_and(|allowed| allowed.contains(&to.as_str()));
            if !fine {
                wrong.push(format!("{from} -> {to}"));
            }
        }
        if allowed.is_none() && from != "rk" {
            wrong.push(format!("{from} is not in the table"));
        }
    }
    wrong
}

/// Examples of all crates lie in one folder of the target: of two with one name it has the one that was built last.
#[test]
fn each_example_has_a_name_of_its_own() {
    let metadata = crate::metadata().expect("cargo metadata runs");
    let packages = metadata["packages"].as_array().expect("packages are listed");
    let targets = packages.iter().flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let mut names: Vec<_> = targets.filter(|target| target["kind"][0] == "example").map(|target| target["name"].to_string()).collect();
    assert!(!names.is_empty());
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert_eq!(twice, Vec::<&String>::new());
}

#[test]
fn dependencies_point_one_way() {
    let metadata = crate::metadata().expect("cargo metadata runs");
    assert_eq!(wrong(&metadata), Vec::<String>::new());
}

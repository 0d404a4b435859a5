//! Lists as long as a body allows: what compares all with all would take minutes, or all memory.
use super::*;

const MANY: usize = 20_000;

fn listed(item: impl Fn(usize) -> String) -> String {
    format!("[{}]", (0..MANY).map(item).collect::<Vec<_>>().join(","))
}

#[test]
fn long_lists_are_checked_in_a_pass() {
    crate::pace::in_a_pass(|| {
        let pod = format!(
            r#"{{"metadata":{{"name":"x","namespace":"ns"}},"spec":{{"volumes":{},"tolerations":{},"schedulingGates":{},"topologySpreadConstraints":{},
                "containers":[{{"name":"c","image":"i","volumeMounts":{},"ports":{},"env":{},"volumeDevices":{}}}]}}}}"#,
            listed(|i| format!(r#"{{"name":"v{i}"}}"#)),
            listed(|i| format!(r#"{{"key":"k{i}","operator":"Exists"}}"#)),
            listed(|i| format!(r#"{{"name":"g{i}"}}"#)),
            listed(|i| format!(r#"{{"maxSkew":1,"topologyKey":"t{i}","whenUnsatisfiable":"DoNotSchedule"}}"#)),
            listed(|i| format!(r#"{{"name":"v{i}","mountPath":"/m{i}"}}"#)),
            listed(|_| r#"{"containerPort":1}"#.to_owned()),
            listed(|i| format!(r#"{{"name":"e{i}"}}"#)),
            listed(|i| format!(r#"{{"name":"d{i}","devicePath":"/d{i}"}}"#)),
        );
        let service = format!(
            r#"{{"metadata":{{"name":"x","namespace":"ns"}},"spec":{{"ports":{}}}}}"#,
            listed(|i| format!(r#"{{"name":"p{i}","port":{},"nodePort":{}}}"#, i % 65_535 + 1, i % 65_535 + 1))
        );
        let quota = format!(
            r#"{{"metadata":{{"name":"x","namespace":"ns"}},"spec":{{"scopes":{},"hard":{{"cpu":"1"}}}}}}"#,
            listed(|i| format!("\"s{i}\""))
        );
        let node = format!(
            r#"{{"metadata":{{"name":"x"}},"spec":{{"drivers":{}}}}}"#,
            listed(|i| format!(r#"{{"name":"d{i}","nodeID":"n"}}"#))
        );
        let class = format!(
            r#"{{"metadata":{{"name":"x"}},"provisioner":"p","allowedTopologies":{}}}"#,
            listed(|i| if i % 2 == 0 { "{}".to_owned() } else { format!(r#"{{"matchLabelExpressions":[{{"key":"k{i}","values":["v"]}}]}}"#) })
        );
        for (kind, text) in [("CSINode", node), ("StorageClass", class)] {
            let new = Tree::from_json(text.as_bytes()).unwrap();
            validate_kind("storage.k8s.io", kind, false, &new, Some(&new));
        }
        for (kind, text) in [("Pod", pod), ("Service", service), ("ResourceQuota", quota)] {
            let mut new = Tree::from_json(text.as_bytes()).unwrap();
            defaults::apply_kind("", "v1", kind, &mut new);
            validate_kind("", kind, true, &new, None);
            validate_kind("", kind, true, &new, Some(&new));
            if kind == "Pod" {
                let warnings = pod_warnings::pod_warnings(&new, "");
                assert!(warnings.len() < 10 * MANY, "{}", warnings.len());
            }
        }
    });
}

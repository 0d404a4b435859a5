//! Claims to devices, and the volumes of drivers that left the tree.
use super::*;

#[test]
fn devices_are_claimed_and_offered_by_upstreams_rules() {
    let claim = |request: &str| format!("{{spec: {{devices: {{requests: [{{name: one, {request}}}]}}}}}}");
    let check = |kind: &str, yaml: &str, expected: &[&str]| check("resource.k8s.io", kind, kind.starts_with("ResourceClaim"), yaml, expected);
    check("ResourceClaim", &claim("exactly: {deviceClassName: gpu}"), &[]);
    check("ResourceClaim", &claim("exactly: {}"), &["spec.devices.requests[0].exactly.deviceClassName: Required value"]);
    check("ResourceClaim", &claim("firstAvailable: []"), &["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"]);
    check(
        "ResourceClaim",
        &claim("exactly: {deviceClassName: gpu, allocationMode: All, count: 2, selectors: [{}]}"),
        &[
            "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
        ],
    );
    check(
        "DeviceTaintRule",
        "{spec: {taint: {key: a, effect: Never}}}",
        &[r#"spec.taint.effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "None""#],
    );
    check(
        "DeviceClass",
        "{spec: {selectors: [{cel: {expression: device.driver}}], config: [{opaque: {driver: d, parameters: 5}}], extendedResourceName: a}}",
        &[
            r#"spec.selectors[0].cel.expression: Invalid value: "device.driver": must evaluate to bool or the unknown type, not string"#,
            r#"spec.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object"#,
            r#"spec.extendedResourceName: Invalid value: "a": a name must be a domain-prefixed path, such as 'example.com/my-prop'"#,
        ],
    );
    let slice = |device: &str| format!("{{spec: {{driver: d, nodeName: node, pool: {{name: pool, resourceSliceCount: 1}}, devices: [{{name: a, {device}}}]}}}}");
    check("ResourceSlice", &slice("attributes: {k: {int: 1}}, capacity: {m: {value: 1Gi}}"), &[]);
    check(
        "ResourceSlice",
        &slice("attributes: {k: {int: 1, bool: true}}"),
        &["spec.devices[0].attributes[k]: Invalid value: \"{int, bool}\": must specify exactly one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"],
    );
    let shared = "allowMultipleAllocations: true, capacity: {m: {value: 10, requestPolicy: {default: 3, validRange: {min: 1, step: 4}}}}";
    check(
        "ResourceSlice",
        &slice(shared),
        &[r#"spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: "3": value is not a multiple of a given step (4) from (1)"#],
    );
    let (old, new) = (claim("exactly: {deviceClassName: gpu}"), claim("exactly: {deviceClassName: other}"));
    check_update("resource.k8s.io", "ResourceClaim", true, &old, &new, &["spec: Invalid value: null: field is immutable"]);
}

#[test]
fn volumes_of_drivers_that_left_the_tree_are_checked() {
    let check = |volume: &str, expected: &[&str]| check_pod("", &format!("volumes: [{{name: v, {volume}}}]"), expected);
    check("flocker: {datasetName: a}", &[]);
    check("flocker: {}", &["spec.volumes[0].flocker: Required value: one of datasetName and datasetUUID is required"]);
    check("iscsi: {targetPortal: p, iqn: iqn.x, lun: 1}", &[r#"spec.volumes[0].iscsi.iqn: Invalid value: "iqn.x": must be valid format"#]);
    check("fc: {targetWWNs: [a]}", &["spec.volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified"]);
    check("quobyte: {registry: a, volume: v}", &[r#"spec.volumes[0].quobyte.registry: Invalid value: "a": must be a host:port pair or multiple pairs separated by commas"#]);
    check(
        "azureDisk: {diskName: d, diskURI: x, kind: Managed}",
        &[r#"spec.volumes[0].azureDisk.diskURI: Unsupported value: "x": supported values: "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}""#],
    );
    check("flexVolume: {driver: d, options: {kubernetes.io/a: b}}", &[
        r#"spec.volumes[0].flexVolume.options[kubernetes.io/a]: Invalid value: "kubernetes.io/a": kubernetes.io and k8s.io namespaces are reserved"#,
    ]);
}

#[test]
fn containers_of_a_pod_agree_with_it() {
    let from_file = "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: A}}}]";
    check_pod(from_file, "volumes: [{name: v, emptyDir: {}}]", &[]);
    check_pod(from_file, "", &[r#"spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: "v""#]);
    check_pod("securityContext: {windowsOptions: {hostProcess: true}}", "", &[
        "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
    ]);
}

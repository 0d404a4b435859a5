//! The kinds and the objects of the load.
use anyhow::Context;
use serde_json::{Value, json};

use crate::NAMESPACE;

/// Two hundred lines, with five rules.
const SCHEMA: &str = include_str!("widget.yaml");
/// Definitions of one group, as operators have them.
const KINDS_OF_GROUP: usize = 10;

/// One of many custom kinds that differ only in their names.
#[derive(Clone)]
pub struct Kind {
    pub group: String,
    pub plural: String,
    kind: String,
}

impl Kind {
    /// The kinds of different sets meet in no group.
    pub fn new(set: &str, number: usize) -> Self {
        Self {
            group: format!("g{}.{set}.load.example", number / KINDS_OF_GROUP),
            plural: format!("widgets{number}"),
            kind: format!("Widget{number}"),
        }
    }

    pub fn definition_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    pub fn definition(&self) -> anyhow::Result<Value> {
        let schema: Value = serde_saphyr::from_str(SCHEMA).context("widget.yaml")?;
        let names = json!({ "plural": self.plural, "singular": self.plural, "kind": self.kind, "listKind": format!("{}List", self.kind) });
        let columns = json!([{ "name": "Image", "type": "string", "jsonPath": ".spec.image" }, { "name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas" },
            { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }]);
        let version = json!({ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
            "subresources": { "status": {} }, "additionalPrinterColumns": columns });
        Ok(json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": self.definition_name() },
            "spec": { "group": self.group, "scope": "Namespaced", "names": names, "versions": [version] } }))
    }

    /// The path of its objects; `rest` begins with a slash or a question mark, or is empty.
    pub fn path(&self, rest: &str) -> String {
        format!("/apis/{}/v1/namespaces/{NAMESPACE}/{}{rest}", self.group, self.plural)
    }

    pub fn object(&self, name: &str, number: usize) -> Value {
        let environment: Vec<Value> = (0..5).map(|i| json!({ "name": format!("VARIABLE_{i}"), "value": "some value" })).collect();
        json!({ "apiVersion": format!("{}/v1", self.group), "kind": self.kind,
            "metadata": { "name": name, "labels": labels(number), "annotations": { "example.com/owner": "load" } },
            "spec": { "image": "registry.example.com/load/main:1.0", "replicas": 3, "env": environment,
                "ports": [{ "name": "http", "port": 8080, "targetPort": "http" }, { "port": 9090, "targetPort": 9090 }],
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                "storage": { "size": "1Gi" }, "selector": { "app": "load" },
                "tolerations": [{ "key": "example.com/load", "operator": "Exists" }], "settings": { "colour": "green", "sizes": [1, 2, 3] } } })
    }
}

/// The path of every definition, or of one.
pub fn definitions(name: &str) -> String {
    format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions{name}")
}

/// One in a hundred has the same number.
fn labels(number: usize) -> Value {
    json!({ "app": "load", "number": format!("n{}", number % 100) })
}

fn template() -> Value {
    let environment: Vec<Value> = (0..5).map(|i| json!({ "name": format!("VARIABLE_{i}"), "value": "some value" })).collect();
    json!({ "metadata": { "labels": { "app": "load" } }, "spec": { "containers": [{ "name": "main", "image": "registry.example.com/load/main:1.0",
        "env": environment, "ports": [{ "name": "http", "containerPort": 8080 }],
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
        "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } } }] } })
}

/// A built-in kind that no controller looks at, with objects about as large as a custom one.
pub fn pod_template(name: &str, number: usize) -> Value {
    json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": name, "labels": labels(number), "annotations": { "example.com/owner": "load" } },
        "template": template() })
}

/// No scheduler takes it.
pub fn pod(name: &str, number: usize) -> Value {
    let mut pod = template();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"] = json!({ "name": name, "labels": labels(number), "annotations": { "example.com/owner": "load" } });
    pod["spec"]["schedulerName"] = "nobody".into();
    pod
}

/// Paused and without replicas: of the servers only rk has a controller for it, which is to have little to do.
pub fn deployment(name: &str, change: usize) -> Value {
    let mut template = template();
    template["spec"]["containers"][0]["image"] = format!("registry.example.com/load/main:1.{change}").into();
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": { "app": "load" } },
        "spec": { "replicas": 0, "paused": true, "selector": { "matchLabels": { "app": "load" } }, "template": template } })
}

/// Ten expressions that a ConfigMap of the load fulfils, unless it has the key `forbidden`.
pub fn policy(name: &str) -> Value {
    let expressions = [
        "!('forbidden' in object.data)",
        "object.metadata.name.matches('^[a-z][a-z0-9-]*$')",
        "has(object.data) && object.data.all(key, key.size() < 64)",
        "object.data.all(key, object.data[key].size() < 4096)",
        "!has(object.binaryData) || object.binaryData.size() == 0",
        "object.metadata.namespace == request.namespace",
        "request.operation in ['CREATE', 'UPDATE']",
        "namespaceObject.metadata.name.startsWith('load')",
        "!has(object.immutable) || !object.immutable || oldObject == null",
        "size(object.data) <= variables.limit",
    ];
    let validations: Vec<Value> = expressions.iter().map(|expression| json!({ "expression": expression })).collect();
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": name },
        "spec": { "variables": [{ "name": "limit", "expression": "100" }], "validations": validations, "matchConstraints": { "resourceRules": [
            { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"] }] } } })
}

pub fn policy_binding(name: &str) -> Value {
    let chosen = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": NAMESPACE } } });
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": name },
        "spec": { "policyName": name, "validationActions": ["Deny"], "matchResources": chosen } })
}

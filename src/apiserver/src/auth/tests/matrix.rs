//! What a stolen credential of an agent is worth: every verb on every resource and subresource, asked of the whole server.
//!
//! The credential is that of node `own`. Everything else is named by whose it is, too: pod `own` runs there and names Secret, ConfigMap,
//! claim and ServiceAccount `own`; those called `other` belong to node `other`, those called `free` to nobody. The table
//! `stolen_node_credential.txt` says who is within reach; it was written from upstream's rules (its head names them), and what it
//! does not list is refused.
use super::*;

const NAMES: [&str; 3] = ["own", "other", "free"];
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const SIGNER: &str = "example.com/s";
/// Requests for CN=system:node:own and CN=system:node:other, O=system:nodes.
const OWN_REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIdE1JR1RBZ0VBTURFeEZUQVRCZ05WQkFvTURITjVjM1JsYlRwdWIyUmxjekVZTUJZR0ExVUVBd3dQYzNsegpkR1Z0T201dlpHVTZiM2R1TUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowREFRY0RRZ0FFVk1PVkpXQ2E0UkJOCkFiNWlBWWx4aktMak1uY1FXTXFtUlNHMzlKRmZMTWRXRnVyKzdkVHBXRENwVzI0TjVWMDNXR2ZvbG56aWx0b2IKeGdiZUZscDNOYUFBTUFvR0NDcUdTTTQ5QkFNQ0Ewa0FNRVlDSVFES2FwL3JmMTU1c1BVTUgrVXFtNGRwd3NYZgorVTJyc0hmMHdPZUJoSENkbUFJaEFPQlVJQysyM0pzUS85dzRuSWw3TEdpbzBWcFJOeWx5OEt6MXhFNXFHUEltCi0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";
const OTHER_REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIdU1JR1ZBZ0VBTURNeEZUQVRCZ05WQkFvTURITjVjM1JsYlRwdWIyUmxjekVhTUJnR0ExVUVBd3dSYzNsegpkR1Z0T201dlpHVTZiM1JvWlhJd1dUQVRCZ2NxaGtqT1BRSUJCZ2dxaGtqT1BRTUJCd05DQUFSa1NwN1ROSGpuCnlOOTI3RmlLanBMN0dHR0dCa2M2ZFV5dHo0alQ1T0FUNHRUN2ZqWU1odjRYVTJoUnB5OG5JZEhEcExva3BvZGwKTjVZMzgxWGUySmdFb0FBd0NnWUlLb1pJemowRUF3SURTQUF3UlFJaEFKVDV0NTJzZ2hVS0I3cmNHejRCTllJTgpmRjRud0liQkRuSU9OVmNOdW03UUFpQTJiYy9DemtjZkk3NnZQWlJSbEpRVUE1Y1h0NWxMRnRHUkF2OXl2Z0FNCmdnPT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

struct Matrix {
    cluster: Cluster,
    thief: UserInfo,
}

fn root() -> UserInfo {
    UserInfo::new("root", &["system:masters"])
}

/// Where a kind is served; Leases of nodes have a namespace of their own.
fn collection(resource: &api::registry::Resource, namespace: &str) -> String {
    let group = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let namespace = if resource.namespaced && !namespace.is_empty() { format!("namespaces/{namespace}/") } else { String::new() };
    format!("{group}/{}/{namespace}{}", resource.version, resource.plural)
}

impl Matrix {
    async fn new() -> Self {
        let matrix =
            Self { cluster: Cluster::new().await, thief: UserInfo::new("system:node:own", &["system:nodes", "system:authenticated"]) };
        let make = |path: &'static str, body: String| {
            let cluster = &matrix.cluster;
            async move {
                let (code, answer) = cluster.call(&root(), "POST", path, &body).await;
                assert_eq!(code, 201, "{path} {body}: {}", String::from_utf8_lossy(&answer.to_json()));
            }
        };
        make("/api/v1/namespaces", named("ns")).await;
        for name in NAMES {
            make("/api/v1/nodes", named(name)).await;
            for plural in ["secrets", "configmaps", "serviceaccounts"] {
                let path: &'static str = format!("/api/v1/namespaces/ns/{plural}").leak();
                make(path, named(name)).await;
            }
            let claim = r#""accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}"#;
            make("/api/v1/namespaces/ns/persistentvolumeclaims", with_spec(name, claim)).await;
            let volume = format!(
                r#""accessModes":["ReadWriteOnce"],"capacity":{{"storage":"1Gi"}},"claimRef":{{"namespace":"ns","name":"{name}"}},
                "csi":{{"driver":"d.example.com","volumeHandle":"h","nodeStageSecretRef":{{"namespace":"ns","name":"{name}-stage"}},
                "controllerPublishSecretRef":{{"namespace":"ns","name":"{name}-controller"}}}}"#
            );
            make("/api/v1/persistentvolumes", with_spec(name, &volume)).await;
            make("/api/v1/namespaces/ns/secrets", named(&format!("{name}-stage"))).await;
            make("/api/v1/namespaces/ns/secrets", named(&format!("{name}-controller"))).await;
            let attachment = format!(r#""attacher":"d.example.com","nodeName":"{name}","source":{{"persistentVolumeName":"{name}"}}"#);
            make("/apis/storage.k8s.io/v1/volumeattachments", with_spec(name, &attachment)).await;
            make("/apis/storage.k8s.io/v1/csinodes", with_spec(name, r#""drivers":[]"#)).await;
            make("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", with_spec(name, "")).await;
            let slice =
                format!(r#""driver":"d.example.com","nodeName":"{name}","pool":{{"name":"p","generation":1,"resourceSliceCount":1}}"#);
            make("/apis/resource.k8s.io/v1/resourceslices", with_spec(name, &slice)).await;
            make("/apis/resource.k8s.io/v1/namespaces/ns/resourceclaims", with_spec(name, "")).await;
            make("/api/v1/namespaces/ns/pods", with_spec(name, &pod(if name == "free" { "" } else { name }, name))).await;
        }
        for name in NAMES {
            let body = matrix.body("podcertificaterequests", "", name).await;
            make("/apis/certificates.k8s.io/v1/namespaces/ns/podcertificaterequests", body).await;
            let body = matrix.body("certificatesigningrequests", "", name).await;
            make("/apis/certificates.k8s.io/v1/certificatesigningrequests", body).await;
        }
        matrix
    }

    async fn uid(&self, path: &str) -> String {
        let (_, object) = self.cluster.call(&root(), "GET", path, "").await;
        api::meta::uid(&object).to_owned()
    }

    /// What is created under `name`, or of it.
    async fn body(&self, plural: &str, subresource: &str, name: &str) -> String {
        let node = self.uid(&format!("/api/v1/nodes/{name}")).await;
        let pod = self.uid(&format!("/api/v1/namespaces/ns/pods/{name}")).await;
        match (plural, subresource) {
            ("pods", "") => format!(
                r#"{{"metadata":{{"name":"mirror-{name}","annotations":{{"kubernetes.io/config.mirror":"x"}},"ownerReferences":[{{"apiVersion":"v1",
                "kind":"Node","name":"{name}","uid":"{node}","controller":true}}]}},"spec":{{"nodeName":"{name}","containers":[{{"name":"c","image":"i"}}]}}}}"#
            ),
            ("serviceaccounts", "token") => format!(
                r#"{{"spec":{{"audiences":[],"boundObjectRef":{{"apiVersion":"v1","kind":"Pod","name":"{name}","uid":"{pod}"}}}}}}"#
            ),
            ("resourceslices", "") => with_spec(
                &format!("new-{name}"),
                &format!(r#""driver":"d.example.com","nodeName":"{name}","pool":{{"name":"q","generation":1,"resourceSliceCount":1}}"#),
            ),
            ("csinodes", "") => with_spec(name, r#""drivers":[]"#),
            ("podcertificaterequests", "") => {
                let account = self.uid(&format!("/api/v1/namespaces/ns/serviceaccounts/{name}")).await;
                with_spec(
                    name,
                    &format!(
                        r#""signerName":"{SIGNER}","podName":"{name}","podUID":"{pod}","serviceAccountName":"{name}","serviceAccountUID":"{account}",
                    "nodeName":"{name}","nodeUID":"{node}","maxExpirationSeconds":86400,"stubPKCS10Request":"{}""#,
                        stub()
                    ),
                )
            }
            ("certificatesigningrequests", "") => {
                let (request, signer) = match name {
                    "own" => (OWN_REQUEST, "kubernetes.io/kube-apiserver-client-kubelet"),
                    "other" => (OTHER_REQUEST, "kubernetes.io/kube-apiserver-client-kubelet"),
                    _ => (OTHER_REQUEST, SIGNER),
                };
                with_spec(name, &format!(r#""request":"{request}","signerName":"{signer}","usages":["digital signature","client auth"]"#))
            }
            _ => named(name),
        }
    }

    async fn may(&self, method: &str, path: &str, body: &str) -> bool {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", media).body(Body::from(body.to_owned()));
        // A watch has answered once its head is there.
        self.cluster.server.local(self.thief.clone()).call(request.unwrap()).await.unwrap().status() != 403
    }

    /// Those of `forms` that are let through, as one word.
    async fn cell(&self, forms: Vec<(&str, &str, String, String)>) -> String {
        let mut allowed = Vec::new();
        for (form, method, path, body) in &forms {
            if self.may(method, path, body).await {
                allowed.push(*form);
            }
        }
        match allowed.len() {
            0 => "-".to_owned(),
            // Whoever may have the whole may have its parts.
            _ if allowed.len() == forms.len() || allowed.contains(&"all") => "all".to_owned(),
            _ => allowed.join(","),
        }
    }

    async fn row(&self, resource: &'static api::registry::Resource, subresource: &str) -> [String; 8] {
        let namespace = if resource.plural == "leases" { "kube-node-lease" } else { "ns" };
        let base = collection(resource, namespace);
        let suffix = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        let mut cells = VERBS.map(|_| "-".to_owned());
        for (at, verb) in VERBS.into_iter().enumerate() {
            let mut forms: Vec<(&str, &str, String, String)> = Vec::new();
            match verb {
                "list" | "watch" | "deletecollection" if subresource.is_empty() => {
                    let (method, extra) = match verb {
                        "list" => ("GET", ""),
                        "watch" => ("GET", "&watch=1&timeoutSeconds=1"),
                        _ => ("DELETE", "&dryRun=All"),
                    };
                    let all = collection(resource, "");
                    let mut form =
                        |form, path: &str, query: &str| forms.push((form, method, format!("{path}?{query}{extra}"), String::new()));
                    form("all", &all, "");
                    form("namespace", &base, "");
                    for (name, node) in [("own", "of own node"), ("other", "of other node"), ("free", "of free node")] {
                        form(name, &base, &format!("fieldSelector=metadata.name%3D{name}"));
                        form(node, &all, &format!("fieldSelector=spec.nodeName%3D{name}"));
                    }
                    // Looks like a name, is none.
                    form("TRICK", &base, "fieldSelector=metadata.name!%3Dx%5C,metadata.name%3Down");
                }
                "list" | "watch" | "deletecollection" => continue,
                _ => {
                    for name in NAMES {
                        let path = format!("{base}/{name}{suffix}");
                        forms.push(match verb {
                            "get" => (name, "GET", path, String::new()),
                            "create" if subresource.is_empty() => {
                                (name, "POST", base.clone() + "?dryRun=All", self.body(&resource.plural, "", name).await)
                            }
                            "create" => (name, "POST", path + "?dryRun=All", self.body(&resource.plural, subresource, name).await),
                            "update" => {
                                let (code, object) = self.cluster.call(&root(), "GET", &path, "").await;
                                let body = if code == 200 { String::from_utf8(object.to_json()).unwrap() } else { named(name) };
                                (name, "PUT", path + "?dryRun=All", body)
                            }
                            "patch" => (name, "PATCH", path + "?dryRun=All", "{}".to_owned()),
                            _ => (name, "DELETE", path + "?dryRun=All", String::new()),
                        });
                    }
                }
            }
            cells[at] = self.cell(forms).await;
        }
        cells
    }
}

fn named(name: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}}}}"#)
}

fn with_spec(name: &str, spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{{spec}}}}}"#)
}

fn pod(node: &str, name: &str) -> String {
    format!(
        r#""nodeName":"{node}","serviceAccountName":"{name}","resourceClaims":[{{"name":"r","resourceClaimName":"{name}"}}],
        "containers":[{{"name":"c","image":"i","envFrom":[{{"secretRef":{{"name":"{name}"}}}},{{"configMapRef":{{"name":"{name}"}}}}]}}],
        "volumes":[{{"name":"v","persistentVolumeClaim":{{"claimName":"{name}"}}}},{{"name":"p","projected":{{"sources":[
        {{"serviceAccountToken":{{"path":"t"}}}},
        {{"podCertificate":{{"signerName":"{SIGNER}","keyType":"ECDSAP256","credentialBundlePath":"b"}}}}]}}}}]"#
    )
}

fn line(name: &str, cells: &[String; 8]) -> String {
    let cells = VERBS.iter().zip(cells).filter(|(_, cell)| *cell != "-").map(|(verb, cell)| format!("{verb}: {cell}"));
    format!("{name:<52} {}", cells.collect::<Vec<_>>().join("; "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_node_credential_reaches_its_own_and_nothing_else() {
    let matrix = Matrix::new().await;
    let mut found = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut asked = 0;
    for resource in api::registry::Registry::get().served() {
        // Versions of one kind are one thing to whoever authorizes.
        if !seen.insert((&resource.group, &resource.plural)) {
            continue;
        }
        for subresource in std::iter::once("").chain(resource.subresources.iter().map(|sub| sub.name)) {
            asked += 1;
            let cells = matrix.row(resource, subresource).await;
            let slash = if subresource.is_empty() { "" } else { "/" };
            if cells.iter().any(|cell| cell != "-") {
                found.push(line(&format!("{}{slash}{subresource}", resource.group_resource()), &cells));
            }
        }
    }
    assert!(asked > 100, "{asked} resources and subresources");
    for path in [
        "/",
        "/api",
        "/apis",
        "/cacerts",
        "/healthz",
        "/livez",
        "/logs",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/.well-known/openid-configuration",
        "/readyz",
        "/version",
        "/debug/pprof/",
        "/configz",
    ] {
        let mut cells = VERBS.map(|_| "-".to_owned());
        cells[0] = matrix.cell(vec![("all", "GET", path.to_owned(), String::new())]).await;
        if cells[0] != "-" {
            found.push(line(path, &cells));
        }
    }
    for (group, resource, subresource, verb) in [
        ("", "users", "", "impersonate"),
        ("", "groups", "", "impersonate"),
        ("", "serviceaccounts", "", "impersonate"),
        ("authentication.k8s.io", "uids", "", "impersonate"),
        ("certificates.k8s.io", "signers", "", "approve"),
        ("certificates.k8s.io", "signers", "", "sign"),
        ("certificates.k8s.io", "signers", "", "attest"),
        ("certificates.k8s.io", "certificatesigningrequests", "nodeclient", "create"),
        ("certificates.k8s.io", "certificatesigningrequests", "selfnodeclient", "create"),
        ("rbac.authorization.k8s.io", "clusterroles", "", "bind"),
        ("rbac.authorization.k8s.io", "clusterroles", "", "escalate"),
        ("", "serviceaccounts", "", "request-serviceaccounts-token-audience"),
    ] {
        let attributes = Attributes {
            user: &matrix.thief,
            verb,
            api_group: group,
            api_version: "*",
            resource,
            subresource,
            namespace: "",
            name: "own",
            resource_request: true,
            path: "",
            fields: &ALL_FIELDS,
            labels: &ALL_LABELS,
        };
        if matrix.cluster.server.0.parts.authorizer.authorize(&attributes).allowed() {
            found.push(format!("{:<52} {verb}", format!("{resource}/{subresource}")));
        }
    }
    // Secrets that volumes name.
    for name in NAMES {
        for of in ["stage", "controller"] {
            if matrix.may("GET", &format!("/api/v1/namespaces/ns/secrets/{name}-{of}"), "").await {
                found.push(format!("{:<52} get", format!("secrets of volumes: {name}-{of}")));
            }
        }
    }
    for (name, is_told) in [("rk-cluster", true), ("own.node-key", false), ("", false)] {
        let path = format!("/api/v1/namespaces/kube-system/configmaps/{name}");
        assert_eq!(matrix.may("GET", path.trim_end_matches('/'), "").await, is_told, "{name}");
        assert!(!matrix.may("PATCH", &path, "{}").await, "{name}");
    }
    for verb in ["GET", "PUT", "PATCH", "DELETE"] {
        let path = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/own?dryRun=All";
        assert!(!matrix.may(verb, path, "{}").await, "a Lease that is no node's");
    }
    let wanted: Vec<&str> = include_str!("stolen_node_credential.txt").lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    let extra: Vec<_> = found.iter().filter(|line| !wanted.contains(&line.as_str())).collect();
    let missing: Vec<_> = wanted.iter().filter(|line| !found.iter().any(|f| f == *line)).collect();
    assert!(extra.is_empty() && missing.is_empty(), "not in the table:\n{extra:#?}\nin the table, but refused:\n{missing:#?}");
}

/// A request as the kubelet sends it along, in base64: signed, and empty.
fn stub() -> String {
    use base64::Engine as _;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
    base64::engine::general_purpose::STANDARD.encode(request.der())
}

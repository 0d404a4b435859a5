use super::graph::edges;
use super::*;

fn pod(node: &str) -> Tree {
    let text = format!(
        r#"{{"metadata":{{"name":"p","namespace":"ns"}},"spec":{{"nodeName":"{node}","serviceAccountName":"sa",
        "imagePullSecrets":[{{"name":"pull"}}],
        "initContainers":[{{"name":"i","envFrom":[{{"secretRef":{{"name":"from"}}}}]}}],
        "containers":[{{"name":"c","env":[{{"name":"A","valueFrom":{{"configMapKeyRef":{{"name":"env","key":"k"}}}}}}]}}],
        "volumes":[{{"name":"v","persistentVolumeClaim":{{"claimName":"claim"}}}},{{"name":"e","ephemeral":{{}}}},
        {{"name":"t","projected":{{"sources":[{{"configMap":{{"name":"ca"}}}},{{"secret":{{"name":"proj"}}}}]}}}}]}}}}"#
    );
    Tree::from_json(text.as_bytes()).unwrap()
}

#[test]
fn a_pod_joins_what_it_names_to_its_node() {
    let mut graph = Graph::default();
    graph.set("ns/p", edges(&pod("a"), "ns"));
    let named = [
        (Named::ServiceAccount, "sa"),
        (Named::Secret, "pull"),
        (Named::Secret, "from"),
        (Named::Secret, "proj"),
        (Named::ConfigMap, "env"),
        (Named::ConfigMap, "ca"),
        (Named::Claim, "claim"),
        (Named::Claim, "p-e"),
    ];
    for (kind, name) in named {
        assert!(graph.joins("a", kind, "ns", name), "{name}");
        assert!(!graph.joins("b", kind, "ns", name) && !graph.joins("a", kind, "other", name));
    }
    // Two pods share; one goes.
    graph.set("ns/q", edges(&pod("a"), "ns"));
    graph.set("ns/p", Vec::new());
    assert!(graph.joins("a", Named::Secret, "ns", "pull"));
    graph.set("ns/q", Vec::new());
    assert!(graph.edges.is_empty() && graph.pods.is_empty());
}

#[test]
fn a_mirror_pod_and_a_pod_without_a_node_join_nothing() {
    assert!(edges(&pod(""), "ns").is_empty());
    let mut mirror = pod("a");
    api::meta::set_annotation(&mut mirror, "kubernetes.io/config.mirror", "x");
    assert!(edges(&mirror, "ns").is_empty());
}

#[test]
fn only_members_of_the_nodes_group_are_nodes() {
    assert_eq!(name_of(&UserInfo::new("system:node:a", &["system:nodes"])), Some("a"));
    assert_eq!(name_of(&UserInfo::new("system:node:a", &[])), None);
    assert_eq!(name_of(&UserInfo::new("a", &["system:nodes"])), None);
}

#[test]
fn a_claim_from_a_template_is_named_by_the_status_of_the_claim_that_asks_for_it() {
    let text = r#"{"metadata":{"name":"p"},"spec":{"nodeName":"a","resourceClaims":[{"name":"x","resourceClaimTemplateName":"t"},
        {"name":"y","resourceClaimName":"direct"}]},"status":{"resourceClaimStatuses":[{"name":"x","resourceClaimName":"made"},
        {"name":"z","resourceClaimName":"of-nobody"}],"extendedResourceClaimStatus":{"resourceClaimName":"extended"}}}"#;
    let mut graph = Graph::default();
    graph.set("ns/p", edges(&Tree::from_json(text.as_bytes()).unwrap(), "ns"));
    for name in ["made", "direct", "extended"] {
        assert!(graph.joins("a", Named::ResourceClaim, "ns", name), "{name}");
    }
    assert!(!graph.joins("a", Named::ResourceClaim, "ns", "of-nobody"));
}

#[test]
fn of_a_volume_a_kubelet_reads_only_what_it_mounts_with() {
    let volume = |source: &str| {
        let text = format!(r#"{{"spec":{{"claimRef":{{"namespace":"ns","name":"c"}},{source}}}}}"#);
        Tree::from_json(text.as_bytes()).unwrap()
    };
    let names = |source: &str, namespace: &str| graph::volume_names_secret(&volume(source), namespace, "s");
    for field in ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
        let source = format!(r#""csi":{{"{field}":{{"name":"s","namespace":"drivers"}}}}"#);
        assert!(names(&source, "drivers") && !names(&source, "ns"), "{field}");
    }
    for field in ["controllerPublishSecretRef", "controllerExpandSecretRef"] {
        assert!(!names(&format!(r#""csi":{{"{field}":{{"name":"s","namespace":"drivers"}}}}"#), "drivers"), "{field}");
    }
    assert!(names(r#""rbd":{"secretRef":{"name":"s"}}"#, "ns") && names(r#""azureFile":{"secretName":"s"}"#, "ns"));
    assert!(!names(r#""cinder":{"secretRef":{"name":"s"}}"#, "ns"));
}

/// A cluster whose pods come and go, and its authorizer.
struct World {
    store: Arc<dyn store::Store>,
    authorizer: NodeAuthorizer,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn store::Store> =
            Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
        let cache = Cache::start(&store).await.unwrap();
        Self { store, authorizer: NodeAuthorizer::new(&cache), _folder: folder }
    }

    async fn write(&self, pod: &str, operation: store::Operation) {
        let key = crate::cache::key(Registry::get().resource("", "v1", "pods").unwrap(), "ns", pod);
        self.store.write(store::Write { key, operation, expect: store::Expect::Any, durability: store::Durability::Relaxed }).await.unwrap();
    }

    async fn put(&self, pod: &str, phase: &str) {
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{pod}","namespace":"ns"}},"spec":{{"nodeName":"a","serviceAccountName":"of-{pod}"}},"status":{{"phase":"{phase}"}}}}"#
        );
        self.write(pod, store::Operation::Put(text.into_bytes().into())).await;
    }

    fn joins(&self, pod: &str) -> bool {
        self.authorizer.graph().joins("a", Named::ServiceAccount, "ns", &format!("of-{pod}"))
    }
}

#[tokio::test]
async fn pods_that_come_and_go_while_no_node_asks_leave_nothing_behind() {
    let world = World::new().await;
    for i in 0..3000 {
        world.put(&i.to_string(), "Running").await;
    }
    for i in 0..3000 {
        world.write(&i.to_string(), store::Operation::Delete).await;
    }
    let (waiting, room) = world.authorizer.stale.size();
    assert!(waiting == 0 && room <= graph::ROOM, "{waiting} wait, and there is room for {room}");
}

#[tokio::test]
async fn a_pod_joins_what_it_names_whenever_a_node_asks_first() {
    let world = World::new().await;
    world.put("old", "Pending").await;
    world.put("old", "Running").await;
    world.put("new", "Pending").await;
    assert!(world.joins("old") && world.joins("new") && !world.joins("other"));
    world.write("old", store::Operation::Delete).await;
    assert!(!world.joins("old") && world.joins("new"));
    world.write("new", store::Operation::Delete).await;
    world.put("new", "Pending").await;
    assert!(world.joins("new"), "another one of that name");
}

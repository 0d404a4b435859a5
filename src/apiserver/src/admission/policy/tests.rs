use api::registry::Registry;

use super::*;
use crate::auth::UserInfo;
use index::{Active, Binding, Compile, Policy};

fn tree(json: &str) -> Tree {
    Tree::from_json(json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// A cluster with the namespace `n` and two ConfigMaps in it.
struct World {
    cache: Cache,
    store: Arc<dyn store::Store>,
    authorization: Authorization,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn store::Store> =
            Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
        let cache = Cache::start(&store).await.unwrap();
        for (plural, namespace, json) in [
            ("namespaces", "", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n","labels":{"env":"test"}}}"#),
            ("configmaps", "n", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"most","namespace":"n","labels":{"p":"1"}},"data":{"most":"3"}}"#),
            ("configmaps", "n", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"less","namespace":"n","labels":{"p":"1"}},"data":{"most":"5"}}"#),
        ] {
            put(&store, plural, namespace, json).await;
        }
        Self { authorization: Authorization::new(&cache), cache, store, _folder: folder }
    }

    async fn validate(&self, policy: &str, binding: &str, request: &mut Request) -> Result<(), Status> {
        validating::validate(&self.cache, &self.authorization, &active(policy, binding), request).await
    }

    async fn mutate(&self, policy: &str, request: &mut Request) -> Result<(), Status> {
        self.mutate_in(policy, request, &mut Reinvocation::default()).await
    }

    async fn mutate_in(&self, policy: &str, request: &mut Request, rounds: &mut Reinvocation) -> Result<(), Status> {
        mutating::mutate(&self.cache, &self.authorization, &active(policy, r#""x":1"#), request, rounds).await
    }
}

async fn put(store: &Arc<dyn store::Store>, plural: &str, namespace: &str, json: &str) {
    let resource = Registry::get().resource("", "v1", plural).unwrap();
    let key = crate::cache::key(resource, namespace, api::meta::name(&tree(json)));
    let operation = store::Operation::Put(json.as_bytes().to_vec().into());
    store.write(store::Write { key, operation, expect: store::Expect::Any, durability: store::Durability::Relaxed }).await.unwrap();
}

const RULES: &str = r#""failurePolicy":"Fail","matchConstraints":{"matchPolicy":"Equivalent","namespaceSelector":{},"objectSelector":{},
    "resourceRules":[{"operations":["*"],"apiGroups":["apps"],"apiVersions":["v1"],"resources":["deployments"]}]}"#;

fn active<C: Compile>(policy: &str, binding: &str) -> Vec<Active<C>> {
    let policy = Policy::read(&tree(&format!(r#"{{"metadata":{{"name":"p"}},"spec":{{{RULES},{policy}}}}}"#)));
    let binding = Binding::read(&tree(&format!(r#"{{"metadata":{{"name":"b"}},"spec":{{"policyName":"p",{binding}}}}}"#)));
    vec![Active { policy: Arc::new(policy), bindings: vec![Arc::new(binding)] }]
}

fn deployment(replicas: i64) -> Request {
    let json = format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d","namespace":"n"}},"spec":{{"replicas":{replicas},
        "template":{{"spec":{{"containers":[{{"name":"a","image":"i"}}]}}}}}}}}"#
    );
    Request {
        user: std::sync::Arc::new(UserInfo::new("me", &["us"])),
        operation: Operation::Create,
        resource: Registry::get().resource("apps", "v1", "deployments").unwrap().into(),
        subresource: "",
        namespace: "n".to_owned(),
        name: "d".to_owned(),
        object: tree(&json),
        old: None,
        dry_run: false,
        warnings: Vec::new(),
    }
}

const DENY: &str = r#""validationActions":["Deny"]"#;

#[tokio::test]
async fn a_rule_that_does_not_hold_denies_in_upstream_s_words() {
    let world = World::new().await;
    let rule = r#""validations":[{"expression":"object.spec.replicas > 1","messageExpression":"'got ' + string(object.spec.replicas)"}]"#;
    assert_eq!(world.validate(rule, DENY, &mut deployment(2)).await, Ok(()));
    let status = world.validate(rule, DENY, &mut deployment(1)).await.unwrap_err();
    let message = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: got 1";
    assert_eq!(status.message, format!("deployments.apps \"d\" is forbidden: {message}"));
    assert_eq!((status.code, status.reason), (422, "Invalid"));
    assert_eq!(status.details.unwrap().causes[0].message, message);
    let silent = rule.replace(r#","messageExpression":"'got ' + string(object.spec.replicas)""#, r#","reason":"Forbidden""#);
    let status = world.validate(&silent, DENY, &mut deployment(1)).await.unwrap_err();
    assert!(status.message.ends_with("denied request: failed expression: object.spec.replicas > 1"), "{}", status.message);
    assert_eq!((status.code, status.reason), (403, "Forbidden"));
}

#[tokio::test]
async fn actions_and_failures_are_what_the_policy_says() {
    let world = World::new().await;
    let rule = r#""validations":[{"expression":"object.spec.replicas > 1","message":"too few"}]"#;
    let mut request = deployment(1);
    assert_eq!(world.validate(rule, r#""validationActions":["Warn","Audit"]"#, &mut request).await, Ok(()));
    assert_eq!(request.warnings, ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': too few"]);
    let fails = r#""validations":[{"expression":"object.spec.absent == 1"}]"#;
    let status = world.validate(fails, DENY, &mut deployment(1)).await.unwrap_err();
    let text = "denied request: expression 'object.spec.absent == 1' resulted in error: no such key: absent";
    assert!(status.message.ends_with(text), "{}", status.message);
    // What is given twice is meant the second time.
    assert_eq!(world.validate(&format!(r#"{fails},"failurePolicy":"Ignore""#), DENY, &mut deployment(1)).await, Ok(()));
    let annotation = r#""auditAnnotations":[{"key":"k","valueExpression":"string(object.spec.absent)"}]"#;
    let status = world.validate(annotation, DENY, &mut deployment(1)).await.unwrap_err();
    assert!(status.message.contains("no such key: absent"), "{}", status.message);
}

#[tokio::test]
async fn variables_conditions_and_what_is_around_the_object() {
    let world = World::new().await;
    let policy = r#""variables":[{"name":"r","expression":"object.spec.replicas"},{"name":"odd","expression":"variables.r % 2 == 1"}],
        "matchConditions":[{"name":"c","expression":"request.userInfo.username == 'me'"}],
        "validations":[{"expression":"variables.odd && variables.r > 1"},
            {"expression":"namespaceObject.metadata.labels.env == 'test' && request.operation == 'CREATE' && oldObject == null"},
            {"expression":"!authorizer.group('').resource('pods').check('get').allowed()"}]"#;
    assert_eq!(world.validate(policy, DENY, &mut deployment(3)).await, Ok(()));
    assert!(world.validate(policy, DENY, &mut deployment(2)).await.is_err());
    let mut other = deployment(2);
    other.user = std::sync::Arc::new(UserInfo::new("you", &[]));
    assert_eq!(world.validate(policy, DENY, &mut other).await, Ok(()));
    let fails = r#""matchConditions":[{"name":"c","expression":"object.spec.absent"}],"validations":[{"expression":"true"}]"#;
    let status = world.validate(fails, DENY, &mut deployment(2)).await.unwrap_err();
    assert!(status.message.contains("compilation error: must evaluate to bool but got dyn"), "{}", status.message);
}

#[tokio::test]
async fn parameters_are_found_by_name_and_by_label() {
    let world = World::new().await;
    let policy = r#""paramKind":{"apiVersion":"v1","kind":"ConfigMap"},"validations":[{"expression":"object.spec.replicas <= int(params.data.most)"}]"#;
    let bound = |params: &str| format!(r#"{DENY},"paramRef":{{{params}}}"#);
    let by_name = bound(r#""name":"less","parameterNotFoundAction":"Deny""#);
    let by_label = bound(r#""selector":{"matchLabels":{"p":"1"}},"parameterNotFoundAction":"Deny""#);
    assert_eq!(world.validate(policy, &by_name, &mut deployment(4)).await, Ok(()));
    assert!(world.validate(policy, &by_label, &mut deployment(4)).await.is_err());
    let absent = |action: &str| bound(&format!(r#""name":"none","parameterNotFoundAction":"{action}""#));
    assert_eq!(world.validate(policy, &absent("Allow"), &mut deployment(4)).await, Ok(()));
    let status = world.validate(policy, &absent("Deny"), &mut deployment(4)).await.unwrap_err();
    let text = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed to configure binding: no params found for policy \
                binding with `Deny` parameterNotFoundAction";
    assert!(status.message.ends_with(text), "{}", status.message);
    let unknown = policy.replace("ConfigMap", "Confusion");
    let status = world.validate(&unknown, &by_name, &mut deployment(4)).await.unwrap_err();
    let text = "denied request: failed to configure policy: failed to find resource referenced by paramKind: '/v1, Kind=Confusion'";
    assert!(status.message.ends_with(text), "{}", status.message);
}

#[tokio::test]
async fn policies_change_objects_by_configuration_and_by_patch() {
    let world = World::new().await;
    let mutation = |kind: &str, field: &str, expression: &str| {
        format!(r#""reinvocationPolicy":"Never","mutations":[{{"patchType":"{kind}","{field}":{{"expression":"{expression}"}}}}]"#)
    };
    let apply = |expression: &str| mutation("ApplyConfiguration", "applyConfiguration", expression);
    let mut request = deployment(1);
    let containers = "Object{spec: Object.spec{replicas: 3, template: Object.spec.template{spec: Object.spec.template.spec{\
                      containers: [Object.spec.template.spec.containers{name: 'a', workingDir: '/w'}]}}}}";
    world.mutate(&apply(containers), &mut request).await.unwrap();
    assert_eq!(request.object.at(&["spec", "replicas"]), Some(&Tree::Integer(3)));
    let container = &request.object.array_at(&["spec", "template", "spec", "containers"])[0];
    assert_eq!((container.str_at(&["image"]), container.str_at(&["workingDir"])), ("i", "/w"));
    let patch = mutation("JSONPatch", "jsonPatch", "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'a': object.metadata.name}}]");
    world.mutate(&patch, &mut request).await.unwrap();
    assert_eq!(request.object.str_at(&["metadata", "labels", "a"]), "d");
    let test = mutation("JSONPatch", "jsonPatch", "[JSONPatch{op: 'test', path: '/spec/replicas', value: 7}, JSONPatch{op: 'remove', path: '/spec'}]");
    world.mutate(&test, &mut request).await.unwrap();
    assert_eq!(request.object.at(&["spec", "replicas"]), Some(&Tree::Integer(3)));
    let wrong = apply("Object{spec: Object.metadata{name: 'x'}}");
    let status = world.mutate(&wrong, &mut request).await.unwrap_err();
    let text = "type mismatch: unexpected type name \"Object.metadata\", expected \"Object.spec\", which matches field name path from root Object type";
    assert!(status.message.ends_with(text), "{}", status.message);
    let status = world.mutate(&apply("Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}"), &mut request).await.unwrap_err();
    let text = "policy 'p' with binding 'b' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, \
                maps or structs: .spec.selector";
    assert_eq!((status.message.as_str(), status.code, status.reason), (text, 403, "Invalid"));
}

#[tokio::test]
async fn who_changed_the_object_is_asked_again_if_it_wants_to_be() {
    let world = World::new().await;
    let remove = |policy: &str| {
        format!(
            r#""reinvocationPolicy":"{policy}","mutations":[{{"patchType":"JSONPatch","jsonPatch":{{"expression":"[JSONPatch{{op: 'remove', path: '/spec/template/spec/containers/0/image'}}]"}}}}]"#
        )
    };
    for (policy, is_asked) in [("Never", false), ("IfNeeded", true)] {
        let (mut request, mut rounds) = (deployment(1), Reinvocation::default());
        let policies = remove(policy);
        world.mutate_in(&policies, &mut request, &mut rounds).await.unwrap();
        assert!(rounds.begin_again());
        assert_eq!(world.mutate_in(&policies, &mut request, &mut rounds).await.is_err(), is_asked, "{policy}");
    }
}

#[tokio::test]
async fn of_many_variables_each_is_found_and_a_chain_of_them_has_an_end() {
    let world = World::new().await;
    let policy = |count: usize, expression: &dyn Fn(usize) -> String, rule: &str| {
        let variables: Vec<String> = (0..count).map(|i| format!(r#"{{"name":"v{i}","expression":"{}"}}"#, expression(i))).collect();
        format!(r#""variables":[{}],"validations":[{{"expression":"{rule}"}}]"#, variables.join(","))
    };
    let many = policy(500, &|i| i.to_string(), "variables.v0 == 0 && variables.v499 == 499 && variables.v77 + variables.v78 == 155");
    assert_eq!(world.validate(&many, DENY, &mut deployment(1)).await, Ok(()));
    let after_another = |i: usize| if i == 0 { "object.spec.replicas".to_owned() } else { format!("variables.v{} + 1", i - 1) };
    let chain = |count: usize| policy(count, &after_another, &format!("variables.v{} == {count}", count - 1));
    assert_eq!(world.validate(&chain(10), DENY, &mut deployment(1)).await, Ok(()));
    let status = world.validate(&chain(3000), DENY, &mut deployment(1)).await.unwrap_err();
    assert!(status.message.ends_with("variables ask for one another too deeply"), "{}", status.message);
}

#[tokio::test]
async fn expressions_see_the_namespace_as_it_is_now() {
    let world = World::new().await;
    let rule = |env: &str| format!(r#""validations":[{{"expression":"namespaceObject.metadata.labels.env == '{env}'"}}]"#);
    for env in ["test", "live", "test"] {
        put(&world.store, "namespaces", "", &format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"n","labels":{{"env":"{env}"}}}}}}"#)).await;
        for _ in 0..2 {
            assert_eq!(world.validate(&rule(env), DENY, &mut deployment(1)).await, Ok(()), "{env}");
            assert!(world.validate(&rule("other"), DENY, &mut deployment(1)).await.is_err(), "{env}");
        }
    }
    // Another cluster has another namespace of that name.
    let other = World::new().await;
    put(&other.store, "namespaces", "", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n","labels":{"env":"other"}}}"#).await;
    assert_eq!(other.validate(&rule("other"), DENY, &mut deployment(1)).await, Ok(()));
}

//! Rules on data with a schema come out as upstream has them. `facts.jsonl`: first a schema and an object, then expressions with what
//! apiextensions-apiserver v0.37.1 made of them.
use cel::{CostLimit, DeclaredSizes, Environment, Value, Version};

use super::super::Structural;
use super::super::declare::declare;
use crate::tree::Tree;

/// A value as the facts print it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Uint(u) => format!("{u}u"),
        Value::Double(_) => format!("d{value}"),
        Value::String(text) => String::from_utf8_lossy(&Tree::from(&**text).to_json()).into_owned(),
        Value::Duration(nanos) => format!("duration({nanos})"),
        Value::Timestamp(at) => format!("timestamp({}.{:09})", at.seconds(), at.nanos()),
        Value::Optional(None) => "none".into(),
        Value::Optional(Some(of)) => format!("some({})", show(of)),
        Value::Type(of) => format!("type({})", of.runtime_name()),
        Value::List(list) => format!("[{}]", list.iter().map(|item| show(&item)).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let mut entries: Vec<String> = map.entries().map(|(key, value)| format!("{}: {}", show(&key), show(&value))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Bool(_) | Value::Int(_) => value.to_string(),
        other => format!("<{}>", other.type_of().runtime_name()),
    }
}

#[test]
fn expressions_on_declared_data_come_out_as_upstream_has_them() {
    let mut lines = include_str!("facts.jsonl").lines().map(|line| Tree::from_json(line.as_bytes()).expect("a line of facts"));
    let head = lines.next().expect("a schema");
    let schema = Structural::compile(head.get("schema").expect("a schema"));
    let declared = declare(&schema, false, "selfType").expect("it can be declared");
    let object = head.get("self").expect("an object");
    let environment = Environment::base(Version::CURRENT).with_variable("self", declared.clone());
    let mut wrong = String::new();
    for fact in lines {
        let expression = fact.str_at(&["expr"]);
        let mut check = |what: &str, ours: &str, theirs: &str| {
            if ours != theirs {
                wrong.push_str(&format!("{expression}\n  {what}: {ours}\n  upstream: {theirs}\n"));
            }
        };
        let program = match environment.compile(expression) {
            Ok(program) => program,
            Err(issues) => {
                check("issues", &issues.to_string(), fact.str_at(&["issues"]));
                continue;
            }
        };
        check("issues", "", fact.str_at(&["issues"]));
        let number = |key: &str| fact.get(key).map_or(String::new(), |n| String::from_utf8_lossy(&n.to_json()).into_owned());
        let estimate = program.estimate(&DeclaredSizes(&declared));
        check("least", &estimate.min.to_string(), &number("min"));
        if let Some(Tree::Integer(most)) = fact.get("max") {
            check("most", &estimate.max.to_string(), &most.to_string());
        }
        let variables = [("self", Value::read(object, &declared))];
        let evaluation = program.evaluate(&variables.as_slice(), CostLimit::PER_CALL);
        check("cost", &evaluation.cost.to_string(), &number("cost"));
        match &evaluation.value {
            Ok(value) => check("value", &show(value), fact.str_at(&["value"])),
            Err(error) => check("error", &error.to_string(), fact.str_at(&["error"])),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn tree(yaml: &str) -> Tree {
    crate::codec::parse_yaml(yaml.as_bytes()).expect("YAML").tree
}

/// What is wrong with an object, or with its update.
#[track_caller]
fn wrong(schema: &str, new: &str, old: Option<&str>, expected: &[&str]) {
    let rules = super::Rules::compile(&Structural::compile(&tree(schema))).expect("there are rules");
    let (new, old) = (tree(new), old.map(tree));
    let mut errors = Vec::new();
    super::check(&mut errors, Some(&rules), &new, old.as_ref());
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected);
}

const REPLICAS: &str = "{type: object, properties: {spec: {type: object, x-kubernetes-validations: [{rule: 'self.min <= self.max', message: too many}, {rule: 'self.max < 100', messageExpression: '\"max is \" + string(self.max)', reason: FieldValueForbidden, fieldPath: .max}], properties: {min: {type: integer}, max: {type: integer}}}}}";

#[test]
fn a_rule_that_fails_says_so_where_it_was_told_to() {
    wrong(REPLICAS, "{spec: {min: 1, max: 2}}", None, &[]);
    wrong(REPLICAS, "{spec: {min: 3, max: 2}}", None, &["spec: Invalid value: too many"]);
    wrong(REPLICAS, "{spec: {min: 3, max: 200}}", None, &["spec.max: Forbidden: max is 200"]);
    wrong(
        REPLICAS,
        "{spec: {min: 3}}",
        None,
        &[
            "spec: Invalid value: \"object\": no such key: max evaluating rule: too many",
            "spec: Invalid value: \"object\": no such key: max evaluating rule: self.max < 100",
        ],
    );
    wrong(REPLICAS, "{}", None, &[]);
}

#[test]
fn what_an_update_leaves_as_it_was_is_not_complained_about() {
    wrong(REPLICAS, "{spec: {min: 3, max: 2}}", Some("{spec: {min: 3, max: 2}}"), &[]);
    wrong(REPLICAS, "{spec: {min: 4, max: 2}}", Some("{spec: {min: 3, max: 2}}"), &["spec: Invalid value: too many"]);
}

#[test]
fn transition_rules_need_an_old_value() {
    let schema = "{type: object, properties: {a: {type: integer, x-kubernetes-validations: [{rule: 'self >= oldSelf'}]}, list: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {type: object, properties: {k: {type: string}, v: {type: string, x-kubernetes-validations: [{rule: 'self == oldSelf', message: immutable}]}}}}}}";
    wrong(schema, "{a: 1}", None, &[]);
    wrong(schema, "{a: 1}", Some("{a: 2}"), &["a: Invalid value: 1: failed rule: self >= oldSelf"]);
    wrong(schema, "{a: 3}", Some("{a: 2}"), &[]);
    let (new, old) = ("{list: [{k: y, v: '1'}, {k: x, v: '2'}, {k: z, v: '3'}]}", "{list: [{k: x, v: '1'}, {k: y, v: '1'}]}");
    wrong(schema, new, Some(old), &["list[1].v: Invalid value: \"2\": immutable"]);
    let optional = "{type: object, properties: {a: {type: integer, x-kubernetes-validations: [{rule: 'self > oldSelf.orValue(5)', optionalOldSelf: true}]}}}";
    wrong(optional, "{a: 3}", None, &["a: Invalid value: 3: failed rule: self > oldSelf.orValue(5)"]);
    wrong(optional, "{a: 3}", Some("{a: 2}"), &[]);
}

#[test]
fn rules_at_the_root_see_names_and_kind() {
    let schema = "{type: object, x-kubernetes-validations: [{rule: \"self.metadata.name.startsWith('a') && self.kind == 'K'\"}], properties: {x: {type: string}}}";
    wrong(schema, "{kind: K, apiVersion: g/v1, metadata: {name: abc}}", None, &[]);
    wrong(
        schema,
        "{kind: K, apiVersion: g/v1, metadata: {name: bc}}",
        None,
        &["<nil>: Invalid value: failed rule: self.metadata.name.startsWith('a') && self.kind == 'K'"],
    );
}

#[test]
fn a_rule_too_dear_at_run_time_stops_all_others() {
    let schema = "{type: object, x-kubernetes-validations: [{rule: 'self.a.all(x, self.a.all(y, self.a.all(z, x + y + z >= 0)))', message: dear}, {rule: 'false'}], properties: {a: {type: array, items: {type: integer}}}}";
    let items: Vec<String> = (0..150).map(|i| i.to_string()).collect();
    let object = format!("{{a: [{}]}}", items.join(", "));
    wrong(
        schema,
        &object,
        None,
        &[
            "<nil>: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: dear",
        ],
    );
}

#[test]
fn definitions_whose_rules_do_not_hold_are_refused() {
    #[track_caller]
    fn refused(schema: &str, expected: &[&str]) {
        let compiled = Structural::compile(&tree(schema));
        let mut errors = Vec::new();
        super::super::check_rules::texts(&mut errors, &tree(schema), "s");
        super::super::check_rules::programs(&mut errors, &compiled, &Default::default(), "s", &[]);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), expected.len(), "{errors:#?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
    }
    refused(
        "{type: object, x-kubernetes-validations: [{rule: '1'}]}",
        &[
            "s.x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: cel expression must evaluate to a bool",
        ],
    );
    refused(
        "{type: object, x-kubernetes-validations: [{rule: 'true', optionalOldSelf: true}]}",
        &["optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"],
    );
    refused(
        "{type: object, properties: {l: {type: array, maxItems: 3, items: {type: string, maxLength: 3, x-kubernetes-validations: [{rule: 'self == oldSelf'}]}}}}",
        &["oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[l]"],
    );
    refused(
        "{type: object, x-kubernetes-validations: [{rule: 'self.l.all(x, self.l.all(y, x == y))'}], properties: {l: {type: array, items: {type: string}}}}",
        &[
            "s.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
            "s.x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x",
        ],
    );
    refused(
        "{type: object, properties: {a: {type: string}}, x-kubernetes-validations: [{rule: 'has(self.a)', fieldPath: .b}]}",
        &["s.x-kubernetes-validations[0].fieldPath: Invalid value: \".b\": must be a valid path"],
    );
    refused("{type: object, x-kubernetes-validations: [{rule: \"'a'.includes('a')\"}]}", &["undeclared reference to 'includes'"]);
    refused(
        "{type: object, x-kubernetes-validations: [{rule: 'self.', optionalOldSelf: true}]}",
        &["compilation failed", "optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"],
    );
    refused(
        "{type: object, properties: {x: {x-kubernetes-preserve-unknown-fields: true, x-kubernetes-validations: [{rule: 'true'}]}}}",
        &["s.properties[x].x-kubernetes-validations: Internal error: internal error: failed to construct type information"],
    );
}

#[test]
fn what_is_wrong_with_a_schema_hides_the_rules_above_it_alone() {
    let schema = Structural::compile(&tree(
        "{type: object, x-kubernetes-validations: [{rule: '1'}], properties: {
          a: {type: object, x-kubernetes-validations: [{rule: '2'}], properties: {b: {type: string}}}, ab: {type: object, x-kubernetes-validations: [{rule: '3'}]}}}",
    ));
    let mut errors = Vec::new();
    super::super::check_rules::programs(&mut errors, &schema, &Default::default(), "s", &["s.properties[a].properties[b].pattern".to_owned()]);
    let paths: Vec<&str> = errors.iter().map(|error| &*error.path).collect();
    assert_eq!(paths, ["s.properties[ab].x-kubernetes-validations[0].rule"]);
}

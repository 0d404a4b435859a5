use super::*;
use crate::codec;

fn tree(yaml: &str) -> Tree {
    codec::parse_yaml(yaml.as_bytes()).unwrap().tree
}

fn custom(schema: &str) -> Custom {
    custom_of(tree(schema))
}

pub fn custom_of(source: Tree) -> Custom {
    Custom {
        terminating: false,
        warning: None,
        scale: None,
        columns: Vec::new(),
        shown: Paths::default(),
        selectable: Vec::new(),
        selected: Paths::default(),
        conversion: None,
        source,
        compiled: OnceLock::new(),
        rules: OnceLock::new(),
    }
}

fn json(tree: &Tree) -> String {
    String::from_utf8(tree.to_json()).unwrap()
}

#[track_caller]
fn coerces(schema: &str, object: &str, expected: &str, unknown: &[&str]) {
    let coerced = coerce(&custom(schema), tree(object)).unwrap();
    assert_eq!(json(&coerced.tree), expected);
    assert_eq!(coerced.unknown, unknown);
}

#[test]
fn unknown_fields_go_and_are_named_unless_the_schema_keeps_them() {
    let schema = "{type: object, properties: {spec: {type: object, properties: {a: {type: string}, open: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {shut: {type: object, properties: {in: {type: string}}}}}, map: {type: object, additionalProperties: {type: object, properties: {v: {type: string}}}}}}}}";
    coerces(
        schema,
        "{apiVersion: a/v1, kind: K, metadata: {name: x, odd: 1}, extra: 1, spec: {a: x, b: z, open: {any: {thing: 1}, shut: {in: i, out: o}}, map: {k: {v: v, w: w}}}}",
        r#"{"apiVersion":"a/v1","kind":"K","metadata":{"name":"x"},"spec":{"a":"x","map":{"k":{"v":"v"}},"open":{"any":{"thing":1},"shut":{"in":"i"}}}}"#,
        &[
            r#"unknown field "metadata.odd""#,
            r#"unknown field "extra""#,
            r#"unknown field "spec.b""#,
            r#"unknown field "spec.map.k.w""#,
            r#"unknown field "spec.open.shut.out""#,
        ],
    );
}

#[test]
fn defaults_fill_what_is_absent_or_null() {
    let schema = "{type: object, properties: {spec: {type: object, default: {}, properties: {a: {type: string, default: x}, n: {type: string, nullable: true}, m: {type: string}, list: {type: array, items: {type: object, properties: {b: {type: integer, default: 1}}}}}}}}";
    coerces(schema, "{metadata: {}}", r#"{"metadata":{},"spec":{"a":"x"}}"#, &[]);
    coerces(
        schema,
        "{metadata: {}, spec: {a: null, n: null, m: null, list: [{}, {b: 2}]}}",
        r#"{"metadata":{},"spec":{"a":"x","list":[{"b":1},{"b":2}],"n":null}}"#,
        &[],
    );
}

#[test]
fn embedded_resources_have_typed_metadata() {
    let schema = "{type: object, properties: {template: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object, properties: {a: {type: string}}}}}}}";
    coerces(
        schema,
        "{metadata: {}, template: {apiVersion: v1, kind: Pod, metadata: {name: x, odd: 1}, spec: {a: b}, more: 1}}",
        r#"{"metadata":{},"template":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"a":"b"}}}"#,
        &[r#"unknown field "template.more""#, r#"unknown field "template.metadata.odd""#],
    );
    let wrong = coerce(&custom(schema), tree("{metadata: {name: 1}}")).unwrap_err();
    assert_eq!(wrong, "json: cannot unmarshal number into Go struct field ObjectMeta.name of type string");
}

#[track_caller]
fn wrong_values(schema: &str, object: &str, expected: &[&str]) {
    let mut errors = Vec::new();
    let compiled = Structural::compile(&tree(schema));
    value::object(&mut errors, &compiled, &tree(object), None);
    list_type::check(&mut errors, &compiled, &tree(object));
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected);
}

#[test]
fn values_are_judged_in_upstreams_words() {
    let spec = |inner: &str| format!("{{type: object, properties: {{spec: {{type: object, {inner}}}}}}}");
    wrong_values(
        &spec("properties: {r: {type: integer, minimum: 1, maximum: 3}}"),
        "{spec: {r: 4}}",
        &["spec.r: Invalid value: 4: spec.r in body should be less than or equal to 3"],
    );
    wrong_values(
        &spec("properties: {r: {type: integer}}"),
        "{spec: {r: x}}",
        &[r#"spec.r: Invalid value: "string": spec.r in body must be of type integer: "string""#],
    );
    wrong_values(&spec("required: [a]"), "{spec: {}}", &["spec.a: Required value"]);
    wrong_values(
        &spec("properties: {e: {type: string, enum: [a, b]}, p: {type: string, pattern: '^\\d+$'}}"),
        "{spec: {e: c, p: x}}",
        &[
            r#"spec.e: Unsupported value: "c": supported values: "a", "b""#,
            r#"spec.p: Invalid value: "x": spec.p in body should match '^\d+$'"#,
        ],
    );
    wrong_values(
        &spec("properties: {l: {type: array, maxItems: 1, x-kubernetes-list-type: set, items: {type: string}}}"),
        "{spec: {l: [a, a]}}",
        &["spec.l: Too many: 2: must have at most 1 item", r#"spec.l[1]: Duplicate value: "a""#],
    );
    wrong_values(
        &spec("oneOf: [{required: [a]}, {required: [b]}], properties: {a: {type: string}, b: {type: string}}"),
        "{spec: {}}",
        &[r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#, "spec.a: Required value"],
    );
    wrong_values(
        &spec("properties: {p: {x-kubernetes-int-or-string: true}}"),
        "{spec: {p: true}}",
        &[r#"spec.p: Invalid value: "boolean": spec.p in body must be of type integer,string: "boolean""#],
    );
    // A format is called what its author called it, and judges what is no text.
    wrong_values(
        &spec("properties: {d: {type: string, format: date-time}, e: {type: string, format: email}, f: {type: string, format: date-time}}"),
        "{spec: {d: x, e: 'a b', f: 5}}",
        &[
            r#"spec.d: Invalid value: "x": spec.d in body must be of type date-time: "x""#,
            r#"spec.e: Invalid value: "a b": spec.e in body must be of type email: "a b""#,
            r#"spec.f: Invalid value: "int64": spec.f in body must be of type date-time: "int64""#,
        ],
    );
    wrong_values(
        &spec("properties: {r: {type: integer, multipleOf: 0}}"),
        "{spec: {r: 4}}",
        &["spec.r: Invalid value: 0: factor MultipleOf declared for spec.r must be positive: 0"],
    );
}

#[test]
fn a_long_list_of_items_with_keys_is_compared_in_a_pass() {
    crate::pace::in_a_pass(|| {
        let custom = custom(
            "{type: object, properties: {l: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {type: object, required: [k], properties: {k: {type: integer}, v: {type: string, maxLength: 1}}, x-kubernetes-validations: [{rule: 'self.v == oldSelf.v'}]}}}}",
        );
        let definition = tree("{spec: {group: g, scope: Cluster, names: {plural: ks, kind: K}, versions: [{name: v1, served: true}]}, status: {conditions: [{type: Established, status: 'True'}]}}");
        let resource = Definition(&definition).resources().remove(0);
        let list = |value: &str| {
            let items: Vec<String> = (0..20_000).map(|i| format!(r#"{{"k":{i},"v":"{value}"}}"#)).collect();
            Tree::from_json(format!(r#"{{"metadata":{{"name":"a"}},"l":[{}]}}"#, items.join(",")).as_bytes()).unwrap()
        };
        // Too long, but as before: what is left as it was is not complained about.
        let before = list("long");
        let mut errors = Vec::new();
        value::object(&mut errors, custom.structural(), &before, Some(&before));
        rules::check(&mut errors, custom.rules(), &before, Some(&before));
        assert!(errors.is_empty(), "{:?}", errors.first());
        assert!(validate_object(&resource, &custom, &list("w"), Some(&list("v"))).iter().any(|error| error.path == "l[0]"));
    });
}

#[track_caller]
fn definition_errors(spec: &str, expected: &[&str]) {
    let mut definition = tree(&format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: foos.example.com}}, spec: {{group: example.com, scope: Namespaced, names: {{plural: foos, singular: foo, kind: Foo, listKind: FooList}}, conversion: {{strategy: None}}, {spec}}}}}"
    ));
    let stored = stored_versions(&definition);
    definition.set(&["status", "storedVersions"], Tree::Array(stored.into_iter().map(Tree::from).collect()));
    let texts: Vec<String> = validate(&definition, None).iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected);
}

#[test]
fn schemas_that_are_not_structural_are_refused_with_their_places() {
    let version = |schema: &str| format!("versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {schema}}}}}]");
    definition_errors(&version("{type: object}"), &[]);
    definition_errors(
        &version("{type: object, properties: {spec: {properties: {a: {type: string}}}}}"),
        &["spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields"],
    );
    definition_errors(
        &version("{type: object, properties: {spec: {type: object, anyOf: [{required: [a]}, {properties: {b: {type: string}}}]}}}"),
        &["spec.validation.openAPIV3Schema.properties[spec].anyOf[1].properties[b].type: Forbidden: must be empty to be structural"],
    );
    definition_errors(
        &version("{type: object, properties: {a: {type: array}, p: {type: string, pattern: '(a'}}}"),
        &[
            "spec.validation.openAPIV3Schema.properties[a].items: Required value: must be specified",
            "spec.validation.openAPIV3Schema.properties[p].pattern: Invalid value: \"(a\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(a`",
        ],
    );
    definition_errors(
        &version("{type: object, properties: {a: {type: string, default: 1}}}"),
        &[r#"spec.validation.openAPIV3Schema.properties[a].default: Invalid value: "integer":  in body must be of type string: "integer""#],
    );
    definition_errors(
        &version("{type: object, x-kubernetes-validations: [{rule: 'self.a > 1'}]}"),
        &[
            "spec.validation.openAPIV3Schema.x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.a \\u003e 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: ERROR: <input>:1:5: undefined field 'a'\n | self.a > 1\n | ....^",
        ],
    );
    // More characters than there are numbers of bytes.
    definition_errors(&version("{type: object, properties: {a: {type: string, maxLength: 4611686018427387904}}, x-kubernetes-validations: [{rule: \"self.a != ''\"}]}"), &[]);
    definition_errors("versions: [{name: v1, served: true, storage: true}]", &["spec.versions[0].schema.openAPIV3Schema: Required value"]);
}

#[test]
fn names_are_given_to_who_comes_first() {
    let definition = |name: &str, names: &str, status: &str| {
        tree(&format!("{{metadata: {{name: {name}.g.io}}, spec: {{group: g.io, names: {names}, versions: []}}, status: {status}}}"))
    };
    let first = definition(
        "as",
        "{plural: as, singular: a, kind: A, listKind: AList, shortNames: [x]}",
        "{acceptedNames: {plural: as, singular: a, kind: A, listKind: AList, shortNames: [x]}}",
    );
    let second = definition("bs", "{plural: bs, singular: b, kind: A, listKind: BList, shortNames: [x, y]}", "{}");
    let plan = plan_names(&second, [&first, &second]);
    let told: Vec<_> = plan.conditions.iter().map(|c| (c.kind, c.status, c.reason, c.message.as_str())).collect();
    assert_eq!(
        told,
        [
            ("NamesAccepted", "False", "KindConflict", "\"A\" is already in use"),
            ("Established", "False", "NotAccepted", "not all names are accepted")
        ]
    );
    assert_eq!(json(&plan.accepted), r#"{"listKind":"BList","plural":"bs","singular":"b"}"#);
    let alone = plan_names(&second, [&second]);
    assert!(alone.conditions.iter().all(|c| c.status == "True"));
}

#[test]
fn versions_are_ordered_by_stability() {
    let mut versions = vec!["foo", "v1alpha1", "v1", "v2beta1", "v2", "v10beta3", "v11alpha2", "v1beta1", "bar"];
    versions.sort_by(|a, b| definition::by_stability(a, b));
    assert_eq!(versions, ["v2", "v1", "v10beta3", "v2beta1", "v1beta1", "v11alpha2", "v1alpha1", "bar", "foo"]);
}

#[test]
fn patterns_mean_what_they_mean_in_go() {
    let matches = |pattern: &str, text: &str| pattern::compile(pattern).unwrap().is_match(text);
    assert!(!matches(r"^\d$", "٣") && matches(r"^\d$", "3"));
    assert!(matches(r"^[a&&b]+$", "a&b") && matches(r"^\Qa.b\E$", "a.b") && matches("^a{,2}$", "a{,2}") && matches("^[[]$", "["));
    assert!(matches(r"^\101$", "A") && matches(r"^(?i)abc$", "ABC") && matches(r"^[[:alpha:]]$", "x") && matches(r"^x{2,3}?$", "xx"));
    assert!(matches(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b") && matches(r"^[\w.-]+$", "a.b-c"));
    // A minus that begins no range is a minus, wherever it stands.
    assert!(matches("^[0-9a-z-_]+$", "a-_9") && matches("^[0-9-.]+$", "1.-") && matches(r"^[\w-.]+$", "a-.") && matches("^[a-c-e]+$", "b-e"));
    // A bracket and a colon are no name of a class.
    assert!(matches("^[[:]+$", "[:"));
    assert!(!matches("^[a-c-e]$", "d") && matches("^[+--]+$", ",-"));
    let wrong = |pattern: &str, text: &str| assert_eq!(pattern::compile(pattern).unwrap_err(), format!("error parsing regexp: {text}"));
    wrong("a**", "invalid nested repetition operator: `**`");
    wrong("x{1001}", "invalid repeat count: `{1001}`");
    wrong("(", "missing closing ): `(`");
    wrong("a)", "unexpected ): `a)`");
    wrong("[a", "missing closing ]: `[a`");
    wrong("*", "missing argument to repetition operator: `*`");
    wrong(r"\y", r"invalid escape sequence: `\y`");
    wrong("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    wrong("[[:]:]", "invalid character class range: `[:]:]`");
    wrong("[z-a]", "invalid character class range: `z-a`");
}

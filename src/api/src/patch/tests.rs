use super::*;
use crate::tree::Tree;

fn tree(json: &str) -> Tree {
    Tree::from_json(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"))
}

fn text(tree: &Tree) -> String {
    String::from_utf8(tree.to_json()).unwrap()
}

#[test]
fn merge_patches_follow_rfc_7396() {
    for (target, patch, expected) in [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
        (r#"{"a":[1]}"#, r#"{"a":{"b":null,"c":1}}"#, r#"{"a":{"c":1}}"#),
        (r#"{"a":{"b":"c","d":1}}"#, r#"{"a":{"b":"d","e":null}}"#, r#"{"a":{"b":"d","d":1}}"#),
        (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ] {
        let mut target = tree(target);
        merge_patch(&mut target, tree(patch));
        assert_eq!(text(&target), expected, "{patch}");
    }
}

#[test]
fn json_patches_follow_rfc_6902() {
    for (target, patch, expected) in [
        (r#"{"a":{}}"#, r#"[{"op":"add","path":"/a/b","value":1}]"#, r#"{"a":{"b":1}}"#),
        (r#"{"a":[1,2]}"#, r#"[{"op":"add","path":"/a/1","value":3},{"op":"add","path":"/a/-","value":4}]"#, r#"{"a":[1,3,2,4]}"#),
        (r#"{"a":[1,2]}"#, r#"[{"op":"remove","path":"/a/0"}]"#, r#"{"a":[2]}"#),
        (r#"{"a":[1,2]}"#, r#"[{"op":"replace","path":"/a/-1","value":9}]"#, r#"{"a":[1,9]}"#),
        (r#"{"a":1}"#, r#"[{"op":"move","from":"/a","path":"/b"}]"#, r#"{"b":1}"#),
        (r#"{"a":1}"#, r#"[{"op":"copy","from":"/a","path":"/b"}]"#, r#"{"a":1,"b":1}"#),
        (r#"{"a":1}"#, r#"[{"op":"copy","from":"/x","path":"/b"},{"op":"replace","path":"/c","value":2}]"#, r#"{"a":1,"b":null,"c":2}"#),
        (r#"{"a":1}"#, r#"[{"op":"test","path":"/x","value":null},{"op":"test","path":"/x"}]"#, r#"{"a":1}"#),
        (r#"{"a/b":1,"c~d":2}"#, r#"[{"op":"remove","path":"/a~1b"},{"op":"test","path":"/c~0d","value":2}]"#, r#"{"c~d":2}"#),
    ] {
        let mut target = tree(target);
        json_patch(&mut target, &tree(patch)).unwrap_or_else(|e| panic!("{patch}: {e}"));
        assert_eq!(text(&target), expected, "{patch}");
    }
}

#[test]
fn a_json_patch_makes_nothing_deeper_than_a_document_may_be() {
    let wrap = r#"{"op":"add","path":"/b","value":{}},{"op":"move","from":"/a","path":"/b/a"},{"op":"move","from":"/b","path":"/a"}"#;
    let wrapped = |times: usize| {
        let mut target = tree(r#"{"a":{}}"#);
        json_patch(&mut target, &tree(&format!("[{}]", vec![wrap; times].join(",")))).map(|()| target)
    };
    let deepest = wrapped(98).unwrap();
    assert!(crate::codec::parse_json(&deepest.to_json()).is_ok());
    assert_eq!(wrapped(99), Err(PatchError::Unprocessable("exceeded max depth".into())));
    assert_eq!(wrapped(3333), Err(PatchError::Unprocessable("exceeded max depth".into())));
    // What goes to and fro comes no deeper.
    let shuttle = r#"{"op":"move","from":"/x","path":"/a/b/c/d"},{"op":"copy","from":"/a/b/c/d","path":"/a/b/c/e"},{"op":"move","from":"/a/b/c/d","path":"/x"}"#;
    let mut target = tree(r#"{"a":{"b":{"c":{}}},"x":{}}"#);
    json_patch(&mut target, &tree(&format!("[{}]", vec![shuttle; 300].join(",")))).unwrap();
    assert_eq!(text(&target), r#"{"a":{"b":{"c":{"e":{}}}},"x":{}}"#);
}

#[test]
fn json_patches_that_do_not_apply_say_so_in_the_librarys_words() {
    for (patch, expected) in [
        (r#"[{"op":"remove","path":"/x"}]"#, "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value"),
        (r#"[{"op":"replace","path":"/l/3","value":1}]"#, "replace operation does not apply: doc is missing key: /l/3: missing value"),
        (r#"[{"op":"replace","path":5}]"#, "replace operation failed to decode path: json: cannot unmarshal number into Go value of type string"),
        (r#"[{"op":"move","path":"/a"}]"#, "move operation failed to decode from: operation, missing from field: missing value"),
        (r#"[{"op":"add","path":"/x/y","value":1}]"#, r#"add operation does not apply: doc is missing path: "/x/y": missing value"#),
        (r#"[{"op":"test","path":"/a","value":2}]"#, "testing value /a failed: test failed"),
        (r#"[{"op":"add","path":"/l/9","value":2}]"#, "error in add for path: '/l/9': Unable to access invalid index: 9: invalid index referenced"),
        (r#"[{"op":"fly","path":"/a"}]"#, "Unexpected kind: fly"),
        (r#"[{"op":"add"}]"#, "add operation failed to decode path: missing value"),
    ] {
        let error = json_patch(&mut tree(r#"{"a":1,"l":[1]}"#), &tree(patch)).unwrap_err();
        assert_eq!(error, PatchError::Unprocessable(expected.to_owned()), "{patch}");
    }
    assert!(matches!(json_patch(&mut tree("{}"), &tree("{}")), Err(PatchError::BadRequest(_))));
    let asked = |patch: &str| check_json_patch(&tree(patch)).map_err(|error| error.to_string());
    assert_eq!(asked(r#"[{"op":"add","a":1}]"#), Ok(vec![r#"json patch unknown field "[0].a""#.to_owned()]));
    let refused = "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";
    assert_eq!(asked("{}"), Err(refused.to_owned()));
    let many = Tree::Array(vec![tree(r#"{"op":"test","path":""}"#); 10_001]);
    let error = json_patch(&mut tree("{}"), &many).unwrap_err();
    assert_eq!(error, PatchError::TooLarge("The allowed maximum operations in a JSON patch is 10000, got 10001".to_owned()));
}

/// Fields are named after what they do: `merge_x` merges by `name`, `set_x` is a merged list of scalars.
struct Fake;

impl MergeSchema for Fake {
    fn field(&self, name: &str) -> Option<MergeField<'_, Self>> {
        let (strategy, merge_key) = match name.split_once('_').map_or(name, |(s, _)| s) {
            "merge" => ("merge", "name"),
            "set" => ("merge", ""),
            "replace" => ("replace", ""),
            "retain" => ("retainKeys", ""),
            _ => ("", ""),
        };
        Some(MergeField { schema: &Fake, strategy, merge_key })
    }
    fn items(&self) -> Option<&Self> {
        Some(&Fake)
    }
}

#[track_caller]
fn check(original: &str, patch: &str, expected: &str) {
    let mut target = tree(original);
    strategic_merge_with(&mut target, tree(patch), &Fake).unwrap_or_else(|e| panic!("{patch}: {e}"));
    assert_eq!(text(&target), text(&tree(expected)), "{patch}");
}

#[test]
fn lists_merge_by_their_key() {
    let original = r#"{"merge_l":[{"name":"a","v":1},{"name":"b","v":2}]}"#;
    check(original, r#"{"merge_l":[{"name":"b","w":3}]}"#, r#"{"merge_l":[{"name":"a","v":1},{"name":"b","v":2,"w":3}]}"#);
    check(original, r#"{"merge_l":[{"name":"c"}]}"#, r#"{"merge_l":[{"name":"c"},{"name":"a","v":1},{"name":"b","v":2}]}"#);
    check(original, r#"{"merge_l":[{"name":"a","$patch":"delete"}]}"#, r#"{"merge_l":[{"name":"b","v":2}]}"#);
    check(original, r#"{"merge_l":[{"name":"c"},{"$patch":"replace"}]}"#, r#"{"merge_l":[{"name":"c"}]}"#);
    check(original, r#"{"merge_l":[{"name":"b","v":null}]}"#, r#"{"merge_l":[{"name":"a","v":1},{"name":"b"}]}"#);
    check(
        original,
        r#"{"$setElementOrder/merge_l":[{"name":"b"},{"name":"c"},{"name":"a"}],"merge_l":[{"name":"c","v":3}]}"#,
        r#"{"merge_l":[{"name":"b","v":2},{"name":"c","v":3},{"name":"a","v":1}]}"#,
    );
}

#[test]
fn lists_of_scalars_merge_and_shrink() {
    let original = r#"{"set_l":["a","b"],"l":[1,2]}"#;
    check(original, r#"{"set_l":["c","b"]}"#, r#"{"set_l":["c","a","b"],"l":[1,2]}"#);
    check(original, r#"{"$deleteFromPrimitiveList/set_l":["a"]}"#, r#"{"set_l":["b"],"l":[1,2]}"#);
    check(original, r#"{"$deleteFromPrimitiveList/set_m":["a"]}"#, original);
    check(original, r#"{"l":[3]}"#, r#"{"set_l":["a","b"],"l":[3]}"#);
}

#[test]
fn objects_merge_unless_a_directive_says_otherwise() {
    let original = r#"{"o":{"a":1,"b":2},"replace_o":{"a":1}}"#;
    check(original, r#"{"o":{"a":null,"c":3}}"#, r#"{"o":{"b":2,"c":3},"replace_o":{"a":1}}"#);
    check(original, r#"{"replace_o":{"c":3}}"#, r#"{"o":{"a":1,"b":2},"replace_o":{"c":3}}"#);
    check(original, r#"{"o":{"$patch":"replace","c":3}}"#, r#"{"o":{"c":3},"replace_o":{"a":1}}"#);
    check(original, r#"{"o":{"$patch":"delete"}}"#, r#"{"o":{},"replace_o":{"a":1}}"#);
    check(original, r#"{"o":{"$retainKeys":["a","c"],"c":3}}"#, r#"{"o":{"a":1,"c":3},"replace_o":{"a":1}}"#);
    // Of what is new only `$patch` is understood, and takes what it stands in with it.
    check(original, r#"{"n":{"x":null,"y":1},"p":{"$patch":"replace"},"l":[{"$patch":"delete"},1]}"#, r#"{"o":{"a":1,"b":2},"replace_o":{"a":1},"n":{"y":1},"l":[1]}"#);
    check(original, "null", original);
}

#[test]
fn malformed_strategic_patches_are_refused() {
    for (patch, expected) in [
        (r#"{"$retainKeys":["a"],"b":1}"#, PatchError::BadRequest("invalid patch format of retainKeys".into())),
        (r#"{"merge_l":[{"v":1}]}"#, PatchError::Internal("map: map[v:1] does not contain declared merge key: name".into())),
        (r#"{"merge_l":["x"]}"#, PatchError::Internal("list element types are not identical: [[map[name:a]] [x]]".into())),
        (r#"{"$patch":"fly","b":1}"#, PatchError::Internal("unknown patch type: fly in map: map[$patch:fly b:1]".into())),
        (r#"{"$patch":5}"#, PatchError::Internal("unknown patch type: %!s(int64=5) in map: map[$patch:5]".into())),
        (r#"{"$setElementOrder/merge_l":"x"}"#, PatchError::Internal("expected a []interface {}, but received a string".into())),
        (r#"{"merge_l":null,"$setElementOrder/merge_l":[]}"#, PatchError::Internal("expected a []interface {}, but received a %!s(<nil>)".into())),
        (r#"[]"#, PatchError::BadRequest("json: cannot unmarshal array into Go value of type map[string]interface {}".into())),
    ] {
        let error = strategic_merge_with(&mut tree(r#"{"merge_l":[{"name":"a"}]}"#), tree(patch), &Fake).unwrap_err();
        assert_eq!(error, expected, "{patch}");
    }
}

#[test]
fn the_schema_of_a_kind_says_how_its_lists_merge() {
    let schema = crate::registry::Registry::get().resource("apps", "v1", "deployments").unwrap().schema().unwrap();
    let mut target = tree(
        r#"{"metadata":{"labels":{"a":"b"},"finalizers":["x/y"]},"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}},"template":{"spec":{"containers":[{"name":"a","image":"i","env":[{"name":"E","value":"1"}],"ports":[{"containerPort":80,"protocol":"TCP"}]},{"name":"b","image":"i"}],"volumes":[{"name":"v","emptyDir":{}}],"tolerations":[{"key":"k"}]}}}}"#,
    );
    let patch = r#"{"metadata":{"labels":{"c":"d"},"finalizers":["z/y"]},"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"},"template":{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}],"containers":[{"name":"a","env":[{"name":"F","value":"2"}],"ports":[{"containerPort":80,"name":"http"}]}],"volumes":[{"name":"v","$retainKeys":["name","configMap"],"configMap":{"name":"c"}}],"tolerations":[{"key":"l"}]}}}}"#;
    strategic_merge(&mut target, tree(patch), schema).unwrap();
    let expected = r#"{"metadata":{"labels":{"a":"b","c":"d"},"finalizers":["z/y","x/y"]},"spec":{"strategy":{"type":"Recreate"},"template":{"spec":{"containers":[{"name":"b","image":"i"},{"name":"a","image":"i","env":[{"name":"F","value":"2"},{"name":"E","value":"1"}],"ports":[{"containerPort":80,"name":"http","protocol":"TCP"}]}],"volumes":[{"name":"v","configMap":{"name":"c"}}],"tolerations":[{"key":"l"}]}}}}"#;
    assert_eq!(text(&target), text(&tree(expected)));
}

/// Long enough that comparing all with all would take minutes.
const MANY: usize = 20_000;

#[test]
fn long_lists_and_objects_are_patched_in_a_pass() {
    crate::pace::in_a_pass(|| {
        let listed = |name: &dyn Fn(usize) -> String| (0..MANY).map(name).collect::<Vec<_>>().join(",");
        // Every new entry stands before all old ones.
        let fields = |letter: char| format!(r#"{{"data":{{{}}}}}"#, listed(&|i| format!(r#""{letter}{i}":"""#)));
        let mut target = tree(&fields('z'));
        merge_patch(&mut target, tree(&fields('a')));
        let schema = |kind: &str| crate::registry::Registry::get().kind_schema("", "v1", kind).unwrap();
        strategic_merge(&mut target, tree(&fields('b')), schema("ConfigMap")).unwrap();
        assert_eq!(target.at(&["data"]).unwrap().as_object().unwrap().len(), 3 * MANY);
        merge_patch(&mut target, tree(&fields('a').replace("\"\"", "null")));
        assert_eq!(target.at(&["data"]).unwrap().as_object().unwrap().len(), 2 * MANY);

        let finalizers = |letter: char| format!(r#""finalizers":[{}]"#, listed(&|i| format!(r#""{letter}/{i}""#)));
        let mut target = tree(&format!(r#"{{"metadata":{{{}}}}}"#, finalizers('a')));
        strategic_merge(&mut target, tree(&format!(r#"{{"metadata":{{{}}}}}"#, finalizers('b'))), schema("Pod")).unwrap();
        assert_eq!(target.array_at(&["metadata", "finalizers"]).len(), 2 * MANY);
        let deletion = format!(r#"{{"metadata":{{"$deleteFromPrimitiveList/{}}}}}"#, &finalizers('a')[1..]);
        strategic_merge(&mut target, tree(&deletion), schema("Pod")).unwrap();
        assert_eq!(target.array_at(&["metadata", "finalizers"]).len(), MANY);

        let containers = |rest: &str| format!(r#"{{"spec":{{"containers":[{}]}}}}"#, listed(&|i| format!(r#"{{"name":"c{i}"{rest}}}"#)));
        let mut target = tree(&containers(""));
        strategic_merge(&mut target, tree(&containers(r#","image":"i""#)), schema("Pod")).unwrap();
        assert_eq!(target.array_at(&["spec", "containers"])[MANY - 1].str_at(&["image"]), "i");
        strategic_merge(&mut target, tree(&containers(r#","$patch":"delete""#)), schema("Pod")).unwrap();
        assert!(target.array_at(&["spec", "containers"]).is_empty());
    });
}

use super::*;
use crate::tree::Tree;

#[track_caller]
fn check(selector: &str, labels: &[(&str, &str)], expected: bool) {
    let selector = LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
    let get = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    assert_eq!(selector.matches(&get), expected, "{selector} on {labels:?}");
}

#[test]
fn label_selectors_match_as_upstream() {
    check("", &[("a", "b")], true);
    check("a=b", &[("a", "b")], true);
    check("a==b", &[("a", "c")], false);
    check("a!=b", &[], true);
    check("a in (b, c)", &[("a", "c")], true);
    check("a notin (b,c)", &[("a", "c")], false);
    check("a notin (b,c)", &[], true);
    check("a", &[("a", "")], true);
    check("!a", &[("a", "")], false);
    check("a>1,a<3", &[("a", "2")], true);
    check("a>1", &[("a", "x")], false);
    check("x in (in,notin)", &[("x", "in")], true);
    check("a=", &[("a", "")], true);
    check("a in ()", &[("a", "")], true);
}

#[test]
fn a_selector_prints_in_canonical_order() {
    let print = |s: &str| LabelSelector::parse(s).unwrap().to_string();
    assert_eq!(print("z, y in (c,a) ,x=1,!w"), "!w,x=1,y in (a,c),z");
    assert_eq!(print("a notin (),b==2,c!=3,d>4,e<5"), "a notin (),b==2,c!=3,d>4,e<5");
}

#[test]
fn malformed_label_selectors_get_upstreams_texts() {
    for (text, expected) in [
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a in", "unable to parse requirement: found '' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        (
            "a/b/c=d",
            "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        ),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap_err().0, expected, "{text}");
    }
}

#[test]
fn an_absent_typed_selector_matches_nothing_and_an_empty_one_everything() {
    assert!(!LabelSelector::from_tree(None).unwrap().matches(&|_| None));
    assert!(LabelSelector::from_tree(Some(&Tree::object())).unwrap().matches(&|_| None));
    let tree = Tree::from_json(br#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"In","values":["d","e"]}]}"#).unwrap();
    assert_eq!(LabelSelector::from_tree(Some(&tree)).unwrap().to_string(), "a=b,c in (d,e)");
    let tree = Tree::from_json(br#"{"matchExpressions":[{"key":"c","operator":"Is"}]}"#).unwrap();
    assert_eq!(LabelSelector::from_tree(Some(&tree)).unwrap_err().0, "\"Is\" is not a valid label selector operator");
}

#[test]
fn field_selectors_know_the_fields_of_a_kind() {
    let pod = Tree::from_json(br#"{"metadata":{"name":"p"},"spec":{"nodeName":"n"},"status":{"phase":"Running"}}"#).unwrap();
    let fields = fields_of("", "Pod", &pod);
    let matches = |s: &str| FieldSelector::parse(s).unwrap().for_kind("", "v1", "Pod").map(|s| s.matches_fields(&fields));
    assert_eq!(matches("spec.nodeName=n,status.phase!=Failed"), Ok(true));
    assert_eq!(matches("spec.host=m"), Ok(false));
    assert_eq!(matches("spec.hostNetwork=false"), Ok(true));
    assert_eq!(matches("spec.foo=1").unwrap_err().0, "field label not supported: spec.foo");
    let error = FieldSelector::parse("spec.x=1").unwrap().for_kind("", "v1", "ConfigMap").unwrap_err();
    assert_eq!(error.0, r#""spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#);
    assert_eq!(FieldSelector::parse("a").unwrap_err().0, "invalid selector: 'a'; can't understand 'a'");
    assert_eq!(FieldSelector::parse(r"a=b\,c").unwrap().exact("a"), Some("b,c"));
}

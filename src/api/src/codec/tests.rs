use super::*;

#[track_caller]
fn json_error(text: &str, message: &str) {
    assert_eq!(parse_json(text.as_bytes()).unwrap_err().to_string(), message, "{text}");
}

#[test]
fn json_errors_read_as_gos() {
    json_error("", "unexpected end of JSON input");
    json_error("{", "unexpected end of JSON input");
    json_error("{a", "invalid character 'a' looking for beginning of object key string");
    json_error("{\"a\" 1}", "invalid character '1' after object key");
    json_error("{\"a\":1 2}", "invalid character '2' after object key:value pair");
    json_error("[1 2]", "invalid character '2' after array element");
    json_error("{} x", "invalid character 'x' after top-level value");
    json_error("'a'", r"invalid character '\'' looking for beginning of value");
    json_error("trap", "invalid character 'a' in literal true (expecting 'u')");
    json_error("01", "invalid character '1' after top-level value");
    json_error("1.", "unexpected end of JSON input");
    json_error("\"\\x\"", "invalid character 'x' in string escape code");
    json_error("\"a\nb\"", r"invalid character '\n' in string literal");
    json_error("[1,]", "invalid character ']' looking for beginning of value");
    json_error(&"[".repeat(100_000), "exceeded max depth");
}

#[test]
fn the_deepest_document_fits_a_small_stack() {
    let work = || {
        let text = format!("{}{}", "{\"a\":[".repeat(DEPTH_MAX / 2), "]}".repeat(DEPTH_MAX / 2));
        let parsed = parse_json(text.as_bytes()).unwrap();
        assert_eq!(parsed.tree.clone().to_json(), text.as_bytes());
        assert_eq!(Tree::from_json(text.as_bytes()).unwrap(), parsed.tree);
        assert_eq!(parse_yaml(text.as_bytes()).unwrap(), parsed);
        assert!(parse_yaml("[".repeat(100_000).as_bytes()).is_err());
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_long_key_stands_above_few_values() {
    let document = |values: usize| {
        let values: Vec<String> = (0..values).map(|i| format!(r#""{i}":{i}"#)).collect();
        format!(r#"{{"{}":{{{}}}}}"#, "k".repeat(1 << 20), values.join(","))
    };
    let message = "exceeded max length of paths";
    assert!(parse_json(document(100).as_bytes()).is_ok());
    json_error(&document(200), message);
    assert_eq!(check_bounds(&Tree::from_json(document(200).as_bytes()).unwrap()).unwrap_err().to_string(), message);
    // No more is kept of where keys are than is asked for.
    let few = format!(r#"{{"a":1,{},"a":2}}"#, vec![r#""b":{"c":0}"#; 1000].join(","));
    let mut complaints = [r#"unknown field "b.c""#.to_owned(), r#"duplicate field "a""#.to_owned(), r#"unknown field "a""#.to_owned()];
    in_order(few.as_bytes(), &mut complaints);
    assert_eq!(complaints, [r#"unknown field "a""#, r#"unknown field "b.c""#, r#"duplicate field "a""#]);
}

#[test]
fn a_tree_of_several_documents_is_bounded_as_one_is() {
    let deep = |depth: usize| (0..depth).fold(Tree::Null, |inner, _| Tree::Array(vec![inner]));
    assert!(check_bounds(&deep(DEPTH_MAX)).is_ok());
    assert_eq!(check_bounds(&deep(DEPTH_MAX + 1)).unwrap_err().to_string(), "exceeded max depth");
}

#[test]
fn json_values_are_kept_exactly() {
    let text = r#"{"a":[1,-2,9223372036854775807,1.5,1e3,true,null,"x\u00e9\ud83d\ude00\n"],"b":{}}"#;
    let parsed = parse_json(text.as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(parsed.tree.to_json()).unwrap(),
        "{\"a\":[1,-2,9223372036854775807,1.5,1000,true,null,\"xé😀\\n\"],\"b\":{}}"
    );
    assert!(parsed.duplicates.is_empty());
}

#[test]
fn duplicate_keys_are_named_by_path_and_the_last_wins() {
    let parsed = parse_json(br#"{"spec":{"b":1,"a":[{"x":1,"x":2}],"b":3}}"#).unwrap();
    assert_eq!(parsed.duplicates, [r#"duplicate field "spec.a[0].x""#, r#"duplicate field "spec.b""#]);
    assert_eq!(parsed.tree.at(&["spec", "b"]), Some(&Tree::Integer(3)));
}

#[test]
fn json_is_the_same_read_as_yaml() {
    for text in [
        r#"{"a":1,"b":{"c":[true,null,"x: y","- z","1","yes","~"],"":-7},"d":{},"e":[]}"#,
        "  {\n\t\"a\": \"\\u00e4\\n\\/\\\\\",\r\n \"b\" : [ 1 , 2 ] }\n",
        r#"{"a":1.0,"b":1e3,"c":1.5,"d":18446744073709551615}"#,
    ] {
        assert_eq!(parse_yaml(text.as_bytes()), super::yaml::parse(text.as_bytes()), "{text}");
    }
    // What is no JSON, or names a key twice, is told as YAML.
    for text in [r#"{"a":1,"a":2}"#, "{a: 1}", r#"{"a":1} # why"#, r#"{"a":"#, r#"{"a":1}}"#] {
        assert_eq!(parse_yaml(text.as_bytes()), super::yaml::parse(text.as_bytes()), "{text}");
    }
}

#[test]
fn yaml_is_read_as_yaml_1_1() {
    let parsed = parse_yaml(b"a: yes\nb: 0777\nc: '1'\nd: {<<: {x: 1}, y: 2}\ne:\n- ~\n- 1.5\n").unwrap();
    assert_eq!(String::from_utf8(parsed.tree.to_json()).unwrap(), r#"{"a":true,"b":511,"c":"1","d":{"x":1,"y":2},"e":[null,1.5]}"#);
    let parsed = parse_yaml(b"a: 1\nb: 2\na: 3\n").unwrap();
    assert_eq!(parsed.tree.get("a"), Some(&Tree::Integer(3)));
    assert_eq!(parsed.duplicates, ["yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"]);
    assert!(parse_yaml(b"a: [1").is_err());
}

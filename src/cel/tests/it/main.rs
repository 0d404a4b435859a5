//! Upstream's answers: every expression of `facts/*.jsonl` was given to the environment of k8s.io/apiserver v0.37.1, and must come out here
//! as it did there: issues, type, estimated and counted cost, value or error. Those of `conformance.jsonl` are the language's own
//! conformance cases (cel-spec, without protobuf messages and bindings), the others the tables of upstream's unit tests and ours.
use std::collections::BTreeSet;

use cel::{CostLimit, Environment, NoSizes, Value, Version};
use serde_json::{Value as Json, json};

mod bounds;

/// A value as the facts print it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => format!("{u}u"),
        Value::Double(d) if d.is_nan() => "dNaN".into(),
        Value::Double(_) => format!("d{value}"),
        Value::String(text) => go_json(text),
        Value::Bytes(bytes) => format!("b{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
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
        other => format!("<{}>", other.type_of().runtime_name()),
    }
}

/// Go's JSON writes these as escapes.
fn go_json(text: &str) -> String {
    let mut out = json!(text).to_string();
    for (plain, escaped) in [("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")] {
        out = out.replace(plain, escaped);
    }
    out
}

fn answer(expression: &str, minor: u32) -> Json {
    let environment = Environment::base(Version { major: 1, minor });
    let program = match environment.compile(expression) {
        Ok(program) => program,
        Err(issues) => return json!({ "issues": issues.to_string() }),
    };
    let estimate = program.estimate(&NoSizes);
    let mut answer = json!({ "type": go_type(&program.output_type().to_string()), "min": estimate.min, "max": estimate.max });
    if let Some(defect) = program.defect() {
        answer["error"] = json!(format!("program: {defect}"));
        return answer;
    }
    let none: [(&str, Value); 0] = [];
    let evaluation = program.evaluate(&none.as_slice(), CostLimit::PER_CALL);
    answer["cost"] = json!(evaluation.cost);
    match &evaluation.value {
        Ok(value) => answer["value"] = json!(show(value)),
        Err(error) => answer["error"] = json!(error.to_string()),
    }
    answer
}

/// Types print differently in messages and elsewhere.
fn go_type(of: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in of.chars().chain(std::iter::once('\n')) {
        if c.is_alphanumeric() || matches!(c, '_' | '.') {
            word.push(c);
            continue;
        }
        out.push_str(match word.as_str() {
            "duration" => "google.protobuf.Duration",
            "timestamp" => "google.protobuf.Timestamp",
            "null" => "null_type",
            other => other,
        });
        word.clear();
        if c != '\n' {
            out.push(c);
        }
    }
    out
}

/// Cases that still differ, one a line; the list may only shrink, and says when it can.
const KNOWN: &str = include_str!("known_differences.txt");

#[test]
fn every_expression_comes_out_as_upstream_has_it() {
    let known: BTreeSet<&str> = KNOWN.lines().collect();
    let mut differing = BTreeSet::new();
    let mut report = String::new();
    let mut total = 0;
    for facts in [
        include_str!("facts/conformance.jsonl"),
        include_str!("facts/library.jsonl"),
        include_str!("facts/extensions.jsonl"),
        include_str!("facts/own.jsonl"),
    ] {
        for line in facts.lines() {
            total += 1;
            let fact: Json = serde_json::from_str(line).expect("a line of facts");
            let expression = fact["expr"].as_str().expect("an expression");
            let ours = answer(expression, fact["minor"].as_u64().unwrap_or(37) as u32);
            let mut theirs = fact.clone();
            let fields = theirs.as_object_mut().expect("an object");
            fields.remove("expr");
            fields.remove("minor");
            if ours != theirs {
                differing.insert(json!(expression).to_string());
                report.push_str(&format!("{expression}\n  upstream {theirs}\n  ours     {ours}\n"));
            }
        }
    }
    let found: BTreeSet<&str> = differing.iter().map(String::as_str).collect();
    if let Ok(path) = std::env::var("CEL_DIFFERENCES") {
        std::fs::write(path, report).expect("the report is written");
    }
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "{} of {total} differ; not known yet: {new:#?}; listed but right: {gone:#?}", found.len());
}

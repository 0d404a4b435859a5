//! What is left of a cluster, without what is random in it: names with random ends, ids, times, addresses.
use serde_json::{Map, Value};

use crate::world::World;

/// Fields that number, date or sign differently each time.
const RANDOM: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "managedFields",
    "creationTimestamp",
    "observedGeneration",
    // Of a ControllerRevision: one more than the newest that the controller's cache shows, which is upstream's number too (nextRevision).
    "revision",
    // Told by the write that follows the change, and not by one after it.
    "endpoints.kubernetes.io/last-change-trigger-time",
];
/// Certificates and tokens are longer than any text here.
const TEXT_MAX: usize = 400;

/// The objects of the collections, one to a line, in an order of their own.
pub async fn picture(world: &World, collections: &[&str]) -> String {
    let mut lines = Vec::new();
    let mut names = Vec::new();
    let mut lists = Vec::new();
    for path in collections {
        let objects = world.list(path).await;
        for object in &objects {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            if !text("generateName").is_empty() {
                names.push((text("name"), format!("{}*", text("generateName"))));
            }
        }
        lists.push((path, objects));
    }
    for (path, objects) in lists {
        for mut object in objects {
            plain(&mut object);
            let mut text = object.to_string();
            for (name, general) in &names {
                text = text.replace(name.as_str(), general);
            }
            lines.push(format!("{path} {}", without_ids(&text)));
        }
    }
    lines.sort();
    lines.join("\n")
}

/// Ids stand in names and labels, too.
fn without_ids(text: &str) -> String {
    const LENGTH: usize = 36;
    let is_id = |part: &str| part.bytes().enumerate().all(|(i, b)| if [8, 13, 18, 23].contains(&i) { b == b'-' } else { b.is_ascii_hexdigit() });
    let (mut out, mut rest) = (String::new(), text);
    while let Some(next) = rest.chars().next() {
        let (part, length) = match rest.get(..LENGTH).filter(|part| is_id(part)) {
            Some(_) => ("UID", LENGTH),
            None => (&rest[..next.len_utf8()], next.len_utf8()),
        };
        out.push_str(part);
        rest = &rest[length..];
    }
    out
}

fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(plain);
            // Nothing and empty are one.
            let is_empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
            fields.retain(|key, value| !RANDOM.contains(&key.as_str()) && !is_empty(value));
            sort(fields);
        }
        Value::Array(members) => members.iter_mut().for_each(plain),
        Value::String(text) if is_random(text) => *text = "*".to_owned(),
        _ => {}
    }
}

fn sort(fields: &mut Map<String, Value>) {
    let mut all: Vec<_> = std::mem::take(fields).into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    fields.extend(all);
}

fn is_random(text: &str) -> bool {
    let is_time = text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T';
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_time || is_digest || text.len() > TEXT_MAX || text.parse::<std::net::IpAddr>().is_ok()
}

/// The lines in which two pictures differ.
pub fn difference(wanted: &str, found: &str) -> String {
    let only = |a: &str, b: &str, mark: &str| a.lines().filter(|line| !b.lines().any(|l| l == *line)).map(|l| format!("{mark} {l}")).collect::<Vec<_>>();
    [only(wanted, found, "-"), only(found, wanted, "+")].concat().join("\n")
}

//! Checks the protobuf codec against upstream's types, both ways, on objects of every kind that `src/xtask/facts/protobuf` makes.
//!
//! usage: protobuf_oracle PROGRAM OBJECTS-OF-EACH-KIND SEED
use std::io::{BufReader, BufWriter, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use api::registry::{Registry, split_api_version};
use api::tree::Tree;
use api::{codec, protobuf, schema};

fn frame(reader: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    reader.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// The object as every decoded document becomes one.
fn typed(tree: Tree) -> Result<Tree, String> {
    let (group, version) = split_api_version(tree.str_at(&["apiVersion"]));
    let schema = Registry::get().kind_schema(group, version, tree.str_at(&["kind"])).ok_or("kind is unknown")?;
    schema::decode(schema, tree).map(|decoded| decoded.tree).map_err(|error| error.to_string())
}

/// Empty lists and maps are absent in protobuf.
fn without_empty(tree: &mut Tree) {
    match tree {
        Tree::Object(object) => {
            object.iter_mut().for_each(|(_, value)| without_empty(value));
            object.retain(|_, value| !matches!(value, Tree::Array(a) if a.is_empty()) && !matches!(value, Tree::Object(o) if o.is_empty()) && !value.is_null());
        }
        Tree::Array(items) => items.iter_mut().for_each(|item| without_empty(item)),
        _ => {}
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, count, seed] = &arguments[..] else {
        eprintln!("usage: protobuf_oracle PROGRAM OBJECTS-OF-EACH-KIND SEED");
        return ExitCode::from(64);
    };
    let mut oracle = Command::new(program).args([count, seed]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the oracle starts");
    let mut from = BufReader::new(oracle.stdout.take().expect("piped"));
    let mut to = BufWriter::new(oracle.stdin.take().expect("piped"));
    let (mut objects, mut failed, mut unknown) = (0, 0, std::collections::BTreeSet::new());
    while let (Some(json), Some(document)) = (frame(&mut from), frame(&mut from)) {
        objects += 1;
        let tree = codec::parse_json(&json).expect("Go writes JSON").tree;
        let name = format!("{} {}", tree.str_at(&["apiVersion"]), tree.str_at(&["kind"]));
        let written = protobuf::encode(&json).or_else(|error| {
            if matches!(error, protobuf::EncodeError::UnknownKind { .. }) {
                unknown.insert(name.clone());
                return Ok(document.clone());
            }
            Err(error)
        });
        let written = written.unwrap_or_else(|error| {
            failed += 1;
            eprintln!("{name}: cannot be written: {error}\n  {}", String::from_utf8_lossy(&json));
            Vec::new()
        });
        to.write_all(&u32::try_from(written.len()).expect("objects are small").to_be_bytes()).and_then(|()| to.write_all(&written)).expect("the oracle reads");
        to.flush().expect("the oracle reads");
        if unknown.contains(&name) {
            continue;
        }
        let read = protobuf::decode(&document, ("", "", "")).map_err(|error| error.to_string()).and_then(typed);
        match (read, typed(tree)) {
            (Ok(mut read), Ok(mut expected)) => {
                without_empty(&mut read);
                without_empty(&mut expected);
                if read != expected {
                    failed += 1;
                    let text = |tree: &Tree| String::from_utf8_lossy(&tree.to_json()).into_owned();
                    eprintln!("{name}: rk read\n  {}\ninstead of\n  {}", text(&read), text(&expected));
                }
            }
            (read, expected) => {
                failed += 1;
                eprintln!("{name}: {:?}, of JSON {:?}", read.err(), expected.err());
            }
        }
    }
    drop(to);
    let status = oracle.wait().expect("the oracle ends");
    println!("{objects} objects, {failed} read or written wrong, {} kinds unknown: {unknown:?}; the oracle: {status}", unknown.len());
    if failed == 0 && status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

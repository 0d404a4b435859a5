//! Generates the client of etcd that `store` has, from the .proto files of etcd's Go module; the result is committed.
//!
//! No `protoc`: protox reads them. What rk does not call is left out, with all that only it needs, and so are upstream's comments.
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::{command, root};

const MODULE: &str = "go.etcd.io/etcd/api/v3@v3.7.3";
const ROOT: &str = "etcd/api/etcdserverpb/rpc.proto";

/// What is called: service and methods.
const CALLED: [(&str, &[&str]); 4] = [
    ("KV", &["Range", "Txn", "Compact"]),
    ("Watch", &["Watch"]),
    ("Lease", &["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive"]),
    ("Maintenance", &["Status"]),
];

pub fn run() -> Result<()> {
    let output = command("go").args(["mod", "download", "-json", MODULE]).output().context("start go")?;
    ensure!(output.status.success(), "go mod download {MODULE}: {}", String::from_utf8_lossy(&output.stderr));
    let module: serde_json::Value = serde_json::from_slice(&output.stdout).context("read what go says")?;
    let folder = module["Dir"].as_str().context("go names no folder")?;

    let mut resolver = ChainFileResolver::new();
    resolver.add(Module(folder.into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file(ROOT).with_context(|| format!("compile {ROOT}"))?;
    let files = called_only(compiler.file_descriptor_set())?;

    let generated = root().join("src/store/src/etcd/generated");
    std::fs::create_dir_all(&generated).with_context(|| format!("create {}", generated.display()))?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .bytes(".")
        .out_dir(&generated)
        .compile_fds(files)
        .context("generate the client")
}

/// The files of the module, without the options that only its gateway reads.
struct Module(std::path::PathBuf);

impl FileResolver for Module {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let Some(inside) = name.strip_prefix("etcd/api/") else { return Err(protox::Error::file_not_found(name)) };
        let text = std::fs::read_to_string(self.0.join(Path::new(inside))).map_err(protox::Error::new)?;
        File::from_source(name, &without_options(&text))
    }
}

/// Removes `option (...) ...;` and the imports that those need.
fn without_options(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("option (") {
        kept.push_str(&rest[..start]);
        let mut depth = 0;
        let end = rest[start..].char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            *c == ';' && depth == 0
        });
        rest = end.map_or("", |(at, _)| &rest[start + at + 1..]);
    }
    kept.push_str(rest);
    let needless = |line: &&str| !line.starts_with("import \"google/api/") && !line.starts_with("import \"protoc-gen");
    kept.lines().filter(needless).collect::<Vec<_>>().join("\n")
}

/// Keeps the called methods, and the messages and enumerations that they reach.
fn called_only(mut set: FileDescriptorSet) -> Result<FileDescriptorSet> {
    let mut wanted = BTreeSet::new();
    let rpc = set.file.iter_mut().find(|file| file.name() == ROOT).context("the root is among the files")?;
    rpc.service.retain_mut(|service| {
        let Some((_, methods)) = CALLED.iter().find(|(name, _)| *name == service.name()) else { return false };
        service.method.retain(|method| methods.contains(&method.name()));
        wanted.extend(service.method.iter().flat_map(|method| [method.input_type().to_owned(), method.output_type().to_owned()]));
        true
    });
    ensure!(rpc.service.len() == CALLED.len(), "etcd has other services now");

    let mut uses = HashMap::new();
    for file in &set.file {
        for message in &file.message_type {
            uses.insert(full_name(file, message.name()), types_of(message));
        }
    }
    let mut open: Vec<String> = wanted.iter().cloned().collect();
    while let Some(name) = open.pop() {
        // A type inside of a message is kept with that message.
        let Some((outer, used)) = uses.iter().find(|(outer, _)| name == **outer || name.starts_with(&format!("{outer}."))) else {
            continue; // an enumeration
        };
        wanted.insert(outer.clone());
        open.extend(used.iter().filter(|used| wanted.insert((*used).clone())).cloned());
    }
    for file in &mut set.file {
        let package = file.clone();
        file.message_type.retain(|message| wanted.contains(&full_name(&package, message.name())));
        file.enum_type.retain(|one| wanted.contains(&full_name(&package, one.name())));
        file.extension.clear();
        file.source_code_info = None;
    }
    set.file.retain(|file| !file.message_type.is_empty() || !file.service.is_empty());
    let kept: Vec<String> = set.file.iter().map(|file| file.name().to_owned()).collect();
    for file in &mut set.file {
        file.dependency.retain(|name| kept.contains(name));
    }
    Ok(set)
}

fn full_name(file: &FileDescriptorProto, name: &str) -> String {
    format!(".{}.{name}", file.package())
}

/// The types of a message's fields, those of inner messages with them.
fn types_of(message: &DescriptorProto) -> Vec<String> {
    let own = message.field.iter().filter(|field| field.type_name.is_some()).map(|field| field.type_name().to_owned());
    own.chain(message.nested_type.iter().flat_map(types_of)).collect()
}

#[test]
fn options_of_the_gateway_are_left_out() {
    let text = "import \"google/api/annotations.proto\";\nservice A {\n  rpc B(C) returns (D) {\n    option (google.api.http) = {\n      post: \"/x\"\n    };\n  }\n}";
    assert_eq!(without_options(text), "service A {\n  rpc B(C) returns (D) {\n    \n  }\n}");
}

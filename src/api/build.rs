//! Takes the descriptions of kinds and fields out of the source of the dependency `k8s-openapi` and packs them for OpenAPI documents,
//! so that no copy of them stands in this tree.
//!
//! The pack is text, compressed: for each definition a line `=name`, a line with its description, then `field<TAB>description` lines.
//! Line breaks within descriptions are escaped as `\n`, backslashes as `\\`.
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

type Definitions = BTreeMap<String, (String, BTreeMap<String, String>)>;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=facts");
    println!("cargo:rerun-if-changed=src/openapi.rs");
    println!("cargo:rerun-if-changed=src/openapi");
    println!("cargo:rerun-if-changed=../../Cargo.lock");
    let source = dependency_folder("k8s-openapi").join("src/v1_37");
    let mut definitions = Definitions::new();
    collect(&source, &mut definitions);
    assert!(definitions.len() > 400, "{} has only {} definitions: has its layout changed?", source.display(), definitions.len());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let text = pack(&definitions);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes()).expect("writing to memory");
    fs::write(out.join("descriptions.z"), encoder.finish().expect("writing to memory")).expect("OUT_DIR is writable");
    // Documents change when, and only when, one of these does.
    let mut hash = Fnv::default();
    hash.add(text.as_bytes());
    for folder in ["facts", "src/openapi"] {
        files(Path::new(folder)).iter().for_each(|path| hash.add(&read(path)));
    }
    hash.add(&read(Path::new("src/openapi.rs")));
    println!("cargo:rustc-env=OPENAPI_HASH={:016X}", hash.0);
}

/// The folder of a dependency's source, wherever cargo keeps it (registry, vendored).
fn dependency_folder(name: &str) -> PathBuf {
    // Offline is quicker, but fails on a machine that has yet to download what only tests need.
    let mut output = cargo_metadata(&["--offline"]);
    if !output.status.success() {
        output = cargo_metadata(&["--locked"]);
    }
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let package = packages.iter().find(|p| p["name"] == name).expect("a dependency of this crate");
    Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a file in a folder").to_owned()
}

fn cargo_metadata(mode: &[&str]) -> std::process::Output {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    Command::new(cargo)
        .arg("metadata")
        .args(mode)
        // Other platforms' dependencies were never downloaded.
        .args(["--format-version=1", "--filter-platform", &env::var("TARGET").expect("cargo sets TARGET")])
        .arg("--manifest-path")
        .arg(Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo runs")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

fn collect(folder: &Path, definitions: &mut Definitions) {
    for path in files(folder) {
        if path.is_dir() {
            collect(&path, definitions);
        } else {
            let text = fs::read_to_string(&path).expect("a source file");
            for block in text.split("\nimpl crate::schemars::JsonSchema for ").skip(1) {
                definition(block, definitions);
            }
        }
    }
}

/// Reads one generated `JsonSchema` implementation; the indentation tells a definition's own lines (12) from its fields' (16).
fn definition(block: &str, definitions: &mut Definitions) {
    let Some(name) = block.lines().find(|l| l.trim().ends_with("\".into()")).and_then(literal) else { return };
    let (mut own, mut fields) = (String::new(), BTreeMap::new());
    let mut field = None;
    for line in block.lines() {
        let indentation = line.len() - line.trim_start().len();
        let text = line.trim_start();
        if indentation == 0 && text == "}" {
            break;
        }
        let described =
            text.strip_prefix("\"description\": ").or_else(|| text.split_once("insert(\"description\".into(), ").map(|(_, rest)| rest));
        match (indentation, described) {
            (12, Some(description)) => own = literal(description).unwrap_or_default(),
            (16, None) if text.starts_with('"') && text.ends_with('{') => field = literal(text),
            (20.., Some(description)) => {
                if let Some(field) = field.take() {
                    fields.insert(field, literal(description).unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    definitions.insert(name, (own, fields));
}

/// The first string literal in `text`, unescaped.
fn literal(text: &str) -> Option<String> {
    let mut chars = text[text.find('"')? + 1..].chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                '0' => out.push('\0'),
                'u' => {
                    let code: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}

fn pack(definitions: &Definitions) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('\n', "\\n");
    let mut out = String::new();
    for (name, (own, fields)) in definitions {
        out.push_str(&format!("={name}\n{}\n", escape(own)));
        for (field, description) in fields {
            out.push_str(&format!("{field}\t{}\n", escape(description)));
        }
    }
    out
}

struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

//! `/etc/rk/config.yaml`: every flag of `rk server` by its long name, as k3s' users know it; `/etc/rk/agent.yaml` for `rk agent`.
//!
//! The file becomes arguments in front of the real ones, so that both go through the same checks and a flag wins.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{ArgAction, Command};

pub const DEFAULT_PATH: &str = "/etc/rk/config.yaml";
pub const AGENT_PATH: &str = "/etc/rk/agent.yaml";

#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("read configuration {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration {path}: {detail}")]
    Parse { path: PathBuf, detail: String },
    #[error("configuration {path}: unknown key {key:?}; `rk {role} --help` lists the keys (each flag without its dashes)")]
    UnknownKey { path: PathBuf, key: String, role: String },
    #[error("configuration {path}: key {key:?}: {detail}")]
    Value { path: PathBuf, key: String, detail: String },
}

/// Adds the configuration file's settings to the arguments of `rk server`, `rk agent` and `rk agent join`; others pass unchanged.
pub fn merge(command: Command, arguments: Vec<OsString>) -> Result<Vec<OsString>, ConfigFileError> {
    let names: Vec<&str> = arguments.iter().skip(1).filter_map(|a| a.to_str()).collect();
    let (role, default_path) = match names.as_slice() {
        ["server", ..] => (&["server"][..], DEFAULT_PATH),
        ["agent", "join", ..] => (&["agent", "join"][..], AGENT_PATH),
        ["agent", ..] => (&["agent"][..], AGENT_PATH),
        _ => return Ok(arguments),
    };
    let named = named_file(&arguments);
    let path = named.clone().unwrap_or_else(|| default_path.into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(arguments),
        Err(source) => return Err(ConfigFileError::Read { path, source }),
    };
    let known = role.iter().fold(&command, |c, name| c.find_subcommand(name).expect("the names of rk's own subcommands")).clone();
    let settings = settings(&known, &path, &text)?;
    check_values(known, &path, &settings)?;
    let (head, tail) = arguments.split_at(1 + role.len());
    Ok(head.iter().cloned().chain(settings).chain(tail.iter().cloned()).collect())
}

/// A bad value is said to stand in the file, not on the command line.
fn check_values(role: Command, path: &Path, settings: &[OsString]) -> Result<(), ConfigFileError> {
    let arguments = std::iter::once(OsString::from(role.get_name())).chain(settings.iter().cloned());
    match role.try_get_matches_from(arguments) {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) => {
            let text = error.to_string();
            let sentence = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            let detail = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(ConfigFileError::Parse { path: path.to_owned(), detail })
        }
        _ => Ok(()), // the same arguments are parsed again, with the flags
    }
}

fn named_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().skip(2);
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(path.into());
        }
        if text == "--config" || text == "-c" {
            return rest.next().map(Into::into);
        }
    }
    None
}

fn settings(role: &Command, path: &Path, text: &str) -> Result<Vec<OsString>, ConfigFileError> {
    let parse = |detail: String| ConfigFileError::Parse { path: path.to_owned(), detail };
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let tree: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| parse(e.to_string()))?;
    let map = tree.as_object().ok_or_else(|| parse("expected a mapping of flags to values".into()))?;
    let mut arguments = Vec::new();
    for (key, value) in map {
        let known = role.get_arguments().find(|a| a.get_long() == Some(key) && key != "config");
        let known = known.ok_or_else(|| ConfigFileError::UnknownKey { path: path.to_owned(), key: key.clone(), role: role.get_name().to_owned() })?;
        let wrong = |detail: &str| ConfigFileError::Value { path: path.to_owned(), key: key.clone(), detail: detail.to_owned() };
        let values = match value {
            serde_json::Value::Array(items) if matches!(known.get_action(), ArgAction::Append) => items.iter().collect(),
            serde_json::Value::Array(_) => return Err(wrong("takes one value, not a list")),
            single => vec![single],
        };
        for value in values {
            let text = match value {
                serde_json::Value::String(s) => s.clone(),
                serde_json::Value::Number(n) => n.to_string(),
                serde_json::Value::Bool(b) => b.to_string(),
                _ => return Err(wrong("takes a text, a number or true/false")),
            };
            match (known.get_action(), text.as_str()) {
                (ArgAction::SetTrue, "true") => arguments.push(format!("--{key}").into()),
                (ArgAction::SetTrue, "false") => {}
                (ArgAction::SetTrue, _) => return Err(wrong("takes true or false")),
                _ => arguments.push(format!("--{key}={text}").into()),
            }
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn check(text: &str) -> String {
        let server = Command::new("server")
            .arg(Arg::new("data-dir").long("data-dir"))
            .arg(Arg::new("tls-san").long("tls-san").action(ArgAction::Append))
            .arg(Arg::new("debug").long("debug").action(ArgAction::SetTrue));
        match settings(&server, Path::new("/c"), text) {
            Ok(list) => list.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn keys_become_flags() {
        assert_eq!(check("data-dir: /x\ntls-san:\n- a\n- b\ndebug: true\n"), "--data-dir=/x --debug --tls-san=a --tls-san=b");
        assert_eq!(check("# nothing\n"), "");
    }

    #[test]
    fn a_bad_key_or_value_is_named_with_its_file() {
        assert!(check("data-dri: /x").starts_with("configuration /c: unknown key \"data-dri\""));
        assert!(check("data-dir: [a, b]").contains("key \"data-dir\": takes one value"));
        assert!(check("debug: 3").contains("takes true or false"));
    }

    #[test]
    fn a_value_that_its_flag_refuses_is_named_with_its_file() {
        let port = Arg::new("port").long("port").value_name("PORT").value_parser(clap::value_parser!(u16));
        let part = Arg::new("disable").long("disable").value_name("PART").value_parser(["dns", "ingress"]);
        let server = Command::new("server").arg(port).arg(part);
        let check = |setting: &str| check_values(server.clone(), Path::new("/c"), &[setting.into()]).unwrap_err().to_string();
        assert!(check("--port=a").starts_with("configuration /c: invalid value 'a' for '--port <PORT>': "));
        assert_eq!(
            check("--disable=x"),
            "configuration /c: invalid value 'x' for '--disable <PART>' [possible values: dns, ingress]"
        );
    }
}

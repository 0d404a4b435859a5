//! Admission plugins that the operator asks for, with their configuration.
//!
//! Models k8s.io/apiserver/pkg/admission/config.go: the file is an `AdmissionConfiguration`, in which a plugin's own configuration stands, or the
//! path of the file that holds it.
use std::path::Path;

use anyhow::Context;
use api::tree::Tree;
use apiserver::admission::OnRequest;

use crate::cli::UsageError;

pub fn plugins(names: &[String], file: Option<&Path>) -> anyhow::Result<Vec<OnRequest>> {
    let usage = |text: String| anyhow::Error::from(UsageError(text));
    let file = match file {
        Some(path) => Some((path, read(path)?)),
        None => None,
    };
    let mut plugins = Vec::new();
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            continue;
        }
        let configuration = match &file {
            Some((path, file)) => configuration(path, file, name)?,
            None => Tree::Null,
        };
        let known = || OnRequest::NAMES.join(", ");
        let plugin = OnRequest::named(name, &configuration);
        let plugin = plugin.ok_or_else(|| usage(format!("--enable-admission-plugins {name:?} is none of {}", known())))?;
        plugins.push(plugin.map_err(|why| usage(format!("--admission-control-config-file: configuration of {name}: {why}")))?);
    }
    Ok(plugins)
}

fn read(path: &Path) -> anyhow::Result<Tree> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let parsed = api::codec::parse_yaml(&bytes).with_context(|| format!("read {}", path.display()))?;
    Ok(parsed.tree)
}

/// A plugin's own part of the file; null where it has none.
fn configuration(path: &Path, file: &Tree, name: &str) -> anyhow::Result<Tree> {
    let Some(plugin) = file.array_at(&["plugins"]).iter().find(|plugin| plugin.str_at(&["name"]) == name) else { return Ok(Tree::Null) };
    match plugin.str_at(&["path"]) {
        "" => Ok(plugin.get("configuration").cloned().unwrap_or_default()),
        own => read(&path.parent().unwrap_or(Path::new("")).join(own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_finds_its_configuration_in_the_file() {
        let file = "kind: AdmissionConfiguration\nplugins:\n- name: EventRateLimit\n  configuration: {limits: [{type: Server, qps: 5, burst: 10}]}\n";
        let file = api::codec::parse_yaml(file.as_bytes()).unwrap().tree;
        let own = configuration(Path::new("/x"), &file, "EventRateLimit").unwrap();
        assert_eq!(own.array_at(&["limits"]).len(), 1);
        assert_eq!(configuration(Path::new("/x"), &file, "AlwaysPullImages").unwrap(), Tree::Null);
        let names = ["AlwaysPullImages", "AlwaysPullImages", "EventRateLimit"].map(str::to_owned);
        assert_eq!(plugins(&names[..2], None).unwrap().len(), 1);
        let error = plugins(&names, None).err().unwrap().to_string();
        assert_eq!(error, "--admission-control-config-file: configuration of EventRateLimit: limits: Invalid value: []: must not be empty");
        assert!(plugins(&["Nothing".to_owned()], None).err().unwrap().to_string().contains("is none of AlwaysPullImages, "));
    }
}

//! What the operator decides about one node.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Taint;

use crate::cli::UsageError;

/// Checked and completed from the machine.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    pub name: String,
    pub ip: Ipv4Addr,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub data_dir: PathBuf,
    pub resolv_conf: PathBuf,
    pub private_registry: PathBuf,
}

pub fn labels(texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| UsageError(format!("--node-label {text:?} is not KEY=VALUE")))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

pub fn taint(text: &str) -> anyhow::Result<Taint> {
    let wrong = || UsageError(format!("--node-taint {text:?} is not KEY=VALUE:EFFECT with NoSchedule, PreferNoSchedule or NoExecute"));
    let (pair, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(wrong().into());
    }
    let (key, value) = pair.split_once('=').map_or((pair, None), |(k, v)| (k, Some(v.to_owned())));
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

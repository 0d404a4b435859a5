//! The administrator's kubeconfig.
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub fn mode(text: &str) -> anyhow::Result<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => bail!(crate::cli::UsageError(format!("--write-kubeconfig-mode {text:?} is not a file mode in octal, like 0600"))),
    }
}

pub fn write(path: &Path, mode: u32, server: &str, ca: &str, certificate: &str, key: &str) -> anyhow::Result<()> {
    let data = |pem: &str| STANDARD.encode(pem);
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: default\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\nusers:\n- name: default\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: default\n  context:\n    cluster: default\n    user: default\ncurrent-context: default\n",
        data(ca), data(certificate), data(key),
    );
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    pki::write_atomically(path, text.as_bytes(), mode).with_context(|| format!("write {}", path.display()))
}

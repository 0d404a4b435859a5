//! Files of one volume whose paths are the same, or of which one would have to be a folder.
//!
//! Models pkg/api/pod/warnings.go `warningsForOverlappingVirtualPaths`.
use std::fmt;

use super::check::*;
use crate::field_error::quote;
use crate::tree::Tree;

/// Of more files in a volume nothing is said: each is compared with each, and clients are shown 4 kB of warnings.
const FILES_MAX: usize = 200;

#[derive(PartialEq)]
struct File<'t> {
    path: &'t str,
    source: String,
}

impl<'t> File<'t> {
    fn new(path: &'t str, source: &str) -> Self {
        Self { path: path.trim_end_matches('/'), source: source.to_owned() }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let holds = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        !self.path.is_empty() && !other.path.is_empty() && (holds(self.path, other.path) || holds(other.path, self.path))
    }
}

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&quote(self.path))?;
        if self.source.is_empty() { Ok(()) } else { write!(f, " ({})", self.source) }
    }
}

/// Of `spec.volumes`.
pub(super) fn overlapping(warnings: &mut Vec<String>, spec: &Tree) {
    for volume in list(spec, "volumes") {
        let name = text(volume, "name");
        for (key, kind, named) in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")] {
            if let Some(source) = set(volume, key) {
                compare(warnings, name, &format!("{kind} {}", quote(text(source, named))), &items(source, ""));
            }
        }
        if let Some(source) = set(volume, "downwardAPI") {
            compare(warnings, name, "DownwardAPI", &items(source, ""));
        }
        let Some(projected) = set(volume, "projected") else { continue };
        let mut files = Vec::new();
        for source in list(projected, "sources") {
            if source.as_object().is_none_or(|fields| fields.iter().all(|(_, value)| value.is_null())) {
                warnings.push(format!("volume {} (Projected) has no sources provided", quote(name)));
            }
            files.extend(projection(source));
        }
        compare(warnings, name, "Projected", &files);
    }
}

fn items<'t>(source: &'t Tree, of: &str) -> Vec<File<'t>> {
    list(source, "items").iter().map(|item| File::new(text(item, "path"), of)).collect()
}

fn projection(source: &Tree) -> Vec<File<'_>> {
    if let Some(map) = set(source, "configMap").filter(|map| set(map, "items").is_some()) {
        return items(map, &format!("ConfigMap {}", quote(text(map, "name"))));
    }
    if let Some(secret) = set(source, "secret").filter(|secret| set(secret, "items").is_some()) {
        return items(secret, &format!("Secret {}", quote(text(secret, "name"))));
    }
    if let Some(fields) = set(source, "downwardAPI").filter(|fields| set(fields, "items").is_some()) {
        return items(fields, "DownwardAPI");
    }
    if let Some(token) = set(source, "serviceAccountToken") {
        return vec![File::new(text(token, "path"), "ServiceAccountToken")];
    }
    if let Some(bundle) = set(source, "clusterTrustBundle") {
        let name = set(bundle, "name").or(set(bundle, "signerName")).and_then(Tree::as_str).unwrap_or("");
        return vec![File::new(text(bundle, "path"), &format!("ClusterTrustBundle {}", quote(name)))];
    }
    let Some(certificate) = set(source, "podCertificate") else { return Vec::new() };
    let parts = [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")];
    let named = parts.iter().filter(|(key, _)| !text(certificate, key).is_empty());
    named.map(|(key, part)| File::new(text(certificate, key), &format!("PodCertificate {part}"))).collect()
}

fn compare(warnings: &mut Vec<String>, volume: &str, kind: &str, files: &[File]) {
    for (i, file) in files.iter().enumerate().take(FILES_MAX) {
        let earlier = files[..i].iter().filter(|other| file.overlaps(other));
        warnings.extend(earlier.map(|other| format!("volume {} ({kind}): overlapping paths: {file} with {other}", quote(volume))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_overlap_are_said_with_their_sources() {
        let spec: Tree = serde_saphyr::from_str(
            "{volumes: [{name: c, configMap: {name: m, items: [{key: a, path: x}, {key: b, path: x/y/}, {key: c, path: xy}]}}, {name: p, projected: {sources: [{}, \
             {secret: {name: s, items: [{key: a, path: t}]}}, {serviceAccountToken: {path: t}}]}}]}",
        )
        .unwrap();
        let mut warnings = Vec::new();
        overlapping(&mut warnings, &spec);
        assert_eq!(warnings, [
            r#"volume "c" (ConfigMap "m"): overlapping paths: "x/y" with "x""#,
            r#"volume "p" (Projected) has no sources provided"#,
            r#"volume "p" (Projected): overlapping paths: "t" (ServiceAccountToken) with "t" (Secret "s")"#,
        ]);
    }
}

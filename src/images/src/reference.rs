//! Image names as people write them, made complete: `busybox` is `docker.io/library/busybox:latest`.
//!
//! Models github.com/distribution/reference (grammar and normalization).
use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// A normalized name: registry, repository, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("unsupported digest algorithm or length")]
    Digest,
}

impl Reference {
    /// The host, with its port: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest where there is one, else the tag.
    pub fn manifest_key(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository by digest: `registry/repository@sha256:...`.
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use ParseReferenceError as E;
        if text.is_empty() || !text.is_ascii() {
            return Err(E::Format);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| E::Digest)?)),
            None => (text, None),
        };
        // A colon behind the last slash starts a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(E::Format);
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) => {
                (first, rest.to_owned())
            }
            _ => ("docker.io", name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository =
            if registry == "docker.io" && !repository.contains('/') { format!("library/{repository}") } else { repository };
        if !is_host(registry) {
            return Err(E::Format);
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(E::Uppercase(repository));
        }
        if !repository.split('/').all(is_path_component) {
            return Err(E::Format);
        }
        if registry.len() + 1 + repository.len() > 255 {
            return Err(E::TooLong);
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len()) && word(tag.as_bytes()[0]) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Alphanumerics parted by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    if !edge(bytes.first()) || !edge(bytes.last()) {
        return false;
    }
    let mut separator = String::new();
    for b in component.chars() {
        match b {
            'a'..='z' | '0'..='9' => {
                let ok = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
                if !ok {
                    return false;
                }
                separator.clear();
            }
            '.' | '_' | '-' => separator.push(b),
            _ => return false,
        }
    }
    true
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    name.split('.').all(label) && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let got = text.parse::<Reference>().map_or_else(|e| format!("error: {e}"), |r| r.to_string());
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn short_names_are_completed_as_docker_does() {
        check("busybox", "docker.io/library/busybox:latest");
        check("me/app:1", "docker.io/me/app:1");
        check("localhost/app", "localhost/app:latest");
        check("127.0.0.1:5000/a/b_c:v1.0-x", "127.0.0.1:5000/a/b_c:v1.0-x");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest");
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check(&format!("quay.io/x/y@{digest}"), &format!("quay.io/x/y@{digest}"));
        check(&format!("quay.io/x/y:1@{digest}"), &format!("quay.io/x/y:1@{digest}"));
    }

    #[test]
    fn malformed_names_are_refused() {
        for bad in ["", "a//b", "-a", "a:", "a@sha256:12", "docker.io/../x", "a:b:c", "http://x/y", "a b", "x/é"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        check("Uppercase", "error: invalid reference format: repository name (library/Uppercase) must be lowercase");
    }
}

//! Which tag the name of an image has, since that says how it is pulled.
//!
//! Models pkg/util/parsers `ParseImageName` and github.com/distribution/reference `ParseNormalizedNamed`.

/// `Always` for the tag `latest`, named or implied, else `IfNotPresent`; also for a name that does not parse.
pub(super) fn pull_policy(image: &str) -> &'static str {
    match tag(image) {
        Some("latest") => "Always",
        _ => "IfNotPresent",
    }
}

const LENGTH_MAX: usize = 255;

/// The tag of a name that parses; empty where a digest stands for it.
fn tag(image: &str) -> Option<&str> {
    if image.len() == 64 && is_hex(image) {
        return None;
    }
    let (domain, rest) = split_domain(image);
    let (path, suffix) = rest.split_at(rest.find([':', '@']).unwrap_or(rest.len()));
    let (tag, digest) = suffix.split_once('@').map_or((suffix, None), |(tag, digest)| (tag, Some(digest)));
    // A first part that is no name of a host may still be one of the repository's.
    let (has_host, is_known) = (is_host(domain), is_host(domain) || is_component(domain));
    let library = if domain == HUB && !path.contains('/') { "library/".len() } else { 0 };
    let length = if has_host { library + path.len() } else { domain.len() + 1 + path.len() };
    let is_name = is_known && path.split('/').all(is_component) && length <= LENGTH_MAX;
    let tag = match tag.strip_prefix(':') {
        Some(tag) => Some(tag).filter(|tag| is_tag(tag)),
        None if digest.is_some() => Some(""),
        None => Some("latest"),
    };
    tag.filter(|_| is_name && digest.is_none_or(is_digest))
}

const HUB: &str = "docker.io";

fn split_domain(image: &str) -> (&str, &str) {
    match image.split_once('/') {
        Some(("index.docker.io", rest)) => (HUB, rest),
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first => (first, rest),
        _ => (HUB, image),
    }
}

/// A name or an address, and maybe a port.
fn is_host(domain: &str) -> bool {
    let is_port = |port: &str| port.is_empty() || port.strip_prefix(':').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if let Some((address, port)) = domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') && is_port(port);
    }
    let (name, port) = domain.split_at(domain.find(':').unwrap_or(domain.len()));
    let is_label = |label: &str| {
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(is_label) && is_port(port)
}

/// Small letters and digits, with a dot, one or two underscores or dashes between them.
fn is_component(part: &str) -> bool {
    let between: Vec<&str> = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).collect();
    let is_separator = |text: &&str| matches!(*text, "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    between.len() > 1 && between[0].is_empty() && between[between.len() - 1].is_empty() && between.iter().all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(is_word) && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    matches!((algorithm, hex.len()), ("sha256", 64) | ("sha384", 96) | ("sha512", 128)) && is_hex(hex)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_of_names_that_parse() {
        let sha = format!("sha256:{}", "0".repeat(64));
        let latest = ["a", "a/b", "a:latest", "docker.io/a", "localhost/a", "localhost:5000/a/b__c", "localhost:5000/a", "[::1]:5000/a", "A.b/c", "a_b.c/x", "index.docker.io/a"];
        for image in latest.map(str::to_owned).into_iter().chain([format!("a:latest@{sha}"), "a".repeat(247)]) {
            assert_eq!(pull_policy(&image), "Always", "{image}");
        }
        let not = ["", "a:1", "localhost:5000/a:2", "A", "a/B", "a_", "a..b", "a___b", "a b", "a:", "a@x", "a-", "h:x/a", "/a", "a//b", "a:-", "a:latest@sha256:0", "\u{e9}"];
        let more = [format!("a@{sha}"), "a".repeat(248), "0".repeat(64), format!("h.x/{}", "a".repeat(256)), format!("a:{}", "t".repeat(129))];
        for image in not.map(str::to_owned).into_iter().chain(more) {
            assert_eq!(pull_policy(&image), "IfNotPresent", "{image}");
        }
    }
}

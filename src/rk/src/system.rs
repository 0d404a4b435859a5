//! What a server applies to itself: the files of `manifests/`, with the few values that the operator may set.
use crate::node::ClusterFacts;

/// The image of the system's own pods; its only program is this binary.
pub fn image() -> String {
    format!("rk.local/rk:{}", crate::cli::VERSION)
}

/// Name of a part, as `--disable` takes it, and its objects.
const PARTS: [(&str, &str); 3] = [
    ("dns", include_str!("../../../manifests/dns.yaml")),
    ("ingress", include_str!("../../../manifests/ingress.yaml")),
    ("local-storage", include_str!("../../../manifests/local-storage.yaml")),
];

/// The documents to apply and those of disabled parts, which are to be removed.
pub fn documents(facts: &ClusterFacts, disabled: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
    for (part, text) in PARTS {
        let text = text
            .replace("%{IMAGE}", &image())
            .replace("%{CLUSTER_DNS}", &facts.cluster_dns.to_string())
            .replace("%{CLUSTER_DOMAIN}", &facts.cluster_domain);
        let list = if disabled.iter().any(|d| d == part) { &mut unwanted } else { &mut wanted };
        list.extend(text.split("\n---\n").map(str::to_owned));
    }
    (wanted, unwanted)
}

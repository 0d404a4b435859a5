//! The IP families of a Service, and the policy about them, which follow from each other and from its addresses.
//!
//! Models pkg/registry/core/service/storage/alloc.go `initIPFamilyFields`, v1.37, on a cluster of one family, IPv4.
use std::net::IpAddr;

use api::field_error::FieldError;
use api::names::parse_ip_sloppy;
use api::tree::Tree;
use api::validation::validate_cluster_ips;

use super::service::kind;

const POLICY: [&str; 2] = ["spec", "ipFamilyPolicy"];
const FAMILIES: [&str; 2] = ["spec", "ipFamilies"];
const CLUSTER_IPS: [&str; 2] = ["spec", "clusterIPs"];
const IPV4: &str = "IPv4";
const IPV6: &str = "IPv6";

fn policy(service: &Tree) -> &str {
    service.str_at(&POLICY)
}

fn strings(service: &Tree, path: &[&str]) -> Vec<String> {
    service.array_at(path).iter().map(|value| value.as_str().unwrap_or_default().to_owned()).collect()
}

fn set_strings(service: &mut Tree, path: &[&str], values: &[String]) {
    service.set(path, Tree::Array(values.iter().map(|value| value.as_str().into()).collect()));
}

fn family_of(ip: &str) -> &'static str {
    match parse_ip_sloppy(ip).map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(_)) => IPV4,
        Some(IpAddr::V6(_)) => IPV6,
        None => "unknown",
    }
}

fn is_headless_without_selector(service: &Tree) -> bool {
    let selector = service.at(&["spec", "selector"]).and_then(Tree::as_object);
    service.str_at(&["spec", "clusterIP"]) == "None" && selector.is_none_or(|selector| selector.is_empty())
}

/// Whether nothing about families changed of a Service that takes as many as there are. Models isMatchingPreferDualStackClusterIPFields.
pub fn stay_preferred(new: &Tree, old: &Tree) -> bool {
    let prefers = |service: &Tree| policy(service) == "PreferDualStack";
    let has_addresses = matches!(kind(new), "ClusterIP" | "NodePort" | "LoadBalancer");
    kind(new) == kind(old)
        && has_addresses
        && prefers(new)
        && (prefers(old) || policy(old).is_empty())
        && strings(new, &CLUSTER_IPS) == strings(old, &CLUSTER_IPS)
        && strings(new, &FAMILIES) == strings(old, &FAMILIES)
}

/// Fills in the families and their policy, or says why they cannot be.
pub fn settle(new: &mut Tree, old: Option<&Tree>) -> Result<(), Vec<FieldError>> {
    if kind(new) == "ExternalName" || old.is_some_and(|old| stay_preferred(new, old)) {
        return Ok(());
    }
    if new.at(&POLICY).is_none_or(Tree::is_null) {
        let before = old.map(policy).filter(|policy| !policy.is_empty());
        // Nobody knows of which families the endpoints are that somebody else keeps.
        let policy = before.unwrap_or(if is_headless_without_selector(new) { "RequireDualStack" } else { "SingleStack" });
        new.set(&POLICY, policy);
    }
    let errors = validate_cluster_ips(new);
    if !errors.is_empty() {
        return Err(errors);
    }
    let errors = infer(new, old);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut families = strings(new, &FAMILIES);
    if is_headless_without_selector(new) {
        if families.is_empty() {
            families.push(IPV4.to_owned());
        }
        if families.len() < 2 && policy(new) != "SingleStack" {
            families.push(if families[0] == IPV4 { IPV6 } else { IPV4 }.to_owned());
        }
        set_strings(new, &FAMILIES, &families);
        return Ok(());
    }
    let mut errors = Vec::new();
    if policy(new) == "RequireDualStack" {
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy(new), "this cluster is not configured for dual-stack services"));
    }
    for (i, family) in families.iter().enumerate().filter(|(_, family)| *family != IPV4) {
        errors.push(FieldError::invalid(format!("spec.ipFamilies[{i}]"), family.as_str(), "not configured on this cluster"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if families.is_empty() {
        set_strings(new, &FAMILIES, &[IPV4.to_owned()]);
    }
    Ok(())
}

/// Families that the addresses show; a second one goes where the policy says so, and only there.
fn infer(new: &mut Tree, old: Option<&Tree>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let shown = policy(new).to_owned();
    let mut wrong = |path: &str, detail: &str| errors.push(FieldError::invalid(path, shown.as_str(), detail));
    let (mut ips, mut families) = (strings(new, &CLUSTER_IPS), strings(new, &FAMILIES));
    if let Some(old) = old {
        let (ips_before, families_before) = (strings(old, &CLUSTER_IPS), strings(old, &FAMILIES));
        if shown == "SingleStack" {
            if ips == ips_before && ips.len() > 1 {
                ips.truncate(1);
                set_strings(new, &CLUSTER_IPS, &ips);
            }
            if families == families_before && families.len() > 1 {
                families.truncate(1);
                set_strings(new, &FAMILIES, &families);
            }
        } else {
            if !ips.is_empty() && ips.len() < ips_before.len() {
                wrong("spec.ipFamilyPolicy", "must be 'SingleStack' to release the secondary cluster IP");
            }
            if !families.is_empty() && families.len() < families_before.len() {
                wrong("spec.ipFamilyPolicy", "must be 'SingleStack' to release the secondary IP family");
            }
        }
    }
    if shown == "SingleStack" {
        if ips.len() == 2 {
            wrong("spec.ipFamilyPolicy", "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified");
        }
        if families.len() == 2 {
            wrong("spec.ipFamilyPolicy", "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified");
        }
    }
    for (i, ip) in ips.iter().enumerate().take_while(|(_, ip)| *ip != "None") {
        let family = family_of(ip);
        if i < families.len() {
            continue;
        }
        if family == IPV4 {
            families.push(IPV4.to_owned());
            set_strings(new, &FAMILIES, &families);
        } else {
            let value = new.at(&CLUSTER_IPS).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(
                format!("spec.clusterIPs[{i}]"),
                &value,
                format!("{family} is not configured on this cluster"),
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::super::service::with_spec;
    use super::*;

    fn settled(spec: &str, old: Option<&str>) -> String {
        let mut new = with_spec(spec);
        match settle(&mut new, old.map(with_spec).as_ref()) {
            Ok(()) => format!("{} {}", policy(&new), strings(&new, &FAMILIES).join(",")),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn a_service_has_the_clusters_family_unless_nobody_knows_its_endpoints() {
        assert_eq!(settled(r#"{"type":"ClusterIP"}"#, None), "SingleStack IPv4");
        let headless = r#""type":"ClusterIP","clusterIP":"None","clusterIPs":["None"]"#;
        assert_eq!(settled(&format!(r#"{{{headless},"selector":{{"a":"b"}}}}"#), None), "SingleStack IPv4");
        assert_eq!(settled(&format!("{{{headless}}}"), None), "RequireDualStack IPv4,IPv6");
        assert_eq!(settled(&format!(r#"{{{headless},"ipFamilies":["IPv6"]}}"#), None), "RequireDualStack IPv6,IPv4");
        assert_eq!(settled(&format!(r#"{{{headless},"ipFamilyPolicy":"SingleStack"}}"#), None), "SingleStack IPv4");
    }

    #[test]
    fn what_the_cluster_has_not_is_refused() {
        let refused = r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#;
        assert_eq!(settled(r#"{"type":"ClusterIP","ipFamilyPolicy":"RequireDualStack"}"#, None), refused);
        assert_eq!(settled(r#"{"type":"ClusterIP","ipFamilyPolicy":"PreferDualStack"}"#, None), "PreferDualStack IPv4");
        let refused = r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#;
        assert_eq!(settled(r#"{"type":"ClusterIP","ipFamilies":["IPv6"]}"#, None), refused);
        let refused = r#"spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster"#;
        assert_eq!(settled(r#"{"type":"ClusterIP","clusterIP":"fd00::1","clusterIPs":["fd00::1"]}"#, None), refused);
    }

    #[test]
    fn an_update_without_a_policy_keeps_it() {
        let old = r#"{"type":"ClusterIP","clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"PreferDualStack"}"#;
        assert_eq!(settled(r#"{"type":"ClusterIP","clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"]}"#, Some(old)), "PreferDualStack IPv4");
    }
}

//! What one rule allows, and whether some rules cover others.
//!
//! Models pkg/apis/rbac/v1/evaluation_helpers.go and k8s.io/component-helpers/auth/rbac/validation/policy_comparator.go.
use api::tree::Tree;

use crate::auth::{Attributes, PolicyRule};

const ALL: &str = "*";

/// The rules of a role, as its `rules` field holds them.
pub fn parse(rules: &[Tree]) -> Vec<PolicyRule> {
    let texts = |rule: &Tree, field: &str| {
        rule.array_at(&[field]).iter().filter_map(Tree::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    rules
        .iter()
        .map(|rule| PolicyRule {
            verbs: texts(rule, "verbs"),
            api_groups: texts(rule, "apiGroups"),
            resources: texts(rule, "resources"),
            resource_names: texts(rule, "resourceNames"),
            non_resource_urls: texts(rule, "nonResourceURLs"),
        })
        .collect()
}

pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, attributes.verb) {
        return false;
    }
    if !attributes.resource_request {
        return rule.non_resource_urls.iter().any(|url| covers_path(url, attributes.path));
    }
    has(&rule.api_groups, attributes.api_group)
        && rule.resources.iter().any(|r| covers_resource(r, attributes.resource, attributes.subresource))
        && (rule.resource_names.is_empty() || rule.resource_names.iter().any(|name| name == attributes.name))
}

fn has(list: &[String], item: &str) -> bool {
    list.iter().any(|entry| entry == ALL || entry == item)
}

fn covers_path(url: &str, path: &str) -> bool {
    url == ALL || url == path || url.ends_with('*') && path.starts_with(url.trim_end_matches('*'))
}

/// Models ResourceMatches of pkg/apis/rbac/v1/evaluation_helpers.go. Texts are compared, not parsed: who asks for the resource
/// `prometheuses/status` in a review is answered as for the subresource.
pub(super) fn covers_resource(entry: &str, resource: &str, subresource: &str) -> bool {
    if entry == ALL {
        return true;
    }
    if subresource.is_empty() {
        return entry == resource;
    }
    let of = entry.strip_suffix(subresource).and_then(|rest| rest.strip_suffix('/'));
    of.is_some_and(|of| of == ALL || of == resource)
}

/// The parts of `wanted` that `held` does not cover, in the smallest pieces.
pub fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(break_down).filter(|piece| !held.iter().any(|rule| covers(rule, piece))).collect()
}

/// One verb on one thing each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &str| vec![text.to_owned()];
    let mut pieces = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let piece = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    pieces.push(piece);
                    continue;
                }
                for name in &rule.resource_names {
                    pieces.push(PolicyRule { resource_names: one(name), ..piece.clone() });
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        for verb in &rule.verbs {
            pieces.push(PolicyRule { verbs: one(verb), non_resource_urls: one(url), ..PolicyRule::default() });
        }
    }
    pieces
}

fn covers(rule: &PolicyRule, piece: &PolicyRule) -> bool {
    let all = |list: &[String], items: &[String]| items.iter().all(|item| has(list, item));
    if !all(&rule.verbs, &piece.verbs) {
        return false;
    }
    if let Some(url) = piece.non_resource_urls.first() {
        return rule.non_resource_urls.iter().any(|held| covers_path(held, url));
    }
    let resources = piece.resources.iter().all(|wanted| {
        let sub_of_all = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        rule.resources.iter().any(|held| held == ALL || held == wanted || Some(held) == sub_of_all.as_ref())
    });
    // A name is covered by no names at all (that is all names); no names only by no names.
    let names = rule.resource_names.is_empty()
        || !piece.resource_names.is_empty()
            && piece.resource_names.iter().all(|name| rule.resource_names.contains(name));
    all(&rule.api_groups, &piece.api_groups) && resources && names
}

/// Joins pieces that differ only in their verbs. Models CompactRules.
pub fn compact(pieces: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut joined: Vec<PolicyRule> = Vec::new();
    for piece in pieces {
        let same = joined.iter_mut().find(|rule| {
            !rule.resources.is_empty()
                && rule.api_groups == piece.api_groups
                && rule.resources == piece.resources
                && rule.resource_names == piece.resource_names
        });
        match same {
            Some(rule) => {
                for verb in piece.verbs {
                    if !rule.verbs.contains(&verb) {
                        rule.verbs.push(verb);
                    }
                }
            }
            None => joined.push(piece),
        }
    }
    joined
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`
pub fn describe(rule: &PolicyRule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = fields
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!("{name}:{}", crate::auth::authentication::quoted(values)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

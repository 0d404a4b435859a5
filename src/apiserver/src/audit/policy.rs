//! An audit Policy: which requests are recorded, and how much of each.
//!
//! Models k8s.io/apiserver/pkg/audit/policy and pkg/apis/audit/validation.
use api::codec;
use api::names;
use api::tree::Tree;

use crate::auth::Attributes;

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        [Level::None, Level::Metadata, Level::Request, Level::RequestResponse].into_iter().find(|level| level.name() == text)
    }

    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When a record is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    /// Of requests that go on long after their answer began.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

    pub fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {detail}")]
pub struct PolicyError {
    path: String,
    detail: String,
}

fn wrong(path: impl Into<String>, detail: impl Into<String>) -> PolicyError {
    PolicyError { path: path.into(), detail: detail.into() }
}

/// What one request is recorded as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    pub omitted: Vec<Stage>,
    pub omit_managed_fields: bool,
}

#[derive(Debug)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    decision: Decision,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    urls: Vec<String>,
}

#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    default: Decision,
}

fn strings(tree: &Tree, field: &str) -> Vec<String> {
    tree.array_at(&[field]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect()
}

fn stages(tree: &Tree, path: &str) -> Result<Vec<Stage>, PolicyError> {
    let stage = |(i, name): (usize, String)| {
        let allowed = || Stage::ALL.map(Stage::name).join(",");
        Stage::ALL.into_iter().find(|stage| stage.name() == name).ok_or_else(|| wrong(format!("{path}[{i}]"), format!("allowed stages are {}", allowed())))
    };
    strings(tree, "omitStages").into_iter().enumerate().map(stage).collect()
}

impl Policy {
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let tree = codec::parse_yaml(text.as_bytes()).map_err(|error| wrong("policy", error.to_string()))?.tree;
        let (version, kind) = (tree.str_at(&["apiVersion"]), tree.str_at(&["kind"]));
        if (version, kind) != ("audit.k8s.io/v1", "Policy") {
            return Err(wrong("kind", format!("{kind} in version {version} is no Policy in version audit.k8s.io/v1")));
        }
        let everywhere = stages(&tree, "omitStages")?;
        let omits_managed = tree.get("omitManagedFields").and_then(Tree::as_bool).unwrap_or(false);
        let rules = tree.array_at(&["rules"]);
        if rules.is_empty() {
            return Err(wrong("rules", "loaded illegal policy with 0 rules"));
        }
        let rules = rules.iter().enumerate().map(|(i, rule)| Rule::parse(rule, &format!("rules[{i}]"), &everywhere, omits_managed)).collect::<Result<_, _>>()?;
        Ok(Self { rules, default: Decision { level: Level::None, omitted: everywhere, omit_managed_fields: omits_managed } })
    }

    /// The first rule that matches decides; where none does, nothing is recorded.
    pub fn decide(&self, attributes: &Attributes) -> &Decision {
        self.rules.iter().find(|rule| rule.matches(attributes)).map_or(&self.default, |rule| &rule.decision)
    }
}

impl Rule {
    fn parse(rule: &Tree, path: &str, everywhere: &[Stage], omits_managed: bool) -> Result<Self, PolicyError> {
        let level = match rule.str_at(&["level"]) {
            "" => return Err(wrong(format!("{path}.level"), "Required value")),
            text => Level::parse(text).ok_or_else(|| {
                let detail = format!("Unsupported value: \"{text}\": supported values: \"Metadata\", \"None\", \"Request\", \"RequestResponse\"");
                wrong(format!("{path}.level"), detail)
            })?,
        };
        let mut omitted = stages(rule, &format!("{path}.omitStages"))?;
        omitted.extend(everywhere);
        let urls = strings(rule, "nonResourceURLs");
        for (i, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
            let at = format!("{path}.nonResourceURLs[{i}]");
            if !url.starts_with('/') {
                return Err(wrong(at, "non-resource URL rules must begin with a '/' character"));
            }
            if url[..url.len() - 1].contains('*') {
                return Err(wrong(at, "non-resource URL wildcards '*' must be the final character of the rule"));
            }
        }
        let mut resources = Vec::new();
        for entry in rule.array_at(&["resources"]) {
            let of = GroupResources { group: entry.str_at(&["group"]).to_owned(), resources: strings(entry, "resources"), names: strings(entry, "resourceNames") };
            let texts = if matches!(of.group.as_str(), "" | "*") { Vec::new() } else { names::dns1123_subdomain(&of.group) };
            if !texts.is_empty() {
                return Err(wrong(format!("{path}.resources.group"), texts.join(",")));
            }
            if !of.names.is_empty() && of.resources.is_empty() {
                return Err(wrong(format!("{path}.resources.resourceNames"), "using resourceNames requires at least one resource"));
            }
            resources.push(of);
        }
        let namespaces = strings(rule, "namespaces");
        if !urls.is_empty() && !(resources.is_empty() && namespaces.is_empty()) {
            return Err(wrong(format!("{path}.nonResourceURLs"), "rules cannot apply to both regular resources and non-resource URLs"));
        }
        let omit_managed_fields = rule.get("omitManagedFields").and_then(Tree::as_bool).unwrap_or(omits_managed);
        Ok(Self {
            decision: Decision { level, omitted, omit_managed_fields },
            users: strings(rule, "users"),
            groups: strings(rule, "userGroups"),
            verbs: strings(rule, "verbs"),
            resources,
            namespaces,
            urls,
        })
    }

    fn matches(&self, attributes: &Attributes) -> bool {
        let has = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
        if !has(&self.users, &attributes.user.name) || !has(&self.verbs, attributes.verb) {
            return false;
        }
        if !self.groups.is_empty() && !self.groups.iter().any(|group| attributes.user.in_group(group)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return attributes.resource_request
                && has(&self.namespaces, attributes.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|of| of.matches(attributes)));
        }
        self.urls.is_empty() || (!attributes.resource_request && self.urls.iter().any(|url| is_path(url, attributes.path)))
    }
}

fn is_path(url: &str, path: &str) -> bool {
    url == "*" || url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

impl GroupResources {
    fn matches(&self, attributes: &Attributes) -> bool {
        if self.group != attributes.api_group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.names.is_empty() && !self.names.iter().any(|name| name == attributes.name) {
            return false;
        }
        let (resource, subresource) = (attributes.resource, attributes.subresource);
        self.resources.iter().any(|named| match named.split_once('/') {
            None => named == "*" || (subresource.is_empty() && named == resource),
            Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
            Some((own, "*")) => own == resource,
            Some((own, sub)) => own == resource && sub == subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{ALL_FIELDS, ALL_LABELS, UserInfo};

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
- level: None
  nonResourceURLs: ['/healthz*', /version]
- level: Metadata
  omitStages: [ResponseStarted]
  resources:
  - group: ''
    resources: [secrets, pods/log, '*/status']
- level: RequestResponse
  omitManagedFields: true
  namespaces: [a]
  resources:
  - group: apps
  - group: ''
    resources: [configmaps]
    resourceNames: [x]
- level: Request
  userGroups: [dev]
";

    fn level(user: &str, verb: &str, path: &[&str]) -> Level {
        let policy = Policy::parse(POLICY).unwrap();
        let user = UserInfo::new(user, &["dev"][..usize::from(user == "jane")]);
        let part = |i: usize| path.get(i).copied().unwrap_or("");
        let is_resource = path.len() > 1;
        let attributes = Attributes {
            user: &user,
            verb,
            api_group: part(0),
            api_version: "v1",
            resource: part(1),
            subresource: part(4),
            namespace: part(2),
            name: part(3),
            resource_request: is_resource,
            path: if is_resource { "" } else { part(0) },
            fields: &ALL_FIELDS,
            labels: &ALL_LABELS,
        };
        policy.decide(&attributes).level
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert_eq!(level("system:kube-proxy", "watch", &["", "services", ""]), Level::None);
        assert_eq!(level("jane", "get", &["/healthz/ping"]), Level::None);
        assert_eq!(level("jane", "get", &["/metrics"]), Level::Request);
        assert_eq!(level("jim", "get", &["/metrics"]), Level::None);
        assert_eq!(level("jim", "list", &["", "secrets", "b"]), Level::Metadata);
        assert_eq!(level("jim", "get", &["", "pods", "b", "p"]), Level::None);
        assert_eq!(level("jim", "get", &["", "pods", "b", "p", "log"]), Level::Metadata);
        assert_eq!(level("jim", "update", &["", "nodes", "", "n", "status"]), Level::Metadata);
        assert_eq!(level("jim", "create", &["apps", "deployments", "a"]), Level::RequestResponse);
        assert_eq!(level("jim", "create", &["apps", "deployments", "b"]), Level::None);
        assert_eq!(level("jim", "get", &["", "configmaps", "a", "x"]), Level::RequestResponse);
        assert_eq!(level("jim", "get", &["", "configmaps", "a", "y"]), Level::None);
    }

    #[test]
    fn stages_are_left_out_by_rule_and_by_policy() {
        let policy = Policy::parse(POLICY).unwrap();
        assert_eq!(policy.rules[2].decision.omitted, [Stage::ResponseStarted, Stage::RequestReceived]);
        assert!(policy.rules[3].decision.omit_managed_fields && !policy.rules[4].decision.omit_managed_fields);
    }

    #[test]
    fn a_policy_that_says_nonsense_is_refused() {
        let refused = |rules: &str| Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n")).unwrap_err().to_string();
        assert_eq!(refused("[]"), "rules: loaded illegal policy with 0 rules");
        assert_eq!(refused("[{}]"), "rules[0].level: Required value");
        assert!(refused("[{level: All}]").starts_with("rules[0].level: Unsupported value"));
        assert!(refused("[{level: None, omitStages: [Never]}]").contains("allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"));
        assert!(refused("[{level: None, nonResourceURLs: [a]}]").contains("must begin with a '/'"));
        assert!(refused("[{level: None, nonResourceURLs: [/a], namespaces: [b]}]").contains("both regular resources"));
        assert!(refused("[{level: None, resources: [{group: a/b}]}]").starts_with("rules[0].resources.group"));
    }
}

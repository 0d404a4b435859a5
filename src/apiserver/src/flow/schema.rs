//! FlowSchemas: which requests belong together, and to which priority level.
//!
//! Models k8s.io/apiserver/pkg/util/flowcontrol/rule.go and the choice in apf_controller.go.
use api::meta;
use api::tree::Tree;

use crate::auth::UserInfo;
use crate::request::RequestInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

/// One FlowSchema as it is matched.
#[derive(Debug)]
pub struct Schema {
    pub name: String,
    pub uid: String,
    pub level: String,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    Account(String, String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

fn strings(tree: &Tree, field: &str) -> Vec<String> {
    tree.array_at(&[field]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect()
}

impl Schema {
    pub fn of(object: &Tree) -> Self {
        let distinguisher = match object.str_at(&["spec", "distinguisherMethod", "type"]) {
            "ByUser" => Distinguisher::User,
            "ByNamespace" => Distinguisher::Namespace,
            _ => Distinguisher::None,
        };
        Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            level: object.str_at(&["spec", "priorityLevelConfiguration", "name"]).to_owned(),
            precedence: object.at(&["spec", "matchingPrecedence"]).and_then(Tree::as_i64).unwrap_or(1000),
            distinguisher,
            rules: object.array_at(&["spec", "rules"]).iter().map(Rule::of).collect(),
        }
    }

    /// The order in which schemas are tried.
    pub fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    pub fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// What tells a flow from the others of this schema.
    pub fn distinguished_by<'r>(&self, user: &'r UserInfo, info: &'r RequestInfo) -> &'r str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }

    /// Requests with the same number are one flow.
    pub fn flow(&self, user: &UserInfo, info: &RequestInfo) -> u64 {
        let distinguisher = self.distinguished_by(user, info);
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(self.name.as_bytes());
        hash.update(&[0]);
        hash.update(distinguisher.as_bytes());
        let digest = hash.finish();
        u64::from_le_bytes(*digest.as_ref().first_chunk().expect("32 bytes"))
    }
}

impl Rule {
    fn of(rule: &Tree) -> Self {
        let subject = |subject: &Tree| {
            Some(match subject.str_at(&["kind"]) {
                "User" => Subject::User(subject.str_at(&["user", "name"]).to_owned()),
                "Group" => Subject::Group(subject.str_at(&["group", "name"]).to_owned()),
                "ServiceAccount" => {
                    let of = |field| subject.str_at(&["serviceAccount", field]).to_owned();
                    Subject::Account(of("namespace"), of("name"))
                }
                _ => return None,
            })
        };
        let resource = |rule: &Tree| ResourceRule {
            verbs: strings(rule, "verbs"),
            groups: strings(rule, "apiGroups"),
            resources: strings(rule, "resources"),
            namespaces: strings(rule, "namespaces"),
            cluster_scope: rule.get("clusterScope").and_then(Tree::as_bool).unwrap_or(false),
        };
        Self {
            subjects: rule.array_at(&["subjects"]).iter().filter_map(subject).collect(),
            resources: rule.array_at(&["resourceRules"]).iter().map(resource).collect(),
            paths: rule.array_at(&["nonResourceRules"]).iter().map(|r| PathRule { verbs: strings(r, "verbs"), paths: strings(r, "nonResourceURLs") }).collect(),
        }
    }

    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && if info.is_resource { self.resources.iter().any(|rule| rule.matches(info)) } else { self.paths.iter().any(|rule| rule.matches(info)) }
    }
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(name) => name == "*" || user.in_group(name),
            Subject::Account(namespace, name) => {
                let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(own_namespace, own)| own_namespace == namespace && (name == "*" || name == own))
            }
        }
    }
}

/// Validation sees to it that `*` stands alone.
fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == value || item == "*")
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = if info.subresource.is_empty() { info.resource.clone() } else { format!("{}/{}", info.resource, info.subresource) };
        has(&self.verbs, info.verb)
            && has(&self.resources, &resource)
            && has(&self.groups, &info.group)
            && if info.namespace.is_empty() { self.cluster_scope } else { has(&self.namespaces, &info.namespace) }
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let is_within = |path: &str| {
            let prefix = path.trim_end_matches('*');
            path == "*" || path == info.path || info.path.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with('/') || rest.starts_with('/'))
        };
        has(&self.verbs, info.verb) && self.paths.iter().any(|path| is_within(path))
    }
}

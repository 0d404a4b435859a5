//! Roles and bindings, parsed, and which bindings name a subject.
use std::collections::HashMap;
use std::sync::Arc;

use api::tree::Tree;

use super::rules;
use crate::auth::{PolicyRule, UserInfo};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Role, Kind::ClusterRole, Kind::RoleBinding, Kind::ClusterRoleBinding];

    pub fn plural(self) -> &'static str {
        match self {
            Kind::Role => "roles",
            Kind::ClusterRole => "clusterroles",
            Kind::RoleBinding => "rolebindings",
            Kind::ClusterRoleBinding => "clusterrolebindings",
        }
    }
}

/// Whom a binding names. A ServiceAccount is the user of its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(Box<str>),
    Group(Box<str>),
}

#[derive(Debug)]
struct Binding {
    namespace: Box<str>,
    name: Box<str>,
    role_kind: Box<str>,
    role_name: Box<str>,
    /// With upstream's description of each.
    subjects: Vec<(Subject, String)>,
}

/// Which binding gave a rule to whom.
pub struct Source<'a> {
    binding: &'a Binding,
    subject: &'a str,
}

impl Source<'_> {
    /// `ClusterRoleBinding "a" of ClusterRole "b" to Group "c"`
    pub fn describe(&self) -> String {
        let Binding { namespace, name, role_kind, role_name, .. } = self.binding;
        let (kind, name) = match namespace.as_ref() {
            "" => ("ClusterRoleBinding", name.to_string()),
            namespace => ("RoleBinding", format!("{name}/{namespace}")),
        };
        format!("{kind} {name:?} of {role_kind} {role_name:?} to {}", self.subject)
    }
}

/// The bindings of one scope.
#[derive(Default)]
struct Bindings {
    by_name: HashMap<Box<str>, Arc<Binding>>,
    by_subject: HashMap<Subject, Vec<Arc<Binding>>>,
}

impl Bindings {
    fn set(&mut self, name: &str, binding: Option<Binding>) {
        if let Some(old) = self.by_name.remove(name) {
            for (subject, _) in &old.subjects {
                if let Some(bindings) = self.by_subject.get_mut(subject) {
                    bindings.retain(|other| !Arc::ptr_eq(other, &old));
                    if bindings.is_empty() {
                        self.by_subject.remove(subject);
                    }
                }
            }
        }
        let Some(binding) = binding.map(Arc::new) else { return };
        for (subject, _) in &binding.subjects {
            let bindings = self.by_subject.entry(subject.clone()).or_default();
            if !bindings.iter().any(|other| Arc::ptr_eq(other, &binding)) {
                bindings.push(Arc::clone(&binding));
            }
        }
        self.by_name.insert(name.into(), binding);
    }
}

#[derive(Default)]
pub struct Policy {
    /// By namespace (`""` for ClusterRoles) and name.
    roles: HashMap<Box<str>, HashMap<Box<str>, Arc<[PolicyRule]>>>,
    /// By namespace (`""` for ClusterRoleBindings).
    bindings: HashMap<Box<str>, Bindings>,
}

impl Policy {
    /// Notes an object as it is now; `None` when it is gone.
    pub fn set(&mut self, kind: Kind, namespace: &str, name: &str, object: Option<&Tree>) {
        match kind {
            Kind::Role | Kind::ClusterRole => {
                let roles = self.roles.entry(namespace.into()).or_default();
                match object {
                    Some(object) => _ = roles.insert(name.into(), rules::parse(object.array_at(&["rules"])).into()),
                    None => _ = roles.remove(name),
                }
                if roles.is_empty() {
                    self.roles.remove(namespace);
                }
            }
            Kind::RoleBinding | Kind::ClusterRoleBinding => {
                let bindings = self.bindings.entry(namespace.into()).or_default();
                bindings.set(name, object.map(|object| parse_binding(namespace, name, object)));
                if bindings.by_name.is_empty() {
                    self.bindings.remove(namespace);
                }
            }
        }
    }

    pub fn role(&self, namespace: &str, kind: &str, name: &str) -> Option<Arc<[PolicyRule]>> {
        let namespace = if kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(namespace)?.get(name).cloned()
    }

    /// Shows every rule that applies to `user` in `namespace` to `visit`, until it answers. Roles that are bound and do
    /// not exist go to `missing`, in upstream's words.
    pub fn visit<T>(
        &self,
        user: &UserInfo,
        namespace: &str,
        missing: &mut Vec<String>,
        mut visit: impl FnMut(&PolicyRule, &Source<'_>) -> Option<T>,
    ) -> Option<T> {
        let names = std::iter::once(Subject::User(user.name.as_str().into()))
            .chain(user.groups.iter().map(|group| Subject::Group(group.as_str().into())));
        let names: Vec<Subject> = names.collect();
        let scopes = [Some(""), Some(namespace).filter(|n| !n.is_empty())];
        for bindings in scopes.into_iter().flatten().filter_map(|scope| self.bindings.get(scope)) {
            for name in &names {
                for binding in bindings.by_subject.get(name).into_iter().flatten() {
                    let Some(role) = self.role(&binding.namespace, &binding.role_kind, &binding.role_name) else {
                        let kind = binding.role_kind.to_lowercase();
                        missing.push(format!("{kind}.{} {:?} not found", super::GROUP, binding.role_name));
                        continue;
                    };
                    let subject = binding.subjects.iter().find(|(s, _)| s == name).map_or("", |(_, text)| text);
                    let source = Source { binding, subject };
                    if let Some(answer) = role.iter().find_map(|rule| visit(rule, &source)) {
                        return Some(answer);
                    }
                }
            }
        }
        None
    }
}

fn parse_binding(namespace: &str, name: &str, object: &Tree) -> Binding {
    let subjects = object.array_at(&["subjects"]).iter().filter_map(|subject| {
        let name = subject.str_at(&["name"]);
        match subject.str_at(&["kind"]) {
            "User" => Some((Subject::User(name.into()), format!("User {name:?}"))),
            "Group" => Some((Subject::Group(name.into()), format!("Group {name:?}"))),
            "ServiceAccount" => {
                let of = match subject.str_at(&["namespace"]) {
                    "" => namespace,
                    of => of,
                };
                let user = format!("system:serviceaccount:{of}:{name}");
                Some((Subject::User(user.into()), format!("ServiceAccount {:?}", format!("{name}/{of}"))))
            }
            _ => None,
        }
    });
    Binding {
        namespace: namespace.into(),
        name: name.into(),
        role_kind: object.str_at(&["roleRef", "kind"]).into(),
        role_name: object.str_at(&["roleRef", "name"]).into(),
        subjects: subjects.collect(),
    }
}

//! What two managers cannot both have. Models apimachinery/pkg/util/managedfields/internal/conflict.go.
use super::element;
use super::managers::Id;

/// A path that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    pub id: Id,
    path: Vec<Box<str>>,
}

impl Conflict {
    pub(super) fn new(id: &Id, path: &[&str]) -> Self {
        Conflict { id: id.clone(), path: path.iter().map(|key| Box::from(*key)).collect() }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.path.iter().map(|key| &**key)
    }

    /// `.spec.replicas`
    pub fn field(&self) -> String {
        self.keys().map(element::display).collect()
    }

    pub fn message(&self) -> String {
        format!("conflict with {}", self.id.display())
    }
}

/// The message of all; sorted by manager.
pub fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", only.message(), only.field());
    }
    let mut lines = Vec::new();
    let mut last: Option<&Id> = None;
    for conflict in conflicts {
        if last != Some(&conflict.id) {
            lines.push(format!("conflicts with {}:", conflict.id.display()));
            last = Some(&conflict.id);
        }
        lines.push(format!("- {}", conflict.field()));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

//! The parts of an object that are written each in its own way.

/// Which part of an object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
    /// namespaces/finalize: spec.finalizers only.
    Finalize,
    EphemeralContainers,
    Resize,
    /// certificatesigningrequests/approval: status.conditions only.
    Approval,
    /// pods/binding: what the server itself computed.
    Binding,
    /// <kind>/scale: the same.
    Scale,
    /// Deletion marks, set by the server.
    Deletion,
    /// A subresource that is no part of the object (exec, eviction, ...): for admission only.
    Other(&'static str),
}

impl Part {
    pub fn subresource(self) -> &'static str {
        match self {
            Part::Main | Part::Deletion => "",
            Part::Status => "status",
            Part::Finalize => "finalize",
            Part::EphemeralContainers => "ephemeralcontainers",
            Part::Resize => "resize",
            Part::Approval => "approval",
            Part::Binding => "binding",
            Part::Scale => "scale",
            Part::Other(name) => name,
        }
    }
}

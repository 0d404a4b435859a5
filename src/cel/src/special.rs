//! Values that only functions look into.
use std::net::IpAddr;

use crate::authorize::{Authorize, Decision, PathCheck, ResourceCheck};
use crate::evaluate::EvaluationError;
use crate::functions::{NamedFormat, SemanticVersion, Url};
use crate::quantity::Quantity;

/// Whose permissions are asked about: a ServiceAccount's namespace and name, or the request's user.
pub(crate) type Subject = Option<(String, String)>;

#[non_exhaustive]
pub enum Special<'a> {
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr {
        address: IpAddr,
        bits: u8,
    },
    Url(Url),
    Semver(SemanticVersion),
    Format(&'static NamedFormat),
    /// `authorizer.serviceAccount(...)`.
    Authorizer(&'a dyn Authorize, Subject),
    PathCheck(&'a dyn Authorize, Subject, PathCheck),
    GroupCheck(&'a dyn Authorize, Subject, String),
    ResourceCheck(&'a dyn Authorize, Subject, ResourceCheck),
    Decision(Decision),
}

impl Special<'_> {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Special::Quantity(_) => "kubernetes.Quantity",
            Special::Ip(_) => "net.IP",
            Special::Cidr { .. } => "net.CIDR",
            Special::Url(_) => "kubernetes.URL",
            Special::Semver(_) => "kubernetes.Semver",
            Special::Format(_) => "kubernetes.NamedFormat",
            Special::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Special::PathCheck(..) => "kubernetes.authorization.PathCheck",
            Special::GroupCheck(..) => "kubernetes.authorization.GroupCheck",
            Special::ResourceCheck(..) => "kubernetes.authorization.ResourceCheck",
            Special::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// In bytes, for costs; `None` where upstream knows none.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Special::Ip(IpAddr::V4(_)) => Some(4),
            Special::Ip(IpAddr::V6(_)) => Some(16),
            Special::Cidr { bits, .. } => Some(u64::from(*bits).div_ceil(8)),
            _ => None,
        }
    }

    pub(crate) fn equals(&self, other: &Special) -> Result<bool, EvaluationError> {
        Ok(match (self, other) {
            (Special::Quantity(a), Special::Quantity(b)) => a == b,
            (Special::Ip(a), Special::Ip(b)) => a == b,
            (Special::Cidr { address: a, bits: x }, Special::Cidr { address: b, bits: y }) => a == b && x == y,
            (Special::Url(a), Special::Url(b)) => a == b,
            (Special::Semver(a), Special::Semver(b)) => a.cmp(b).is_eq(),
            (Special::Format(a), Special::Format(b)) => a.name == b.name,
            (Special::Decision(a), Special::Decision(b)) => a == b,
            (Special::Authorizer(a, x), Special::Authorizer(b, y)) => std::ptr::addr_eq(*a, *b) && x == y,
            (Special::PathCheck(_, x, a), Special::PathCheck(_, y, b)) => x == y && a == b,
            (Special::GroupCheck(_, x, a), Special::GroupCheck(_, y, b)) => x == y && a == b,
            (Special::ResourceCheck(_, x, a), Special::ResourceCheck(_, y, b)) => x == y && a == b,
            _ => return Err(EvaluationError::new("no such overload")),
        })
    }
}

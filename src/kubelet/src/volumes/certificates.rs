//! Certificates for `podCertificate` sources: a key made here, a request for it, and a new one of both before the certificate ends.
//!
//! Models pkg/kubelet/podcertificate/podcertificatemanager.go, v1.37. Nothing is kept over a restart: each source is then issued anew. What
//! is decided is here and pure; what is done is in [`issue`]. Left out: keys of the types RSA3072, RSA4096 and ECDSAP521, which `ring`
//! cannot make: such a pod waits with an event that says so.

pub mod issue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::PodCertificateRequest;

use super::bundles::clean_chain;
use crate::time;

/// A request that is not seen for so long after it was made was deleted.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);
/// A certificate that should have been refreshed so long ago is worth an event.
const OVERDUE_AFTER: Duration = Duration::from_secs(600);
/// Keeps the certificates of many pods from being renewed at one time.
pub const JITTER_MAX: Duration = Duration::from_secs(300);

/// A key and its certificates, as PEM. Never printed.
#[derive(Clone)]
pub struct Credential {
    pub key: Arc<str>,
    pub chain: Arc<str>,
    refresh_at: Timestamp,
    not_after: Timestamp,
    overdue_told: bool,
    expiry_told: bool,
}

/// A request on its way.
#[derive(Clone)]
pub struct Pending {
    pub key: Arc<str>,
    pub name: String,
    abandon_at: Timestamp,
}

impl Pending {
    pub fn new(key: Arc<str>, name: String, created_at: Timestamp, jitter: Duration) -> Self {
        Self { key, name, abandon_at: time::after(created_at, ABANDONED_AFTER + jitter) }
    }
}

/// Where one source stands; one that is not known yet needs a request.
#[derive(Clone)]
pub enum Certificate {
    /// Waits for the signer for the first time.
    Waiting(Pending),
    /// Usable; with `pending`, its successor is under way.
    Issued { current: Credential, pending: Option<Pending> },
    /// The signer's last word.
    Refused { denied: bool, reason: String, message: String },
}

/// What the pod's owner is told by an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    pub reason: String,
    pub message: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CertificateError {
    #[error("credential bundle is not issued yet")]
    NotIssued,
    #[error("PodCertificateRequest was permanently {}: reason={reason:?} message={message:?}", if *denied { "denied" } else { "failed" })]
    Refused { denied: bool, reason: String, message: String },
}

impl Certificate {
    fn pending(&self) -> Option<&Pending> {
        match self {
            Self::Waiting(pending) => Some(pending),
            Self::Issued { pending, .. } => pending.as_ref(),
            Self::Refused { .. } => None,
        }
    }

    /// The next moment at which something is to be done without being told.
    fn wake_at(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting(pending) => Some(pending.abandon_at),
            Self::Issued { current, pending: None } => Some(current.refresh_at),
            Self::Issued { current, pending: Some(pending) } => {
                let overdue = (!current.overdue_told).then(|| time::after(current.refresh_at, OVERDUE_AFTER));
                let expiry = (!current.expiry_told).then_some(current.not_after);
                [overdue, expiry, Some(pending.abandon_at)].into_iter().flatten().min()
            }
            Self::Refused { .. } => None,
        }
    }

    /// Whether a request is to be made.
    fn needs_request(&self, now: Timestamp) -> bool {
        matches!(self, Self::Issued { current, pending: None } if current.refresh_at <= now)
    }

    /// Tells, once each, that a certificate is late.
    fn lateness(&mut self, now: Timestamp) -> Vec<Notice> {
        let Self::Issued { current, .. } = self else { return Vec::new() };
        let mut notices = Vec::new();
        let mut tell = |told: &mut bool, at: Timestamp, reason: &str, message: &str| {
            if !*told && now > at {
                *told = true;
                notices.push(Notice { reason: reason.into(), message: message.into() });
            }
        };
        let overdue_at = time::after(current.refresh_at, OVERDUE_AFTER);
        tell(&mut current.overdue_told, overdue_at, "CertificateOverdueForRefresh", "PodCertificate refresh overdue");
        tell(&mut current.expiry_told, current.not_after, "CertificateExpired", "PodCertificate expired");
        notices
    }

    /// Takes in what became of the request. `None`: it is gone, and there is nothing to fall back to.
    fn observe(self, request: Option<&PodCertificateRequest>, now: Timestamp, jitter: Duration) -> (Option<Self>, Option<Notice>) {
        let Some(pending) = self.pending() else { return (Some(self), None) };
        let Some(request) = request else {
            return match self {
                _ if now < pending.abandon_at => (Some(self), None),
                Self::Issued { current, .. } => (Some(Self::Issued { current, pending: None }), None),
                _ => (None, None),
            };
        };
        let status = request.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        for condition in conditions {
            match condition.type_.as_str() {
                kind @ ("Denied" | "Failed") => {
                    let denied = kind == "Denied";
                    let (reason, message) = (condition.reason.clone(), condition.message.clone());
                    let title = format!("{}/{}", request.metadata.namespace.as_deref().unwrap_or_default(), pending.name);
                    let what = if denied { "was denied" } else { "failed" };
                    // Upstream formats this with the reason as the format, which garbles it.
                    let notice = Notice {
                        reason: kind.to_owned(),
                        message: format!("PodCertificateRequest {title} {what}, reason={reason:?}, message={message:?}"),
                    };
                    return (Some(Self::Refused { denied, reason, message }), Some(notice));
                }
                "Issued" => {
                    let time_of = |time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.map_or(now, |t| t.0);
                    let current = Credential {
                        key: pending.key.clone(),
                        chain: clean_chain(status.and_then(|s| s.certificate_chain.as_deref()).unwrap_or_default()).into(),
                        refresh_at: time::after(time_of(status.and_then(|s| s.begin_refresh_at.as_ref())), jitter),
                        not_after: time_of(status.and_then(|s| s.not_after.as_ref())),
                        overdue_told: false,
                        expiry_told: false,
                    };
                    return (Some(Self::Issued { current, pending: None }), None);
                }
                _ => {}
            }
        }
        (Some(self), None)
    }
}

/// The certificates of one pod, by volume and place among its sources.
#[derive(Clone, Default)]
pub struct Certificates(BTreeMap<(String, usize), Certificate>);

impl Certificates {
    pub fn get(&self, volume: &str, source: usize) -> Result<&Credential, CertificateError> {
        match self.0.get(&(volume.to_owned(), source)) {
            Some(Certificate::Issued { current, .. }) => Ok(current),
            Some(Certificate::Refused { denied, reason, message }) => {
                Err(CertificateError::Refused { denied: *denied, reason: reason.clone(), message: message.clone() })
            }
            Some(Certificate::Waiting(_)) | None => Err(CertificateError::NotIssued),
        }
    }

    /// When the first of them is to be looked at.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.0.values().filter_map(Certificate::wake_at).min()
    }
}

#[cfg(test)]
mod tests;

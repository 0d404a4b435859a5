//! What whoever handles a request adds to its audit event: annotations.
//!
//! Models k8s.io/apiserver/pkg/audit/context.go AddAuditAnnotation and pkg/admission/audit.go: they go with the request (there, in its context;
//! here, in its task), and what is said first stays.
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use super::policy::Level;

tokio::task_local! {
    static NOTES: Notes;
}

/// The annotations of one request.
#[derive(Clone)]
pub struct Notes {
    level: Level,
    entries: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Notes {
    pub(super) fn new(level: Level) -> Self {
        Self { level, entries: Arc::default() }
    }

    /// Handles the request; what is noted meanwhile is kept here.
    pub async fn of<F: Future>(&self, handling: F) -> F::Output {
        NOTES.scope(self.clone(), handling).await
    }

    pub(super) fn take(&self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the request leaves an event.
pub fn is_recorded() -> bool {
    NOTES.try_with(|_| ()).is_ok()
}

/// Annotates the event of the request, if it leaves one.
pub fn annotate(key: impl Into<String>, value: impl Into<String>) {
    annotate_from(Level::Metadata, key, || value.into());
}

/// The same, where bodies of requests are recorded.
pub fn annotate_with_request(key: impl Into<String>, value: impl FnOnce() -> String) {
    annotate_from(Level::Request, key, value);
}

fn annotate_from(level: Level, key: impl Into<String>, value: impl FnOnce() -> String) {
    // Outside of a request, or of one that leaves no event: nobody would read it.
    let _ = NOTES.try_with(|notes| {
        if notes.level < level {
            return;
        }
        let (key, value) = (key.into(), value());
        let mut entries = notes.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.get(&key) {
            Some(said) if *said != value => tracing::warn!(key, "an audit annotation is there already, and stays as it is"),
            Some(_) => {}
            None => drop(entries.insert(key, value)),
        }
    });
}

/// An annotation of admission, whose key may be another's choice: one that is no qualified name with a prefix is left out.
pub fn annotate_for(who: &str, name: &str, value: impl Into<String>) {
    let key = format!("{who}/{name}");
    if key.matches('/').count() == 1 && api::names::qualified_name(&key).is_empty() {
        annotate(key, value);
    } else {
        tracing::warn!(key, "an audit annotation has no qualified name, and is left out");
    }
}

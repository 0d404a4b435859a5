//! The API client, and what every controller stands on.
//!
//! [`Client`] makes typed calls over any transport: a tower service in process, or HTTPS from a kubeconfig or a pod's
//! service account. [`Informer`] mirrors one collection in memory by list and watch; [`SharedInformers`] keeps one for each
//! kind and process. [`WorkQueue`] and [`Controller`] turn what an informer sees into calls of a `reconcile` function.
//!
//! Nothing here polls: work starts from a watch event or from a timer that somebody asked for. Every queue is bounded, either
//! by a number or by the number of live keys (events and keys of one object are coalesced).
mod backoff;
mod client;
mod clock;
mod controller;
mod decode;
mod direct;
mod endpoint;
mod error;
mod events;
mod expectations;
mod held;
mod informer;
mod object;
mod options;
mod own_writes;
pub mod patch;
pub mod queue;
mod room;
mod watch;

pub use k8s_openapi;

pub use backoff::{Backoff, jitter, random};
pub use client::{Client, ConfigError, List};
pub use clock::Clock;
pub use controller::{Controller, Next, panics_total};
pub use endpoint::Endpoint;
pub use error::{ApiError, Retry, RetryPolicy};
pub use events::{EventRecorder, EventType};
pub use expectations::Expectations;
pub use held::HeldObjects;
pub use informer::{
    CONTROLLER_UID, Event, HandlerGuard, Informer, InformerBuilder, SharedInformers, Subscription, drop_managed_fields,
};
pub use object::{ApiResource, Kind, Named, ObjectKey, PartialObject, controller_of, object_reference, percent_encode};
pub use options::{DeleteOptions, ListOptions, Propagation};
pub use own_writes::{Behind, OwnWrites};
pub use patch::Patch;
pub use queue::WorkQueue;
pub use room::Room;

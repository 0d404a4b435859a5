//! Server-side apply: who set which field of an object, and what becomes of it when somebody applies a configuration.
//!
//! Models sigs.k8s.io/structured-merge-diff v6 and k8s.io/apimachinery/pkg/util/managedfields, v1.37. [`Write::track`] notes what a create, update or
//! patch changed; [`Write::apply`] merges. Pure: versions and their conversion come as [`Versions`].
mod atomics;
mod check;
mod compare;
mod conflict;
mod element;
mod fields;
mod last_applied;
mod manager;
mod managers;
mod merge;
mod reconcile;
mod remove;
mod scale;
mod set;
#[cfg(test)]
mod tests;
mod types;
mod update;
mod value;

pub use atomics::atomics;
pub use check::{Problems, check};
pub use compare::{Comparison, compare};
pub use conflict::{Conflict, message};
pub use fields::paths;
pub use manager::{Refused, Write, check_list, restore_times};
pub use merge::merge;
pub use scale::{Paths, to_scale, to_workload};
pub use set::{Pattern, Set};
pub use types::Type;
pub use update::{Failure, Filter, Versions};

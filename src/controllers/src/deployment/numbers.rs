//! The arithmetic of a rollout.
use client::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use crate::intstr::scaled;

pub(super) fn is_rolling(d: &Deployment) -> bool {
    d.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("Recreate")
}

pub(super) fn wanted(d: &Deployment) -> i32 {
    d.spec.replicas.unwrap_or(1)
}

pub(super) fn replicas(rs: &ReplicaSet) -> i32 {
    rs.spec.replicas.unwrap_or(1)
}

pub(super) fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// How many pods more than wanted, and how many fewer available ones, a rollout may have at a time.
fn fenceposts(d: &Deployment) -> (i32, i32) {
    let rolling = d.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), wanted(d), true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), wanted(d), false);
    // Both can round to zero, and then nothing could ever move.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub(super) fn max_surge(d: &Deployment) -> i32 {
    if is_rolling(d) { fenceposts(d).0 } else { 0 }
}

pub(super) fn max_unavailable(d: &Deployment) -> i32 {
    if !is_rolling(d) || wanted(d) == 0 { 0 } else { fenceposts(d).1.min(wanted(d)) }
}

/// NewRSNewReplicas: how large the newest ReplicaSet may be now, `total` being the wanted pods of all.
pub(super) fn new_replicas(d: &Deployment, total: i32, new: i32) -> i32 {
    if !is_rolling(d) {
        return wanted(d);
    }
    let room = wanted(d) + max_surge(d) - total;
    if room <= 0 { new } else { new + room.min(wanted(d) - new) }
}

/// What part of `to_add` pods (or fewer, if negative) this ReplicaSet takes when a rollout is scaled midway.
pub(super) fn proportion(d: &Deployment, rs: &ReplicaSet, max_before: Option<i32>, to_add: i32, added: i32) -> i32 {
    if replicas(rs) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(d, rs, max_before);
    let allowed = to_add - added;
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

fn fraction(d: &Deployment, rs: &ReplicaSet, max_before: Option<i32>) -> i32 {
    if wanted(d) == 0 {
        return -replicas(rs);
    }
    let max = wanted(d) + max_surge(d);
    let before = max_before.filter(|n| *n != 0).or_else(|| d.status.as_ref().and_then(|s| s.replicas)).unwrap_or(0);
    if before == 0 {
        return 0;
    }
    let size = f64::from(replicas(rs)) * f64::from(max) / f64::from(before);
    // Rounds half away from zero, as integer.RoundToInt32.
    size.round() as i32 - replicas(rs)
}

//! The node's certificate: renewed in its last third, with the certificate that is still good, without a restart.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use client::{Backoff, Client, jitter};
use pki::{Identity, Leaf, NodeKey};
use tracing::{info, warn};
use tunnel::Dialer;

use super::join;
use super::state::{Member, State};

/// A sleep may not outlive a clock that is set; looking twice a day misses nothing.
const LOOK_AFTER_MAX: Duration = Duration::from_secs(12 * 3600);
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(600);

pub async fn run(
    state: Arc<State>,
    member: Member,
    identity: Arc<Identity>,
    dialer: Dialer,
    client: Client,
) -> anyhow::Result<&'static str> {
    let key = NodeKey::load_or_create(&state.key_path()).context("load the node's key")?;
    let mut leaf = member.leaf;
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let now = SystemTime::now();
        let due = leaf.validity().map_or(now, |validity| validity.renew_at());
        if let Ok(wait) = due.duration_since(now).map(|wait| wait.min(LOOK_AFTER_MAX))
            && !wait.is_zero()
        {
            tokio::time::sleep(jitter(wait, 0.05)).await;
            continue;
        }
        match join::certificate(&client, &key, &member.node_name).await {
            Ok(certificate_pem) => {
                leaf = Leaf { certificate_pem, key_pem: key.pem() };
                state.save_certificate(&leaf.certificate_pem)?;
                identity.replace(&leaf).context("load the node's renewed certificate")?;
                dialer.end_connections();
                backoff.reset();
                info!("the node's certificate is renewed");
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "renew the node's certificate");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

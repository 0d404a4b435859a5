//! The API's certificate: renewed in place long before it ends, without a restart.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use pki::{Identity, LeafRequest};
use tokio_util::sync::CancellationToken;

/// How the certificate is made again.
pub struct Certificate {
    pub cluster: Arc<pki::Cluster>,
    pub stem: &'static str,
    pub request: LeafRequest,
}

/// A certificate lives a year and is renewed in its last third; looking twice a day misses nothing.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3600);

pub async fn renew(identity: Arc<Identity>, certificate: Certificate, shutdown: CancellationToken) -> anyhow::Result<&'static str> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return Ok("renewal of certificates"),
        }
        let leaf = certificate.cluster.server(certificate.stem, &certificate.request, SystemTime::now()).context("renew the API's certificate")?;
        identity.replace(&leaf).context("load the API's renewed certificate")?;
    }
}

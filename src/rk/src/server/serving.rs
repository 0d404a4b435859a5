//! The API's certificates: renewed in place long before it ends, without a restart.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use pki::{AuthorityError, Identity};
use tokio_util::sync::CancellationToken;

/// Makes a certificate again where that is due.
pub type Certificate = Box<dyn Fn(SystemTime) -> Result<pki::Leaf, AuthorityError> + Send + Sync>;

/// A certificate lives a year and is renewed in its last third; looking twice a day misses nothing.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3600);

pub async fn renew(identity: Arc<Identity>, certificate: Certificate, shutdown: CancellationToken) -> anyhow::Result<&'static str> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return Ok("renewal of certificates"),
        }
        let leaf = certificate(SystemTime::now()).context("renew one of the API's certificates")?;
        identity.replace(&leaf).context("load one of the API's renewed certificates")?;
    }
}

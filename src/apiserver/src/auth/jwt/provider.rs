//! An issuer: where its keys are, and the keys themselves, fetched when they are needed.
//!
//! Models github.com/coreos/go-oidc NewProvider and remoteKeySet, with what these lack: fetches have a pace, so that tokens with invented key ids make
//! nobody ask an issuer more than once a second; an issuer that fails is asked less and less often; and keys are looked at anew when they are
//! used after [`STALE`], so that one that was taken away is forgotten even where no new one is ever shown.
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use api::codec;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use rustls::ClientConfig;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keys::KeySet;
use super::metrics::Metrics;
use super::token::Compact;
use crate::auth::config::Issuer;
use crate::outbound;
use crate::outbound::get::{Limits, get};

const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), bytes_max: 1 << 20 };
/// As upstream asks for an issuer that does not answer; the first attempts follow each other faster.
const RETRY_MAX: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Between two fetches of keys.
const PACE: Duration = Duration::from_secs(1);
/// Between two that failed.
const PACE_MAX: Duration = Duration::from_secs(30);
const STALE: Duration = Duration::from_secs(300);

type Fetched = Result<Arc<KeySet>, String>;
type Flight = Shared<BoxFuture<'static, Fetched>>;

pub struct Provider {
    url: String,
    /// Of the document that names the keys' place.
    discovery: String,
    tls: Result<Arc<ClientConfig>, String>,
    /// Once it is known.
    jwks: ArcSwapOption<String>,
    ready: CancellationToken,
    /// Why it is not known yet.
    trouble: ArcSwap<String>,
    keys: ArcSwapOption<Held>,
    pace: Mutex<Pace>,
    metrics: Arc<Metrics>,
}

struct Held {
    keys: Arc<KeySet>,
    since: Instant,
}

#[derive(Default)]
struct Pace {
    flight: Option<Flight>,
    /// The next fetch begins no earlier.
    next: Option<Instant>,
    failures: u32,
}

impl Provider {
    /// Begins to ask for it at once, and goes on until it answers or nobody needs it any more.
    pub fn start(issuer: &Issuer, metrics: Arc<Metrics>) -> Arc<Self> {
        let discovery = match issuer.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", issuer.url.strip_suffix('/').unwrap_or(&issuer.url)),
            url => url.to_owned(),
        };
        let provider = Arc::new(Self {
            url: issuer.url.clone(),
            discovery,
            tls: outbound::trusting(issuer.certificate_authority.as_bytes(), None),
            jwks: ArcSwapOption::empty(),
            ready: CancellationToken::new(),
            trouble: ArcSwap::from_pointee(format!("oidc: authenticator for issuer {:?} is not initialized", issuer.url)),
            keys: ArcSwapOption::empty(),
            pace: Mutex::default(),
            metrics,
        });
        tokio::spawn(discover(Arc::downgrade(&provider)));
        provider
    }

    /// Why tokens of this issuer cannot be judged yet.
    pub fn trouble(&self) -> Option<String> {
        self.jwks.load().is_none().then(|| (**self.trouble.load()).clone())
    }

    /// Waits until tokens can be judged.
    pub async fn ready(&self) {
        self.ready.cancelled().await;
    }

    async fn ask(&self) -> Result<String, String> {
        let (code, body) = get(&self.discovery, self.tls.clone()?, None, LIMITS).await?;
        if code != http::StatusCode::OK {
            return Err(format!("{code}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])));
        }
        let document = codec::parse_json(&body).map_err(|error| format!("oidc: failed to decode provider discovery object: {error}"))?.tree;
        let said = document.str_at(&["issuer"]);
        if said != self.url {
            return Err(format!("oidc: issuer did not match the issuer returned by provider, expected {:?} got {said:?}", self.url));
        }
        match document.str_at(&["jwks_uri"]) {
            "" => Err("provider did not return JWKS URL".into()),
            url => Ok(url.to_owned()),
        }
    }

    /// Whether one of the issuer's keys signed the token. `is_hopeful`: it is worth a fetch, if a good signature is all that it lacks.
    pub async fn verify(self: &Arc<Self>, token: &Compact<'_>, is_hopeful: bool) -> Result<(), String> {
        if self.jwks.load().is_none() {
            return Err("oidc: authenticator not initialized".into());
        }
        if let Some(held) = self.keys.load_full() {
            if held.keys.verifies(token) {
                if held.since.elapsed() > STALE {
                    drop(self.fetch()); // goes on by itself
                }
                return Ok(());
            }
            if !is_hopeful {
                return Err("oidc: verify token: failed to verify signature: failed to verify id token signature".into());
            }
        }
        let failed = |why: String| format!("oidc: verify token: failed to verify signature: {why}");
        let keys = match self.fetch() {
            Ok(flight) => flight.await.map_err(|error| failed(format!("fetching keys {error}")))?,
            Err(backing_off) => return Err(failed(backing_off)),
        };
        if keys.verifies(token) { Ok(()) } else { Err(failed("failed to verify id token signature".into())) }
    }

    /// The fetch that is under way, or a new one. One that must wait for its turn waits inside, so that all who ask meanwhile share it.
    fn fetch(self: &Arc<Self>) -> Result<Flight, String> {
        let mut pace = self.pace.lock().expect("no panic under the lock");
        if let Some(flight) = pace.flight.as_ref().filter(|flight| flight.peek().is_none()) {
            return Ok(flight.clone());
        }
        let now = Instant::now();
        let turn = pace.next.filter(|next| *next > now).unwrap_or(now);
        if turn > now + PACE {
            return Err(format!("fetching keys of {:?} has failed {} times, tried again later", self.url, pace.failures));
        }
        let this = self.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(turn).await;
            this.fetch_now().await
        });
        let flight = async move { task.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed().shared();
        // It ends though nobody waits for it any more: what came of it must not be taken for news later.
        tokio::spawn(flight.clone());
        pace.flight = Some(flight.clone());
        Ok(flight)
    }

    async fn fetch_now(&self) -> Fetched {
        let url = self.jwks.load_full().ok_or("oidc: authenticator not initialized")?;
        let found = async {
            let (code, body) = get(&url, self.tls.clone()?, None, LIMITS).await?;
            if code != http::StatusCode::OK {
                return Err(format!("oidc: get keys failed: {code}"));
            }
            Ok((KeySet::parse(&body).map_err(|error| format!("oidc: failed to decode keys: {error}"))?, body))
        };
        let found = found.await;
        let mut pace = self.pace.lock().expect("no panic under the lock");
        pace.failures = if found.is_ok() { 0 } else { pace.failures.saturating_add(1) };
        let doubled = PACE * 2u32.saturating_pow(pace.failures.min(16));
        pace.next = Some(Instant::now() + if found.is_ok() { PACE } else { doubled.min(PACE_MAX) });
        drop(pace);
        self.metrics.fetched(&self.url, found.as_ref().ok().map(|(_, body)| &**body));
        let (keys, _) = found.inspect_err(|error| tracing::warn!(issuer = self.url, error, "fetch an issuer's keys"))?;
        tracing::debug!(issuer = self.url, keys = keys.len(), "fetched an issuer's keys");
        let keys = Arc::new(keys);
        self.keys.store(Some(Arc::new(Held { keys: keys.clone(), since: Instant::now() })));
        Ok(keys)
    }
}

async fn discover(provider: Weak<Provider>) {
    let mut delay = RETRY_FIRST;
    while let Some(provider) = provider.upgrade() {
        match provider.ask().await {
            Ok(url) => {
                provider.jwks.store(Some(Arc::new(url)));
                return provider.ready.cancel();
            }
            Err(error) => {
                tracing::error!(issuer = provider.url, error, "oidc authenticator: initializing plugin");
                provider.trouble.store(Arc::new(error));
            }
        }
        drop(provider);
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY_MAX);
    }
}

//! Tokens of other issuers: who is believed stands in an `AuthenticationConfiguration`, which is followed while the server runs.
//!
//! Models k8s.io/apiserver/plugin/pkg/authenticator/token/oidc and pkg/kubeapiserver/authenticator/config.go (KEP-3331). A changed file holds once
//! every issuer that is new in it has answered; issuers that stay keep their keys. Claims of other endpoints (OpenID Connect 5.6.2) are
//! asked for groups alone, as upstream has it: `distributed.rs`.
pub(crate) mod claims;
mod distributed;
mod expressions;
pub(crate) mod keys;
mod metrics;
mod provider;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod token;
pub(crate) mod validate;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::field_error::FieldError;
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::UserInfo;
use super::config::{Anonymous, AuthenticationConfiguration, ConfigError, JwtAuthenticator};
use distributed::Resolver;
pub use keys::ALGORITHMS;
use metrics::Metrics;
use provider::Provider;
use token::Compact;
use validate::Compiled;

use crate::follow::{Follow, Reload, ReloadCounts, Taker};

/// How long the issuers of a changed file may take to answer before the file is put off.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(60);
/// Clocks differ; go-oidc's leeway for `nbf`. `exp` has none.
const LEEWAY_SECONDS: f64 = 60.0;

/// Whether the configuration may hold.
pub fn check(config: &AuthenticationConfiguration, disallowed: &[String]) -> Result<(), ConfigError> {
    validate::compile(config, disallowed).map(drop).map_err(ConfigError::Invalid)
}

/// All issuers that are believed.
pub struct Issuers {
    all: ArcSwap<Vec<Issuer>>,
    algorithms: Vec<String>,
    /// The cluster's own.
    disallowed: Vec<String>,
    metrics: Arc<Metrics>,
}

/// One of them.
struct Issuer {
    config: JwtAuthenticator,
    compiled: Compiled,
    provider: Arc<Provider>,
    /// Of the groups' claim.
    resolver: Option<Arc<Resolver>>,
}

impl Issuers {
    /// `algorithms`: of [`ALGORITHMS`]; `disallowed`: the cluster's own issuers.
    pub fn start(config: &AuthenticationConfiguration, algorithms: &[&str], disallowed: &[String]) -> Result<Self, ConfigError> {
        let compiled = validate::compile(config, disallowed).map_err(ConfigError::Invalid)?;
        let metrics = Arc::<Metrics>::default();
        let issuers = Self {
            all: ArcSwap::default(),
            algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
            disallowed: disallowed.to_vec(),
            metrics,
        };
        issuers.all.store(Arc::new(issuers.made(config, compiled)));
        Ok(issuers)
    }

    fn made(&self, config: &AuthenticationConfiguration, compiled: Vec<Compiled>) -> Vec<Issuer> {
        let old = self.all.load_full();
        let one = |(config, compiled): (&JwtAuthenticator, Compiled)| {
            let known = old.iter().find(|issuer| issuer.config.issuer == config.issuer);
            let provider = known.map_or_else(|| Provider::start(&config.issuer, self.metrics.clone()), |issuer| issuer.provider.clone());
            let claim = &config.groups.claim;
            let resolver = (!claim.is_empty()).then(|| Arc::new(Resolver::new(claim, &config.issuer, self.metrics.clone())));
            Issuer { config: config.clone(), compiled, provider, resolver }
        };
        config.jwt.iter().zip(compiled).map(one).collect()
    }

    /// Takes another configuration over, once all its issuers answer.
    pub async fn update(&self, config: &AuthenticationConfiguration) -> Reload {
        let compiled = match validate::compile(config, &self.disallowed) {
            Ok(compiled) => compiled,
            Err(errors) => return Reload::Refused(ConfigError::Invalid(errors).to_string()),
        };
        let new = self.made(config, compiled);
        let ready = futures::future::join_all(new.iter().map(|issuer| issuer.provider.ready()));
        if tokio::time::timeout(UPDATE_TIMEOUT, ready).await.is_err() {
            return Reload::Failed(new.iter().find_map(|issuer| issuer.provider.trouble()).unwrap_or_default());
        }
        let new = Arc::new(new);
        self.all.store(new.clone());
        self.metrics.keep(|issuer| new.iter().any(|known| known.config.issuer.url == issuer));
        Reload::Done
    }

    /// Follows the file `path`, of which `text` holds now, with its section on anonymous requests, which must stay as it is.
    pub async fn follow(&self, path: &Path, text: String, counts: &ReloadCounts, shutdown: CancellationToken) {
        let anonymous = AuthenticationConfiguration::parse(&text).ok().and_then(|config| config.anonymous);
        Follow::new(path, text).run(counts, shutdown, &Updates { issuers: self, anonymous }).await;
    }

    /// Of the first issuer that does not answer yet.
    pub fn trouble(&self) -> Option<String> {
        self.all.load().iter().find_map(|issuer| issuer.provider.trouble())
    }

    pub fn page(&self) -> String {
        self.metrics.page()
    }

    /// `None`: a token of nobody who is named here.
    pub async fn authenticate(&self, token: &str, now: SystemTime) -> Option<Result<UserInfo, String>> {
        let all = self.all.load_full();
        if all.is_empty() {
            return None;
        }
        let url = token::untrusted_issuer(token)?;
        let issuer = all.iter().find(|issuer| issuer.config.issuer.url == url)?;
        let started = Instant::now();
        let judged = issuer.judge(token, &self.algorithms, now).await;
        self.metrics.judged(&url, judged.is_ok(), started.elapsed());
        Some(judged)
    }
}

/// What a changed file does to the issuers.
struct Updates<'i> {
    issuers: &'i Issuers,
    /// As the first file had it.
    anonymous: Option<Anonymous>,
}

impl Taker for Updates<'_> {
    fn take<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Reload> {
        Box::pin(async move {
            match AuthenticationConfiguration::parse(text) {
                Err(error) => Reload::Refused(error.to_string()),
                Ok(config) if config.anonymous != self.anonymous => {
                    Reload::Refused(FieldError::forbidden("anonymous", "changed from initial configuration file").to_string())
                }
                Ok(config) => self.issuers.update(&config).await,
            }
        })
    }
}

impl Issuer {
    async fn judge(&self, token: &str, algorithms: &[String], now: SystemTime) -> Result<UserInfo, String> {
        let mut token = Compact::parse(token).map_err(|error| format!("oidc: verify token: {error}"))?;
        verify(&self.provider, &token, &self.config.issuer.audiences, algorithms, now).await?;
        if let Some(resolver) = &self.resolver {
            let expanded = resolver.expand(&mut token.claims, algorithms, now).await;
            expanded.map_err(|error| format!("oidc: could not expand distributed claims: {error}"))?;
        }
        claims::user(&self.config, &self.compiled, &token.claims)
    }
}

/// Models go-oidc's IDTokenVerifier.Verify. What the token says of itself is judged first where it can only fail, so that nobody is asked for keys
/// in vain; the errors are those that upstream would give.
async fn verify(
    provider: &Arc<Provider>,
    token: &Compact<'_>,
    audiences: &[String],
    algorithms: &[String],
    now: SystemTime,
) -> Result<(), String> {
    let wrong = |why: String| format!("oidc: verify token: {why}");
    if !algorithms.contains(&token.algorithm) {
        let (expected, got) = (super::authentication::quoted(algorithms), &token.algorithm);
        return Err(wrong(format!("oidc: id token signed with unsupported algorithm, expected {expected} got {got:?}")));
    }
    let said = check_claims(token, audiences, now);
    provider.verify(token, said.is_ok()).await?;
    said.map_err(wrong)
}

fn check_claims(token: &Compact, audiences: &[String], now: SystemTime) -> Result<(), String> {
    let (now, said) = (now.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()), token.audiences());
    if !said.iter().any(|audience| audiences.contains(audience)) {
        let expected = match audiences {
            [one] => format!("{one:?}"),
            many => format!("in {}", super::authentication::quoted(many)),
        };
        return Err(format!("oidc: expected audience {expected} got {}", super::authentication::quoted(&said)));
    }
    let shown = |seconds: f64| jiff::Timestamp::from_second(seconds as i64).map_or_else(|_| seconds.to_string(), |at| at.to_string());
    match token.seconds("exp") {
        Some(expires) if expires >= now => {}
        expires => return Err(format!("oidc: token is expired (Token Expiry: {})", shown(expires.unwrap_or(0.0)))),
    }
    match token.seconds("nbf") {
        Some(begins) if begins > now + LEEWAY_SECONDS => {
            Err(format!("oidc: current time {} before the nbf (not before) time: {}", shown(now), shown(begins)))
        }
        _ => Ok(()),
    }
}

//! Groups that stand in a token of their own, at an endpoint that the token names (OpenID Connect Core 5.6.2, distributed claims).
//!
//! Models k8s.io/apiserver/plugin/pkg/authenticator/token/oidc/oidc.go claimResolver. The endpoint's token may be of another issuer, and has that
//! issuer's own signature; how many of these are remembered is bounded.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use api::tree::Tree;

use super::metrics::Metrics;
use super::provider::Provider;
use super::token::{Compact, TOKEN_BYTES_MAX, untrusted_issuer};
use crate::auth::config::Issuer;
use crate::outbound;
use crate::outbound::get::{Limits, get};

const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), bytes_max: TOKEN_BYTES_MAX };
const ISSUERS_MAX: usize = 64;

pub struct Resolver {
    claim: String,
    issuer: Issuer,
    known: Mutex<HashMap<String, Arc<Provider>>>,
    metrics: Arc<Metrics>,
}

impl Resolver {
    pub fn new(claim: &str, issuer: &Issuer, metrics: Arc<Metrics>) -> Self {
        Self { claim: claim.to_owned(), issuer: issuer.clone(), known: Mutex::default(), metrics }
    }

    /// Puts the claim where it would stand, if the token says where to find it.
    pub async fn expand(&self, claims: &mut Tree, algorithms: &[String], now: SystemTime) -> Result<(), String> {
        let Some((url, bearer)) = source(claims, &self.claim)? else { return Ok(()) };
        let claim = &self.claim;
        let failed = |error: String| format!("while getting distributed claim {claim:?}: {error}");
        let tls = outbound::trusting(self.issuer.certificate_authority.as_bytes(), None).map_err(failed)?;
        let (code, body) = get(&url, tls, bearer.as_deref(), LIMITS).await.map_err(failed)?;
        if !code.is_success() {
            return Err(failed(format!("error while getting distributed claim JWT: {code}")));
        }
        let text = std::str::from_utf8(&body).map_err(|error| failed(error.to_string()))?.trim();
        let issuer = untrusted_issuer(text)
            .ok_or_else(|| format!("getting untrusted issuer from endpoint {url} failed for claim {claim:?}: malformed token"))?;
        let provider = self.provider(&issuer).map_err(|error| format!("verifying untrusted issuer {issuer} failed: {error}"))?;
        let token = Compact::parse(text).map_err(|error| format!("verify distributed claim token: {error}"))?;
        let verified = super::verify(&provider, &token, &self.issuer.audiences, algorithms, now).await;
        verified.map_err(|error| format!("verify distributed claim token: {error}"))?;
        let Some(value) = token.claims.get(claim) else {
            return Err(format!("jwt returned by distributed claim endpoint {url:?} did not contain claim: {claim}"));
        };
        claims.set(&[claim], value.clone());
        Ok(())
    }

    fn provider(&self, issuer: &str) -> Result<Arc<Provider>, String> {
        let mut known = self.known.lock().expect("no panic under the lock");
        if !known.contains_key(issuer) && known.len() >= ISSUERS_MAX {
            return Err(format!("more than {ISSUERS_MAX} issuers of claims"));
        }
        let new = || Issuer { url: issuer.to_owned(), discovery_url: String::new(), ..self.issuer.clone() };
        let provider = known.entry(issuer.to_owned()).or_insert_with(|| Provider::start(&new(), self.metrics.clone()));
        match provider.trouble() {
            Some(_) => Err(format!("verifier not initialized for issuer: {issuer:?}")),
            None => Ok(provider.clone()),
        }
    }
}

/// Endpoint and access token, if the claim is elsewhere.
fn source(claims: &Tree, claim: &str) -> Result<Option<(String, Option<String>)>, String> {
    if claims.get(claim).is_some() {
        return Ok(None);
    }
    let Some(names) = claims.get("_claim_names") else { return Ok(None) };
    let Some(names) = names.as_object() else { return Err("oidc: error parsing distributed claim names: no object".into()) };
    let Some(sources) = claims.get("_claim_sources") else { return Err("oidc: no claim sources".into()) };
    let Some(name) = names.get(claim).and_then(Tree::as_str) else { return Ok(None) };
    let Some(source) = sources.get(name) else {
        return Err(format!("id token _claim_names contained a source {name} missing in _claims_sources"));
    };
    let bearer = source.str_at(&["access_token"]);
    match source.str_at(&["endpoint"]) {
        // A claim that comes in the token itself; upstream knows none of these.
        "" => Ok(None),
        url => Ok(Some((url.to_owned(), (!bearer.is_empty()).then(|| bearer.to_owned())))),
    }
}

//! Who sends a request: client certificates, bound ServiceAccount tokens, bootstrap tokens, tokens of other issuers.
//!
//! Models k8s.io/apiserver/pkg/authentication/request/{x509,union} and pkg/serviceaccount/{jwt,claims,legacy}.go. Left out: of tokens in Secrets,
//! the label that says when they were used last.
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use pki::{BootstrapToken, BoundReference, Claims, ServiceAccountVerifier, TokenError};
use ring::digest::{SHA256, digest};
use http::HeaderMap;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;

use super::chain::Chain;
use super::config::Anonymous;
use super::jwt::Issuers;
use super::node_keys::Sessions;
use super::request_header::{RequestHeader, RequestHeaderError, Signed};
use super::webhook::TokenWebhook;
use super::{Authenticated, Authenticator, Credential, UserInfo};
use crate::cache::{Cache, Cached};

/// A token outlives its deleted objects by this much: pods that end may still need it.
const DELETION_LEEWAY: Duration = Duration::from_secs(60);

/// Of a Secret whose token an administrator, or upstream's cleaner, has put out of use.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

pub struct Authentication {
    cache: Cache,
    verifier: ServiceAccountVerifier,
    /// The API server's own audiences.
    audiences: Vec<String>,
    nodes: Sessions,
    issuers: Option<Arc<Issuers>>,
    webhook: Option<TokenWebhook>,
    proxies: Option<Proxies>,
    anonymous: Anonymous,
}

/// Where proxies are believed, a connection may show a certificate of theirs or of users'.
struct Proxies {
    headers: RequestHeader,
    users: Signed,
}

impl Authentication {
    /// `verifier` knows the cluster's token keys; its issuer is the API server's audience.
    pub fn new(cache: Cache, verifier: ServiceAccountVerifier) -> Self {
        let audiences = vec![verifier.issuer().to_owned()];
        let nodes = Sessions::new(&cache);
        Self { cache, verifier, audiences, nodes, issuers: None, webhook: None, proxies: None, anonymous: Anonymous::default() }
    }

    /// Believes these issuers too.
    pub fn with_issuers(self, issuers: Arc<Issuers>) -> Self {
        Self { issuers: Some(issuers), ..self }
    }

    /// Asks this server about tokens that nobody here knows.
    pub fn with_webhook(self, webhook: TokenWebhook) -> Self {
        Self { webhook: Some(webhook), ..self }
    }

    /// Believes proxies; `users`: the authority of users' certificates.
    pub fn with_proxies(self, headers: RequestHeader, users: CertificateDer<'static>) -> Result<Self, RequestHeaderError> {
        Ok(Self { proxies: Some(Proxies { headers, users: Signed::by(&[users])? }), ..self })
    }

    pub fn with_anonymous(self, anonymous: Anonymous) -> Self {
        Self { anonymous, ..self }
    }

    fn certificate(&self, chain: &Chain) -> Result<Option<Authenticated>, String> {
        if let Some(proxies) = &self.proxies {
            proxies.users.check(chain.certificates(), UnixTime::now())?;
        }
        let Some(user) = chain.user()? else { return Ok(None) };
        if let (Some(node), Some(leaf)) = (super::node_name(user), chain.leaf()) {
            super::node_keys::check(&self.cache, node, leaf)?;
        }
        Ok(Some(Authenticated { user: user.clone(), audiences: self.audiences.clone() }))
    }

    /// Local ones first: nobody else sees their tokens, and nobody is asked in vain.
    async fn token(&self, token: &str, asked: &[String], now: SystemTime) -> Result<Option<Authenticated>, String> {
        let mut errors = Vec::new();
        match self.own_token(token, asked, now) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => errors.push(error),
        }
        match self.issued_token(token, asked, now).await {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => errors.push(error),
        }
        if let Some(webhook) = &self.webhook {
            match webhook.authenticate(token, asked, &self.audiences).await {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(None) } else { Err(crate::status::aggregate(&errors)) }
    }

    /// Of another issuer; good for the API server alone.
    async fn issued_token(&self, token: &str, asked: &[String], now: SystemTime) -> Result<Option<Authenticated>, String> {
        let Some(issuers) = &self.issuers else { return Ok(None) };
        let audiences = self.own_audiences(asked);
        if audiences.is_empty() {
            return Ok(None);
        }
        let Some(user) = issuers.authenticate(token, now).await else { return Ok(None) };
        Ok(Some(Authenticated { user: user?, audiences }))
    }

    /// Which of the API server's audiences are asked for.
    fn own_audiences(&self, asked: &[String]) -> Vec<String> {
        self.audiences.iter().filter(|audience| asked.is_empty() || asked.contains(audience)).cloned().collect()
    }

    fn own_token(&self, token: &str, asked: &[String], now: SystemTime) -> Result<Option<Authenticated>, String> {
        if let Ok(token) = token.parse::<BootstrapToken>() {
            return Ok(self.bootstrap_token(&token, asked, now));
        }
        let claims = match self.verifier.verify(token, now) {
            Ok(claims) => claims,
            Err(TokenError::Foreign) => return self.secret_token(token, asked, now),
            Err(error) => return Err(error.to_string()),
        };
        let asked = if asked.is_empty() { &self.audiences } else { asked };
        let audiences: Vec<String> = claims.aud.iter().filter(|a| asked.contains(a)).cloned().collect();
        if audiences.is_empty() {
            let (has, wants) = (quoted(&claims.aud), quoted(asked));
            return Err(format!("token audiences {has} is invalid for the target audiences {wants}"));
        }
        self.check_objects(&claims, now)?;
        Ok(Some(Authenticated { user: service_account_user(&claims), audiences }))
    }

    /// A token that stands in a Secret. Good for the API server alone.
    fn secret_token(&self, token: &str, asked: &[String], now: SystemTime) -> Result<Option<Authenticated>, String> {
        let claims = match self.verifier.verify_legacy(token) {
            Ok(claims) => claims,
            Err(TokenError::Foreign) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let audiences = self.own_audiences(asked);
        if audiences.is_empty() {
            return Ok(None);
        }
        if claims.sub != Claims::subject(&claims.namespace, &claims.account) {
            return Err("sub claim is invalid".into());
        }
        let secret = self.cache.get("", "secrets", &claims.namespace, &claims.secret);
        let secret = secret.map(|found| found.tree()).filter(|tree| api::meta::deletion_timestamp(tree).is_none());
        let Some(secret) = secret else { return Err("Token has been invalidated".into()) };
        let held = STANDARD.decode(secret.str_at(&["data", "token"])).unwrap_or_default();
        // Hashes, so that how long it takes says nothing about the token.
        if digest(&SHA256, &held).as_ref() != digest(&SHA256, token.as_bytes()).as_ref() {
            return Err("Token does not match server's copy".into());
        }
        self.check_account(&claims.namespace, &BoundReference { name: claims.account.clone(), uid: claims.account_uid.clone() }, now)?;
        if api::meta::label(&secret, INVALID_SINCE).is_some() {
            return Err("the token has been invalidated because it was not used for a long time".into());
        }
        let mut user = super::service_account(&claims.namespace, &claims.account);
        user.uid = claims.account_uid;
        Ok(Some(Authenticated { user, audiences }))
    }

    /// Good for the API server alone.
    fn bootstrap_token(&self, token: &BootstrapToken, asked: &[String], now: SystemTime) -> Option<Authenticated> {
        let audiences = self.own_audiences(asked);
        let user = super::bootstrap_token::user(&self.cache, token, now.try_into().ok()?)?;
        (!audiences.is_empty()).then_some(Authenticated { user, audiences })
    }

    /// A token lives no longer than what it is bound to.
    fn check_objects(&self, claims: &Claims, now: SystemTime) -> Result<(), String> {
        let bound = &claims.kubernetes;
        let (namespace, account) = (&bound.namespace, &bound.serviceaccount);
        if claims.sub != Claims::subject(namespace, &account.name) {
            return Err("Token claims are not for the service account of its subject".into());
        }
        self.check_account(namespace, account, now)?;
        if let Some(reference) = &bound.secret {
            self.check_bound("secrets", namespace, reference, "secret", now)?;
        }
        if let Some(reference) = &bound.pod {
            return self.check_bound("pods", namespace, reference, "pod", now);
        }
        // Of a token bound to a pod the node is a note, not a condition.
        match &bound.node {
            Some(reference) => self.check_bound("nodes", "", reference, "node", now),
            None => Ok(()),
        }
    }

    fn check_account(&self, namespace: &str, account: &BoundReference, now: SystemTime) -> Result<(), String> {
        let Some(found) = self.cache.get("", "serviceaccounts", namespace, &account.name) else {
            return Err(format!("serviceaccounts \"{}\" not found", account.name));
        };
        let state = State::of(&found);
        if state.is_gone(now) {
            return Err(format!("service account {namespace}/{} has been deleted", account.name));
        }
        if state.uid != account.uid {
            return Err(format!("service account UID ({}) does not match claim ({})", state.uid, account.uid));
        }
        Ok(())
    }

    fn check_bound(
        &self,
        plural: &str,
        namespace: &str,
        reference: &BoundReference,
        what: &str,
        now: SystemTime,
    ) -> Result<(), String> {
        let found = self.cache.get("", plural, namespace, &reference.name);
        let Some(state) = found.map(|found| State::of(&found)).filter(|state| !state.is_gone(now)) else {
            return Err("service account token has been invalidated".into());
        };
        if state.uid != reference.uid {
            let (has, claims) = (&state.uid, &reference.uid);
            return Err(format!("{what} UID ({has}) does not match service account {what} ref claim ({claims})"));
        }
        Ok(())
    }
}

struct State {
    uid: String,
    deleted_at: Option<SystemTime>,
}

impl State {
    fn of(object: &Cached) -> Self {
        let tree = object.tree();
        let deleted_at = api::meta::deletion_timestamp(&tree).map(|text| {
            text.parse::<jiff::Timestamp>().map_or(UNIX_EPOCH, SystemTime::from)
        });
        Self { uid: api::meta::uid(&tree).to_owned(), deleted_at }
    }

    fn is_gone(&self, now: SystemTime) -> bool {
        self.deleted_at.is_some_and(|at| at + DELETION_LEEWAY < now)
    }
}

fn service_account_user(claims: &Claims) -> UserInfo {
    let bound = &claims.kubernetes;
    let mut user = super::service_account(&bound.namespace, &bound.serviceaccount.name);
    user.uid.clone_from(&bound.serviceaccount.uid);
    let mut note = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        note("credential-id", &format!("JTI={}", claims.jti));
    }
    for (kind, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(reference) = reference {
            note(&format!("{kind}-name"), &reference.name);
            note(&format!("{kind}-uid"), &reference.uid);
        }
    }
    user
}

/// Models authentication/group AuthenticatedGroupAdder.
fn add_authenticated(user: &mut UserInfo) {
    if user.name != "system:anonymous" && !user.in_group("system:authenticated") && !user.in_group("system:unauthenticated") {
        user.groups.push("system:authenticated".into());
    }
}

/// `["a" "b"]`, as Go prints a list with %q.
pub fn quoted(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

impl Authenticator for Authentication {
    fn end_of(&self, chain: &Chain) -> Option<CancellationToken> {
        let user = chain.user().ok().flatten()?;
        super::node_name(user).map(|node| self.nodes.of(node))
    }

    fn authenticate<'a>(&'a self, credential: Credential<'a>) -> BoxFuture<'a, Result<Option<Authenticated>, String>> {
        Box::pin(async move {
            let found = match credential {
                Credential::Certificates(chain) => self.certificate(chain),
                Credential::Token { token, audiences } => self.token(token, audiences, SystemTime::now()).await,
            };
            found.map(|found| {
                found.map(|mut authenticated| {
                    add_authenticated(&mut authenticated.user);
                    authenticated
                })
            })
        })
    }

    fn proxied(&self, chain: &Chain, headers: &mut HeaderMap) -> Result<Option<Authenticated>, String> {
        let Some(proxies) = self.proxies.as_ref().filter(|_| !chain.is_empty()) else { return Ok(None) };
        let user = proxies.headers.authenticate(chain.certificates(), headers, UnixTime::now())?;
        Ok(user.map(|mut user| {
            add_authenticated(&mut user);
            Authenticated { user, audiences: self.audiences.clone() }
        }))
    }

    fn lets_anonymous_in(&self, path: &str) -> bool {
        self.anonymous.allows(path)
    }
}

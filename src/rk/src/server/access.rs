//! Who is believed and who decides, from flags and files. Models pkg/kubeapiserver/options/{authentication,authorization}.go.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apiserver::auth::config::{Anonymous, AuthenticationConfiguration, AuthorizationConfiguration, OidcFlags};
use apiserver::follow::ReloadCounts;
use apiserver::auth::jwt::{self, Issuers};
use apiserver::auth::request_header::{HeaderNames, RequestHeader};
use apiserver::auth::webhook::TokenWebhook;
use apiserver::auth::{Authentication, Authorization};
use apiserver::{ApiServer, Cache};
use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::cli::UsageError;
use crate::options::AccessOptions;

/// Checked, but for what only the cluster's own issuer can collide with.
pub struct Access {
    pub authentication: AuthenticationConfiguration,
    /// The file, and the text that was read of it.
    pub authentication_file: Option<(PathBuf, String)>,
    pub anonymous: Anonymous,
    algorithms: Vec<&'static str>,
    /// Kubeconfig, version and how long answers are kept.
    token_webhook: Option<(PathBuf, String, Duration)>,
    authorization_file: Option<(PathBuf, String)>,
    proxies: Option<(PathBuf, HeaderNames)>,
}

/// `own_issuer`: of ServiceAccount tokens, which nobody else may be.
pub fn load(options: &AccessOptions, own_issuer: &str) -> anyhow::Result<Access> {
    let (mut authentication, file) = match &options.authentication_config {
        None => (AuthenticationConfiguration::default(), None),
        Some(path) => {
            if options.has_oidc() {
                return Err(usage("authentication-config file and oidc-* flags are mutually exclusive".into()));
            }
            let text = read("--authentication-config", path)?;
            let failed = |error| usage(format!("failed to load authentication configuration from file {path:?}: {error}"));
            (AuthenticationConfiguration::parse(&text).map_err(failed)?, Some((path.clone(), text)))
        }
    };
    let mut algorithms = jwt::ALGORITHMS.to_vec();
    if options.has_oidc() {
        let flags = oidc(options)?;
        authentication.jwt.push(flags.authenticator().context("read --oidc-ca-file")?);
        algorithms = signing_algorithms(&options.oidc_signing_algs)?;
    }
    jwt::check(&authentication, &[own_issuer.to_owned()])
        .map_err(|error| usage(format!("invalid authentication configuration: {error}")))?;
    let anonymous = match (&authentication.anonymous, options.anonymous_auth) {
        (Some(_), Some(_)) => {
            let why = "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file";
            return Err(usage(format!("anonymous: Forbidden: {why}")));
        }
        (Some(anonymous), None) => anonymous.clone(),
        (None, enabled) => Anonymous { enabled: enabled.unwrap_or(true), paths: Vec::new() },
    };
    let webhook = options.authentication_token_webhook_config_file.clone();
    let (version, ttl) = (&options.authentication_token_webhook_version, options.authentication_token_webhook_cache_ttl);
    let token_webhook = webhook.map(|file| (file, version.clone(), ttl));
    let authorization_file = match &options.authorization_config {
        None => None,
        Some(path) => {
            let text = read("--authorization-config", path)?;
            AuthorizationConfiguration::parse(&text)
                .map_err(|error| usage(format!("--authorization-config {}: {error}", path.display())))?;
            Some((path.clone(), text))
        }
    };
    let proxies = options.requestheader_client_ca_file.clone().map(|file| (file, header_names(options)));
    Ok(Access { authentication, authentication_file: file, anonymous, algorithms, token_webhook, authorization_file, proxies })
}

impl Access {
    /// Begins to ask issuers for their keys.
    pub fn issuers(&self, own_issuer: &str) -> anyhow::Result<Arc<Issuers>> {
        let issuers = Issuers::start(&self.authentication, &self.algorithms, &[own_issuer.to_owned()]);
        Ok(Arc::new(issuers.context("invalid authentication configuration")?))
    }

    /// Whose certificates clients may show beside users'.
    pub fn proxy_authorities(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let Some((file, names)) = &self.proxies else { return Ok(Vec::new()) };
        Ok(RequestHeader::load(file, names.clone()).context("--requestheader-client-ca-file")?.authorities)
    }

    /// With all that is configured here; `users`: the authority of users' certificates.
    pub fn complete(
        &self,
        authentication: Authentication,
        issuers: Arc<Issuers>,
        users: &CertificateDer<'static>,
    ) -> anyhow::Result<Authentication> {
        let mut authentication = authentication.with_issuers(issuers).with_anonymous(self.anonymous.clone());
        if let Some((file, names)) = &self.proxies {
            let headers = RequestHeader::load(file, names.clone()).context("--requestheader-client-ca-file")?;
            authentication = authentication.with_proxies(headers, users.clone())?;
        }
        let Some((file, version, ttl)) = &self.token_webhook else { return Ok(authentication) };
        let webhook = TokenWebhook::load(file, version, *ttl).context("--authentication-token-webhook-config-file")?;
        Ok(authentication.with_webhook(webhook))
    }

    /// As the file has it, where there is one.
    pub fn authorization(&self, cache: &Cache) -> anyhow::Result<Arc<Authorization>> {
        let authorization = Arc::new(Authorization::new(cache));
        if let Some((_, text)) = &self.authorization_file {
            authorization.configure(AuthorizationConfiguration::parse(text)?).context("--authorization-config")?;
        }
        Ok(authorization)
    }

    /// Follows the files that there are.
    pub fn follow(
        &self,
        api: &ApiServer,
        issuers: &Arc<Issuers>,
        authorization: &Arc<Authorization>,
        shutdown: &CancellationToken,
    ) -> Vec<BoxFuture<'static, ()>> {
        let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
        if let Some((path, text)) = self.authentication_file.clone() {
            let counts = Arc::new(ReloadCounts::new("authentication", &text));
            let (shown, issuers, shutdown) = (counts.clone(), issuers.clone(), shutdown.clone());
            api.also_measure(move || shown.page());
            tasks.push(Box::pin(async move { issuers.follow(&path, text, &counts, shutdown).await }));
        }
        if let Some((path, text)) = self.authorization_file.clone() {
            let counts = Arc::new(ReloadCounts::new("authorization", &text));
            let (shown, authorization, shutdown) = (counts.clone(), authorization.clone(), shutdown.clone());
            api.also_measure(move || shown.page());
            tasks.push(Box::pin(async move { authorization.follow(&path, text, &counts, shutdown).await }));
        }
        let issuers = issuers.clone();
        api.also_measure(move || issuers.page());
        api.also_measure(apiserver::auth::webhook::metrics_page);
        tasks
    }
}

fn header_names(options: &AccessOptions) -> HeaderNames {
    HeaderNames {
        username: options.requestheader_username_headers.clone(),
        uid: options.requestheader_uid_headers.clone(),
        group: options.requestheader_group_headers.clone(),
        extra_prefix: options.requestheader_extra_headers_prefix.clone(),
        allowed: options.requestheader_allowed_names.clone(),
    }
}

pub fn read(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {flag} {}", path.display()))
}

fn usage(text: String) -> anyhow::Error {
    UsageError(text).into()
}

fn oidc(options: &AccessOptions) -> anyhow::Result<OidcFlags> {
    let (Some(issuer_url), Some(client_id)) = (&options.oidc_issuer_url, &options.oidc_client_id) else {
        return Err(usage("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set".into()));
    };
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    let required = |claim: &String| {
        let (claim, value) = claim.split_once('=').ok_or_else(|| usage(format!("--oidc-required-claim {claim:?} is not CLAIM=VALUE")))?;
        Ok::<_, anyhow::Error>((claim.trim().to_owned(), value.trim().to_owned()))
    };
    Ok(OidcFlags {
        issuer_url: issuer_url.clone(),
        client_id: client_id.clone(),
        ca_file: options.oidc_ca_file.clone(),
        username_claim: options.oidc_username_claim.clone(),
        username_prefix: text(&options.oidc_username_prefix),
        groups_claim: text(&options.oidc_groups_claim),
        groups_prefix: text(&options.oidc_groups_prefix),
        required_claims: options.oidc_required_claim.iter().map(required).collect::<Result<_, _>>()?,
    })
}

fn signing_algorithms(names: &[String]) -> anyhow::Result<Vec<&'static str>> {
    if names.is_empty() {
        return Ok(vec!["RS256"]);
    }
    let known = |name: &String| jwt::ALGORITHMS.into_iter().find(|known| known == name);
    let unknown = |name: &String| usage(format!("oidc: unsupported signing alg: {name:?}; rk verifies {}", jwt::ALGORITHMS.join(", ")));
    names.iter().map(|name| known(name).ok_or_else(|| unknown(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "https://kubernetes.default.svc.cluster.local";

    fn options(issuer: Option<&str>, client: Option<&str>) -> AccessOptions {
        AccessOptions { oidc_issuer_url: issuer.map(str::to_owned), oidc_client_id: client.map(str::to_owned), ..AccessOptions::default() }
    }

    #[track_caller]
    fn refused(options: &AccessOptions, expected: &str) {
        assert_eq!(load(options, OWN).err().unwrap().to_string(), expected);
    }

    #[test]
    fn the_flags_of_one_issuer_are_a_configuration() {
        let mut given = options(Some("https://i.example"), Some("me"));
        given.oidc_groups_claim = Some("groups".into());
        given.oidc_required_claim = vec!["hd=example.com".into()];
        let loaded = load(&given, OWN).unwrap();
        let [issuer] = &loaded.authentication.jwt[..] else { panic!("one issuer") };
        assert_eq!((issuer.username.claim.as_str(), issuer.username.prefix.as_deref()), ("sub", Some("https://i.example#")));
        assert_eq!((issuer.groups.claim.as_str(), issuer.groups.prefix.as_deref()), ("groups", Some("")));
        assert_eq!((issuer.claim_rules[0].claim.as_str(), issuer.claim_rules[0].required_value.as_str()), ("hd", "example.com"));
        assert_eq!(loaded.algorithms, ["RS256"]);
        given.oidc_username_claim = Some("email".into());
        assert_eq!(load(&given, OWN).unwrap().authentication.jwt[0].username.prefix.as_deref(), Some(""));
        given.oidc_username_prefix = Some("-".into());
        given.oidc_username_claim = None;
        assert_eq!(load(&given, OWN).unwrap().authentication.jwt[0].username.prefix.as_deref(), Some(""));
    }

    #[test]
    fn flags_that_do_not_go_together_are_named() {
        refused(
            &options(Some("https://i.example"), None),
            "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set",
        );
        let scheme =
            "invalid authentication configuration: jwt[0].issuer.url: Invalid value: \"http://i.example\": URL scheme must be https";
        refused(&options(Some("http://i.example"), Some("me")), scheme);
        let own = format!(
            "invalid authentication configuration: jwt[0].issuer.url: Invalid value: {OWN:?}: URL must not overlap with disallowed issuers: [{OWN}]"
        );
        refused(&options(Some(OWN), Some("me")), &own);
        let file = AccessOptions { authentication_config: Some("/x".into()), ..options(Some("https://i.example"), Some("me")) };
        refused(&file, "authentication-config file and oidc-* flags are mutually exclusive");
        let es512 = AccessOptions { oidc_signing_algs: vec!["ES512".into()], ..options(Some("https://i.example"), Some("me")) };
        refused(&es512, "oidc: unsupported signing alg: \"ES512\"; rk verifies ES256, ES384, PS256, PS384, PS512, RS256, RS384, RS512");
    }
}

//! Who asks and may they: the types that the request path speaks, and (in `auth/`) what implements them.
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
mod bootstrap_token;
mod chain;
pub mod config;
pub mod issuer;
pub mod jwt;
mod node;
mod node_keys;
pub mod rbac;
pub mod request_header;
pub mod webhook;
pub mod websocket_token;

use std::collections::BTreeMap;

use api::selector::{FieldSelector, LabelSelector};
use futures::future::BoxFuture;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::status::Status;

pub use authentication::Authentication;
pub use authorization::Authorization;
pub use chain::Chain;
pub use issuer::Tokens;
pub(crate) use node::{names_config_map as pod_names_config_map, names_secret as pod_names_secret};
pub use node::name_of as node_name;

/// Who makes a request. Models k8s.io/apiserver/pkg/authentication/user DefaultInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..Self::default() }
    }

    /// `system:anonymous` in `system:unauthenticated`.
    pub fn anonymous() -> Self {
        Self::new("system:anonymous", &["system:unauthenticated"])
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What a request shows to prove who sends it.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// The client certificate's chain, leaf first, already verified against the client CA by the TLS handshake.
    Certificates(&'a Chain),
    /// A bearer token; `audiences` empty means the API server's own.
    Token { token: &'a str, audiences: &'a [String] },
}

/// A proven identity.
#[derive(Clone, Debug, Default)]
pub struct Authenticated {
    pub user: UserInfo,
    /// The audiences of the token that were asked for (TokenReview answers them).
    pub audiences: Vec<String>,
}

/// Turns credentials into users. `Ok(None)`: not mine; `Err`: refused (401, the text goes to TokenReview's status.error).
pub trait Authenticator: Send + Sync + 'static {
    fn authenticate<'a>(&'a self, credential: Credential<'a>) -> BoxFuture<'a, Result<Option<Authenticated>, String>>;

    /// What tells that a connection whose client showed this chain is to end, open requests and all, because whom the chain names may
    /// have changed. `None`: nothing ever does.
    fn end_of(&self, _chain: &Chain) -> Option<CancellationToken> {
        None
    }

    /// The user that a proxy, which shows this chain, names in headers; these are taken off. `Err`: it is no such proxy.
    fn proxied(&self, _chain: &Chain, _headers: &mut HeaderMap) -> Result<Option<Authenticated>, String> {
        Ok(None)
    }

    /// Whether a request for `path` that shows nothing is let in as `system:anonymous`.
    fn lets_anonymous_in(&self, _path: &str) -> bool {
        true
    }
}

/// What is to be done by whom. Models k8s.io/apiserver/pkg/authorization/authorizer AttributesRecord.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    /// `get`, `list`, `watch`, `create`, ... for resources; the lower-case HTTP method for other paths.
    pub verb: &'a str,
    pub api_group: &'a str,
    pub api_version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// False for paths like `/version`; then only `verb` and `path` matter.
    pub resource_request: bool,
    pub path: &'a str,
    /// What a list, watch or deletecollection is limited to (KEP-4601).
    pub fields: &'a FieldSelector,
    pub labels: &'a LabelSelector,
}

/// No limit.
pub static ALL_FIELDS: FieldSelector = FieldSelector::everything();
pub static ALL_LABELS: LabelSelector = LabelSelector::everything();

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
    NoOpinion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    pub reason: String,
    /// Set when rules could not be evaluated (a missing role); goes to `status.evaluationError` of access reviews.
    pub evaluation_error: String,
    /// Set when the question could not be put to somebody: whoever is not allowed is told of an internal error, and not that it is forbidden.
    pub failure: String,
}

impl Decision {
    fn of(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into(), evaluation_error: String::new(), failure: String::new() }
    }

    pub fn allow(reason: impl Into<String>) -> Self {
        Self::of(Verdict::Allow, reason)
    }
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::of(Verdict::Deny, reason)
    }
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self::of(Verdict::NoOpinion, reason)
    }
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// One rule that applies to a user (SelfSubjectRulesReview).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct UserRules {
    pub rules: Vec<PolicyRule>,
    pub incomplete: bool,
    pub evaluation_error: String,
}

pub trait Authorizer: Send + Sync + 'static {
    /// Reads the watch cache only, but where a webhook is configured: then the thread waits for it. Who can, uses [`Authorizer::decide`].
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// The same, without holding a thread up.
    fn decide<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self.authorize(attributes)))
    }

    /// Every rule that applies to `user` in `namespace`.
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules;
}

/// Whether `user` may `approve`, `sign` or `attest` for a signer: by its name, or for all signers of its domain.
/// Models pkg/certauthorization/certauthorization.go IsAuthorizedForSignerName.
pub fn may_use_signer(authorizer: &dyn Authorizer, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    [signer, &format!("{domain}/*")].iter().any(|name| {
        let attributes = Attributes {
            user,
            verb,
            api_group: "certificates.k8s.io",
            api_version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            resource_request: true,
            path: "",
            fields: &ALL_FIELDS,
            labels: &ALL_LABELS,
        };
        authorizer.authorize(&attributes).allowed()
    })
}

/// What a ServiceAccount token is to say (TokenRequest, already defaulted and validated).
#[derive(Clone, Debug)]
pub struct TokenSpec {
    pub namespace: String,
    pub service_account: String,
    pub service_account_uid: String,
    /// Empty: the API server's own audience.
    pub audiences: Vec<String>,
    pub expiration_seconds: i64,
    pub bound: Option<BoundObject>,
}

/// The object a token lives and dies with.
#[derive(Clone, Debug)]
pub struct BoundObject {
    pub kind: String,
    pub api_version: String,
    pub name: String,
    pub uid: String,
    /// Of a bound pod: where it runs.
    pub node: Option<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct IssuedToken {
    pub token: String,
    pub audiences: Vec<String>,
    /// RFC 3339, whole seconds.
    pub expiration: String,
}

/// Signs ServiceAccount tokens and publishes what others need to verify them.
pub trait TokenIssuer: Send + Sync + 'static {
    fn issue<'a>(&'a self, spec: TokenSpec) -> BoxFuture<'a, Result<IssuedToken, Status>>;
    /// `/.well-known/openid-configuration`
    fn openid_configuration(&self) -> Vec<u8>;
    /// `/openid/v1/jwks`
    fn jwks(&self) -> Vec<u8>;
}

/// The user that a ServiceAccount is, without `system:authenticated`. Models k8s.io/apiserver/pkg/authentication/serviceaccount.
pub fn service_account(namespace: &str, name: &str) -> UserInfo {
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    UserInfo {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        groups: groups.into(),
        ..UserInfo::default()
    }
}

#[cfg(test)]
mod tests;

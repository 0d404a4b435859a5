//! Makes ServiceAccount tokens.
//!
//! Models pkg/registry/core/serviceaccount/storage/token.go Create, from the claims on, and pkg/serviceaccount/claims.go Claims.
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use pki::{BoundReference, Claims, KubernetesClaims, ServiceAccountSigner};

use super::{IssuedToken, TokenIssuer, TokenSpec};
use crate::status::Status;

/// The lifetime that the ServiceAccount admission asks for; old clients that never read the file again get a year
/// instead, and are told apart by `warnafter`.
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 86400;

pub struct Tokens {
    signer: Arc<ServiceAccountSigner>,
    jwks_uri: String,
}

impl Tokens {
    /// `jwks_uri` is where the outside reads the keys: `https://ADDRESS:PORT/openid/v1/jwks`.
    pub fn new(signer: Arc<ServiceAccountSigner>, jwks_uri: impl Into<String>) -> Self {
        Self { signer, jwks_uri: jwks_uri.into() }
    }

    fn sign(&self, spec: TokenSpec, now: Timestamp) -> Result<IssuedToken, Status> {
        let own = vec![self.signer.issuer().to_owned()];
        let audiences = if spec.audiences.is_empty() { own.clone() } else { spec.audiences };
        let issued = now.as_second();
        let mut expires = issued.saturating_add(spec.expiration_seconds);
        let shown = expires;
        let mut warnafter = None;
        let of_pod = spec.bound.as_ref().is_some_and(|bound| bound.kind == "Pod");
        if of_pod && spec.expiration_seconds == WARN_ONLY_SECONDS && audiences == own {
            warnafter = Some(expires);
            expires = issued + EXTENDED_SECONDS;
        }
        let mut kubernetes = KubernetesClaims {
            namespace: spec.namespace.clone(),
            serviceaccount: BoundReference { name: spec.service_account.clone(), uid: spec.service_account_uid },
            warnafter,
            ..KubernetesClaims::default()
        };
        if let Some(bound) = spec.bound {
            let node = bound.node.map(|(name, uid)| BoundReference { name, uid });
            let reference = BoundReference { name: bound.name, uid: bound.uid };
            match bound.kind.as_str() {
                "Pod" => (kubernetes.pod, kubernetes.node) = (Some(reference), node),
                "Secret" => kubernetes.secret = Some(reference),
                "Node" => kubernetes.node = Some(reference),
                kind => return Err(Status::bad_request(format!("cannot bind token to object of type {kind}"))),
            }
        }
        let claims = Claims {
            aud: audiences.clone(),
            exp: expires,
            iat: issued,
            nbf: issued,
            sub: Claims::subject(&spec.namespace, &spec.service_account),
            kubernetes,
            ..Claims::default()
        };
        let token = self.signer.sign(claims).map_err(|error| Status::internal(format!("failed to sign token: {error}")))?;
        let expiration = Timestamp::from_second(shown).unwrap_or(Timestamp::MAX).to_string();
        Ok(IssuedToken { token, audiences, expiration })
    }
}

impl TokenIssuer for Tokens {
    fn issue<'a>(&'a self, spec: TokenSpec) -> BoxFuture<'a, Result<IssuedToken, Status>> {
        Box::pin(std::future::ready(self.sign(spec, Timestamp::now())))
    }

    fn openid_configuration(&self) -> Vec<u8> {
        pki::openid_configuration(self.signer.issuer(), &self.jwks_uri)
    }

    fn jwks(&self) -> Vec<u8> {
        self.signer.jwks()
    }
}

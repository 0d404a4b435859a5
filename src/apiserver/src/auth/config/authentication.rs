//! `AuthenticationConfiguration`, and the flags that say the same of one issuer.
//!
//! Models k8s.io/apiserver/pkg/apis/apiserver/v1/types.go and pkg/kubeapiserver/options/authentication.go ToAuthenticationConfig. What the values
//! mean, and whether they may stand there, is checked where expressions are compiled: `auth/jwt/validate.rs`.
use std::path::PathBuf;

use api::tree::Tree;

use super::shape::Shape::{self, Flag, List, Object, Text};
use super::{ConfigError, read};

const KIND: &str = "AuthenticationConfiguration";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

const MAPPING: Shape = Object(&[("claim", Text), ("prefix", Text), ("expression", Text)]);
const JWT: Shape = Object(&[
    (
        "issuer",
        Object(&[
            ("url", Text),
            ("discoveryURL", Text),
            ("certificateAuthority", Text),
            ("audiences", List(&Text)),
            ("audienceMatchPolicy", Text),
            ("egressSelectorType", Text),
        ]),
    ),
    ("claimValidationRules", List(&Object(&[("claim", Text), ("requiredValue", Text), ("expression", Text), ("message", Text)]))),
    (
        "claimMappings",
        Object(&[
            ("username", MAPPING),
            ("groups", MAPPING),
            ("uid", Object(&[("claim", Text), ("expression", Text)])),
            ("extra", List(&Object(&[("key", Text), ("valueExpression", Text)]))),
        ]),
    ),
    ("userValidationRules", List(&Object(&[("expression", Text), ("message", Text)]))),
]);
const SHAPE: Shape = Object(&[
    ("apiVersion", Text),
    ("kind", Text),
    ("jwt", List(&JWT)),
    ("anonymous", Object(&[("enabled", Flag), ("conditions", List(&Object(&[("path", Text)])))])),
]);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthenticationConfiguration {
    pub jwt: Vec<JwtAuthenticator>,
    pub anonymous: Option<Anonymous>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct JwtAuthenticator {
    pub issuer: Issuer,
    pub claim_rules: Vec<ClaimRule>,
    pub username: Mapping,
    pub groups: Mapping,
    /// Has no prefix.
    pub uid: Mapping,
    /// Key and expression.
    pub extra: Vec<(String, String)>,
    pub user_rules: Vec<UserRule>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Issuer {
    pub url: String,
    /// Empty: under `url`.
    pub discovery_url: String,
    /// PEM; empty: whom everybody trusts.
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserRule {
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

/// Whether requests that show nothing are let in, and to which paths.
#[derive(Clone, Debug, PartialEq)]
pub struct Anonymous {
    pub enabled: bool,
    /// Empty: all.
    pub paths: Vec<String>,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self { enabled: true, paths: Vec::new() }
    }
}

impl Anonymous {
    pub fn allows(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|known| known == path))
    }
}

impl AuthenticationConfiguration {
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let tree = read(text, KIND, &VERSIONS, &SHAPE)?;
        let anonymous = tree.get("anonymous").filter(|a| !a.is_null()).map(|anonymous| Anonymous {
            enabled: anonymous.get("enabled").and_then(Tree::as_bool).unwrap_or(false),
            paths: anonymous.array_at(&["conditions"]).iter().map(|condition| text_at(condition, "path")).collect(),
        });
        Ok(Self { jwt: tree.array_at(&["jwt"]).iter().map(authenticator).collect(), anonymous })
    }
}

fn text_at(tree: &Tree, field: &str) -> String {
    tree.str_at(&[field]).to_owned()
}

fn authenticator(tree: &Tree) -> JwtAuthenticator {
    let list = |field: &str| tree.array_at(&[field]).iter();
    let issuer = tree.get("issuer").cloned().unwrap_or_default();
    let mapping = |field: &str| {
        let of = tree.at(&["claimMappings", field]).cloned().unwrap_or_default();
        let prefix = of.get("prefix").and_then(Tree::as_str).map(str::to_owned);
        Mapping { claim: text_at(&of, "claim"), prefix, expression: text_at(&of, "expression") }
    };
    let claim_rule = |rule: &Tree| ClaimRule {
        claim: text_at(rule, "claim"),
        required_value: text_at(rule, "requiredValue"),
        expression: text_at(rule, "expression"),
        message: text_at(rule, "message"),
    };
    JwtAuthenticator {
        issuer: Issuer {
            url: text_at(&issuer, "url"),
            discovery_url: text_at(&issuer, "discoveryURL"),
            certificate_authority: text_at(&issuer, "certificateAuthority"),
            audiences: issuer.array_at(&["audiences"]).iter().map(|a| a.as_str().unwrap_or_default().to_owned()).collect(),
            audience_match_policy: text_at(&issuer, "audienceMatchPolicy"),
            egress_selector: text_at(&issuer, "egressSelectorType"),
        },
        claim_rules: list("claimValidationRules").map(claim_rule).collect(),
        username: mapping("username"),
        groups: mapping("groups"),
        uid: mapping("uid"),
        extra: tree.array_at(&["claimMappings", "extra"]).iter().map(|e| (text_at(e, "key"), text_at(e, "valueExpression"))).collect(),
        user_rules: list("userValidationRules")
            .map(|r| UserRule { expression: text_at(r, "expression"), message: text_at(r, "message") })
            .collect(),
    }
}

/// kube-apiserver's flags for one issuer, by their names.
#[derive(Clone, Debug, Default)]
pub struct OidcFlags {
    pub issuer_url: String,
    pub client_id: String,
    pub ca_file: Option<PathBuf>,
    /// `sub` where it is not set.
    pub username_claim: Option<String>,
    pub username_prefix: String,
    pub groups_claim: String,
    pub groups_prefix: String,
    /// Names and values.
    pub required_claims: Vec<(String, String)>,
}

impl OidcFlags {
    /// As a configuration says it.
    pub fn authenticator(&self) -> std::io::Result<JwtAuthenticator> {
        let username = self.username_claim.clone().unwrap_or_else(|| "sub".into());
        let prefix = match self.username_prefix.as_str() {
            "-" => String::new(),
            // Names that others may choose do not collide with those of another issuer.
            "" if username != "email" => format!("{}#", self.issuer_url),
            prefix => prefix.to_owned(),
        };
        let certificate_authority = match &self.ca_file {
            Some(path) => std::fs::read_to_string(path)?,
            None => String::new(),
        };
        let groups = match self.groups_claim.as_str() {
            "" => Mapping::default(),
            claim => Mapping { claim: claim.to_owned(), prefix: Some(self.groups_prefix.clone()), ..Mapping::default() },
        };
        let required =
            |(claim, value): &(String, String)| ClaimRule { claim: claim.clone(), required_value: value.clone(), ..ClaimRule::default() };
        Ok(JwtAuthenticator {
            issuer: Issuer {
                url: self.issuer_url.clone(),
                certificate_authority,
                audiences: vec![self.client_id.clone()],
                ..Issuer::default()
            },
            claim_rules: self.required_claims.iter().map(required).collect(),
            username: Mapping { claim: username, prefix: Some(prefix), ..Mapping::default() },
            groups,
            ..JwtAuthenticator::default()
        })
    }
}

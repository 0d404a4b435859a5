//! Flags that say who is believed, by kube-apiserver's names.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

#[derive(Args, Clone, Debug, Default)]
pub struct AccessOptions {
    /// Whose tokens are believed: an AuthenticationConfiguration, read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub authentication_config: Option<PathBuf>,
    /// Whether requests that show nothing are let in as system:anonymous [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Access")]
    pub anonymous_auth: Option<bool>,
    /// URL of the issuer of OpenID Connect tokens
    #[arg(long, value_name = "URL", help_heading = "Access")]
    pub oidc_issuer_url: Option<String>,
    /// Audience that its tokens must be for
    #[arg(long, value_name = "ID", help_heading = "Access")]
    pub oidc_client_id: Option<String>,
    /// Who is trusted to be the issuer [default: whom everybody trusts]
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user's name [default: sub]
    #[arg(long, value_name = "CLAIM", help_heading = "Access")]
    pub oidc_username_claim: Option<String>,
    /// Put before names; - is nothing [default: the issuer's URL and #, but nothing before email]
    #[arg(long, value_name = "TEXT", help_heading = "Access", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    /// Claim that holds the user's groups
    #[arg(long, value_name = "CLAIM", help_heading = "Access")]
    pub oidc_groups_claim: Option<String>,
    /// Put before groups
    #[arg(long, value_name = "TEXT", help_heading = "Access", allow_hyphen_values = true)]
    pub oidc_groups_prefix: Option<String>,
    /// Claim that tokens must have, CLAIM=VALUE (repeatable)
    #[arg(long, value_name = "CLAIM", help_heading = "Access")]
    pub oidc_required_claim: Vec<String>,
    /// What tokens may be signed with: RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512 [default: RS256]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "Access")]
    pub oidc_signing_algs: Vec<String>,
    /// Who is asked about tokens that nobody here knows: a kubeconfig
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the TokenReview that it is asked with
    #[arg(long, value_name = "VERSION", default_value = "v1beta1", value_parser = ["v1", "v1beta1"], help_heading = "Access")]
    pub authentication_token_webhook_version: String,
    /// How long its answers are kept
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = super::duration, help_heading = "Access")]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Authority of proxies that name users in headers
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of such proxies [default: any of the authority's]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "requestheader_client_ca_file", help_heading = "Access")]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers that hold the user's name, X-Remote-User
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "requestheader_client_ca_file", help_heading = "Access")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers that hold the user's UID, X-Remote-Uid
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "requestheader_client_ca_file", help_heading = "Access")]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers that hold the user's groups, X-Remote-Group
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "requestheader_client_ca_file", help_heading = "Access")]
    pub requestheader_group_headers: Vec<String>,
    /// What headers with more about the user begin with, X-Remote-Extra-
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "requestheader_client_ca_file", help_heading = "Access")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Who decides what users may, and in which order: an AuthorizationConfiguration, read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub authorization_config: Option<PathBuf>,
    /// Flag of kube-apiserver that rk has too, NAME=VALUE (repeatable)
    #[arg(long, value_name = "ARG", help_heading = "Access")]
    pub kube_apiserver_arg: Vec<String>,
}

impl AccessOptions {
    /// Whether any flag of one issuer is set.
    pub fn has_oidc(&self) -> bool {
        let texts = [
            &self.oidc_issuer_url,
            &self.oidc_client_id,
            &self.oidc_username_claim,
            &self.oidc_username_prefix,
            &self.oidc_groups_claim,
            &self.oidc_groups_prefix,
        ];
        texts.into_iter().any(Option::is_some)
            || self.oidc_ca_file.is_some()
            || !self.oidc_required_claim.is_empty()
            || !self.oidc_signing_algs.is_empty()
    }
}

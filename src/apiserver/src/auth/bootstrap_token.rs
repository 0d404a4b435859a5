//! Bootstrap tokens: how a machine proves that it was invited to join, before it has an identity.
//!
//! Models plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go and k8s.io/cluster-bootstrap/util/secrets. A token is a
//! Secret `kube-system/bootstrap-token-ID`; whatever is wrong with it, the answer is that nobody knows the token.
use api::meta;
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pki::BootstrapToken;

use super::UserInfo;
use crate::cache::Cache;

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// The user that `token` is, while its Secret says so.
pub fn user(cache: &Cache, token: &BootstrapToken, now: Timestamp) -> Option<UserInfo> {
    let secret = cache.get("", "secrets", NAMESPACE, &format!("bootstrap-token-{}", token.id()))?;
    let user = check(&secret.tree(), token, now);
    if let Err(why) = &user {
        tracing::debug!(id = token.id(), %why, "bootstrap token refused");
    }
    user.ok()
}

/// The user, or why there is none.
fn check(secret: &Tree, token: &BootstrapToken, now: Timestamp) -> Result<UserInfo, &'static str> {
    let data = |key: &str| STANDARD.decode(secret.str_at(&["data", key])).unwrap_or_default();
    let text = |key: &str| String::from_utf8(data(key)).unwrap_or_default();
    if meta::deletion_timestamp(secret).is_some() {
        return Err("it is deleted and awaits removal");
    }
    if secret.str_at(&["type"]) != SECRET_TYPE {
        return Err("its Secret is of another type");
    }
    if !token.has_secret(&data("token-secret")) {
        return Err("the secret is another");
    }
    if text("token-id") != token.id() {
        return Err("token-id is another");
    }
    let expiration = text("expiration");
    if !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |end| end <= now) {
        return Err("it has expired");
    }
    if text("usage-bootstrap-authentication") != "true" {
        return Err("it is not for authentication");
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = text("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return Err("auth-extra-groups is not valid");
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Ok(UserInfo { name: format!("system:bootstrap:{}", token.id()), groups, ..UserInfo::default() })
}

/// Below `system:bootstrappers:`, so that a token is never more than that. Models BootstrapGroupPattern.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=256).contains(&rest.len())
        && rest.bytes().all(|byte| is_plain(byte) || matches!(byte, b':' | b'-'))
        && rest.bytes().next_back().is_some_and(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(change: (&str, &str)) -> Tree {
        let mut secret = Tree::object();
        secret.set(&["type"], SECRET_TYPE);
        let entries = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("expiration", "2026-01-02T00:00:00Z"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:b,system:bootstrappers:a"),
            change,
        ];
        for (key, value) in entries {
            secret.set(&["data", key], STANDARD.encode(value));
        }
        secret
    }

    #[test]
    fn a_token_is_a_user_only_while_everything_is_right() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let user = check(&secret(("description", "x")), &token, now).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, [GROUP, "system:bootstrappers:a", "system:bootstrappers:b"]);
        assert!(check(&secret(("expiration", "")), &token, now).is_ok());
        assert_eq!(check(&secret(("auth-extra-groups", "")), &token, now).unwrap().groups, [GROUP]);
        for wrong in [
            ("token-secret", "0123456789abcdeg"),
            ("token-secret", ""),
            ("token-id", "abcdeg"),
            ("expiration", "2026-01-01T00:00:00Z"),
            ("expiration", "tomorrow"),
            ("usage-bootstrap-authentication", "yes"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:"),
            ("auth-extra-groups", "system:bootstrappers:a,"),
            ("auth-extra-groups", "system:bootstrappers:a-"),
        ] {
            assert!(check(&secret(wrong), &token, now).is_err(), "{wrong:?}");
        }
        let mut other = secret(("description", "x"));
        other.set(&["type"], "Opaque");
        assert!(check(&other, &token, now).is_err());
        let mut deleted = secret(("description", "x"));
        meta::set_deletion_timestamp(&mut deleted, Some("2026-01-01T00:00:00Z"));
        assert!(check(&deleted, &token, now).is_err());
    }
}

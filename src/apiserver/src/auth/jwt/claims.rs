//! The user that verified claims speak of.
//!
//! Models k8s.io/apiserver/plugin/pkg/authenticator/token/oidc/oidc.go AuthenticateToken, from the claims on.
use api::tree::Tree;

use super::expressions::{Node, texts};
use super::validate::Compiled;
use crate::auth::UserInfo;
use crate::auth::config::JwtAuthenticator;

pub fn user(config: &JwtAuthenticator, compiled: &Compiled, claims: &Tree) -> Result<UserInfo, String> {
    let node = Node::of(claims);
    let mut user = UserInfo { name: username(config, compiled, claims, &node)?, ..UserInfo::default() };
    user.groups = groups(config, compiled, claims, &node)?;
    user.uid = uid(config, compiled, claims, &node)?;
    if let Some(id) = claims.get("jti").and_then(Tree::as_str).filter(|id| !id.is_empty()) {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    for (key, expression) in &compiled.extra {
        let value = expression.evaluate(&node)?;
        let values =
            texts(&value).map_err(|error| format!("oidc: error evaluating extra claim expression: {}: {error}", expression.text))?;
        if !values.is_empty() {
            user.extra.insert(key.clone(), values);
        }
    }
    required(config, claims)?;
    for (rule, message) in &compiled.claim_rules {
        rule.holds(&node, message).map_err(|error| format!("oidc: error evaluating claim validation expression: {error}"))?;
    }
    if !compiled.user_rules.is_empty() {
        let node = Node::of_user(&user);
        for (rule, message) in &compiled.user_rules {
            rule.holds(&node, message).map_err(|error| format!("oidc: error evaluating user info validation rule: {error}"))?;
        }
    }
    Ok(user)
}

/// A claim's text, as Go reads one: null is empty.
fn text(claims: &Tree, claim: &str) -> Result<String, String> {
    match claims.get(claim) {
        None => Err("claim not present".into()),
        Some(Tree::String(text)) => Ok(text.to_string()),
        Some(Tree::Null) => Ok(String::new()),
        Some(other) => Err(format!("json: cannot unmarshal {} into Go value of type string", go_name(other))),
    }
}

fn go_name(tree: &Tree) -> &'static str {
    match tree {
        Tree::Integer(_) | Tree::Float(_) => "number",
        Tree::Bool(_) => "bool",
        Tree::Array(_) => "array",
        Tree::Object(_) => "object",
        Tree::String(_) => "string",
        Tree::Null => "null",
    }
}

fn username(config: &JwtAuthenticator, compiled: &Compiled, claims: &Tree, node: &Node) -> Result<String, String> {
    if let Some(expression) = &compiled.username {
        let wrong = |error: String| format!("oidc: error evaluating username claim expression: {error}");
        let value = expression.evaluate(node).map_err(wrong)?;
        let name = value.as_str().ok_or_else(|| wrong("username claim expression must return a string".into()))?;
        if name.is_empty() {
            return Err("oidc: empty username via CEL expression is not allowed".into());
        }
        return Ok(name.to_owned());
    }
    let claim = &config.username.claim;
    let name = text(claims, claim).map_err(|error| format!("oidc: parse username claims {claim:?}: {error}"))?;
    if claim == "email" {
        match claims.get("email_verified") {
            None | Some(Tree::Bool(true)) => {}
            Some(Tree::Bool(false) | Tree::Null) => return Err("oidc: email not verified".into()),
            Some(other) => {
                return Err(format!(
                    "oidc: parse 'email_verified' claim: json: cannot unmarshal {} into Go value of type bool",
                    go_name(other)
                ));
            }
        }
    }
    Ok(format!("{}{name}", config.username.prefix.as_deref().unwrap_or_default()))
}

fn groups(config: &JwtAuthenticator, compiled: &Compiled, claims: &Tree, node: &Node) -> Result<Vec<String>, String> {
    let claim = &config.groups.claim;
    if let Some(value) = claims.get(claim).filter(|_| !claim.is_empty()) {
        let prefix = config.groups.prefix.as_deref().unwrap_or_default();
        let wrong = |error: String| format!("oidc: parse groups claim {claim:?}: {error}");
        let all = match value {
            Tree::Array(items) => items.iter().map(Tree::as_str).collect::<Option<Vec<_>>>(),
            Tree::String(one) => Some(vec![&**one]),
            Tree::Null => Some(Vec::new()),
            _ => None,
        };
        let all = all.ok_or_else(|| wrong(format!("json: cannot unmarshal {} into Go value of type string", go_name(value))))?;
        return Ok(all.into_iter().map(|group| format!("{prefix}{group}")).collect());
    }
    let Some(expression) = &compiled.groups else { return Ok(Vec::new()) };
    let wrong = |error: String| format!("oidc: error evaluating group claim expression: {error}");
    texts(&expression.evaluate(node).map_err(wrong)?).map_err(wrong)
}

fn uid(config: &JwtAuthenticator, compiled: &Compiled, claims: &Tree, node: &Node) -> Result<String, String> {
    let claim = &config.uid.claim;
    if !claim.is_empty() {
        return text(claims, claim).map_err(|error| format!("oidc: parse uid claim {claim:?}: {error}"));
    }
    let Some(expression) = &compiled.uid else { return Ok(String::new()) };
    let wrong = |error: String| format!("oidc: error evaluating uid claim expression: {error}");
    let value = expression.evaluate(node).map_err(wrong)?;
    value.as_str().map(str::to_owned).ok_or_else(|| wrong("uid claim expression must return a string".into()))
}

fn required(config: &JwtAuthenticator, claims: &Tree) -> Result<(), String> {
    for rule in config.claim_rules.iter().filter(|rule| !rule.claim.is_empty()) {
        let claim = &rule.claim;
        if claims.get(claim).is_none() {
            return Err(format!("oidc: required claim {claim} not present in ID token"));
        }
        let has = text(claims, claim).map_err(|error| format!("oidc: parse claim {claim}: {error}"))?;
        if has != rule.required_value {
            return Err(format!("oidc: required claim {claim} value does not match. Got = {has}, want = {}", rule.required_value));
        }
    }
    Ok(())
}

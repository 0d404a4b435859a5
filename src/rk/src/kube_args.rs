//! `--kube-apiserver-arg NAME=VALUE`, as k3s has it: a flag of kube-apiserver that rk has under the same name. It becomes that flag before anything is
//! parsed, so that both go through the same checks, and the later one wins.
use std::ffi::OsString;

use clap::Command;

const FLAG: &str = "--kube-apiserver-arg";

/// Flags of kube-apiserver that `rk server` implements. Held against its options by a test.
const KNOWN: [&str; 41] = [
    "admission-control-config-file",
    "advertise-address",
    "anonymous-auth",
    "audit-log-maxage",
    "audit-log-maxbackup",
    "audit-log-maxsize",
    "audit-log-path",
    "audit-policy-file",
    "audit-webhook-batch-buffer-size",
    "audit-webhook-batch-max-size",
    "audit-webhook-batch-max-wait",
    "audit-webhook-batch-throttle-burst",
    "audit-webhook-batch-throttle-qps",
    "audit-webhook-config-file",
    "audit-webhook-initial-backoff",
    "authentication-config",
    "authentication-token-webhook-cache-ttl",
    "authentication-token-webhook-config-file",
    "authentication-token-webhook-version",
    "authorization-config",
    "bind-address",
    "enable-admission-plugins",
    "encryption-provider-config",
    "oidc-ca-file",
    "oidc-client-id",
    "oidc-groups-claim",
    "oidc-groups-prefix",
    "oidc-issuer-url",
    "oidc-required-claim",
    "oidc-signing-algs",
    "oidc-username-claim",
    "oidc-username-prefix",
    "requestheader-allowed-names",
    "requestheader-client-ca-file",
    "requestheader-extra-headers-prefix",
    "requestheader-group-headers",
    "requestheader-uid-headers",
    "requestheader-username-headers",
    "secure-port",
    "service-cluster-ip-range",
    "service-node-port-range",
];

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum KubeArgError {
    #[error("{FLAG} {0:?} is not NAME=VALUE")]
    Shape(String),
    #[error("{FLAG}: rk has no kube-apiserver flag {name:?}; it has {}", KNOWN.join(", "))]
    Unknown { name: String },
}

/// What rk calls it.
fn own_name(name: &str) -> Option<&str> {
    match name {
        "secure-port" => Some("https-listen-port"),
        "service-cluster-ip-range" => Some("service-cidr"),
        name => KNOWN.contains(&name).then_some(name),
    }
}

/// The arguments, with the flags in their place.
pub fn expand(command: &Command, arguments: Vec<OsString>) -> Result<Vec<OsString>, KubeArgError> {
    if arguments.get(1).is_none_or(|role| role != "server") || command.find_subcommand("server").is_none() {
        return Ok(arguments);
    }
    let mut expanded = Vec::with_capacity(arguments.len());
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        let value = match text.strip_prefix(FLAG) {
            Some("") => match rest.next() {
                Some(value) => value.to_string_lossy().into_owned(),
                None => return Err(KubeArgError::Shape(String::new())),
            },
            Some(value) if value.starts_with('=') => value[1..].to_owned(),
            _ => {
                expanded.push(argument);
                continue;
            }
        };
        let value = value.trim_start_matches("--");
        let (name, value) = value.split_once('=').ok_or_else(|| KubeArgError::Shape(value.to_owned()))?;
        let own = own_name(name).ok_or_else(|| KubeArgError::Unknown { name: name.to_owned() })?;
        expanded.push(format!("--{own}={value}").into());
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn check(arguments: &[&str]) -> Result<Vec<String>, KubeArgError> {
        let arguments = ["rk", "server"].iter().chain(arguments).map(OsString::from).collect();
        let expanded = expand(&crate::cli::Cli::command(), arguments)?;
        Ok(expanded.iter().skip(2).map(|a| a.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn flags_of_kube_apiserver_become_those_of_rk() {
        let given = ["--debug", "--kube-apiserver-arg=oidc-client-id=a=b", "--kube-apiserver-arg", "secure-port=7443"];
        assert_eq!(check(&given).unwrap(), ["--debug", "--oidc-client-id=a=b", "--https-listen-port=7443"]);
        let unknown = check(&["--kube-apiserver-arg=feature-gates=X=true"]).unwrap_err().to_string();
        assert!(
            unknown.starts_with("--kube-apiserver-arg: rk has no kube-apiserver flag \"feature-gates\"; it has admission-"),
            "{unknown}"
        );
        assert_eq!(check(&["--kube-apiserver-arg=oidc-client-id"]), Err(KubeArgError::Shape("oidc-client-id".into())));
    }

    #[test]
    fn every_one_of_them_is_a_flag_of_the_server() {
        let command = crate::cli::Cli::command();
        let server = command.find_subcommand("server").unwrap();
        for name in KNOWN {
            let own = own_name(name).unwrap();
            assert!(server.get_arguments().any(|a| a.get_long() == Some(own)), "{name}");
        }
    }
}

//! `rk token`: the invitations by which other machines join, as bootstrap token Secrets.
//!
//! Speaks to the server as its administrator; nothing is kept but the Secret. Models cmd/kubeadm/app/cmd/token.go.
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use client::{Client, DeleteOptions, ListOptions, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pki::{BootstrapToken, JoinToken};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use crate::cli::UsageError;
use crate::options::{TokenCommand, TokenOptions};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// What the API server's own bindings let join (`apiserver/src/auth/bootstrap/own.json`).
const GROUP: &str = "system:bootstrappers:rk:default-node-token";
pub const TTL: &str = "24h";

pub fn main(options: TokenOptions) -> anyhow::Result<()> {
    pki::install_ring();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a thread")?;
    runtime.block_on(async {
        let client = connect(&options.kubeconfig).await?;
        match options.command.unwrap_or(TokenCommand::Create { ttl: TTL.to_owned(), description: None }) {
            TokenCommand::Create { ttl, description } => create(&client, &ttl, description).await,
            TokenCommand::List => list(&client).await,
            TokenCommand::Delete { tokens } => delete(&client, &tokens).await,
        }
    })
}

async fn connect(kubeconfig: &Path) -> anyhow::Result<Client> {
    if let Err(error) = std::fs::File::open(kubeconfig) {
        let file = kubeconfig.display();
        bail!("{file}: {error} (rk token runs on the server, as root; another kubeconfig is given by --kubeconfig)");
    }
    Ok(Client::from_kubeconfig(kubeconfig).await?)
}

async fn create(client: &Client, ttl: &str, description: Option<String>) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let end = ttl_of(ttl)?.map(|ttl| now.checked_add(ttl)).transpose().map_err(|_| UsageError(format!("--ttl {ttl} is too long")))?;
    let info = client.get(&ObjectKey::new("kube-public", "cluster-info")).await.context("ask the server for its address")?;
    let cluster = ClusterInfo::read(&info).ok_or_else(|| anyhow!("ConfigMap kube-public/cluster-info cannot be read; restart rk server to mend it"))?;
    let bootstrap = BootstrapToken::generate()?;
    client.create(&secret(&bootstrap, end, description)).await.context("create the token")?;
    let join = JoinToken::new(&cluster.authority, bootstrap);
    println!("rk agent join --server {} --token {join}", cluster.server);
    Ok(())
}

fn secret(token: &BootstrapToken, end: Option<Timestamp>, description: Option<String>) -> Secret {
    let entries = [
        ("token-id", Some(token.id().to_owned())),
        ("token-secret", Some(token.secret().to_owned())),
        ("expiration", end.map(|end| end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
        ("usage-bootstrap-authentication", Some("true".to_owned())),
        ("usage-bootstrap-signing", Some("true".to_owned())),
        ("auth-extra-groups", Some(GROUP.to_owned())),
        ("description", description),
    ];
    Secret {
        metadata: ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            name: Some(format!("bootstrap-token-{}", token.id())),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), ByteString(value?.into_bytes())))).collect()),
        ..Secret::default()
    }
}

/// Where the cluster is, and whom it is signed by.
struct ClusterInfo {
    server: String,
    authority: CertificateDer<'static>,
}

impl ClusterInfo {
    fn read(map: &ConfigMap) -> Option<Self> {
        #[derive(Deserialize)]
        struct Kubeconfig {
            clusters: Vec<Named>,
        }
        #[derive(Deserialize)]
        struct Named {
            cluster: Cluster,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Cluster {
            server: String,
            certificate_authority_data: String,
        }
        let config: Kubeconfig = serde_saphyr::from_str(map.data.as_ref()?.get("kubeconfig")?).ok()?;
        let Cluster { server, certificate_authority_data } = config.clusters.into_iter().next()?.cluster;
        let pem = base64::engine::general_purpose::STANDARD.decode(certificate_authority_data).ok()?;
        Some(Self { server, authority: CertificateDer::from_pem_slice(&pem).ok()? })
    }
}

/// `90m`, `24h`, `7d`; `0` is for ever.
fn ttl_of(text: &str) -> Result<Option<SignedDuration>, UsageError> {
    if text == "0" {
        return Ok(None);
    }
    let wrong = || UsageError(format!("--ttl {text:?} is not a number with s, m, h or d behind it, like {TTL}; 0 never ends"));
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u32>().ok().filter(|number| *number > 0).map(|number| i64::from(number) * seconds);
    seconds.map(|seconds| Some(SignedDuration::from_secs(seconds))).ok_or_else(wrong)
}

async fn list(client: &Client) -> anyhow::Result<()> {
    let found = client.list::<Secret>(NAMESPACE, &ListOptions::fields(format!("type={TYPE}"))).await.context("list the tokens")?;
    let mut rows = vec![["ID", "TTL", "EXPIRES", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(found.items.iter().map(|secret| row(secret, Timestamp::now())));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [id, ttl, expires, description] in &rows {
        let line = format!("{id:a$}  {ttl:b$}  {expires:c$}  {description}", a = widths[0], b = widths[1], c = widths[2]);
        println!("{}", line.trim_end());
    }
    Ok(())
}

/// Without the secret: who has lost a token makes another.
fn row(secret: &Secret, now: Timestamp) -> [String; 4] {
    let none = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&none);
    let entry = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default();
    let expires = entry("expiration");
    let ttl = match expires.parse::<Timestamp>() {
        _ if expires.is_empty() => "forever".to_owned(),
        Ok(end) if end > now => {
            let minutes = end.duration_since(now).as_secs() / 60;
            if minutes < 60 { format!("{minutes}m") } else { format!("{}h{}m", minutes / 60, minutes % 60) }
        }
        _ => "expired".to_owned(),
    };
    [entry("token-id"), ttl, if expires.is_empty() { "never".to_owned() } else { expires }, entry("description")]
}

async fn delete(client: &Client, tokens: &[String]) -> anyhow::Result<()> {
    for token in tokens {
        let id = id_of(token)?;
        let key = ObjectKey::new(NAMESPACE, format!("bootstrap-token-{id}"));
        match client.delete::<Secret>(&key, &DeleteOptions::default()).await {
            Err(error) if error.is_not_found() => bail!("there is no token {id}; `rk token list` shows them"),
            result => result.with_context(|| format!("delete token {id}"))?,
        }
        println!("token {id} deleted");
    }
    Ok(())
}

/// Of the id alone, of `id.secret`, or of what `rk token` printed.
fn id_of(text: &str) -> Result<String, UsageError> {
    let bootstrap = text.rsplit_once("::").map_or(text, |(_, bootstrap)| bootstrap);
    let id = bootstrap.split('.').next().unwrap_or_default();
    if BootstrapToken::is_id(id) {
        return Ok(id.to_owned());
    }
    Err(UsageError(format!("{text:?} is not the id of a token, six characters of a-z0-9; `rk token list` shows them")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_has_a_unit() {
        let seconds = |text| ttl_of(text).unwrap().map(|ttl| ttl.as_secs());
        assert_eq!([seconds("90s"), seconds("5m"), seconds("24h"), seconds("7d"), seconds("0")], [Some(90), Some(300), Some(86400), Some(604_800), None]);
        for wrong in ["", "h", "24", "-1h", "0h", "1h30m", "1ä", "99999999999d"] {
            assert!(ttl_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_named_by_its_id_or_as_it_was_printed() {
        for text in ["abcdef", "abcdef.0123456789abcdef", "K1beef::abcdef.0123456789abcdef"] {
            assert_eq!(id_of(text).unwrap(), "abcdef");
        }
        assert!(id_of("abc").is_err() && id_of("").is_err());
    }

    #[test]
    fn a_row_says_how_long_and_keeps_the_secret() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let shown = |end: Option<&str>| row(&secret(&token, end.map(|end| end.parse().unwrap()), Some("edge".into())), now);
        assert_eq!(shown(Some("2026-01-02T00:30:00Z")), ["abcdef", "24h30m", "2026-01-02T00:30:00Z", "edge"].map(str::to_owned));
        assert_eq!(shown(Some("2025-01-02T00:00:00Z"))[1], "expired");
        assert_eq!(shown(None)[1..3], ["forever".to_owned(), "never".to_owned()]);
    }
}

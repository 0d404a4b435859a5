//! How a machine becomes a node: it asks the server for its authority and believes the one that the token names; over that it sends a
//! request for a certificate on its own key, and waits until it is signed.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use client::{ApiError, Backoff, Client, Event, Informer, ObjectKey};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pki::{Identity, JoinToken, Leaf, NodeKey};
use tunnel::{DialError, Dialer, ServerAddress, Servers};

use super::settings::{Kept, Wanted};
use super::state::{Member, State};
use crate::host;
use crate::node::{CONFIG_MAP, ClusterFacts, NAMESPACE};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// For each answer of a server.
const ANSWER: Duration = Duration::from_secs(10);
/// For somebody to approve and sign.
const SIGNING: Duration = Duration::from_secs(60);
const AUTHORITY_BYTES_MAX: usize = 256 << 10;
/// Certificates are made five minutes back; a clock that is further off sees none that is valid.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(300);

pub async fn join(
    state: &State,
    wanted: &Wanted,
    known: Option<Member>,
    servers: &[ServerAddress],
    token: &JoinToken,
) -> anyhow::Result<Member> {
    let node_name = match (&wanted.node_name, &known) {
        (Some(name), _) => name.clone(),
        (None, Some(member)) => member.node_name.clone(),
        (None, None) => host::node_name(None)?,
    };
    let servers = Arc::new(Servers::new(servers.to_vec()));
    let bundle = ask_for_authorities(&servers).await?;
    let authority = token.authority(&bundle).map_err(|error| anyhow!("{error}; make another token on the server with `rk token`"))?;
    let tls = pki::client_config(&authority, None).context("prepare TLS")?;
    let client = Client::over(Dialer::new(servers.clone(), tls), Some(&token.bootstrap().to_string()))?;
    state.make_folder()?;
    let key = NodeKey::load_or_create(&state.key_path()).context("make the node's key")?;
    // Neither needs the other.
    let (facts, certificate) = tokio::join!(facts_of_young_server(&client), certificate(&client, &key, &node_name));
    let (certificate_pem, facts) = (certificate?, facts.map_err(|e| explain(e).context("read the facts about the cluster"))?);
    let settings = wanted.kept(known.map_or_else(Kept::default, |member| member.settings));
    let list = servers.order();
    let leaf = Leaf { certificate_pem, key_pem: key.pem() };
    let member = Member { node_name, authority, leaf, told: servers.list(), servers: list, facts: parse(&facts)?, settings };
    state.save(&member)?;
    tracing::info!(node = member.node_name, "this machine has joined the cluster");
    Ok(member)
}

/// Whether a member's certificate is refused, as after its name was given to another machine. A server that cannot be reached
/// refuses nothing: joining twice is no error, and a unit may hold the whole command.
pub async fn is_refused(known: Option<&Member>, wanted: &Wanted) -> anyhow::Result<bool> {
    let Some(member) = known.map(|member| member.clone().with(wanted)) else { return Ok(false) };
    let identity = Identity::new(&member.leaf).context("load the node's certificate")?;
    let tls = pki::client_config(&member.authority, Some(identity)).context("prepare TLS")?;
    let client = Client::over(Dialer::new(Arc::new(Servers::new(member.servers)), tls), None)?;
    let asked = tokio::time::timeout(ANSWER, facts(&client)).await;
    Ok(matches!(asked, Ok(Err(error)) if error.code() == Some(401)))
}

/// `GET /cacerts`, from anybody: what comes back is proved by the token.
async fn ask_for_authorities(servers: &Arc<Servers>) -> anyhow::Result<String> {
    let dialer = Dialer::new(servers.clone(), pki::unproven_client_config(None).context("prepare TLS")?);
    let stream = dialer.dial_any(&[b"http/1.1"]).await?;
    let server = servers.order().into_iter().next().map(|s| s.to_string()).unwrap_or_default();
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get("/cacerts").header("host", "kubernetes.default.svc").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let date = response.headers().get("date").and_then(|d| d.to_str().ok()).map(str::to_owned);
        if !response.status().is_success() {
            bail!("it answers {}; is that port an rk server's API?", response.status());
        }
        let body = Limited::new(response.into_body(), AUTHORITY_BYTES_MAX).collect().await;
        let body = body.map_err(|e| anyhow!("{e}"))?.to_bytes();
        connection.abort();
        anyhow::Ok((String::from_utf8_lossy(&body).into_owned(), date))
    };
    let answer = tokio::time::timeout(ANSWER, exchange).await.map_err(|_| anyhow!("{server} does not answer"))?;
    let (bundle, date) = answer.with_context(|| format!("ask {server} for the cluster's authority"))?;
    if let Some(differ) = date.and_then(|date| clocks_differ(&date, SystemTime::now())) {
        bail!("the clocks of this machine and of {server} differ by {} s; set the clock (`timedatectl set-ntp true`)", differ.as_secs());
    }
    Ok(bundle)
}

/// By how much, where it is too much; `date` is an HTTP date.
fn clocks_differ(date: &str, now: SystemTime) -> Option<Duration> {
    let server = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let server = SystemTime::from(server);
    let differ = server.duration_since(now).or_else(|_| now.duration_since(server)).unwrap_or_default();
    (differ > CLOCKS_DIFFER_MAX).then_some(differ)
}

async fn facts(client: &Client) -> Result<ConfigMap, ApiError> {
    client.get(&ObjectKey::new(NAMESPACE, CONFIG_MAP)).await
}

/// As [`facts`]; a server that has just started writes them, and who may read them, a moment later.
async fn facts_of_young_server(client: &Client) -> Result<ConfigMap, ApiError> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let give_up = tokio::time::Instant::now() + SIGNING;
    loop {
        match facts(client).await {
            Err(error) if (error.is_not_found() || error.is_forbidden()) && tokio::time::Instant::now() < give_up => {
                tokio::time::sleep(backoff.next_delay()).await;
            }
            result => return result,
        }
    }
}

pub fn parse(map: &ConfigMap) -> anyhow::Result<ClusterFacts> {
    ClusterFacts::from_data(map.data.as_ref().unwrap_or(&Default::default()))
}

/// A client certificate for `node_name`, as PEM. Whoever `client` is must be allowed to ask.
pub async fn certificate(client: &Client, key: &NodeKey, node_name: &str) -> anyhow::Result<String> {
    let request = key.request(node_name).context("make a request for a certificate")?;
    let csr = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("node-csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: SIGNER.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    let made = client.create(&csr).await.map_err(|e| explain(e).context("ask for a certificate"))?;
    let name = made.metadata.name.unwrap_or_default();
    let informer = Informer::<CertificateSigningRequest>::builder(client).fields(format!("metadata.name={name}")).start();
    let mut changes = informer.subscribe();
    let decided = async {
        loop {
            match changes.recv().await {
                Event::Added(csr) | Event::Updated { new: csr, .. } => {
                    if let Some(decision) = decision(&csr) {
                        return decision;
                    }
                }
                Event::Deleted(_) => return Err("somebody deleted the request".to_owned()),
            }
        }
    };
    match tokio::time::timeout(SIGNING, decided).await {
        Ok(Ok(pem)) => Ok(pem),
        Ok(Err(why)) => bail!("{why}"),
        Err(_) => bail!(
            "nobody has signed this node's certificate within {} s; look on the server with `kubectl describe csr {name}`",
            SIGNING.as_secs()
        ),
    }
}

/// `None`: wait on.
fn decision(csr: &CertificateSigningRequest) -> Option<Result<String, String>> {
    let status = csr.status.as_ref()?;
    if let Some(certificate) = status.certificate.as_ref().filter(|c| !c.0.is_empty()) {
        return Some(Ok(String::from_utf8_lossy(&certificate.0).into_owned()));
    }
    let refused = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"))?;
    Some(Err(refused.message.clone().unwrap_or_else(|| format!("the request for a certificate was {}", refused.type_.to_lowercase()))))
}

/// The cause that helps: that of the connection, or what a refusal means here.
pub fn explain(error: ApiError) -> anyhow::Error {
    if error.code() == Some(401) {
        return anyhow!("the token is unknown to the server or has expired: make another there with `rk token`");
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if cause.is::<DialError>() {
            return anyhow!("{cause}");
        }
        source = cause.source();
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_noticed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(clocks_differ("Sun, 09 Sep 2001 01:46:40 GMT", now), None);
        assert_eq!(clocks_differ("Sun, 09 Sep 2001 01:50:00 GMT", now), None);
        assert_eq!(clocks_differ("Sun, 09 Sep 2001 02:46:40 GMT", now), Some(Duration::from_secs(3600)));
        assert_eq!(clocks_differ("Sat, 08 Sep 2001 01:46:40 GMT", now), Some(Duration::from_secs(86_400)));
        assert_eq!(clocks_differ("yesterday", now), None);
    }
}

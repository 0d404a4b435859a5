//! Load for a server: agents that speak the whole protocol and run no containers. `tests/bench/agents.py` starts it.
//!
//! usage: agents SERVER TOKEN CA_FILE COUNT SECONDS
//!
//! Each agent gets its certificate by CSR with the token, registers a Node, renews its lease, reports its status every five minutes,
//! watches what a kubelet and a Service proxy watch, and keeps a tunnel on which it answers `ok`. All join at once; the time of each to
//! its tunnel is printed, then they idle for SECONDS.
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use client::k8s_openapi::ByteString;
use client::k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use client::k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use client::k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Pod, Service};
use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use client::k8s_openapi::jiff::Timestamp;
use client::{Client, Event, Informer, jitter};
use pki::{Identity, Leaf, NodeKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tunnel::{Dialer, Handler, Servers, Uplinks};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LEASE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, token, ca, count, seconds] = arguments.as_slice() else { return Err("usage: agents SERVER TOKEN CA_FILE COUNT SECONDS".into()) };
    pki::install_ring();
    let authority = std::fs::read_to_string(ca)?;
    let (count, seconds): (usize, u64) = (count.parse()?, seconds.parse()?);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let servers = || Ok::<_, tunnel::AddressError>(Arc::new(Servers::new(vec![server.parse()?])));
        let bootstrap = Client::over(Dialer::new(servers()?, pki::client_config(&authority, None)?), Some(token))?;
        let began = Instant::now();
        let mut joining = JoinSet::new();
        for number in 0..count {
            let (bootstrap, servers, authority) = (bootstrap.clone(), servers()?, authority.clone());
            joining.spawn(async move {
                let started = Instant::now();
                let mut agent = Agent::join(format!("load-{number}"), &bootstrap, servers, &authority).await?;
                agent.connect().await?;
                Ok::<_, Box<dyn Error + Send + Sync>>((agent, started.elapsed()))
            });
        }
        let mut agents = Vec::new();
        let mut times = Vec::new();
        while let Some(joined) = joining.join_next().await {
            let (agent, time) = joined??;
            agents.push(agent);
            times.push(time);
        }
        times.sort();
        println!("joined {count} in {:.2} s; each: median {:.2} s, longest {:.2} s", began.elapsed().as_secs_f64(), times[count / 2].as_secs_f64(), times[count - 1].as_secs_f64());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        drop(agents);
        Ok(())
    })
}

struct Agent {
    name: String,
    client: Client,
    dialer: Dialer,
    tasks: JoinSet<()>,
}

impl Agent {
    async fn join(name: String, bootstrap: &Client, servers: Arc<Servers>, authority: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("rk-load-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(&name);
        let key = NodeKey::load_or_create(&path)?;
        std::fs::remove_file(&path)?;
        let certificate_pem = certificate(bootstrap, &key, &name).await?;
        let identity = Identity::new(&Leaf { certificate_pem, key_pem: key.pem() })?;
        let dialer = Dialer::new(servers, pki::client_config(authority, Some(identity))?);
        Ok(Self { name, client: Client::over(dialer.clone(), None)?, dialer, tasks: JoinSet::new() })
    }

    /// Node, lease, watches, tunnel; returns when the tunnel has answered its first call or is open.
    async fn connect(&mut self) -> Result<()> {
        let now = Time(Timestamp::try_from(SystemTime::now())?);
        let condition = NodeCondition {
            type_: "Ready".into(),
            status: "True".into(),
            reason: Some("KubeletReady".into()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(now),
            ..NodeCondition::default()
        };
        let node = Node {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            status: Some(NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() }),
            ..Node::default()
        };
        self.client.create(&node).await?;
        let (client, name) = (self.client.clone(), self.name.clone());
        self.tasks.spawn(async move {
            loop {
                if let Err(error) = renew(&client, &name).await {
                    eprintln!("{name}: {error}");
                }
                tokio::time::sleep(jitter(LEASE, 0.04)).await;
            }
        });
        let pods = Informer::<Pod>::builder(&self.client).fields(format!("spec.nodeName={}", self.name)).start();
        let (services, slices) = (Informer::<Service>::builder(&self.client).start(), Informer::<EndpointSlice>::builder(&self.client).start());
        let nodes = Informer::<Node>::builder(&self.client).start();
        let handler: Handler = Arc::new(|mut pipe| {
            Box::pin(async move {
                let mut buffer = [0; 4096];
                if pipe.read(&mut buffer).await.is_ok() {
                    let _ = pipe.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await; // the caller may be gone
                }
            })
        });
        let uplinks = Uplinks::new(self.dialer.clone(), handler);
        let opened = uplinks.opened();
        self.tasks.spawn(async move {
            // They live as long as the tunnel.
            let _watches = (pods, services, slices, nodes);
            uplinks.run(CancellationToken::new()).await;
        });
        opened.await;
        Ok(())
    }
}

async fn certificate(client: &Client, key: &NodeKey, name: &str) -> Result<String> {
    let csr = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("node-csr-".into()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(key.request(name)?.into_bytes()),
            signer_name: "kubernetes.io/kube-apiserver-client-kubelet".into(),
            usages: Some(vec!["digital signature".into(), "client auth".into()]),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    let made = client.create(&csr).await?;
    let field = format!("metadata.name={}", made.metadata.name.unwrap_or_default());
    let requests = Informer::<CertificateSigningRequest>::builder(client).fields(field).start();
    let mut changes = requests.subscribe();
    loop {
        if let Event::Added(csr) | Event::Updated { new: csr, .. } = changes.recv().await
            && let Some(status) = &csr.status
        {
            if let Some(refused) = status.conditions.iter().flatten().find(|c| c.type_ == "Denied") {
                return Err(refused.message.clone().unwrap_or_default().into());
            }
            if let Some(certificate) = &status.certificate {
                return Ok(String::from_utf8(certificate.0.clone())?);
            }
        }
    }
}

async fn renew(client: &Client, name: &str) -> Result<()> {
    let now = MicroTime(Timestamp::try_from(SystemTime::now())?);
    let key = client::ObjectKey::new("kube-node-lease", name);
    let patch = client::Patch::Merge(serde_json::json!({"spec": {"renewTime": now}}));
    match client.patch::<Lease>(&key, &patch).await {
        Err(error) if error.is_not_found() => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), namespace: Some("kube-node-lease".into()), ..ObjectMeta::default() };
            let spec = LeaseSpec { holder_identity: Some(name.to_owned()), lease_duration_seconds: Some(40), renew_time: Some(now), ..LeaseSpec::default() };
            client.create(&Lease { metadata, spec: Some(spec) }).await?;
            Ok(())
        }
        result => Ok(result.map(drop)?),
    }
}

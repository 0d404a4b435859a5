//! The parts of a server and their wiring.
use std::net::{IpAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use apiserver::audit::{self, Audit, Rotation};
use apiserver::auth::jwt::Issuers;
use apiserver::auth::{Authentication, Authorization, Tokens, service_account};
use apiserver::encryption::Encryption;
use apiserver::{ApiServer, Cache, Parts, UserInfo};
use client::{Backoff, Client, Clock, SharedInformers};
use pki::{Identity, LeafRequest};
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span};

use super::datastore;
use super::local;
use super::memory;
use super::serving::{self, Certificate};
use super::{DRAIN, Settings};
use crate::node::{self, NodeClients};
use crate::node_dialer::Nodes;
use crate::options::{AutoscalerOptions, ServerOptions};
use crate::{applier, host, kubeconfig, system, workload};

/// Runs the server until a signal or the end of a part.
pub async fn run(mut settings: Settings, listener: StdListener, started: Instant) -> anyhow::Result<()> {
    let data = settings.options.data_dir.clone();
    let server_dir = data.join("server");
    make_folders(&server_dir)?;
    let address = (settings.advertise, settings.options.https_listen_port).into();
    let holder = datastore::holder(&settings.node.name, address);
    let (mut store, store_ended) = datastore::open(&settings.options.datastore, &server_dir, holder).await?;
    let opened = store.clone();
    let identity = ClusterIdentity::load(&settings, &server_dir)?;
    let mut encryption = None;
    if let Some(path) = &settings.options.encryption_provider_config {
        let (keeper, encrypted) = Encryption::load(path, store).await?;
        (store, encryption) = (encrypted.clone(), Some((keeper, encrypted)));
    }
    let cache = Cache::start(&store).await.context("load the cluster's state")?;
    let nodes = Arc::new(Nodes::default());
    let plugins = std::mem::take(&mut settings.admission);
    let issuers = settings.access.issuers(&settings.issuer)?;
    let authorization = settings.access.authorization(&cache)?;
    let audit = audit(&settings.options)?;
    let who = Who { issuers: issuers.clone(), authorization: authorization.clone(), audit: audit.clone() };
    let api = api_server(&settings, &identity, store, cache.clone(), nodes.clone(), plugins, who)?;
    api.start().await.context("prepare the API")?;
    api.also_measure(controller_metrics);
    api.also_measure(memory::metrics);

    let shutdown = CancellationToken::new();
    let mut parts: JoinSet<anyhow::Result<&'static str>> = JoinSet::new();
    parts.spawn(async move { Err(anyhow!("the state is out of reach: {}", store_ended.await)) });
    if let Some((encryption, store)) = encryption {
        let (shutdown, health) = (shutdown.clone(), encryption.health());
        api.also_measure(encryption.page());
        api.add_health_check("kms-providers", move || health().unwrap_or(Ok(())));
        parts.spawn(async move {
            encryption.run(cache, store, shutdown).await;
            Ok("encryption of the state")
        });
    }
    if let Some(audit) = audit {
        let (shown, shutdown) = (audit.clone(), shutdown.clone());
        api.also_measure(move || shown.page());
        parts.spawn(async move {
            audit.run(shutdown).await;
            Ok("audit log")
        });
    }
    for task in settings.access.follow(&api, &issuers, &authorization, &shutdown) {
        parts.spawn(async move {
            task.await;
            Ok("configuration of access")
        });
    }
    let address = listener.local_addr().context("read the listener's address")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("take over the listener")?;
    let mut authorities = vec![identity.cluster.client_ca.certificate().clone()];
    authorities.extend(settings.access.proxy_authorities()?);
    let tls = apiserver::Tls::with_resolver(identity.serving.clone(), authorities)?;
    parts.spawn({
        let api = api.clone();
        async move {
            Ok({
                api.serve(listener, tls).await;
                "API listener"
            })
        }
    });
    parts.spawn(serving::renew(identity.serving.clone(), identity.certificate(), shutdown.clone()));
    parts.spawn(serving::renew(identity.front_proxy.clone(), identity.front_proxy_certificate(), shutdown.clone()));
    write_kubeconfig(&settings, &identity, address.port())?;
    info!(%address, node = settings.node.name, version = crate::cli::KUBERNETES_VERSION, ready_ms = started.elapsed().as_millis() as u64, "rk serves the Kubernetes API");

    // The control plane needs no kernel feature; whoever lacks one can still ask the API why its pods wait.
    let admin = local::client(&api, UserInfo::new("system:admin", &["system:masters"]));
    start_control_plane(&mut parts, &settings, &api, &identity)?;
    host::require_machine(Some(settings.facts.network_backend)).await?;
    start_node(&mut parts, &settings, &api, &nodes, shutdown.clone()).await?;
    parts.spawn(apply_system(&settings, admin));
    parts.spawn(memory::keep_small(api.clone()));

    let result = tokio::select! {
        () = workload::terminated() => { info!("stopping; containers run on"); Ok(()) }
        ended = parts.join_next() => Err(match ended {
            Some(Ok(Ok(part))) => anyhow!("the {part} ended"),
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => anyhow!("a part died: {error}"),
            None => anyhow!("nothing is left to run"),
        }),
    };
    shutdown.cancel();
    if tokio::time::timeout(DRAIN, api.shut_down()).await.is_err() {
        tracing::warn!("requests were still under way at the deadline");
    }
    parts.shutdown().await;
    // What waits in memory is written, and another server may have the state.
    if tokio::time::timeout(DRAIN, opened.close()).await.is_err() {
        tracing::warn!("the state was not closed at the deadline");
    }
    result
}

fn make_folders(server_dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(server_dir);
    folder.with_context(|| format!("create {}", server_dir.display()))
}

/// Keys and certificates of this cluster.
struct ClusterIdentity {
    cluster: Arc<pki::Cluster>,
    tokens: Arc<pki::ServiceAccountSigner>,
    serving: Arc<Identity>,
    request: LeafRequest,
    /// Shown to aggregated API servers.
    front_proxy: Arc<Identity>,
}

impl ClusterIdentity {
    fn load(settings: &Settings, server_dir: &Path) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        let domain = &settings.facts.cluster_domain;
        let issuer = &settings.issuer;
        let folder = server_dir.join("tls");
        let cluster = pki::Cluster::load_or_create(&folder, issuer, now).context("load the cluster's certificates")?;
        let first = u32::from(settings.facts.service_cidr.network()) + 1;
        let mut addresses: Vec<IpAddr> = vec![settings.node.ip.into(), settings.advertise.into(), IpAddr::V4(first.into())];
        if !settings.options.bind_address.is_unspecified() {
            addresses.push(settings.options.bind_address);
        }
        let mut names = settings.options.tls_san.clone();
        names.push(settings.node.name.clone());
        let request = LeafRequest::api_server(domain, &addresses, &names);
        let leaf = cluster.server("serving-kube-apiserver", &request, now).context("make the API's certificate")?;
        let serving = Identity::new(&leaf).context("load the API's certificate")?;
        let tokens = Arc::new(pki::ServiceAccountSigner::load_or_create(&folder.join("service.key"), issuer)?);
        let leaf = cluster.front_proxy(now).context("make the front proxy's certificate")?;
        let front_proxy = Identity::new(&leaf).context("load the front proxy's certificate")?;
        Ok(Self { cluster: Arc::new(cluster), tokens, serving, request, front_proxy })
    }

    fn certificate(&self) -> Certificate {
        let (cluster, request) = (self.cluster.clone(), self.request.clone());
        Box::new(move |now| cluster.server("serving-kube-apiserver", &request, now))
    }

    fn front_proxy_certificate(&self) -> Certificate {
        let cluster = self.cluster.clone();
        Box::new(move |now| cluster.front_proxy(now))
    }
}

/// Who is believed, who decides, and who writes it down.
struct Who {
    issuers: Arc<Issuers>,
    authorization: Arc<Authorization>,
    audit: Option<Arc<Audit>>,
}

fn api_server(
    settings: &Settings,
    identity: &ClusterIdentity,
    store: Arc<dyn Store>,
    cache: Cache,
    nodes: Arc<Nodes>,
    plugins: Vec<apiserver::admission::OnRequest>,
    who: Who,
) -> anyhow::Result<ApiServer> {
    let config = apiserver::Config {
        service_cidr: settings.facts.service_cidr,
        node_ports: settings.node_ports.clone(),
        advertise_address: settings.advertise,
        secure_port: settings.options.https_listen_port,
        server_ca: identity.cluster.server_ca.certificate_pem().to_owned(),
        client_ca: identity.cluster.client_ca.certificate_pem().to_owned(),
        front_proxy: Some(apiserver::FrontProxy {
            ca: identity.cluster.request_header_ca.certificate_pem().to_owned(),
            identity: identity.front_proxy.clone(),
        }),
        flags: settings.flags.clone(),
        serves_metrics: !settings.options.disable.iter().any(|part| part == "metrics-server"),
        ..apiserver::Config::default()
    };
    let jwks = format!("https://{}:{}/openid/v1/jwks", settings.advertise, settings.options.https_listen_port);
    let authentication = Authentication::new(cache.clone(), identity.tokens.verifier());
    let Who { issuers, authorization, audit } = who;
    let parts = Parts {
        store,
        authenticator: Arc::new(settings.access.complete(authentication, issuers, identity.cluster.client_ca.certificate())?),
        admission: Arc::new(apiserver::admission::Plugins::new(&cache, authorization.clone()).enable(plugins)),
        authorizer: authorization,
        tokens: Arc::new(Tokens::new(identity.tokens.clone(), jwks)),
        extensions: vec![nodes.clone()],
        audit,
        nodes,
        cache,
    };
    Ok(ApiServer::new(config, parts))
}

fn audit(options: &ServerOptions) -> anyhow::Result<Option<Arc<Audit>>> {
    let Some(policy) = &options.audit_policy_file else { return Ok(None) };
    let rotation = Rotation {
        size_bytes_max: options.audit_log_maxsize << 20,
        backups_max: options.audit_log_maxbackup,
        age_max: Duration::from_secs(options.audit_log_maxage * 86_400),
    };
    let (log, webhook) = (options.audit_log_path.clone(), options.audit_webhook.webhook());
    Ok(Some(Arc::new(Audit::load(&audit::Options { policy: policy.clone(), log, rotation, webhook })?)))
}

fn write_kubeconfig(settings: &Settings, identity: &ClusterIdentity, port: u16) -> anyhow::Result<()> {
    let admin = identity
        .cluster
        .client("client-admin", &LeafRequest::admin(), SystemTime::now())
        .context("make the administrator's certificate")?;
    let host = match settings.options.bind_address {
        bound if bound.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        bound => bound,
    };
    kubeconfig::write(
        &settings.options.write_kubeconfig,
        settings.kubeconfig_mode,
        &format!("https://{}", std::net::SocketAddr::new(host, port)),
        identity.cluster.server_ca.certificate_pem(),
        &admin.certificate_pem,
        &admin.key_pem,
    )
}

fn start_control_plane(
    parts: &mut JoinSet<anyhow::Result<&'static str>>,
    settings: &Settings,
    api: &ApiServer,
    identity: &ClusterIdentity,
) -> anyhow::Result<()> {
    let manager = local::client(api, UserInfo::new("system:kube-controller-manager", &["system:authenticated"]));
    let manager = manager.named("kube-controller-manager");
    let for_controllers = api.clone();
    let context = controllers::ControllerContext {
        client_for: Arc::new(move |name| {
            let mut user = service_account("kube-system", name);
            user.groups.push("system:authenticated".to_owned());
            local::client(&for_controllers, user).named("kube-controller-manager")
        }),
        informers: SharedInformers::new(&manager),
        clock: Clock::system(),
        config: Arc::new(controllers::Config {
            cluster_cidrs: vec![settings.facts.cluster_cidr.into()],
            node_cidr_mask: 24,
            root_ca: identity.cluster.server_ca.certificate_pem().to_owned(),
            terminated_pods_max: 12_500,
            server_node: settings.node.name.to_string(),
            autoscaling: autoscaling(&settings.options.autoscaler),
            system_image: system::image(),
        }),
        pki: identity.cluster.clone(),
        tokens: identity.tokens.clone(),
    };
    parts.spawn(async move {
        let mut all = controllers::start(context);
        all.join_next().await;
        Ok("controllers")
    });
    let scheduler = local::client(api, UserInfo::new("system:kube-scheduler", &["system:authenticated"]));
    let scheduler = scheduler.named("kube-scheduler");
    let scheduler = scheduler::Scheduler::new(scheduler, Clock::system(), &settings.scheduler).context("set up the scheduler")?;
    let pending = scheduler.pending();
    api.also_measure(move || pending.page());
    parts.spawn(
        async move {
            scheduler.run().await;
            Ok("scheduler")
        }
        .instrument(info_span!("scheduler")),
    );
    Ok(())
}

/// What controllers tell, for the page of metrics.
fn controller_metrics() -> String {
    let panics = client::panics_total();
    let head = "# HELP rk_controller_panics_total Panics caught in controllers; the key was tried again.\n# TYPE rk_controller_panics_total counter\n";
    format!("{}{head}rk_controller_panics_total {panics}\n", client::queue::metrics_page())
}

async fn start_node(
    parts: &mut JoinSet<anyhow::Result<&'static str>>,
    settings: &Settings,
    api: &ApiServer,
    nodes: &Nodes,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let user = UserInfo::new(format!("system:node:{}", settings.node.name), &["system:nodes", "system:authenticated"]);
    let clients = NodeClients {
        kubelet: local::client(api, user).named("kubelet"),
        proxy: local::client(api, UserInfo::new("system:kube-proxy", &["system:authenticated"])).named("kube-proxy"),
    };
    let kubelet = node::start(parts, &settings.node, &settings.facts, clients, shutdown).await?;
    nodes.set_local(settings.node.name.clone(), kubelet);
    Ok(())
}

/// Brings the system's own objects into the API, and tries again until they are there: what a webhook refuses now it may let through
/// once its pods run.
fn apply_system(settings: &Settings, admin: Client) -> impl Future<Output = anyhow::Result<&'static str>> + use<> {
    let (mut wanted, unwanted) = system::documents(&settings.facts, &settings.options.disable);
    wanted.push(settings.facts.manifest());
    async move {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let applied = async {
                applier::apply(&admin, &wanted).await?;
                applier::remove(&admin, &unwanted).await
            };
            match applied.await {
                Ok(()) => return std::future::pending().await,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the system's own objects are not in place yet"),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

fn autoscaling(options: &AutoscalerOptions) -> controllers::AutoscalingSettings {
    controllers::AutoscalingSettings {
        sync_period: options.horizontal_pod_autoscaler_sync_period,
        downscale_stabilization: options.horizontal_pod_autoscaler_downscale_stabilization,
        tolerance: options.horizontal_pod_autoscaler_tolerance,
        cpu_initialization_period: options.horizontal_pod_autoscaler_cpu_initialization_period,
        initial_readiness_delay: options.horizontal_pod_autoscaler_initial_readiness_delay,
    }
}

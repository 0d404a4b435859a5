//! What goes wrong with what people bring, and what others notice of it.
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use client::Client;
use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use serde_json::{Value, json};

use crate::NAMESPACE;
use crate::bystanders::{beside, make_ready};
use crate::calls::{CLIENTS, Call, JSON, Options, call, config_map, connect, make, prepare, rate, say};
use crate::definitions::{get, until};
use crate::servers::{FAR, Host, aggregated, converts, hangs};
use crate::shapes::{Kind, definitions};

const BYSTANDERS: usize = 8;
/// Whose creates a webhook holds up.
const HUNG: &str = "load-hung";
const HOOK_TIMEOUT_SECONDS: u64 = 2;
const WATCHERS: usize = 100;
const PATCHERS: usize = 4;
/// As many as upstream takes (apiserver/pkg/endpoints/handlers/patch.go maxJSONPatchOperations).
const OPERATIONS: usize = 10_000;
const SERVICE: &str = "far";

struct Scene {
    host: Host,
    address: IpAddr,
    limit: Duration,
    /// Who makes trouble.
    clients: Vec<Client>,
    others: Vec<Client>,
}

pub async fn trouble(options: &Options) -> anyhow::Result<()> {
    let address: IpAddr = options.more.get("address").context("--address is wanted")?.parse()?;
    let scene = Scene {
        host: Host::new(address, &format!("{SERVICE}.{NAMESPACE}.svc"))?,
        address,
        limit: options.limit()?,
        clients: connect(&options.kubeconfig, WATCHERS).await?,
        others: connect(&options.kubeconfig, BYSTANDERS).await?,
    };
    prepare(scene.first(), NAMESPACE).await?;
    make_ready(scene.first()).await?;
    let calm = async {
        tokio::time::sleep(scene.limit).await;
        anyhow::Ok(())
    };
    beside("all is calm", &scene.others, calm).await?;
    scene.hanging_webhook().await?;
    scene.dying_server().await?;
    scene.long_patches().await?;
    scene.slow_conversion().await
}

impl Scene {
    fn first(&self) -> &Client {
        &self.clients[0]
    }

    async fn delete(&self, path: &str) -> anyhow::Result<()> {
        call(self.first(), "DELETE", path, JSON, JSON, Vec::new()).await.map(drop)
    }

    async fn hanging_webhook(&self) -> anyhow::Result<()> {
        const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        prepare(self.first(), HUNG).await?;
        let server = self.host.listen(0, hangs).await?;
        let hook = json!({ "name": "hangs.load.example", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
            "timeoutSeconds": HOOK_TIMEOUT_SECONDS, "clientConfig": { "url": format!("https://{}/", server.address), "caBundle": self.host.bundle },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": HUNG } },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }] });
        let configuration = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": "hangs.load.example" }, "webhooks": [hook] });
        make(self.first(), CONFIGURATIONS, &configuration).await?;
        tokio::time::sleep(Duration::from_secs(1)).await; // as long as upstream may take to notice
        let run = std::process::id();
        let create = move |i| Call::post(format!("/api/v1/namespaces/{HUNG}/configmaps"), &config_map(&format!("h{run}-{i}"), 'a'));
        let held_up = rate("create beside a webhook that hangs, which may fail", &self.clients, self.limit, usize::MAX, create);
        beside("webhooks hang", &self.others, held_up).await?;
        self.delete(&format!("{CONFIGURATIONS}/hangs.load.example")).await
    }

    /// The server of a group dies while all watch, and comes back, again and again.
    async fn dying_server(&self) -> anyhow::Result<()> {
        const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
        let mut server = self.host.listen(0, aggregated).await?;
        let port = server.address.port();
        for (path, object) in aggregated_objects(self.address, port, &self.host.bundle) {
            make(self.first(), &path, &object).await?;
        }
        let far = format!("/apis/{FAR}/v1/stars");
        let died = async {
            let (began, mut times) = (Instant::now(), Vec::new());
            while began.elapsed() < self.limit {
                until(self.first(), &get(far.clone()), |status, _| status.is_success(), JSON).await?;
                let mut watches = Vec::new();
                for client in &self.clients {
                    let request = Request::builder().uri(format!("{far}?watch=1")).header("accept", JSON).body(Vec::new())?;
                    let mut lines = client.kube().request_stream(request).await?.lines();
                    ensure!(lines.try_next().await?.is_some_and(|line| line.contains("ADDED")), "a watch of an aggregated server begins with no event");
                    watches.push(lines);
                }
                drop(server);
                let at = Instant::now();
                // However it ends: an error is one of the ways.
                let ends = watches.into_iter().map(|mut lines| async move {
                    while let Ok(Some(_)) = lines.try_next().await {}
                    at.elapsed()
                });
                let ended = futures::future::join_all(ends);
                times.extend(tokio::time::timeout(Duration::from_secs(60), ended).await.context("watches of a dead server go on")?);
                server = self.host.listen(port, aggregated).await?;
            }
            say("end of a watch whose aggregated server has died", times.len(), began.elapsed(), times);
            anyhow::Ok(server)
        };
        let server = beside("an aggregated server dies in its watches", &self.others, died).await?;
        self.delete(&format!("{SERVICES}/v1.{FAR}")).await?;
        self.delete(&format!("/api/v1/namespaces/{NAMESPACE}/services/{SERVICE}")).await?;
        drop(server);
        Ok(())
    }

    async fn long_patches(&self) -> anyhow::Result<()> {
        let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        for number in 0..PATCHERS {
            make(self.first(), &maps, &config_map(&format!("patched-{number}"), 'a')).await?;
        }
        let adds = (0..OPERATIONS / 2).map(|i| json!({ "op": "add", "path": format!("/data/key-{i}"), "value": "a value" }));
        let removes = (0..OPERATIONS / 2).map(|i| json!({ "op": "remove", "path": format!("/data/key-{i}") }));
        let body = Value::Array(adds.chain(removes).collect()).to_string().into_bytes();
        let patch = move |i| {
            Call { method: "PATCH", path: format!("{maps}/patched-{}", i % PATCHERS), media: "application/json-patch+json", body: body.clone() }
        };
        let patches = rate("patch of 10,000 operations", &self.clients[..PATCHERS], self.limit, usize::MAX, patch);
        beside("patches of 10,000 operations come", &self.others, patches).await.map(drop)
    }

    async fn slow_conversion(&self) -> anyhow::Result<()> {
        let server = self.host.listen(0, converts).await?;
        let kind = Kind::new("converted", 0);
        let mut definition = kind.definition()?;
        let mut second = definition["spec"]["versions"][0].clone();
        second["name"] = "v2".into();
        second["storage"] = false.into();
        definition["spec"]["versions"].as_array_mut().context("a definition has versions")?.push(second);
        definition["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": { "conversionReviewVersions": ["v1"],
            "clientConfig": { "url": format!("https://{}/", server.address), "caBundle": self.host.bundle } } });
        make(self.first(), &definitions(""), &definition).await?;
        until(self.first(), &get(kind.path("")), |status, _| status.is_success(), JSON).await?;
        // Written in the version that is not stored, and so converted each time.
        let (other, run) = (kind.clone(), std::process::id());
        let create = move |i| {
            let mut object = other.object(&format!("c{run}-{i}"), i);
            object["apiVersion"] = object["apiVersion"].as_str().unwrap_or_default().replace("/v1", "/v2").into();
            Call::post(other.path("").replace("/v1/", "/v2/"), &object)
        };
        let creates = rate("create through a conversion of 2 s", &self.clients[..CLIENTS], self.limit, usize::MAX, create);
        beside("a conversion is slow", &self.others, creates).await?;
        self.delete(&definitions(&format!("/{}", kind.definition_name()))).await
    }
}

/// A Service without selector, where it is found, and the group that it serves.
fn aggregated_objects(address: IpAddr, port: u16, bundle: &str) -> [(String, Value); 3] {
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": SERVICE },
        "spec": { "ports": [{ "port": 443, "targetPort": port, "protocol": "TCP" }] } });
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "far-1", "labels": { "kubernetes.io/service-name": SERVICE } },
        "ports": [{ "name": "", "port": port, "protocol": "TCP" }], "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }] });
    let group = json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": format!("v1.{FAR}") },
        "spec": { "group": FAR, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10, "caBundle": bundle,
            "service": { "namespace": NAMESPACE, "name": SERVICE, "port": 443 } } });
    [
        (format!("/api/v1/namespaces/{NAMESPACE}/services"), service),
        (format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"), slice),
        ("/apis/apiregistration.k8s.io/v1/apiservices".to_owned(), group),
    ]
}

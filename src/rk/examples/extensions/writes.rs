//! Applies, custom objects with rules, and an admission policy.
use client::Client;
use http::StatusCode;
use serde_json::Value;

use crate::NAMESPACE;
use crate::calls::{CLIENTS, Call, JSON, Options, call, config_map, connect, make, prepare, rate};
use crate::definitions::until;
use crate::shapes::{Kind, definitions, deployment, pod_template, policy, policy_binding};

/// Deployments that are applied again and again: enough that no two clients meet at one.
const APPLIED: usize = 256;
const POLICY: &str = "ten.load.example";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";

fn applied(path: &str, object: &Value) -> Call {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{path}/{name}?fieldManager=load&force=true");
    Call { method: "PATCH", path, media: "application/apply-patch+yaml", body: object.to_string().into() }
}

fn a_deployment(name: &str, change: usize) -> Call {
    applied(&format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments"), &deployment(name, change))
}

fn maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

pub async fn kind_of_objects(client: &Client) -> anyhow::Result<Kind> {
    let kind = Kind::new("objects", 0);
    make(client, &definitions(""), &kind.definition()?).await?;
    let first = Call::post(kind.path("?dryRun=All"), &kind.object("first", 0));
    until(client, &first, |status, _| status.is_success(), JSON).await?;
    Ok(kind)
}

pub async fn writes(options: &Options) -> anyhow::Result<()> {
    let clients = connect(&options.kubeconfig, CLIENTS).await?;
    let (one, limit, run) = (&clients[..1], options.limit()?, std::process::id());
    prepare(&clients[0], NAMESPACE).await?;
    rate("apply a new Deployment", one, limit, usize::MAX, move |i| a_deployment(&format!("o{run}-{i}"), 0)).await?;
    let made = rate("apply a new Deployment", &clients, limit, usize::MAX, move |i| a_deployment(&format!("n{run}-{i}"), 0)).await?;
    let several = made.min(APPLIED);
    rate("apply a change to a Deployment", &clients, limit, usize::MAX, move |i| a_deployment(&format!("n{run}-{}", i % several), 1 + i / several)).await?;
    rate("apply a Deployment without a change", &clients, limit, usize::MAX, move |i| a_deployment(&format!("o{run}-{}", i % 2), 0)).await?;
    let templates = format!("/api/v1/namespaces/{NAMESPACE}/podtemplates");
    let template = move |i| applied(&templates, &pod_template(&format!("t{run}-{i}"), i));
    rate("apply a new PodTemplate, which no controller sees", &clients, limit, usize::MAX, template).await?;
    call(&clients[0], "DELETE", &format!("/api/v1/namespaces/{NAMESPACE}/podtemplates"), JSON, JSON, Vec::new()).await?;

    let kind = kind_of_objects(&clients[0]).await?;
    for several in [one, &clients] {
        let (kind, run) = (kind.clone(), run as usize * 100 + several.len());
        let what = "create custom object, 200 lines of schema, 5 rules";
        rate(what, several, limit, usize::MAX, move |i| Call::post(kind.path(""), &kind.object(&format!("w{run}-{i}"), i))).await?;
    }
    call(&clients[0], "DELETE", &kind.path(""), JSON, JSON, Vec::new()).await?;

    rate("create ConfigMap without policy", &clients, limit, usize::MAX, move |i| Call::post(maps(), &config_map(&format!("p{run}-{i}"), 'a'))).await?;
    make(&clients[0], &format!("{POLICIES}ies"), &policy(POLICY)).await?;
    make(&clients[0], &format!("{POLICIES}ybindings"), &policy_binding(POLICY)).await?;
    let mut wrong = config_map("wrong", 'a');
    wrong["data"]["forbidden"] = "yes".into();
    let refused = |status, _: &[u8]| status == StatusCode::UNPROCESSABLE_ENTITY;
    until(&clients[0], &Call::post(format!("{}?dryRun=All", maps()), &wrong), refused, JSON).await?;
    for several in [one, &clients] {
        let run = run as usize * 100 + several.len();
        let what = "create ConfigMap, policy of 10 expressions";
        rate(what, several, limit, usize::MAX, move |i| Call::post(maps(), &config_map(&format!("m{run}-{i}"), 'a'))).await?;
    }
    for path in [format!("{POLICIES}ybindings/{POLICY}"), format!("{POLICIES}ies/{POLICY}"), maps()] {
        call(&clients[0], "DELETE", &path, JSON, JSON, Vec::new()).await?;
    }
    Ok(())
}

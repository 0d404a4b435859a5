//! Many custom objects beside as many of a built-in kind.
use std::time::Duration;

use crate::NAMESPACE;
use crate::calls::{CLIENTS, Call, JSON, Options, TABLE, connect, list, prepare, rate};
use crate::shapes::pod_template;
use crate::writes::kind_of_objects;

fn templates(rest: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/podtemplates{rest}")
}

pub async fn fill(options: &Options) -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_secs(3600);
    let clients = connect(&options.kubeconfig, CLIENTS).await?;
    prepare(&clients[0], NAMESPACE).await?;
    let (count, kind) = (options.count(10_000)?, kind_of_objects(&clients[0]).await?);
    rate(&format!("create {count} PodTemplates"), &clients, LIMIT, count, |i| Call::post(templates(""), &pod_template(&format!("fill-{i}"), i))).await?;
    let custom = move |i: usize| Call::post(kind.path(""), &kind.object(&format!("fill-{i}"), i));
    rate(&format!("create {count} custom objects"), &clients, LIMIT, count, custom).await?;
    Ok(())
}

pub async fn lists(options: &Options) -> anyhow::Result<()> {
    let client = &connect(&options.kubeconfig, 1).await?[0];
    let kind = kind_of_objects(client).await?;
    for (what, query, accept) in [
        ("JSON, any version", "?resourceVersion=0", JSON),
        ("JSON, consistent", "", JSON),
        ("Table", "", TABLE),
        ("one in a hundred by label, JSON", "?labelSelector=number%3Dn50", JSON),
    ] {
        list(&format!("list PodTemplates, {what}"), client, options.limit()?, &templates(query), accept).await?;
        list(&format!("list custom objects, {what}"), client, options.limit()?, &kind.path(query), accept).await?;
    }
    Ok(())
}

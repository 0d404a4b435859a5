//! Objects that come and go in crowds.
use std::time::Duration;

use crate::NAMESPACE;
use crate::calls::{CLIENTS, Call, JSON, Options, config_map, connect, prepare, rate};
use crate::shapes::pod;

/// `--count` ConfigMaps, then half as many Pods that no scheduler takes: all are made, then all are deleted.
pub async fn turnover(options: &Options) -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_secs(3600);
    let clients = connect(&options.kubeconfig, CLIENTS).await?;
    prepare(&clients[0], NAMESPACE).await?;
    let count = options.count(20_000)?;
    let path = |plural: &str, rest: &str| format!("/api/v1/namespaces/{NAMESPACE}/{plural}{rest}");
    let name = |i: usize| format!("turnover-{i}");
    let delete = |path: String| Call { method: "DELETE", path, media: JSON, body: Vec::new() };
    let make = move |i: usize| Call::post(path("configmaps", ""), &config_map(&name(i), 'a'));
    rate(&format!("create {count} ConfigMaps"), &clients, LIMIT, count, make).await?;
    let take = move |i: usize| delete(path("configmaps", &format!("/{}", name(i))));
    rate(&format!("delete {count} ConfigMaps"), &clients, LIMIT, count, take).await?;
    let pods = count / 2;
    let make = move |i: usize| Call::post(path("pods", ""), &pod(&name(i), i));
    rate(&format!("create {pods} Pods"), &clients, LIMIT, pods, make).await?;
    let take = move |i: usize| delete(path("pods", &format!("/{}?gracePeriodSeconds=0", name(i))));
    rate(&format!("delete {pods} Pods"), &clients, LIMIT, pods, take).await?;
    Ok(())
}

//! What bounds scheduling from below: the store, and the API without a scheduler.
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use client::{Client, Informer, Named};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use k8s_openapi::api::core::v1::Pod;
use store::{Durability, Expect, Operation, Store, Write};

use crate::usage::Usage;

/// A bound pod of the shapes, as it is stored.
const VALUE_BYTES: usize = 1900;

/// Durable writes per second with so many writers.
pub async fn store_writes(folder: &Path, writers: usize) -> anyhow::Result<f64> {
    let store = Arc::new(store::sqlite::open(&folder.join("limit.db"), store::sqlite::Options::default())?);
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let began = Instant::now();
    let length = Duration::from_secs(3);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, value) = (store.clone(), value.clone());
            tokio::spawn(async move {
                let mut written = 0;
                while began.elapsed() < length {
                    let key = format!("/registry/core/pods/{writer}/{}", written % 1000).into();
                    let operation = Operation::Put(value.clone());
                    store.write(Write { key, operation, expect: Expect::Any, durability: Durability::Synced }).await?;
                    written += 1;
                }
                Ok::<usize, store::WriteError>(written)
            })
        })
        .collect();
    let mut all = 0;
    for task in tasks {
        all += task.await??;
    }
    Ok(all as f64 / began.elapsed().as_secs_f64())
}

/// Binds all pods that have no node, so many at once, without deciding anything: bindings per second, and processor time for each.
pub async fn bindings(client: &Client, nodes: usize, at_once: usize) -> anyhow::Result<(f64, Duration)> {
    let informer = Informer::<Pod>::builder(client).fields("spec.nodeName=").start();
    informer.synced().await;
    let pods = informer.list();
    drop(informer);
    let before = Usage::now()?;
    let began = Instant::now();
    let mut bound = futures::stream::iter(pods.iter().enumerate().map(|(i, pod)| {
        let (client, pod) = (client.clone(), pod.clone());
        tokio::spawn(async move { client.bind(&pod.key(), pod.uid(), &format!("node-{}", i % nodes)).await })
    }))
    .buffer_unordered(at_once);
    while let Some(result) = bound.next().await {
        result??;
    }
    let spent = Usage::now()?.cpu_since(&before);
    Ok((pods.len() as f64 / began.elapsed().as_secs_f64(), spent / u32::try_from(pods.len().max(1))?))
}

/// The API without the writes of a scheduler that has found a node: its bindings and events are taken as done, and counted.
#[derive(Clone)]
pub struct Unwritten {
    pub api: apiserver::Local,
    pub bindings: Arc<AtomicUsize>,
    pub told: Arc<tokio::sync::Notify>,
}

impl<B> tower::Service<http::Request<B>> for Unwritten
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<axum::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        let is_binding = path.ends_with("/binding");
        if *request.method() != http::Method::POST || !(is_binding || path.ends_with("/events")) {
            return tower::Service::call(&mut self.api, request);
        }
        if is_binding {
            self.bindings.fetch_add(1, Ordering::Relaxed);
            self.told.notify_one();
        }
        let answer = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}"#;
        std::future::ready(Ok(http::Response::new(answer.into()))).boxed()
    }
}

//! Brings objects into the API: created where absent, patched where the manifest changed since it was last applied.
//!
//! An annotation holds the manifest's digest; so what an administrator edits stays until a new version says otherwise.
use anyhow::{Context, anyhow};
use api::registry::Registry;
use client::{ApiError, ApiResource, Client, DeleteOptions, ObjectKey, Patch};
use serde_json::{Value, json};

const APPLIED: &str = "rk.io/applied";

struct Document {
    resource: ApiResource,
    key: ObjectKey,
    object: Value,
}

impl Document {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let object: Value = serde_saphyr::from_str(text).context("parse a manifest")?;
        let text_at = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text_at("/apiVersion"), text_at("/kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let known = Registry::get().by_kind(group, version, &kind).ok_or_else(|| anyhow!("no kind {kind} in {api_version}"))?;
        let resource = ApiResource { group: group.into(), version: version.into(), kind, plural: known.plural.to_string(), namespaced: known.namespaced };
        Ok(Self { resource, key: ObjectKey::new(text_at("/metadata/namespace"), text_at("/metadata/name")), object })
    }
}

pub async fn apply(client: &Client, texts: &[String]) -> anyhow::Result<()> {
    for text in texts {
        let mut document = Document::parse(text)?;
        let digest = digest(text);
        document.object["metadata"]["annotations"][APPLIED] = json!(digest);
        apply_one(client, &document, &digest).await.with_context(|| format!("apply {} {}", document.resource.kind, document.key))?;
    }
    Ok(())
}

async fn apply_one(client: &Client, document: &Document, digest: &str) -> Result<(), ApiError> {
    let found: Result<Value, _> = client.get_at(&document.resource, &document.key).await;
    match found {
        Ok(found) if found.pointer("/metadata/annotations/rk.io~1applied").and_then(Value::as_str) == Some(digest) => Ok(()),
        Ok(_) => client.patch_at::<Value>(&document.resource, &document.key, &Patch::Merge(document.object.clone())).await.map(drop),
        Err(error) if error.is_not_found() => {
            let path = document.resource.collection_path(&document.key.namespace);
            let body = document.object.to_string().into_bytes();
            match client.bytes(http::Method::POST, &path, body, "application/json", "application/json").await {
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(()),
            }
        }
        Err(error) => Err(error),
    }
}

/// Removes what is no longer wanted, but only what was applied from here.
pub async fn remove(client: &Client, texts: &[String]) -> anyhow::Result<()> {
    for text in texts {
        let document = Document::parse(text)?;
        let found: Result<Value, _> = client.get_at(&document.resource, &document.key).await;
        let ours = found.is_ok_and(|f| f.pointer("/metadata/annotations/rk.io~1applied").is_some());
        if ours {
            let deleted = client.delete_at(&document.resource, &document.key, &DeleteOptions::default()).await;
            if let Err(error) = deleted {
                if !error.is_not_found() {
                    return Err(error).with_context(|| format!("remove {} {}", document.resource.kind, document.key));
                }
            }
        }
    }
    Ok(())
}

/// Short and stable; tells versions of a manifest apart, guards nothing.
fn digest(text: &str) -> String {
    // FNV-1a, 64 bits
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

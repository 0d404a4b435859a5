//! The task behind an informer: list, watch, resume, and list again only when the server says that it must be.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::store::{Listed, Mirror};
use crate::backoff::{Backoff, jitter};
use crate::client::Client;
use crate::decode;
use crate::error::ApiError;
use crate::object::{ApiResource, Kind, Named, ObjectKey};
use crate::options::{ListOptions, Query};
use crate::watch::{Frame, Lines, WatchError};

/// Objects per page of a list.
const PAGE: u32 = 500;
/// The server ends a watch after five to ten minutes, as client-go asks it to.
const WATCH_SECONDS_MIN: u64 = 300;
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const PARTIAL_WATCH: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

pub(super) struct Source<K> {
    pub client: Client,
    pub resource: ApiResource,
    pub namespace: String,
    pub labels: Option<String>,
    pub fields: Option<String>,
    pub partial: bool,
    pub project: Arc<dyn Fn(&mut K) + Send + Sync>,
}

/// How a watch ended.
enum Ended {
    /// The server closed it in order; go on after the last version.
    Resume,
    /// The last version is too old.
    Expired,
}

pub(super) async fn run<K: Kind>(source: Source<K>, mirror: Arc<Mirror<K>>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let name = &source.resource.plural;
    loop {
        let mut version = match source.list().await {
            Ok((objects, version)) => {
                mirror.replace(objects, &version);
                version
            }
            Err(error) => {
                warn!(resource = %name, error = &error as &dyn std::error::Error, "list failed");
                sleep(pause(&mut backoff, &error)).await;
                continue;
            }
        };
        loop {
            let started = Instant::now();
            let ended = source.watch(&mirror, &mut version).await;
            // A watch that lived for a while was no failure of the server.
            if started.elapsed() > Duration::from_secs(5) {
                backoff.reset();
            }
            match ended {
                Ok(Ended::Resume) if started.elapsed() > Duration::from_secs(1) => {}
                Ok(Ended::Resume) => sleep(backoff.next_delay()).await,
                Ok(Ended::Expired) => {
                    debug!(resource = %name, %version, "version is too old, listing again");
                    sleep(backoff.next_delay()).await;
                    break;
                }
                Err(WatchError::Api(error)) if error.is_gone() => {
                    debug!(resource = %name, %version, "version is too old, listing again");
                    sleep(backoff.next_delay()).await;
                    break;
                }
                Err(error) => {
                    debug!(resource = %name, error = &error as &dyn std::error::Error, "watch failed");
                    sleep(backoff.next_delay()).await;
                }
            }
        }
    }
}

fn pause(backoff: &mut Backoff, error: &ApiError) -> Duration {
    let delay = backoff.next_delay();
    match error {
        ApiError::Status(_, Some(asked)) => jitter(*asked, 0.2).max(delay),
        _ => delay,
    }
}

impl<K: Kind> Source<K> {
    /// The whole collection, in pages, and the version it stands at.
    async fn list(&self) -> Result<(Vec<Listed<K>>, String), ApiError> {
        let mut limit = Some(PAGE);
        'whole: loop {
            let mut objects = Vec::new();
            let mut options = ListOptions {
                label_selector: self.labels.clone(),
                field_selector: self.fields.clone(),
                limit,
                ..Default::default()
            };
            loop {
                let page = match self.list_page(&options, &mut objects).await {
                    // The snapshot that the pages came from is gone: once more, all at once.
                    Err(error) if error.is_gone() && options.continue_token.is_some() => {
                        limit = None;
                        continue 'whole;
                    }
                    page => page?,
                };
                match page.continue_.filter(|c| !c.is_empty()) {
                    Some(token) => options.continue_token = Some(token),
                    None => return Ok((objects, page.resource_version.unwrap_or_default())),
                }
            }
        }
    }

    async fn list_page(&self, options: &ListOptions, objects: &mut Vec<Listed<K>>) -> Result<ListMeta, ApiError> {
        let path = self.resource.collection_path(&self.namespace) + &options.query().into_string();
        let accept = if self.partial { PARTIAL_LIST } else { "application/json" };
        let bytes = self.client.bytes(http::Method::GET, &path, Vec::new(), "", accept).await?;
        let (metadata, items) =
            decode::list(&bytes).map_err(|source| ApiError::Decode { method: "GET".to_owned(), path, source })?;
        objects.extend(items.into_iter().filter_map(|item| self.listed(item)));
        Ok(metadata)
    }

    fn listed(&self, item: &str) -> Option<Listed<K>> {
        if self.client.held().is_some()
            && let Ok(identity) = decode::identity(item.as_bytes())
        {
            let key = ObjectKey { namespace: identity.namespace, name: identity.name };
            if let Some(text) = self.shared(&key, &identity.resource_version) {
                return Some(Listed::Shared(key, text));
            }
        }
        decode::mirrored(item).map(|object| Listed::Decoded(self.projected(object)))
    }

    /// The object's text, where the server in this process holds it.
    fn shared(&self, key: &ObjectKey, version: &str) -> Option<Bytes> {
        self.client.held()?.text(&self.resource, key, version)
    }

    async fn watch(&self, mirror: &Mirror<K>, version: &mut String) -> Result<Ended, WatchError> {
        let seconds = jitter(Duration::from_secs(WATCH_SECONDS_MIN), 1.0).as_secs();
        let mut query = Query::default();
        query.text("watch", Some("true"));
        query.text("allowWatchBookmarks", Some("true"));
        query.text("resourceVersion", Some(version));
        query.text("timeoutSeconds", Some(&seconds.to_string()));
        query.text("labelSelector", self.labels.as_deref());
        query.text("fieldSelector", self.fields.as_deref());
        let path = self.resource.collection_path(&self.namespace) + &query.into_string();
        let accept = if self.partial { PARTIAL_WATCH } else { "application/json" };
        let response = self.client.open(http::Method::GET, &path, Vec::new(), "", accept).await?;
        let mut lines = Lines::new(response.into_body());
        while let Some(line) = lines.next().await? {
            match Frame::<K>::decode(&line)? {
                Frame::Put(object) => {
                    *version = object.resource_version().to_owned();
                    let text = self.shared(&ObjectKey::of(&object), version);
                    mirror.put(self.projected(object), text);
                }
                Frame::Delete(object) => {
                    *version = object.resource_version().to_owned();
                    mirror.delete(self.projected(object));
                }
                Frame::Bookmark(at) => {
                    *version = at;
                    mirror.cool();
                }
                // Asked again it would come again, and nothing behind it ever.
                Frame::Unreadable { name, version: at, error } => {
                    warn!(resource = %self.resource.plural, name, %error, "an object cannot be read and is passed over");
                    *version = at;
                }
                Frame::Failure(status) => return failure(status),
            }
            mirror.reached(version);
        }
        Ok(Ended::Resume)
    }

    fn projected(&self, mut object: K) -> K {
        (self.project)(&mut object);
        object
    }
}

fn failure(status: Box<Status>) -> Result<Ended, WatchError> {
    let error = ApiError::Status(status, None);
    match error.is_gone() {
        true => Ok(Ended::Expired),
        false => Err(WatchError::Api(error)),
    }
}

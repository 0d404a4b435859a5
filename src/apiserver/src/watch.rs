//! watch: a cursor into the cache's ring of changes, written as one JSON document a line, or as protobuf frames.
//!
//! Models k8s.io/apiserver/pkg/endpoints/handlers/watch.go and pkg/storage/cacher. The body is pulled: while a client does not read, its cursor
//! stands still, and when the ring has moved past it the stream ends with an ERROR event 410. Nothing is ever buffered for one watcher.
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use api::protobuf;
use api::registry::ResourceRef;
use api::tree::{Object, Tree};

use crate::cache::{Cache, Cached, Change, Cursor, VersionError};
use crate::negotiate::{JSON, Media, PROTOBUF_STREAM, Transform, gzip};
use crate::rest::list;
use crate::rest::model::Selection;
use crate::rest::options::ListOptions;
use crate::rest::Call;
use crate::status::Status;
use crate::{convert, metrics, table};

/// Changes written in one piece.
const BATCH: usize = 128;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub async fn watch(call: &Call) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, true)?;
    let selection = Selection::parse(&call.resource, &call.query)?;
    let format = Format {
        resource: call.resource.clone(),
        transform: call.accept.transform,
        is_protobuf: call.accept.media == Media::Protobuf,
        include: table::Include::parse(&call.query)?,
        has_columns: false,
    };
    let cache = &call.server.0.parts.cache;
    let kind = call.kind()?;
    let config = &call.server.0.config;
    let prefix = list::prefix(call);
    let wants_initial = match options.send_initial_events {
        Some(wanted) => wanted,
        None => matches!(options.version, None | Some(0)),
    };
    let minimum = config.min_watch_timeout;
    let timeout = options.timeout_seconds.map_or_else(|| minimum + minimum.mul_f64(random_fraction()), Duration::from_secs);
    let mut state = State {
        cache: cache.clone(),
        prefix,
        selection,
        format,
        cursor: None,
        initial: VecDeque::new(),
        initial_end: None,
        bookmarks: options.bookmarks,
        bookmark_interval: config.bookmark_interval,
        next_bookmark: Instant::now() + config.bookmark_interval,
        deadline: Instant::now() + timeout,
        seen: 0,
        shutdown: call.server.0.shutdown.clone(),
        waits: None,
        failed: None,
        done: false,
        watcher: call.server.0.metrics.watcher(&call.resource, &call.info),
    };
    if wants_initial {
        let (snapshot, cursor) = cache.snapshot_and_watch(kind);
        if let Some(asked) = options.version.filter(|v| *v > snapshot.revision) {
            return Err(Status::version_too_large(asked, snapshot.revision));
        }
        let objects: Vec<Arc<Cached>> = snapshot.under(&state.prefix, None).map(|(_, object)| object.clone()).collect();
        let objects = convert::views(cache, &call.resource, objects).await?;
        state.initial = objects.into_iter().filter(|object| state.selection.matches(object)).collect();
        state.seen = snapshot.revision;
        state.cursor = Some(cursor);
        state.initial_end = (options.send_initial_events == Some(true) && options.bookmarks).then_some(snapshot.revision);
    } else {
        let after = match options.version {
            None | Some(0) => cache.revision(),
            Some(after) => after,
        };
        state.seen = after;
        match cache.watch(kind, after) {
            Ok(cursor) => state.cursor = Some(cursor),
            Err(error) => state.failed = Some(version_error(error, after)),
        }
    }
    // As upstream, only watches that begin with the whole state are compressed.
    let is_packed = call.accept.gzip && options.send_initial_events == Some(true) && options.bookmarks;
    // What is moved through the layers of a server, and of a client in the same process, is a pointer: they are deep, and stacks are short.
    let pieces = stream::unfold(Box::new(state), move |mut state| async move {
        let piece = state.next().await?;
        let piece = if is_packed { gzip::member(&piece) } else { piece };
        Some((Ok::<_, std::convert::Infallible>(piece), state))
    });
    let body = Body::from_stream(pieces.boxed());
    let media = if call.accept.media == Media::Protobuf { PROTOBUF_STREAM } else { JSON };
    let mut response = Response::builder().header(CONTENT_TYPE, media).header(CACHE_CONTROL, "no-cache, private");
    if is_packed {
        response = response.header(CONTENT_ENCODING, "gzip").header(VARY, "Accept-Encoding");
    }
    Ok(response.body(body).expect("constant headers are valid"))
}

fn version_error(error: VersionError, asked: u64) -> Status {
    match error {
        VersionError::TooOld { oldest } => Status::expired(format!("too old resource version: {asked} ({oldest})")),
        VersionError::TooNew { current } => Status::version_too_large(asked, current),
    }
}

/// In [0, 1): spreads the ends of watches.
fn random_fraction() -> f64 {
    f64::from((uuid::Uuid::new_v4().as_u128() & 0xffff) as u16) / 65536.0
}

struct State {
    cache: Cache,
    prefix: String,
    selection: Selection,
    format: Format,
    cursor: Option<Cursor>,
    /// Objects of the first state, still to be sent.
    initial: VecDeque<Arc<Cached>>,
    /// The version for the bookmark that ends the first state, until it is sent.
    initial_end: Option<u64>,
    bookmarks: bool,
    bookmark_interval: Duration,
    next_bookmark: Instant,
    deadline: Instant,
    /// Everything up to here was looked at.
    seen: u64,
    shutdown: CancellationToken,
    waits: Option<Waits>,
    failed: Option<Status>,
    done: bool,
    watcher: metrics::Watcher,
}

/// What a watch waits for beside changes. Kept as long as it lives: to begin anew after every event takes locks, and a thousand watchers of a
/// kind would take them at the same moment.
struct Waits {
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
}

impl Waits {
    fn new(ended: &CancellationToken, shutdown: &CancellationToken, wake: Instant) -> Self {
        let of = |token: &CancellationToken| Box::pin(token.clone().cancelled_owned());
        Self { ended: of(ended), shutdown: of(shutdown), timer: Box::pin(tokio::time::sleep_until(wake)) }
    }
}

impl State {
    /// The next piece of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = Vec::new();
        if let Some(status) = self.failed.take() {
            return Some(self.fail(out, &status));
        }
        if !self.initial.is_empty() {
            for _ in 0..BATCH {
                let Some(object) = self.initial.pop_front() else { break };
                let before = out.len();
                if let Err(status) = self.format.write(&mut out, "ADDED", &object.bytes) {
                    return Some(self.fail(out, &status));
                }
                self.watcher.sent(out.len() - before);
            }
            return Some(out.into());
        }
        if let Some(revision) = self.initial_end.take() {
            self.watcher.listed();
            if let Err(status) = self.format.bookmark(&mut out, revision, true) {
                return Some(self.fail(out, &status));
            }
            return Some(out.into());
        }
        loop {
            let (changes, seen) = match self.cursor.as_mut()?.read(BATCH) {
                Ok(read) => read,
                Err(error) => {
                    let status = version_error(error, self.seen);
                    return Some(self.fail(out, &status));
                }
            };
            self.seen = seen;
            let is_full = changes.len() == BATCH;
            let shown = self.shown(changes).await;
            let written = shown.and_then(|changes| changes.iter().try_for_each(|change| self.write_counted(&mut out, change)));
            if let Err(status) = written {
                return Some(self.fail(out, &status));
            }
            if !out.is_empty() {
                return Some(out.into());
            }
            if is_full {
                continue;
            }
            let cursor = self.cursor.as_mut()?;
            // Only once everything was read: the last deletions come before the end of their kind.
            if cursor.ended().is_cancelled() {
                return None;
            }
            let wake = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
            let waits = self.waits.get_or_insert_with(|| Waits::new(cursor.ended(), &self.shutdown, wake));
            if waits.timer.deadline() != wake {
                waits.timer.as_mut().reset(wake);
            }
            tokio::select! {
                () = cursor.changed() => {}
                () = &mut waits.ended => {}
                () = &mut waits.shutdown => return None,
                () = &mut waits.timer => {
                    let now = Instant::now();
                    let ends = now >= self.deadline;
                    if self.bookmarks {
                        self.next_bookmark = now + self.bookmark_interval;
                        if let Err(status) = self.format.bookmark(&mut out, self.seen, false) {
                            return Some(self.fail(out, &status));
                        }
                    }
                    if ends {
                        self.done = true;
                        return (!out.is_empty()).then(|| out.into());
                    }
                    if !out.is_empty() {
                        return Some(out.into());
                    }
                }
            }
        }
    }

    fn fail(&mut self, mut out: Vec<u8>, status: &Status) -> Bytes {
        self.done = true;
        if self.format.is_protobuf {
            let document = protobuf::encode(&status.to_json()).expect("Status has a protobuf form");
            protobuf::watch_event(&mut out, "ERROR", &document);
        } else {
            write_line(&mut out, "ERROR", &status.to_json());
        }
        out.into()
    }

    /// The changes that may concern this watcher, in the version that it asked for.
    async fn shown(&self, changes: Vec<Arc<Change>>) -> Result<Vec<Arc<Change>>, Status> {
        if !convert::is_viewed(&self.format.resource) {
            return Ok(changes);
        }
        let own = changes.into_iter().filter(|change| change.object.key.starts_with(&self.prefix));
        let own: Vec<Arc<Change>> = own.collect();
        let objects = own.iter().flat_map(|change| std::iter::once(&change.object).chain(&change.previous)).cloned().collect();
        let mut views = convert::views(&self.cache, &self.format.resource, objects).await?.into_iter();
        let showing = own.iter().filter_map(|change| {
            let object = views.next()?;
            let previous = change.previous.as_ref().and_then(|_| views.next());
            Some(Arc::new(change.showing(object, previous)))
        });
        Ok(showing.collect())
    }

    fn write_counted(&mut self, out: &mut Vec<u8>, change: &Change) -> Result<(), Status> {
        let before = out.len();
        self.write(out, change)?;
        if out.len() > before {
            self.watcher.sent(out.len() - before);
        }
        Ok(())
    }

    /// What the change is to this watcher's selection.
    fn write(&mut self, out: &mut Vec<u8>, change: &Change) -> Result<(), Status> {
        if !change.object.key.starts_with(&self.prefix) {
            return Ok(());
        }
        let was = change.previous.as_ref().filter(|previous| self.selection.matches(previous));
        let is = !change.deleted && self.selection.matches(&change.object);
        match (was, is) {
            (None, false) => Ok(()),
            (None, true) => self.format.change(out, "ADDED", change),
            (Some(_), true) => self.format.change(out, "MODIFIED", change),
            (Some(_), false) if change.deleted => self.format.change(out, "DELETED", change),
            (Some(previous), false) => self.format.write(out, "DELETED", &previous.bytes_at(change.revision)),
        }
    }
}

fn write_line(out: &mut Vec<u8>, kind: &str, object: &[u8]) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

/// How objects are written.
struct Format {
    resource: ResourceRef,
    transform: Transform,
    is_protobuf: bool,
    include: table::Include,
    /// A Table's columns stand in the first event only.
    has_columns: bool,
}

impl Format {
    fn is_as_stored(&self) -> bool {
        self.transform == Transform::None && !convert::is_needed(&self.resource)
    }

    /// An object that others may be watching too.
    fn change(&mut self, out: &mut Vec<u8>, kind: &str, change: &Change) -> Result<(), Status> {
        if !self.is_protobuf || !self.is_as_stored() {
            return self.write(out, kind, &change.object.bytes);
        }
        protobuf::watch_event(out, kind, change.protobuf().map_err(Status::internal)?);
        Ok(())
    }

    fn write(&mut self, out: &mut Vec<u8>, kind: &str, stored: &Bytes) -> Result<(), Status> {
        self.show(out, kind, &convert::bytes(&self.resource, stored))
    }

    fn event(&self, out: &mut Vec<u8>, kind: &str, object: &[u8]) -> Result<(), Status> {
        if self.is_protobuf {
            protobuf::watch_event(out, kind, &protobuf::encode(object).map_err(Status::internal)?);
        } else {
            write_line(out, kind, object);
        }
        Ok(())
    }

    /// An object of the version asked for, in the form asked for.
    fn show(&mut self, out: &mut Vec<u8>, kind: &str, object: &[u8]) -> Result<(), Status> {
        match self.transform {
            Transform::None => self.event(out, kind, object),
            Transform::Metadata { version, .. } => {
                let mut partial = Vec::new();
                table::partial(&mut partial, version, object).map_err(Status::internal)?;
                self.event(out, kind, &partial)
            }
            Transform::Table { version } => {
                let rows = table::Rows::new(&self.resource, version, self.include);
                let has_columns = !std::mem::replace(&mut self.has_columns, true);
                let table = rows.only(has_columns, object).map_err(Status::internal)?;
                self.event(out, kind, &table)
            }
        }
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, revision: u64, is_initial_end: bool) -> Result<(), Status> {
        let mut object = Object::new();
        object.insert("kind", self.resource.kind.clone());
        object.insert("apiVersion", self.resource.api_version());
        let mut tree = Tree::Object(object);
        tree.set(&["metadata", "creationTimestamp"], Tree::Null);
        tree.set(&["metadata", "resourceVersion"], revision.to_string());
        if is_initial_end {
            tree.set(&["metadata", "annotations", INITIAL_EVENTS_END], "true");
        }
        self.show(out, "BOOKMARK", &tree.to_json())
    }
}

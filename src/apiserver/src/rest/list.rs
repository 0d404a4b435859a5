//! list: one consistent snapshot, concatenated.
//!
//! Models k8s.io/apiserver/pkg/registry/generic/registry/store.go List and pkg/storage/continue.go.
use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, StatusCode};

use api::protobuf::{self, Form, ListForm};
use api::registry::Resource;
use api::tree::{Object, Tree};

use super::model::Selection;
use super::options::{ListOptions, VersionMatch};
use super::{Call, options, pieces};
use crate::cache::{self, Cached, Snapshot, VersionError};
use crate::negotiate::{self, JSON, Media, Transform};
use crate::status::Status;
use crate::{convert, table};

/// Ends a list.
const END: &[u8] = b"]}\n";
/// Objects that are converted at once.
const VIEWED_CHUNK: usize = 500;
/// As upstream names so many objects that cannot be read.
const UNREADABLE_MAX: usize = 100;

/// ListMeta.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    pub version: Option<u64>,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

impl Meta {
    pub fn to_tree(&self) -> Tree {
        let mut o = Object::new();
        if let Some(version) = self.version {
            o.insert("resourceVersion", version.to_string());
        }
        if let Some(token) = &self.continue_token {
            o.insert("continue", token.as_str());
        }
        if let Some(remaining) = self.remaining {
            o.insert("remainingItemCount", remaining as i64);
        }
        Tree::Object(o)
    }
}

/// What a continue token says. The same JSON as upstream's, so it is as opaque as theirs.
struct Token {
    /// Negative: at whatever version is current.
    revision: i64,
    /// Storage key after which to go on, without the list's prefix.
    start: String,
}

impl Token {
    fn encode(&self) -> String {
        let mut o = Object::new();
        o.insert("v", "meta.k8s.io/v1");
        o.insert("rv", self.revision);
        o.insert("start", format!("{}\0", self.start));
        URL_SAFE_NO_PAD.encode(Tree::Object(o).to_json())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let wrong = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|e| wrong(&e.to_string()))?;
        let tree = Tree::from_json(&bytes).map_err(|e| wrong(&e.to_string()))?;
        if tree.str_at(&["v"]) != "meta.k8s.io/v1" {
            return Err(wrong(&format!("server does not recognize this encoded version \"{}\"", tree.str_at(&["v"]))));
        }
        let revision = tree.get("rv").and_then(Tree::as_i64).filter(|rv| *rv != 0);
        let revision = revision.ok_or_else(|| wrong("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"))?;
        let start = tree.str_at(&["start"]).trim_end_matches('\0').to_owned();
        if start.is_empty() {
            return Err(wrong("no start key, incorrect encoded start"));
        }
        if start.split('/').any(|part| part == "." || part == "..") {
            return Err(wrong("invalid start"));
        }
        Ok(Self { revision, start })
    }
}

pub fn expired_list(start: &str) -> Status {
    let token = Token { revision: -1, start: start.to_owned() };
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue \
         parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token \
         results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and \
         now may show up in the list.",
    );
    status.continue_token = Some(token.encode().into());
    status
}

/// The storage prefix of a list: of one namespace, or of all.
pub fn prefix(call: &Call) -> String {
    let all = cache::prefix(&call.resource);
    if call.info.namespace.is_empty() { all } else { format!("{all}{}/", call.info.namespace) }
}

/// The snapshot that the options ask for, and where in it to begin.
fn snapshot(call: &Call, options: &ListOptions) -> Result<(Snapshot, Option<String>), Status> {
    let cache = &call.server.0.parts.cache;
    let kind = call.kind()?;
    if let Some(token) = &options.continue_token {
        if options.version.is_some_and(|v| v != 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = Token::decode(token)?;
        let start = Some(format!("{}{}", prefix(call), token.start));
        let Ok(revision) = u64::try_from(token.revision) else { return Ok((cache.snapshot(kind), start)) };
        return match cache.snapshot_at(kind, revision) {
            Ok(snapshot) => Ok((snapshot, start)),
            Err(VersionError::TooOld { .. }) => Err(expired_list(&token.start)),
            Err(VersionError::TooNew { current }) => Err(Status::version_too_large(revision, current)),
        };
    }
    let asked = match options.version {
        None | Some(0) => return Ok((cache.snapshot(kind), None)),
        Some(asked) => asked,
    };
    let latest = cache.snapshot(kind);
    if asked > latest.revision {
        return Err(Status::version_too_large(asked, latest.revision));
    }
    // A limit with a version and no match rule means exactly that version, as upstream has it.
    if options.version_match == VersionMatch::Exact || (options.version_match == VersionMatch::Unset && options.limit > 0) {
        let exact = cache.snapshot_at(kind, asked);
        return exact.map(|s| (s, None)).map_err(|_| Status::expired("The resourceVersion for the provided list is too old."));
    }
    Ok((latest, None))
}

pub async fn list(call: &Call) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(&call.resource, &call.query)?;
    let (snapshot, start) = snapshot(call, &options)?;
    // Version 0 means "whatever is at hand, all of it": upstream ignores the limit there.
    let limit = if options.version == Some(0) && options.continue_token.is_none() { 0 } else { options.limit };
    let mut meta = Meta { version: Some(snapshot.revision), ..Meta::default() };
    let page = page(call, &snapshot, start.as_deref(), &selection, if limit == 0 { usize::MAX } else { limit }).await?;
    if let (Some(last), true) = (page.objects.last(), page.has_more) {
        let token = Token { revision: snapshot.revision as i64, start: last.key[prefix(call).len()..].to_owned() };
        meta.continue_token = Some(token.encode());
        meta.remaining = page.remaining;
    }
    call.server.0.metrics.lists.listed(&call.resource, page.objects.len());
    answer_cached(call, page.objects, &meta)
}

/// The selected objects of a snapshot, at most so many.
struct Page {
    objects: Vec<Arc<Cached>>,
    has_more: bool,
    /// Where nothing is selected, so that they can be counted.
    remaining: Option<usize>,
}

async fn page(call: &Call, snapshot: &Snapshot, start: Option<&str>, selection: &Selection, limit: usize) -> Result<Page, Status> {
    let prefix = prefix(call);
    let mut unreadable = call.server.0.parts.cache.unreadable_under(call.kind()?, &prefix, UNREADABLE_MAX + 1);
    if !unreadable.is_empty() {
        let is_cut = unreadable.len() > UNREADABLE_MAX;
        unreadable.truncate(UNREADABLE_MAX);
        return Err(Status::list_unreadable(&call.resource.group, &call.resource.plural, &unreadable, is_cut));
    }
    let mut page = Page { objects: Vec::new(), has_more: false, remaining: None };
    if convert::is_viewed(&call.resource) {
        // What is selected by is known once an object is of the version asked for.
        let all: Vec<Arc<Cached>> = snapshot.under(&prefix, start).map(|(_, object)| object.clone()).collect();
        let mut seen = 0;
        for chunk in all.chunks(limit.clamp(1, VIEWED_CHUNK)) {
            let views = convert::views(&call.server.0.parts.cache, &call.resource, chunk.to_vec()).await?;
            for view in views {
                if page.objects.len() < limit {
                    seen += 1;
                    page.objects.extend(Some(view).filter(|view| selection.matches(view)));
                } else if selection.matches(&view) {
                    page.has_more = true;
                    break;
                }
            }
            if page.has_more {
                break;
            }
        }
        page.remaining = (page.has_more && selection.is_everything()).then(|| all.len() - seen);
        return Ok(page);
    }
    let mut rest = snapshot.under(&prefix, start).filter(|(_, object)| selection.matches(object));
    while let Some((_, object)) = rest.next() {
        page.objects.push(object.clone());
        if page.objects.len() == limit {
            let mut rest = rest.peekable();
            page.has_more = rest.peek().is_some();
            page.remaining = (page.has_more && selection.is_everything()).then(|| rest.count());
            break;
        }
    }
    Ok(page)
}

fn answer_cached(call: &Call, items: Vec<Arc<Cached>>, meta: &Meta) -> Result<Response<Body>, Status> {
    let gzip = call.accept.gzip;
    if convert::is_needed(&call.resource) {
        let items = items.iter().map(|object| convert::bytes(&call.resource, &object.bytes)).collect();
        return answer_items(call, items, meta);
    }
    if call.accept.is_plain_json() {
        let (bytes, pieces) = pieces::json(head(call, meta), items, END);
        return Ok(pieces::answer(JSON, gzip, bytes, pieces));
    }
    if call.accept.media == Media::Protobuf
        && call.accept.transform == Transform::None
        && let Some((list, form)) = protobuf_forms(&call.resource)
    {
        let (bytes, pieces) = pieces::protobuf(list, form, &bare_head(meta), items).map_err(Status::internal)?;
        return Ok(pieces::answer(protobuf::MEDIA_TYPE, gzip, bytes, pieces));
    }
    answer_bytes(call, items, |object| &object.bytes, meta)
}

fn protobuf_forms(resource: &Resource) -> Option<(ListForm, Form)> {
    let (group, version) = (&*resource.group, &*resource.version);
    Some((ListForm::of(group, version, &resource.list_kind)?, Form::of(group, version, &resource.kind)?))
}

fn bare_head(meta: &Meta) -> Vec<u8> {
    let mut head = Tree::object();
    head.set(&["metadata"], meta.to_tree());
    head.to_json()
}

fn head(call: &Call, meta: &Meta) -> Vec<u8> {
    let kind = &call.resource.list_kind;
    let mut out = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{}\",\"metadata\":", call.resource.api_version()).into_bytes();
    out.extend_from_slice(&meta.to_tree().to_json());
    out.extend_from_slice(b",\"items\":[");
    out
}

/// Answers a list whose items are at hand as bytes, in any form.
pub fn answer_items(call: &Call, items: Vec<Bytes>, meta: &Meta) -> Result<Response<Body>, Status> {
    answer_bytes(call, items, |item| item, meta)
}

/// The same of anything that has the bytes of an object. (Bytes that are cloned once are larger for good.)
fn answer_bytes<T: Send + 'static>(call: &Call, items: Vec<T>, bytes: fn(&T) -> &[u8], meta: &Meta) -> Result<Response<Body>, Status> {
    const READABLE: &str = "what is stored was checked, and what is not was printed here";
    Ok(match call.accept.transform {
        Transform::None => {
            let write = move |out: &mut Vec<u8>, item: &T| out.extend_from_slice(bytes(item));
            answer_pieces(call, pieces::joined(head(call, meta), items, write, END))
        }
        Transform::Metadata { of_list: false, .. } => return Err(super::read::not_as_metadata(call, true)),
        Transform::Metadata { version, .. } => {
            let write = move |out: &mut Vec<u8>, item: &T| table::partial(out, version, bytes(item)).expect(READABLE);
            answer_pieces(call, pieces::joined(table::begin_partial_list(version, meta), items, write, table::END))
        }
        Transform::Table { version } => {
            let rows = table::Rows::new(&call.resource, version, table::Include::parse(&call.query)?);
            let begin = rows.begin(true, meta);
            let write = move |out: &mut Vec<u8>, item: &T| rows.write(out, bytes(item)).expect(READABLE);
            answer_pieces(call, pieces::joined(begin, items, write, table::END))
        }
    })
}

/// Answers JSON that comes in pieces in the form that was asked for: as they come, if that is JSON.
fn answer_pieces(call: &Call, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Response<Body> {
    if call.accept.media == Media::Json && !call.accept.pretty {
        return pieces::answer_unmeasured(JSON, call.accept.gzip, pieces);
    }
    let mut whole = Vec::new();
    pieces.for_each(|piece| whole.extend_from_slice(&piece));
    negotiate::answer(&call.accept, StatusCode::OK, whole.into())
}

/// The objects a deletecollection means.
pub async fn select(call: &Call) -> Result<Vec<Arc<Cached>>, Status> {
    let options = options::ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(&call.resource, &call.query)?;
    let (snapshot, start) = snapshot(call, &options)?;
    let limit = if options.limit > 0 { options.limit } else { usize::MAX };
    Ok(page(call, &snapshot, start.as_deref(), &selection, limit).await?.objects)
}

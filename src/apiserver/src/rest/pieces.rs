//! A list's body in pieces of about 64 kB, so that a large one is never held twice: stored bytes behind each other in JSON, rows made of them
//! one by one, or protobuf messages. There the length of everything comes first, so every object keeps the length of its
//! message once it is known.
use std::sync::Arc;

use api::protobuf::{EncodeError, Form, ListForm};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};

use crate::cache::Cached;
use crate::metrics::AnswerBytes;
use crate::negotiate::gzip;

const PIECE_BYTES: usize = 64 << 10;

/// Answers `bytes` of body that come as `pieces`.
pub fn answer(media: &'static str, takes_gzip: bool, bytes: usize, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Response<Body> {
    let response = Response::builder().extension(AnswerBytes(bytes as u64)).header(CONTENT_TYPE, media).header(CACHE_CONTROL, "no-cache, private");
    let response = if takes_gzip && bytes > gzip::BYTES_MIN {
        let response = response.header(CONTENT_ENCODING, "gzip").header(VARY, "Accept-Encoding");
        response.body(body(gzip::pieces(pieces)))
    } else {
        response.body(body(pieces))
    };
    response.expect("constant headers are valid")
}

fn body(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    Body::from_stream(stream::iter(pieces.map(Ok::<_, std::convert::Infallible>)))
}

/// Answers pieces of which nobody knows how long they are together: so many are made first as decide whether all are compressed.
pub fn answer_unmeasured(media: &'static str, takes_gzip: bool, mut pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Response<Body> {
    let (mut first, mut bytes) = (Vec::new(), 0);
    while bytes <= gzip::BYTES_MIN
        && let Some(piece) = pieces.next()
    {
        bytes += piece.len();
        first.push(piece);
    }
    answer(media, takes_gzip, bytes, first.into_iter().chain(pieces))
}

/// The items between `head` and `end`, and how long all is.
pub fn json(head: Vec<u8>, items: Vec<Arc<Cached>>, end: &'static [u8]) -> (usize, impl Iterator<Item = Bytes> + Send + use<>) {
    let bytes = head.len() + items.iter().map(|o| o.bytes.len() + 1).sum::<usize>() - usize::from(!items.is_empty()) + end.len();
    (bytes, joined(head, items, |out, object| out.extend_from_slice(&object.bytes), end))
}

/// What `write` makes of the items, with commas between them.
pub fn joined<T: Send>(
    begin: Vec<u8>,
    items: Vec<T>,
    mut write: impl FnMut(&mut Vec<u8>, &T) + Send,
    end: &'static [u8],
) -> impl Iterator<Item = Bytes> + Send {
    let mut is_first = true;
    let write = move |out: &mut Vec<u8>, item: &T| {
        if !std::mem::replace(&mut is_first, false) {
            out.push(b',');
        }
        write(out, item);
    };
    pieces(begin, items, write, end)
}

/// The same in protobuf; `head` is the list without its items.
pub fn protobuf(
    list: ListForm,
    form: Form,
    head: &[u8],
    items: Vec<Arc<Cached>>,
) -> Result<(usize, impl Iterator<Item = Bytes> + Send + use<>), EncodeError> {
    let mut scratch = Vec::new();
    let mut framed = 0;
    for object in &items {
        framed += list.framed(object.message_length(form, &mut scratch)?);
    }
    let begin = list.begin(head, framed)?;
    let end = list.end();
    let write = move |out: &mut Vec<u8>, object: &Arc<Cached>| {
        const MEASURED: &str = "its length was measured";
        list.frame(out, object.message_length(form, &mut scratch).expect(MEASURED));
        form.message(&object.bytes, out).expect(MEASURED);
    };
    Ok((begin.len() + framed + end.len(), pieces(begin, items, write, end)))
}

fn pieces<T: Send>(
    begin: Vec<u8>,
    items: Vec<T>,
    mut write: impl FnMut(&mut Vec<u8>, &T) + Send,
    end: &'static [u8],
) -> impl Iterator<Item = Bytes> + Send {
    let mut items = items.into_iter();
    let mut pending = Some(begin);
    std::iter::from_fn(move || {
        let mut out = pending.take()?;
        for object in items.by_ref() {
            write(&mut out, &object);
            if out.len() >= PIECE_BYTES {
                pending = Some(Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4));
                return Some(out.into());
            }
        }
        out.extend_from_slice(end);
        Some(out.into())
    })
}

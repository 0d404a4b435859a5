//! Reads request bodies within their bound.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http_body_util::{BodyExt, Limited};

use crate::status::Status;

/// As much of a body that nobody wants is read, as Go's server does.
const UNWANTED_BYTES_MAX: usize = 256 << 10;
const UNWANTED_TIME_MAX: Duration = Duration::from_secs(1);

/// Takes a body away, so that the connection can be used again: hyper closes one of HTTP/1 whose request was not read, and the client's next
/// request fails.
pub async fn drain(body: &mut Body) {
    let body = Limited::new(std::mem::take(body), UNWANTED_BYTES_MAX);
    // A larger or slower one costs the connection.
    let _ = tokio::time::timeout(UNWANTED_TIME_MAX, body.collect()).await;
}

/// What bodies may hold together while their requests wait for a turn.
const EARLY_BYTES_MAX: usize = 64 << 20;
static EARLY_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A body's part of what is held early.
#[derive(Default)]
pub struct Early(usize);

impl Early {
    /// Whether there is room for more.
    fn hold(&mut self, bytes: usize) -> bool {
        self.0 += bytes;
        EARLY_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes < EARLY_BYTES_MAX
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        EARLY_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Waits until the body is here, or as much of it as can be held: a request takes its turn when it can use it, and does not keep others waiting
/// while its client sends byte by byte. (Upstream reads with the turn taken.)
pub async fn arrive(body: &mut Body, bytes_max: usize) -> Early {
    let mut early = Early::default();
    let mut rest = std::mem::take(body).into_data_stream();
    let mut chunks: Vec<Result<Bytes, axum::Error>> = Vec::new();
    let is_whole = loop {
        match rest.next().await {
            None => break true,
            Some(Ok(chunk)) => {
                let has_room = early.hold(chunk.len()) && early.0 <= bytes_max;
                chunks.push(Ok(chunk));
                if !has_room {
                    break false;
                }
            }
            // Whoever reads the body is told.
            Some(Err(error)) => {
                chunks.push(Err(error));
                break true;
            }
        }
    };
    *body = match chunks.pop() {
        None => Body::empty(),
        Some(Ok(only)) if is_whole && chunks.is_empty() => Body::from(only),
        Some(last) => {
            chunks.push(last);
            let here = stream::iter(chunks);
            if is_whole { Body::from_stream(here) } else { Body::from_stream(here.chain(rest)) }
        }
    };
    early
}

pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Status> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Status::too_large(format!("limit is {bytes_max}"))),
        Err(error) => Err(Status::bad_request(format!("error reading the request body: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked(chunks: &[&'static str]) -> Body {
        let chunks: Vec<Result<Bytes, axum::Error>> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_body_that_arrived_is_the_same_body() {
        let cases: [(&[&'static str], usize); 5] = [(&[], 9), (&["abc"], 9), (&["ab", "c"], 9), (&["ab", "c", "d"], 1), (&["ab", "c"], 0)];
        for (chunks, max) in cases {
            let mut body = chunked(chunks);
            let early = arrive(&mut body, max).await;
            let expected = chunks.concat();
            assert!(early.0 <= expected.len() && (early.0 == expected.len() || early.0 > max));
            assert_eq!(read(body, 100).await.unwrap(), expected);
        }
        let mut body = Body::from_stream(stream::iter([Ok(Bytes::from_static(b"ab")), Err(std::io::Error::other("gone"))]));
        arrive(&mut body, 9).await;
        assert_eq!(read(body, 100).await.unwrap_err().message, "error reading the request body: gone");
        let mut body = chunked(&["ab", "cd"]);
        arrive(&mut body, 3).await;
        assert_eq!(read(body, 3).await.unwrap_err().code, 413);
    }
}

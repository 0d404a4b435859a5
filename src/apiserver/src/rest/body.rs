//! Reads request bodies within their bound.
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
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

pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Status> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Status::too_large(format!("limit is {bytes_max}"))),
        Err(error) => Err(Status::bad_request(format!("error reading the request body: {error}"))),
    }
}

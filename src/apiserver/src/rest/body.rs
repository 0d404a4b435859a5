//! Reads request bodies within their bound.
use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};

use crate::status::Status;

pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Status> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Status::too_large(format!("limit is {bytes_max}"))),
        Err(error) => Err(Status::bad_request(format!("error reading the request body: {error}"))),
    }
}

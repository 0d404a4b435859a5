//! update: the whole object, or the part a subresource stands for.
use axum::body::Body;
use http::{Request, Response, StatusCode};

use super::model::Expected;
use super::options::WriteOptions;
use super::storage::Part;
use super::{Call, body, model, patch, read};
use crate::negotiate;
use crate::status::Status;

pub async fn update(call: &mut Call, request: Request<Body>, part: Part) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let media = negotiate::content_type(&call.headers).to_owned();
    let object = model::decode(Expected::of(&call.resource), &media, &bytes, options.field_validation, &mut call.warnings)?;
    let target = call.write_target(&options);
    patch::check_named(&object, &target)?;
    let outcome = target.update(part, false, options.dry_run, &mut call.warnings, &|_| Ok(object.clone())).await?;
    let code = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    read::answer(call, code, outcome.bytes)
}

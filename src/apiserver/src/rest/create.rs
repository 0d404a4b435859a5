//! create.
use axum::body::Body;
use http::{Request, Response, StatusCode};

use super::model::Expected;
use super::options::WriteOptions;
use super::storage::Target;
use super::{Call, body, model, read};
use crate::negotiate;
use crate::status::Status;

impl Call {
    pub fn target(&self) -> Target {
        Target {
            server: self.server.clone(),
            user: self.user.clone(),
            resource: self.resource.clone(),
            namespace: self.info.namespace.clone(),
            name: self.info.name.clone(),
            verb: self.info.verb,
            manager: Some(super::managed::by_user_agent(agent(&self.headers)).into()),
        }
    }

    /// A target for a write with these options.
    pub fn write_target(&self, options: &WriteOptions) -> Target {
        let target = self.target();
        match options.field_manager.as_str() {
            "" => target,
            manager => Target { manager: Some(manager.into()), ..target },
        }
    }
}

fn agent(headers: &http::HeaderMap) -> &str {
    headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("")
}

pub async fn create(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    if !call.info.name.is_empty() {
        return Err(Status::method_not_allowed_here());
    }
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let media = negotiate::content_type(&call.headers).to_owned();
    let object = model::decode(Expected::of(&call.resource), &media, &bytes, options.field_validation, &mut call.warnings)?;
    if !matches!(api::meta::resource_version(&object), "" | "0") {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created").plain_internal());
    }
    let mut target = call.write_target(&options);
    target.name = api::meta::name(&object).to_owned();
    let outcome = target.create(object, options.dry_run, &mut call.warnings).await?;
    read::answer(call, StatusCode::CREATED, outcome.bytes)
}

impl Status {
    /// Upstream answers this one as an internal error.
    fn plain_internal(self) -> Self {
        Status { code: 500, reason: "", ..self }
    }
}

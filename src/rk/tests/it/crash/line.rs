//! A client's connection to a server that dies.
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// A server that does not answer for so long has hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nobody listened: nothing has happened.
    Unsent,
    /// The server died meanwhile: it may have happened.
    Open,
}

pub struct Line {
    pub socket: PathBuf,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), connection: None }
    }

    pub async fn send(&mut self, method: Method, path: &str, body: &Value) -> Result<Response<Incoming>, Lost> {
        let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => {
                let stream = UnixStream::connect(&self.socket).await.map_err(|_| Lost::Unsent)?;
                let (connection, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Lost::Unsent)?;
                tokio::spawn(driver);
                connection
            }
        };
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder().method(method).uri(path).header("host", "rk").header("content-type", media);
        let sent = connection.send_request(request.body(Full::new(bytes)).unwrap());
        let response = tokio::time::timeout(PATIENCE, sent).await.expect("an answer, or none").map_err(|_| Lost::Open)?;
        self.connection = Some(connection);
        Ok(response)
    }

    /// Code and body.
    pub async fn ask(&mut self, method: Method, path: &str, body: &Value) -> Result<(u16, Value), Lost> {
        let response = self.send(method, path, body).await?;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.map_err(|_| Lost::Open)?.to_bytes();
        Ok((code, serde_json::from_slice(&bytes).map_err(|_| Lost::Open)?))
    }
}

pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no version in {object}"))
}

//! The agent's half of the upgrade that opens a tunnel.
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::dial::DialError;
use crate::protocol::{CONNECTED, PATH, PROTOCOL, SERVER};
use crate::servers::ServerAddress;

const TIMEOUT: Duration = Duration::from_secs(10);
const REFUSAL_BYTES_MAX: usize = 4 << 10;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("open a tunnel at {server}")]
    Http {
        server: ServerAddress,
        #[source]
        source: hyper::Error,
    },
    #[error("{server} does not answer the request for a tunnel")]
    TimedOut { server: ServerAddress },
    /// Its name belongs to another key, or its authority is no longer the cluster's.
    #[error(
        "{server} refuses this node's certificate: another machine has taken its name, or the cluster was made anew; to join again, run there `rk token`, and here the command that it prints"
    )]
    Stranger { server: ServerAddress },
    #[error("{server} refuses a tunnel ({status}): {text}")]
    Refused { server: ServerAddress, status: StatusCode, text: String },
    /// Another of this agent's tunnels ends at the same server, which has two addresses.
    #[error("{server} is a server that this node is connected to already")]
    SameServer { server: ServerAddress },
}

pub struct Opened {
    pub stream: TokioIo<Upgraded>,
    pub server_id: String,
}

/// Asks for a tunnel on `stream`; `connected` are the servers at which others of this agent end.
pub async fn open(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: &ServerAddress,
    connected: &[String],
) -> Result<Opened, OpenError> {
    let exchange = async {
        let http = |source| OpenError::Http { server: server.clone(), source };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "the connection for a tunnel ended");
            }
        });
        let request = Request::get(PATH)
            .header(HOST, &server.host)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, PROTOCOL)
            .header(CONNECTED, connected.join(","))
            .body(Empty::<Bytes>::new())
            .expect("a host and hexadecimal names fit into headers");
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        if status == StatusCode::CONFLICT {
            return Err(OpenError::SameServer { server: server.clone() });
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(OpenError::Stranger { server: server.clone() });
        }
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
            let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim().to_owned()).unwrap_or_default();
            return Err(OpenError::Refused { server: server.clone(), status, text });
        }
        let server_id = response.headers().get(SERVER).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let stream = TokioIo::new(hyper::upgrade::on(response).await.map_err(http)?);
        Ok(Opened { stream, server_id })
    };
    tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| OpenError::TimedOut { server: server.clone() })?
}

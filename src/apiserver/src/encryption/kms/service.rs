//! Calls to a KMS plugin: gRPC over a Unix socket.
//!
//! Models kmsv2/grpc_service.go. Values are opened where nothing can be awaited (the store's hook), so the calls are made on a thread of
//! their own, and whoever needs an answer may wait for it, for as long as the provider's timeout says.
use std::sync::mpsc;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::message::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};

/// One plugin.
pub struct Service {
    channel: Channel,
    timeout: Duration,
    handle: Handle,
    /// Ends the thread.
    _end: oneshot::Sender<()>,
}

impl Service {
    /// `address`: a path, or `@name` of an abstract socket. Nothing is connected before the first call.
    pub fn new(name: &str, address: &str, timeout: Duration) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        // It ends with an error once nobody holds the other half, which is what is waited for.
        let run = move || drop(runtime.block_on(ended));
        std::thread::Builder::new().name(format!("kms-{name}").chars().take(15).collect()).spawn(run)?;
        let _inside = handle.enter();
        let address = address.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let address = address.clone();
            async move { connect(&address).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        drop(_inside);
        Ok(Self { channel, timeout, handle, _end: end })
    }

    pub async fn status(&self) -> Result<StatusResponse, String> {
        self.call("Status", StatusRequest {}).await
    }

    pub async fn encrypt(&self, plaintext: Vec<u8>) -> Result<EncryptResponse, String> {
        self.call("Encrypt", EncryptRequest { plaintext, uid: uuid::Uuid::new_v4().to_string() }).await
    }

    /// Waits for the answer on this thread.
    pub fn decrypt(&self, request: DecryptRequest) -> Result<Vec<u8>, String> {
        let (answer, answered) = mpsc::sync_channel(1);
        let call = call::<_, DecryptResponse>(self.channel.clone(), "Decrypt", request, self.timeout);
        self.handle.spawn(async move {
            let _ = answer.send(call.await); // whoever asked may have given up
        });
        // The call has its own end; this one is for a thread that is no more.
        let answer = answered.recv_timeout(self.timeout * 2).map_err(|error| error.to_string())?;
        answer.map(|response| response.plaintext)
    }

    async fn call<Q: Message + 'static, A: Message + Default + 'static>(&self, method: &'static str, request: Q) -> Result<A, String> {
        let call = call(self.channel.clone(), method, request, self.timeout);
        self.handle.spawn(call).await.map_err(|error| error.to_string())?
    }
}

async fn connect(address: &str) -> std::io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt as _;
    let Some(name) = address.strip_prefix('@') else { return UnixStream::connect(address).await };
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn call<Q: Message + 'static, A: Message + Default + 'static>(
    channel: Channel,
    method: &'static str,
    request: Q,
    timeout: Duration,
) -> Result<A, String> {
    let path = PathAndQuery::try_from(format!("/v2.KeyManagementService/{method}")).map_err(|error| error.to_string())?;
    let mut grpc = Grpc::new(channel);
    let call = async {
        grpc.ready().await.map_err(|error| error.to_string())?;
        let response = grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await;
        response.map(tonic::Response::into_inner).map_err(|status| format!("{}: {}", status.code(), status.message()))
    };
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}

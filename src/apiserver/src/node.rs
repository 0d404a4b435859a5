//! The way to a node's kubelet.
use std::io;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream on which the kubelet's HTTP/1.1 server answers.
pub trait NodeStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> NodeStream for T {}

/// Connects to kubelets by the node's name (in process, through the agents' tunnel, ...).
pub trait NodeDialer: Send + Sync + 'static {
    fn dial<'a>(&'a self, node: &'a str) -> BoxFuture<'a, io::Result<Box<dyn NodeStream>>>;
}

//! Wires the node's parts together: registration, network, recovery, and one worker per pod.
//!
//! SIGNATURES for those who build on this crate (bodies follow):
//!
//! - `Kubelet::new(config: KubeletConfig, client: client::Client, runtime: Arc<runtime::Runtime>, images: Arc<images::Images>) -> Kubelet`
//! - `kubelet.network() -> tokio::sync::watch::Receiver<Option<Arc<network::Network>>>` (set once podCIDR is known)
//! - `kubelet.run(shutdown: tokio_util::sync::CancellationToken) -> Result<(), RunError>`
//! - `kubelet.serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static)` (async; one HTTP/1.1 connection)
//! - `Kubelet: Clone`

//! What both ends agree on.
//!
//! ```text
//! agent                                              server
//!   GET /rk/v1/tunnel  Upgrade: rk-tunnel/1   ->            TLS with the node's certificate
//!                      rk-connected: ID, ID                 servers that the agent's other tunnels end at
//!   <-  101 Switching Protocols  rk-server: ID              or 409: this very server is among them
//!   <-  HTTP/2 preface                                      from here on the server is the client
//!   <-  CONNECT kubelet                                     one stream for each call
//!   200, then bytes both ways                               an HTTP/1.1 connection to the kubelet
//! ```
//!
//! The identities keep an agent that knows one server under two addresses (its public one and that in the cluster's own list) from
//! replacing its own tunnel for ever.
use std::time::Duration;

use http::HeaderName;

/// Where a server takes tunnels.
pub const PATH: &str = "/rk/v1/tunnel";
pub const PROTOCOL: &str = "rk-tunnel/1";
/// Whom the server's streams are for.
pub const KUBELET: &str = "kubelet";

pub const SERVER: HeaderName = HeaderName::from_static("rk-server");
pub const CONNECTED: HeaderName = HeaderName::from_static("rk-connected");

/// Streams in one tunnel at once.
pub const STREAMS_MAX: usize = 256;
/// Bytes of one stream on their way to a reader that does not read.
pub const STREAM_WINDOW: u32 = 128 << 10;
/// So many that all streams may stall with full windows, and one more still moves.
pub const CONNECTION_WINDOW: u32 = STREAM_WINDOW * (STREAMS_MAX as u32 + 1);
/// Bytes of one stream that wait to be sent.
pub const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Both ends ask a silent peer whether it lives; a machine that lost its power does not say good-bye.
pub const PING_AFTER: Duration = Duration::from_secs(20);
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);

//! SPDY/3.1 as Kubernetes' clients use it.
//!
//! A primer: after `Upgrade: SPDY/3.1` both ends send frames. A data frame is `0 | stream id (31) | flags (8) | length (24)` and
//! bytes; a control frame is `1 | version 3 (15) | type (16) | flags (8) | length (24)` and a body. SYN_STREAM opens a stream and
//! carries headers, SYN_REPLY accepts it, FIN in the flags half-closes, RST_STREAM ends it. Headers are compressed with zlib,
//! one context for each direction and connection, primed with a fixed dictionary. Flow-control windows exist in the protocol,
//! but moby/spdystream, which all clients use, neither keeps nor announces them; WINDOW_UPDATE is read and ignored.

pub mod frame;
pub mod headers;
pub mod session;

pub use session::{Session, Stream, StreamWriter};

//! Protocols of exec, attach and port-forward: WebSocket and SPDY/3.1.
//!
//! [`spdy`] is the frame codec and session, [`websocket`] the channel framing and the tunnel that carries SPDY inside;
//! [`remote`] connects either of them to a process, [`forward`] to ports of a pod. The parsers ([`spdy::frame`],
//! [`spdy::headers`], [`websocket::Channels`]) are pure.

pub mod forward;
pub mod remote;
pub mod spdy;
pub mod websocket;

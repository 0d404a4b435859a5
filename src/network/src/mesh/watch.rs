//! Hears from the kernel when something happens to the node's links, addresses or mesh routes, and has the mesh put in order.
//!
//! The kernel says nothing of the routes that go with a link that goes down, or with an address that is taken away, so links and
//! addresses are listened to, and routes for what other programs delete (network managers remove routes that they do not know).
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Inner, kernel};
use crate::error::StepError;
use crate::netlink::{Error, Family, Message, Socket};
use crate::routes::{POD_LINK_PREFIX, RTM_DELLINK, RTM_NEWLINK, parse_link};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_DELROUTE: u16 = 25;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;

/// One thing that happens to a link is told in several messages.
const SETTLE: Duration = Duration::from_millis(20);
/// After the socket failed, which is not known to happen.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the listener; it ends with the first message after the mesh is gone.
pub(super) fn start(inner: &Arc<Inner>) -> Result<(), StepError> {
    let groups = [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE];
    let socket = Socket::listen(Family::Route, &groups).map_err(|e| StepError::new("listen to changes of links and routes")(e.into()))?;
    let mesh = Arc::downgrade(inner);
    let thread = std::thread::Builder::new().name("rk-net-watch".to_owned()).stack_size(256 * 1024).spawn(move || listen(socket, &mesh));
    thread.map(drop).map_err(StepError::new("start the thread that listens to changes of links and routes"))
}

fn listen(mut socket: Socket, mesh: &Weak<Inner>) {
    loop {
        let heard = match socket.receive() {
            Ok(mut messages) => messages.any(|message| matters(&message)),
            Err(e) => lost(&e),
        };
        if heard {
            std::thread::sleep(SETTLE);
            while socket.receive_waiting().is_ok() {}
        }
        let Some(mesh) = mesh.upgrade() else { return };
        if heard {
            mesh.repair();
        }
    }
}

/// More happened than the socket could hold, which matters; any other failure would come again at once.
fn lost(e: &Error) -> bool {
    if !e.is(rustix::io::Errno::NOBUFS) {
        tracing::warn!(error = %e, "changes of the node's links are not heard");
        std::thread::sleep(PAUSE);
    }
    true
}

fn matters(message: &Message<'_>) -> bool {
    match message.kind {
        // Pods come and go; their links carry nothing of the mesh.
        RTM_NEWLINK | RTM_DELLINK => parse_link(message).is_some_and(|link| !link.name.starts_with(POD_LINK_PREFIX)),
        RTM_NEWADDR | RTM_DELADDR => true,
        RTM_DELROUTE => message.body.get(5) == Some(&kernel::PROTOCOL),
        _ => false,
    }
}

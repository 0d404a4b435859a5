//! resolv.conf(5): the name servers in it that can be of use.
use std::net::{IpAddr, SocketAddr};

/// More are not asked, as in the C library.
const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;

/// The servers to forward to. Loopback addresses are those of the pod itself here, and no server listens there; a question
/// sent to one of `own` addresses would come back.
pub(crate) fn upstreams(text: &str, own: impl Fn(IpAddr) -> bool) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // A zone index says nothing in another network namespace.
        let word = words.next().unwrap_or("").split('%').next().unwrap_or("");
        let Ok(ip) = word.parse::<IpAddr>() else {
            tracing::warn!(line, "name server is not an address");
            continue;
        };
        if ip.is_loopback() || ip.is_unspecified() || own(ip) {
            tracing::warn!(%ip, "name server leads back to this pod: not asked");
            continue;
        }
        let server = SocketAddr::new(ip, PORT);
        if !servers.contains(&server) && servers.len() < SERVERS_MAX {
            servers.push(server);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn useless_servers_are_left_out() {
        let text = "# comment\nsearch example.org\nnameserver 127.0.0.53\nnameserver 10.43.0.10\n\
                    nameserver 192.0.2.1\nnameserver 192.0.2.1 \nnameserver fe80::1%eth0\nnameserver x\n\
                    options ndots:5\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let own = |ip: IpAddr| ip == IpAddr::from([10, 43, 0, 10]);
        let found: Vec<String> = upstreams(text, own).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[fe80::1]:53", "192.0.2.2:53"]);
        assert!(upstreams("", own).is_empty());
    }
}

//! Host names without the C library: /etc/hosts and /etc/resolv.conf are read anew for each use, so a changed network
//! is followed without a restart.
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;

/// Addresses of `host:port`.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host == "localhost" {
        return Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
    }
    let builder = TokioResolver::builder_tokio().map_err(|e| format!("read /etc/resolv.conf: {e}"))?;
    let mut builder = builder;
    // A name that does not exist must fail fast: pods wait for this answer.
    builder.options_mut().attempts = 2;
    builder.options_mut().timeout = std::time::Duration::from_secs(2);
    let resolver = builder.build().map_err(|e| e.to_string())?;
    let answer = resolver.lookup_ip(host).await.map_err(|e| format!("lookup {host}: {e}"))?;
    let addresses: Vec<_> = answer.iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if addresses.is_empty() { Err(format!("lookup {host}: no such host")) } else { Ok(addresses) }
}

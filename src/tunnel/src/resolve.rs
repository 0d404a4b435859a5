//! Addresses of a host, without the C library's resolver, which a static program does not have.
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;

pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host == "localhost" {
        return Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
    }
    let mut builder = TokioResolver::builder_tokio().map_err(|e| format!("read /etc/resolv.conf: {e}"))?;
    builder.options_mut().attempts = 2;
    builder.options_mut().timeout = Duration::from_secs(2);
    let resolver = builder.build().map_err(|e| e.to_string())?;
    let answer = resolver.lookup_ip(host).await.map_err(|e| e.to_string())?;
    let addresses: Vec<_> = answer.iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if addresses.is_empty() { Err("no such host".to_owned()) } else { Ok(addresses) }
}

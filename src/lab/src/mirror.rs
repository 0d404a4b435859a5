//! `/etc/rk/registries.yaml`: the hub in the place of registries that no machine of a lab can reach.
use std::fmt::Write;
use std::net::Ipv4Addr;

pub fn registries(hub: Ipv4Addr, mirrors: &[(String, u16)]) -> String {
    let mut text = String::from("mirrors:\n");
    for (host, port) in mirrors {
        // Writing to a string cannot fail.
        let _ = write!(text, "  {host}:\n    endpoint: [\"http://{hub}:{port}\"]\n");
    }
    text
}

#[test]
fn every_registry_has_its_port_of_the_hub() {
    let text = registries(Ipv4Addr::new(10, 99, 0, 1), &[("a.example".into(), 5000)]);
    assert_eq!(text, "mirrors:\n  a.example:\n    endpoint: [\"http://10.99.0.1:5000\"]\n");
}

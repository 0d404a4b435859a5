//! UDP clients that keep their socket.
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use network::{Network, Protocol};

use crate::lab::{Namespace, VIP, at, service, with_lab};

fn ask(socket: &UdpSocket, to: SocketAddrV4) -> Option<String> {
    socket.send_to(b"who", to).ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    Some(text.split(' ').next().unwrap_or("").to_owned())
}

fn socket(from: &Namespace) -> UdpSocket {
    from.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
        let limit = Some(Duration::from_millis(700));
        socket.set_read_timeout(limit).expect("set");
        socket
    })
}

#[test]
fn a_client_moves_on_when_its_endpoint_goes() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(_a, a_ip), (_b, b_ip), (c, _)] = lab.pods(&network, ["a", "b", "c"]).await;
        let writer = network.services();
        let udp = |ips: &[Ipv4Addr]| {
            let mut rule = service(ips);
            rule.ports[0].protocol = Protocol::Udp;
            rule
        };
        let id = || "kube-system/dns".into();
        let client = socket(&c);
        let vip = at(VIP, 80);

        // Sent before there is any endpoint: tracked as not translated.
        writer.set_service(id(), udp(&[])).await.expect("written");
        assert_eq!(ask(&client, vip), None);
        writer.set_service(id(), udp(&[a_ip])).await.expect("written");
        assert_eq!(ask(&client, vip).as_deref(), Some("a"));

        writer.set_service(id(), udp(&[a_ip, b_ip])).await.expect("written");
        assert_eq!(ask(&client, vip).as_deref(), Some("a"), "it stays");
        writer.set_service(id(), udp(&[b_ip])).await.expect("written");
        assert_eq!(ask(&client, vip).as_deref(), Some("b"));
    });
}

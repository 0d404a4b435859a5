use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::{
    BoundReference, Claims, Identity, KubernetesClaims, SigningRequest, TokenError, check_node_serving, client_config, install_ring, node_client,
    server_config,
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const DAY: Duration = Duration::from_secs(86400);

fn cluster(folder: &Path) -> Cluster {
    Cluster::load_or_create(folder, ISSUER, SystemTime::now()).unwrap()
}

fn api_server() -> LeafRequest {
    LeafRequest::api_server("cluster.local", &["10.43.0.1".parse().unwrap()], &["rk.example".into(), "192.0.2.1".into()])
}

/// A handshake and one byte each way, all in memory; returns what the server saw of the client's chain.
fn handshake(client: rustls::ClientConfig, server: rustls::ServerConfig, name: &str) -> Result<usize, rustls::Error> {
    let mut client = ClientConnection::new(Arc::new(client), name.to_owned().try_into().unwrap())?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    client.writer().write_all(b"x").unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    let mut byte = [0];
    server.reader().read_exact(&mut byte).unwrap();
    Ok(server.peer_certificates().map_or(0, <[_]>::len))
}

#[test]
fn a_second_start_finds_what_the_first_made() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let first = cluster(folder.path());
    let leaf = first.server("serving", &api_server(), now).unwrap();
    let token = first.tokens.sign(Claims { exp: i64::MAX / 2, ..Claims::default() }).unwrap();
    let second = cluster(folder.path());
    assert_eq!(first.server_ca.certificate_pem(), second.server_ca.certificate_pem());
    assert_eq!(second.server("serving", &api_server(), now).unwrap().certificate_pem, leaf.certificate_pem);
    assert!(second.tokens.verifier().verify(&token, now).is_ok());
    for name in ["server-ca.key", "client-ca.key", "serving.key", "service.key"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    std::fs::remove_file(folder.path().join("server-ca.key")).unwrap();
    assert!(Cluster::load_or_create(folder.path(), ISSUER, now).is_err(), "never a new authority over an old one");
}

#[test]
fn renews_when_due_and_when_asked_for_more() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(folder.path());
    let now = SystemTime::now();
    let request = LeafRequest::node("a");
    let leaf = cluster.client("node", &request, now).unwrap();
    let validity = leaf.validity().unwrap();
    assert!(!validity.is_due(now + DAY * 240) && validity.is_due(now + DAY * 245));
    let same = cluster.client("node", &request, now + DAY * 240).unwrap();
    assert_eq!(same.certificate_pem, leaf.certificate_pem);
    let renewed = cluster.client("node", &request, now + DAY * 245).unwrap();
    assert_ne!(renewed.certificate_pem, leaf.certificate_pem);
    let other = cluster.client("node", &LeafRequest::node("b"), now + DAY * 245).unwrap();
    assert_ne!(other.certificate_pem, renewed.certificate_pem);
    let server = cluster.server("serving", &api_server(), now).unwrap();
    let mut more = api_server();
    more.dns_names.insert("another.example".into());
    assert_ne!(cluster.server("serving", &more, now).unwrap().certificate_pem, server.certificate_pem);
}

#[test]
fn both_sides_of_tls_accept_each_other_and_nobody_else() {
    install_ring();
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(folder.path());
    let now = SystemTime::now();
    let serving = Identity::new(&cluster.server("serving", &api_server(), now).unwrap()).unwrap();
    let admin = Identity::new(&cluster.client("admin", &LeafRequest::admin(), now).unwrap()).unwrap();
    let server = || server_config(Arc::clone(&serving), Some(cluster.client_ca.certificate_pem())).unwrap();
    let trusting = |identity| client_config(cluster.server_ca.certificate_pem(), identity).unwrap();
    for name in ["kubernetes.default.svc.cluster.local", "rk.example", "10.43.0.1", "192.0.2.1", "127.0.0.1"] {
        assert_eq!(handshake(trusting(Some(Arc::clone(&admin))), server(), name), Ok(1), "{name}");
    }
    assert_eq!(handshake(trusting(None), server(), "localhost"), Ok(0));
    assert!(handshake(trusting(None), server(), "elsewhere.example").is_err());
    let stranger = Authority::create("rk-client-ca", now).unwrap().issue(&LeafRequest::admin(), now).unwrap();
    assert!(handshake(trusting(Some(Identity::new(&stranger).unwrap())), server(), "localhost").is_err());
    // A server's certificate is no client's.
    assert!(handshake(trusting(Some(Arc::clone(&serving))), server(), "localhost").is_err());
    // Renewal in place.
    admin.replace(&stranger).unwrap();
    assert!(handshake(trusting(Some(Arc::clone(&admin))), server(), "localhost").is_err());
}

#[test]
fn tokens_say_what_upstreams_say() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(folder.path());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let reference = |name: &str| BoundReference { name: name.into(), uid: format!("{name}-uid") };
    let claims = Claims {
        aud: vec![ISSUER.into()],
        exp: 1_003_607,
        iat: 1_000_000,
        nbf: 1_000_000,
        sub: Claims::subject("ns", "sa"),
        kubernetes: KubernetesClaims {
            namespace: "ns".into(),
            serviceaccount: reference("sa"),
            pod: Some(reference("pod")),
            node: Some(reference("node")),
            secret: None,
            warnafter: Some(1_003_607),
        },
        ..Claims::default()
    };
    let token = cluster.tokens.sign(claims.clone()).unwrap();
    let verifier = cluster.tokens.verifier();
    let verified = verifier.verify(&token, now).unwrap();
    assert_eq!(verified.jti.len(), 36);
    assert_eq!(verified, Claims { iss: ISSUER.into(), jti: verified.jti.clone(), ..claims });
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    assert_eq!(verifier.verify(&token, at(1_003_700)), Err(TokenError::Expired));
    assert_eq!(verifier.verify(&token, at(999_900)), Err(TokenError::NotValidYet));
    assert_eq!(verifier.verify("abc", now), Err(TokenError::Foreign));
    let tampered = format!("{}A{}", &token[..token.len() - 20], &token[token.len() - 19..]);
    assert_eq!(verifier.verify(&tampered, now), Err(TokenError::Signature));
    let elsewhere = tempfile::tempdir().unwrap();
    let other = self::cluster(elsewhere.path()).tokens.sign(verified).unwrap();
    assert_eq!(verifier.verify(&other, now), Err(TokenError::Signature));
    let jwks: serde_json::Value = serde_json::from_slice(&cluster.tokens.jwks()).unwrap();
    assert_eq!(jwks["keys"][0]["alg"], "ES256");
}

#[test]
fn signs_a_request_that_proves_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(folder.path());
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["node.example".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:a");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let parsed = SigningRequest::parse(request.as_bytes()).unwrap();
    assert_eq!((parsed.common_name.as_str(), &parsed.organizations[..]), ("system:node:a", &["system:nodes".into()][..]));
    let pem = cluster.client_ca.sign_request(&parsed, &["client auth", "digital signature"], DAY, SystemTime::now()).unwrap();
    let leaf = Leaf { certificate_pem: pem, key_pem: key.serialize_pem() };
    let server = Identity::new(&cluster.server("serving", &api_server(), SystemTime::now()).unwrap()).unwrap();
    let server = server_config(server, Some(cluster.client_ca.certificate_pem())).unwrap();
    let client = client_config(cluster.server_ca.certificate_pem(), Some(Identity::new(&leaf).unwrap())).unwrap();
    assert_eq!(handshake(client, server, "localhost"), Ok(1));
    assert!(SigningRequest::parse(b"nonsense").is_err());
    assert_eq!(node_client(&parsed, &["client auth"]).unwrap_err(), "DNS subjectAltNames are not allowed");
    assert_eq!(check_node_serving(&parsed, &["server auth", "digital signature"]), Ok(()));
}

/// As another program makes and reads them: a user with three groups and an RSA key.
#[test]
fn a_request_of_openssl_is_signed_for_all_of_its_groups() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(folder.path());
    let openssl = |arguments: &[&str]| std::process::Command::new("openssl").current_dir(folder.path()).args(arguments).output();
    let subject = "/O=a/O=b/O=c/OU=d/CN=jo";
    let made = openssl(&["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "jo.key", "-subj", subject, "-out", "jo.csr"]);
    let Ok(made) = made else {
        eprintln!("skipped: there is no openssl");
        return;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let request = SigningRequest::parse(&std::fs::read(folder.path().join("jo.csr")).unwrap()).unwrap();
    assert_eq!(request.organizations, ["a", "b", "c"]);
    let usages = ["client auth", "digital signature", "client auth"];
    let now = SystemTime::now();
    let pem = cluster.client_ca.sign_request(&request, &usages, Duration::from_secs(3600), now).unwrap();
    std::fs::write(folder.path().join("jo.crt"), &pem).unwrap();
    std::fs::write(folder.path().join("ca.crt"), cluster.client_ca.certificate_pem()).unwrap();
    let verified = openssl(&["verify", "-purpose", "sslclient", "-CAfile", "ca.crt", "jo.crt"]).unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let shown = openssl(&["x509", "-in", "jo.crt", "-noout", "-subject", "-nameopt", "RFC2253"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), "subject=CN=jo,OU=d,O=c,O=b,O=a");
    let validity = Leaf { certificate_pem: pem, key_pem: String::new() }.validity().unwrap();
    assert_eq!(validity.not_after.duration_since(validity.not_before).unwrap(), Duration::from_secs(3900));
    let wrong = cluster.client_ca.sign_request(&request, &["x"], DAY, now);
    assert_eq!(wrong.unwrap_err().to_string(), r#"unrecognized usage values: ["x"]"#);
}

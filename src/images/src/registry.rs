//! The OCI distribution protocol (v2 API), client side: manifests and blobs, with logins by basic and bearer
//! authentication, over HTTP/1.1 and rustls.
//!
//! A request that is answered 401 tells in `WWW-Authenticate` where a token is to be had (distribution-spec, "token
//! authentication"). Redirects are followed for blobs only, a few, and never with the login.
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::error::chain;
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_SIZE_MAX, OCI_INDEX, OCI_MANIFEST};
use crate::registries::{Endpoint, Tls};
use crate::{Credentials, Digest, PullError, Reference, Registries, resolver};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two pieces of a body.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;
const ERROR_SIZE_MAX: u64 = 16 << 10;
const TOKEN_SIZE_MAX: u64 = 1 << 20;

pub(crate) struct Registry {
    registries: Registries,
    /// `Authorization` values by endpoint and repository. Bounded by the number of repositories in use on a node.
    tokens: Mutex<HashMap<(String, String), HeaderValue>>,
}

/// A repository at the endpoint that answered for it.
#[derive(Clone)]
pub(crate) struct Source {
    endpoint: Endpoint,
    repository: String,
    credentials: Option<Credentials>,
}

pub(crate) struct Found {
    pub source: Source,
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub digest: Digest,
}

impl Registry {
    pub fn new(registries: Registries) -> Self {
        Self { registries, tokens: Mutex::default() }
    }

    /// Asks each endpoint of the reference's registry in turn; the last one's error counts.
    pub async fn find(&self, reference: &Reference, credentials: Option<&Credentials>) -> Result<Found, PullError> {
        let mut last = None;
        for endpoint in self.registries.endpoints(reference.registry()) {
            let own = self.registries.credentials(&endpoint.authority);
            let source = Source { repository: reference.repository().to_owned(), credentials: credentials.cloned().or(own), endpoint };
            match self.manifest(&source, reference, reference.manifest_key()).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::debug!(endpoint = source.endpoint.authority, %error, "no manifest here");
                    last = Some(error);
                }
            }
        }
        Err(last.expect("a registry has at least its own endpoint"))
    }

    /// The manifest or index `key` (tag or digest); a digest is checked.
    pub async fn manifest(&self, source: &Source, reference: &Reference, key: &str) -> Result<Found, PullError> {
        let path = format!("{}/v2/{}/manifests/{key}", source.endpoint.prefix, source.repository);
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let response = self.get(source, reference, &path, &accept).await?;
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let media_type = media_type.split(';').next().unwrap_or("").trim().to_owned();
        let bytes = read_bounded(response.into_body(), MANIFEST_SIZE_MAX, "manifest", &source.endpoint).await?;
        let digest = Digest::of(&bytes);
        if let Ok(expected) = key.parse::<Digest>() {
            if expected != digest {
                return Err(PullError::Digest { expected, got: digest });
            }
        }
        Ok(Found { source: source.clone(), bytes, media_type, digest })
    }

    /// The body of a blob; the caller checks size and digest as it reads.
    pub async fn blob(&self, source: &Source, reference: &Reference, digest: &Digest) -> Result<Incoming, PullError> {
        let path = format!("{}/v2/{}/blobs/{digest}", source.endpoint.prefix, source.repository);
        Ok(self.get(source, reference, &path, "*/*").await?.into_body())
    }

    async fn get(&self, source: &Source, reference: &Reference, path: &str, accept: &str) -> Result<Response<Incoming>, PullError> {
        let key = (source.endpoint.authority.clone(), source.repository.clone());
        let mut authorization = self.tokens.lock().expect("no panic under this lock").get(&key).cloned();
        let mut asked = false;
        loop {
            let response = self.send(&source.endpoint, path, accept, authorization.as_ref()).await?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                status if status.is_redirection() => return self.follow(&source.endpoint, response, accept).await,
                StatusCode::UNAUTHORIZED if !asked => {
                    asked = true;
                    let value = self.authorize(source, reference, &response).await?;
                    self.tokens.lock().expect("no panic under this lock").insert(key.clone(), value.clone());
                    authorization = Some(value);
                }
                status => {
                    self.tokens.lock().expect("no panic under this lock").remove(&key);
                    return Err(failure(&source.endpoint, reference, path, status, response).await);
                }
            }
        }
    }

    async fn follow(&self, from: &Endpoint, mut response: Response<Incoming>, accept: &str) -> Result<Response<Incoming>, PullError> {
        let mut endpoint = from.clone();
        for _ in 0..REDIRECTS_MAX {
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or("");
            let bad = || PullError::Malformed { what: "redirect".into(), detail: format!("to {:?}", location.chars().take(200).collect::<String>()) };
            let uri: http::Uri = location.parse().map_err(|_| bad())?;
            let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            if let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) {
                let tls = scheme == "https";
                if !tls && from.tls || authority.as_str().contains('@') {
                    return Err(bad()); // never from a protected to an open connection
                }
                endpoint = Endpoint { tls, authority: authority.as_str().to_owned(), prefix: String::new() };
            }
            response = self.send(&endpoint, &path, accept, None).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            if !response.status().is_redirection() {
                break;
            }
        }
        Err(PullError::Status {
            host: endpoint.authority.clone(),
            status: response.status().as_u16(),
            what: "a redirected request".into(),
            detail: String::new(),
        })
    }

    async fn send(&self, endpoint: &Endpoint, path: &str, accept: &str, authorization: Option<&HeaderValue>) -> Result<Response<Incoming>, PullError> {
        let unreachable = |detail: String| PullError::Unreachable { host: endpoint.authority.clone(), detail };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(endpoint)).await.map_err(|_| unreachable("connection timed out".into()))?.map_err(unreachable)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(chain(&e)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "registry connection");
            }
        });
        let mut request = Request::get(path).header(HOST, &endpoint.authority).header(ACCEPT, accept).header(USER_AGENT, "rk");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| unreachable(e.to_string()))?;
        let response = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await.map_err(|_| unreachable("no answer in 30 s".into()))?;
        response.map_err(|e| unreachable(chain(&e)))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, String> {
        let mut last = String::new();
        for address in resolver::resolve(endpoint.host(), endpoint.port()).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|e| e.to_string())?;
                    if !endpoint.tls {
                        return Ok(Connection::Plain(stream));
                    }
                    let config = tls_config(self.registries.tls(&endpoint.authority))?;
                    let name = ServerName::try_from(endpoint.host().to_owned()).map_err(|e| e.to_string())?;
                    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(|e| chain(&e))?;
                    return Ok(Connection::Tls(Box::new(stream)));
                }
                Err(e) => last = format!("dial tcp {address}: {e}"),
            }
        }
        Err(last)
    }

    /// The `Authorization` value that a 401 asks for.
    async fn authorize(&self, source: &Source, reference: &Reference, response: &Response<Incoming>) -> Result<HeaderValue, PullError> {
        let refused = |detail: &str| PullError::Unauthorized { reference: reference.to_string(), detail: detail.to_owned() };
        let secret = |text: String| {
            let mut value = HeaderValue::from_str(&text).map_err(|_| refused("malformed login"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let credentials = source.credentials.as_ref();
        if let Some(c) = credentials.filter(|c| !c.registry_token.is_empty()) {
            return secret(format!("Bearer {}", c.registry_token));
        }
        let challenges: Vec<_> = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok()).collect();
        let scheme = |name: &str| challenges.iter().find(|c| c.get(..name.len()).is_some_and(|s| s.eq_ignore_ascii_case(name)));
        if let Some(challenge) = scheme("bearer ") {
            let parameters = parse_challenge(&challenge["bearer ".len()..]);
            return secret(format!("Bearer {}", self.token(source, reference, &parameters).await?));
        }
        if scheme("basic ").is_some() {
            let c = credentials.ok_or_else(|| refused("no basic auth credentials"))?;
            return secret(c.basic_header());
        }
        Err(refused("the registry names no way to log in"))
    }

    async fn token(&self, source: &Source, reference: &Reference, parameters: &HashMap<String, String>) -> Result<String, PullError> {
        let bad = |detail: String| PullError::Unauthorized { reference: reference.to_string(), detail };
        let realm = parameters.get("realm").ok_or_else(|| bad("no realm".into()))?;
        let uri: http::Uri = realm.parse().map_err(|_| bad(format!("realm {realm:?}")))?;
        let tls = uri.scheme_str() == Some("https");
        let authority = uri.authority().ok_or_else(|| bad(format!("realm {realm:?}")))?.as_str().to_owned();
        let credentials = source.credentials.as_ref();
        if !tls && source.endpoint.tls && credentials.is_some() {
            return Err(bad("the registry asks for the login over an open connection".into()));
        }
        let endpoint = Endpoint { tls, authority, prefix: String::new() };
        let mut query = vec![format!("scope={}", encode(&format!("repository:{}:pull", source.repository)))];
        if let Some(service) = parameters.get("service") {
            query.push(format!("service={}", encode(service)));
        }
        let path = format!("{}?{}", uri.path(), query.join("&"));
        let basic = credentials.filter(|c| !c.username.is_empty()).map(|c| HeaderValue::from_str(&c.basic_header()));
        let basic = basic.transpose().map_err(|_| bad("malformed login".into()))?;
        let response = self.send(&endpoint, &path, "application/json", basic.as_ref()).await?;
        let status = response.status();
        let bytes = read_bounded(response.into_body(), TOKEN_SIZE_MAX, "token", &endpoint).await?;
        if !status.is_success() {
            return Err(bad(format!("token endpoint answered {status}")));
        }
        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token: Token = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        token.token.or(token.access_token).filter(|t| !t.is_empty()).ok_or_else(|| bad("empty token".into()))
    }
}

async fn failure(endpoint: &Endpoint, reference: &Reference, path: &str, status: StatusCode, response: Response<Incoming>) -> PullError {
    let body = read_bounded(response.into_body(), ERROR_SIZE_MAX, "error", endpoint).await.unwrap_or_default();
    let detail = error_text(&body);
    match status {
        StatusCode::NOT_FOUND => PullError::NotFound { reference: reference.to_string() },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PullError::Unauthorized { reference: reference.to_string(), detail },
        status => PullError::Status { host: endpoint.authority.clone(), status: status.as_u16(), what: path.to_owned(), detail },
    }
}

/// The message of the registry's error document, or the start of whatever it sent.
fn error_text(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Errors>(body) {
        Ok(e) if !e.errors.is_empty() => e.errors[0].message.chars().take(300).collect(),
        _ => String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect(),
    }
}

pub(crate) async fn read_bounded(mut body: Incoming, limit: u64, what: &str, endpoint: &Endpoint) -> Result<Vec<u8>, PullError> {
    let mut bytes = Vec::new();
    let lost = |detail: String| PullError::Unreachable { host: endpoint.authority.clone(), detail };
    while let Some(frame) = tokio::time::timeout(STALL_TIMEOUT, body.frame()).await.map_err(|_| lost("the transfer stalled".into()))? {
        let Ok(data) = frame.map_err(|e| lost(chain(&e)))?.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > limit {
            return Err(PullError::TooLarge { what: what.to_owned(), limit });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// `realm="https://..",service=".."` (RFC 9110, section 11.6.1).
fn parse_challenge(text: &str) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.insert(name, value.to_owned());
        rest = next;
    }
    parameters
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'/');
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

fn tls_config(tls: Option<&Tls>) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // The host's own bundle, where there is one, may hold a company's authority.
    for bundle in ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"] {
        if let Ok(certificates) = CertificateDer::pem_file_iter(bundle) {
            roots.add_parsable_certificates(certificates.flatten());
        }
    }
    if let Some(path) = tls.and_then(|t| t.ca_file.as_ref()) {
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| format!("read {}: {e}", path.display()))?;
        for certificate in certificates {
            roots.add(certificate.map_err(|e| format!("{}: {e}", path.display()))?).map_err(|e| e.to_string())?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let builder = if tls.is_some_and(|t| t.insecure_skip_verify) {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(trust_anyone::Verifier(provider)))
    } else {
        builder.with_root_certificates(roots)
    };
    let config = match tls.and_then(|t| t.cert_file.as_ref().zip(t.key_file.as_ref())) {
        Some((cert, key)) => {
            let read = |e| format!("read {}: {e}", cert.display());
            let chain = CertificateDer::pem_file_iter(cert).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("read {}: {e}", key.display()))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| e.to_string())?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// `insecure_skip_verify: true`, asked for by the administrator for one registry.
mod trust_anyone {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct Verifier(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for Verifier {
        fn verify_server_cert(&self, _: &CertificateDer, _: &[CertificateDer], _: &ServerName, _: &[u8], _: UnixTime) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }
        fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

enum Connection {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buffer),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Tls(s) => Pin::new(s).poll_write(cx, bytes),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_challenge_is_taken_apart() {
        let p = parse_challenge(r#"realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#);
        assert_eq!(p["realm"], "https://auth.docker.io/token");
        assert_eq!(p["service"], "registry.docker.io");
        assert_eq!(p["scope"], "repository:a/b:pull,push");
    }
}

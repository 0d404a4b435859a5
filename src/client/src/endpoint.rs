//! Servers beside the API server that an administrator names by URL and that are asked in JSON, as a scheduler's extenders are.
use k8s_openapi::ByteString;
use kube::config::{AuthInfo, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, ConfigError};
use crate::error::ApiError;

/// Where the server is, and how it and we are known to each other.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// With the path under which all calls are made.
    pub url: String,
    /// PEM; without it the system's authorities count.
    pub authority: Option<Vec<u8>>,
    /// Whoever answers is believed.
    pub insecure: bool,
    /// The name in the server's certificate, where it is not that of the URL.
    pub server_name: Option<String>,
    /// Certificate and key in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Client {
    /// A client for such a server.
    pub fn for_endpoint(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Connector { url: endpoint.url.clone(), source };
        let mut config = Config::new(endpoint.url.parse().map_err(|e: http::uri::InvalidUri| failed(e.into()))?);
        config.accept_invalid_certs = endpoint.insecure;
        config.tls_server_name = endpoint.server_name.clone();
        if let Some(pem) = &endpoint.authority {
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            let der = read.map_err(|e| failed(e.into()))?;
            config.root_cert = Some(der.into_iter().map(|c| c.as_ref().to_vec()).collect());
        }
        if let Some((certificate, key)) = &endpoint.identity {
            let identity = serde_json::json!({
                "client-certificate-data": ByteString(certificate.clone()),
                "client-key-data": ByteString(key.clone()),
            });
            config.auth_info = serde_json::from_value::<AuthInfo>(identity).map_err(|e| failed(e.into()))?;
        }
        Self::from_config(config)
    }

    /// POST to any path.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ApiError> {
        self.call(http::Method::POST, path.to_owned(), Some(body)).await
    }
}

//! What an aggregated API server must know to believe this one: ConfigMap `kube-system/extension-apiserver-authentication`.
//!
//! Models pkg/controlplane/controller/clusterauthenticationtrust.
use api::meta;
use api::tree::Tree;

use crate::bootstrap::own_target;
use crate::rest::storage::Part;
use crate::server::ApiServer;
use crate::status::Status;

const NAME: &str = "extension-apiserver-authentication";

fn data(server: &ApiServer) -> Tree {
    let config = &server.0.config;
    let mut data = Tree::object();
    let mut set = |key: &str, value: &str| data.set(&[key], value);
    if !config.client_ca.is_empty() {
        set("client-ca-file", &config.client_ca);
    }
    if let Some(front_proxy) = &config.front_proxy {
        set("requestheader-client-ca-file", &front_proxy.ca);
        set("requestheader-allowed-names", &format!("[{:?}]", pki::FRONT_PROXY));
        set("requestheader-username-headers", r#"["X-Remote-User"]"#);
        set("requestheader-uid-headers", r#"["X-Remote-Uid"]"#);
        set("requestheader-group-headers", r#"["X-Remote-Group"]"#);
        set("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#);
    }
    data
}

/// Writes the ConfigMap, or brings it up to date.
pub async fn publish(server: &ApiServer) -> Result<(), Status> {
    let target = own_target(server, "", "v1", "configmaps", "kube-system", NAME);
    let data = data(server);
    let mut wanted = Tree::object();
    meta::set_type(&mut wanted, "v1", "ConfigMap");
    meta::set_name(&mut wanted, NAME);
    wanted.set(&["data"], data.clone());
    if target.current().is_none() {
        return target.create(wanted, false, &mut Vec::new()).await.map(drop);
    }
    let change = |old: &Tree| {
        let mut new = old.clone();
        if !old.is_null() {
            new.set(&["data"], data.clone());
        }
        Ok(new)
    };
    target.update(Part::Main, true, false, &mut Vec::new(), &change).await.map(drop)
}

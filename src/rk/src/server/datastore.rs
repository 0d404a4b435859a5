//! Where the state is: the options that say it, checked, and the store that they name.
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use store::Store;
use store::etcd::{CLAIM_OUTLIVES, Holder, OpenError};

use crate::cli::UsageError;
use crate::options::{Datastore, DatastoreOptions};

/// In front of all keys in etcd, so that another Kubernetes (`/registry`) can live beside this one.
const ETCD_PREFIX: &str = "/rk";

/// `--datastore-endpoint`, with k3s' words for it.
pub fn endpoint(text: &str) -> Result<Datastore, String> {
    if matches!(text, "" | "sqlite") {
        return Ok(Datastore::Sqlite);
    }
    let missing = |what: &str| Err(format!("{what} is not among the stores of rk: there are sqlite, and etcd by http(s)://HOST:2379"));
    match text.split_once("://").map(|(scheme, _)| scheme) {
        Some("http" | "https") => text.split(',').map(one).collect::<Result<_, _>>().map(Datastore::Etcd),
        Some("sqlite") => Err("the SQLite database is always in --data-dir; say sqlite, without a path".into()),
        Some("mysql") => missing("MySQL"),
        Some("postgres" | "postgresql") => missing("PostgreSQL"),
        Some("nats") => missing("NATS"),
        Some(scheme) => missing(&format!("{scheme:?}")),
        None => Err("want sqlite, or the addresses of an etcd cluster, http(s)://HOST:2379[,...]".into()),
    }
}

fn one(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let wrong = || format!("{text:?} is no address of etcd; want http(s)://HOST:2379");
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let is_plain =
        uri.path().len() <= 1 && uri.query().is_none() && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let is_known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    if is_plain && is_known && uri.port_u16().is_some() { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// What only all options together show.
pub fn check(options: &DatastoreOptions) -> Result<(), UsageError> {
    let files = [
        ("--datastore-cafile", &options.datastore_cafile),
        ("--datastore-certfile", &options.datastore_certfile),
        ("--datastore-keyfile", &options.datastore_keyfile),
    ];
    let Some((flag, _)) = files.iter().find(|(_, file)| file.is_some()) else { return Ok(()) };
    match &options.datastore_endpoint {
        Datastore::Etcd(endpoints) if endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) => Ok(()),
        _ => Err(UsageError(format!("{flag} is for a --datastore-endpoint with https://"))),
    }
}

/// Waits for etcd if the state is there, and is refused if it is another server's. The second value ends with the reason when the store
/// cannot be used any further.
pub async fn open(options: &DatastoreOptions, folder: &Path, holder: Holder) -> anyhow::Result<(Arc<dyn Store>, Ended)> {
    let file = folder.join("state.db");
    let Datastore::Etcd(endpoints) = &options.datastore_endpoint else {
        let store = store::sqlite::open(&file, store::sqlite::Options::default()).context("open the cluster's state")?;
        return Ok((Arc::new(store), Box::pin(std::future::pending())));
    };
    if file.exists() {
        tracing::warn!(file = %file.display(), "the state of this file is left alone: --datastore-endpoint names another place");
    }
    let options = store::etcd::Options {
        endpoints: endpoints.clone(),
        ca: options.datastore_cafile.clone(),
        cert: options.datastore_certfile.clone(),
        key: options.datastore_keyfile.clone(),
        prefix: ETCD_PREFIX.to_owned(),
        holder: Some(holder),
    };
    let store = match store::etcd::open(options).await {
        Err(OpenError::Held { holder, .. }) => bail!("{}", held(&endpoints.join(","), &holder)),
        opened => opened.context("open the cluster's state in etcd")?,
    };
    let ended = Box::pin(store.ended());
    Ok((Arc::new(store), ended))
}

/// How others on the same etcd know this server: one machine has one, whatever process it is.
pub fn holder(node: &str, address: std::net::SocketAddr) -> Holder {
    let line = |path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let machine = line("/etc/machine-id").or_else(|| line("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    Holder { id: format!("{machine}/{node}"), name: format!("{node} at {address}, process {}", std::process::id()) }
}

fn held(endpoints: &str, holder: &str) -> String {
    let seconds = CLAIM_OUTLIVES.as_secs();
    format!(
        "the state in the etcd at {endpoints} is in use by another rk server, {holder}: one etcd has one server, so let this machine join \
         it (rk agent), or stop that server first (one that died is out after {seconds} s), or name another etcd with --datastore-endpoint"
    )
}

pub type Ended = std::pin::Pin<Box<dyn Future<Output = Arc<str>> + Send>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k3s_words_are_understood_or_what_is_missing_is_named() {
        assert_eq!(endpoint(""), Ok(Datastore::Sqlite));
        assert_eq!(endpoint("sqlite"), Ok(Datastore::Sqlite));
        let two = vec!["https://a:2379".to_owned(), "https://[::1]:2379".to_owned()];
        assert_eq!(endpoint("https://a:2379/, https://[::1]:2379"), Ok(Datastore::Etcd(two)));
        for (text, says) in [
            ("mysql://user@tcp(db:3306)/k3s", "MySQL is not among"),
            ("postgres://db", "PostgreSQL is not among"),
            ("nats://n", "NATS is not among"),
            ("redis://r", "\"redis\" is not among"),
            ("sqlite:///x.db", "always in --data-dir"),
            ("etcd", "want sqlite, or"),
            ("http://a", "\"http://a\" is no address of etcd"),
            ("http://a:2379,b:2379", "\"b:2379\" is no address of etcd"),
            ("http://a:2379/x", "is no address of etcd"),
            ("http://user@a:2379", "is no address of etcd"),
        ] {
            let error = endpoint(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

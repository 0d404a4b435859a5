//! A plugin that holds keys, and what becomes of values when it changes its key, dies, or is another one.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use store::{Durability, Expect, Operation, Range, Store, Write};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::message::{DecryptResponse, EncryptRequest, EncryptResponse};
use super::*;
use crate::encryption::Encryption;

/// A KMS plugin on a socket. Its "encryption" adds the number of the key to each byte.
struct Plugin {
    key: Arc<AtomicU32>,
    is_ill: Arc<AtomicBool>,
    decrypted: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Plugin {
    fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (key, is_ill, decrypted) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let state = (key.clone(), is_ill.clone(), decrypted.clone());
        let task = tokio::spawn(async move {
            // They end with the plugin.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = state.clone();
                let answer = hyper::service::service_fn(move |request| answer(request, state.clone()));
                connections.spawn(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { key, is_ill, decrypted, task }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type State = (Arc<AtomicU32>, Arc<AtomicBool>, Arc<AtomicU32>);
type Answer = Response<StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>>>;

fn shifted(text: &[u8], by: u32) -> Vec<u8> {
    text.iter().map(|byte| byte.wrapping_add(by as u8)).collect()
}

/// gRPC: each message behind a byte and its length; the status in trailers.
async fn answer(request: Request<Incoming>, (key, is_ill, decrypted): State) -> Result<Answer, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let (message, now) = (&body[5..], key.load(Ordering::Relaxed));
    let key_id = format!("key-{now}");
    let message = match path.as_str() {
        "/v2.KeyManagementService/Status" => {
            let healthz = if is_ill.load(Ordering::Relaxed) { "locked" } else { "ok" };
            Some(StatusResponse { version: "v2".into(), healthz: healthz.into(), key_id }.encode_to_vec())
        }
        "/v2.KeyManagementService/Encrypt" => {
            let plain = EncryptRequest::decode(message).unwrap().plaintext;
            let annotations = BTreeMap::from([("number.plugin.example.com".to_owned(), vec![now as u8])]);
            Some(EncryptResponse { ciphertext: shifted(&plain, now), key_id, annotations }.encode_to_vec())
        }
        "/v2.KeyManagementService/Decrypt" => {
            decrypted.fetch_add(1, Ordering::Relaxed);
            let asked = DecryptRequest::decode(message).unwrap();
            let number = u32::from(asked.annotations["number.plugin.example.com"][0]);
            assert_eq!(asked.key_id, format!("key-{number}"));
            let is_known = number <= now;
            is_known.then(|| DecryptResponse { plaintext: shifted(&asked.ciphertext, number.wrapping_neg()) }.encode_to_vec())
        }
        other => panic!("{other}"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", if message.is_some() { "0" } else { "5" }.parse().unwrap());
    trailers.insert("grpc-message", "no such key".parse().unwrap());
    let framed = message.map(|message| {
        let head = [&[0][..], &(message.len() as u32).to_be_bytes()].concat();
        Ok(Frame::data(Bytes::from([head, message].concat())))
    });
    let frames: Vec<_> = framed.into_iter().chain([Ok(Frame::trailers(trailers))]).collect();
    let body = StreamBody::new(futures::stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

/// Made by kmsv2 of k8s.io/apiserver v0.37.1: the seed is 0, 1, .. 31, and the plugin has added 1 to each byte of it.
const UPSTREAMS: &str = "0a43e64abbd71207b534aeef5c5d7ff5799e7daf93ea3e1d54aa5745d05891ce48ae20dd55db7b8559f05f65e179fc2cb25fb729415133b13573\
    bbdf2143852c369d5300ed12056b65792d311a200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20221e0a196e756d6265722e706c75\
    67696e2e6578616d706c652e636f6d1201012801";

#[test]
fn what_upstream_has_stored_opens_and_is_written_alike() {
    let stored: Vec<u8> = (0..UPSTREAMS.len()).step_by(2).map(|i| u8::from_str_radix(&UPSTREAMS[i..i + 2], 16).unwrap()).collect();
    let object = decode(&stored).unwrap();
    assert_eq!((object.key_id.as_str(), object.source_type()), ("key-1", SourceType::HkdfSha256XnonceAesGcmSeed));
    assert_eq!(object.encode_to_vec(), stored);
    let secret = Secret::new(object.source_type(), &shifted(&object.source, 255)).unwrap();
    let about = b"/registry/core/secrets/default/a";
    assert_eq!(secret.open(&object.data, about).unwrap(), b"{\"a\":1}");
    assert_eq!(secret.open(&object.data, b"/registry/core/secrets/default/b"), Err(CipherError::Forged));
    assert_eq!(secret.open(&secret.seal(b"x", about).unwrap(), about).unwrap(), b"x");
}

struct World {
    folder: tempfile::TempDir,
    plain: Arc<dyn Store>,
}

const SECRETS: &str = "/registry/core/secrets/";

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plain = store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap();
        Self { folder, plain: Arc::new(plain) }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("kms.sock")
    }

    /// A server that starts.
    async fn load(&self) -> (Encryption, Arc<dyn Store>) {
        let path = self.folder.path().join("encryption.yaml");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  \
             - kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}', timeout: 2s}}\n  - identity: {{}}\n",
            self.socket().display()
        );
        std::fs::write(&path, text).unwrap();
        Encryption::load(&path, self.plain.clone()).await.unwrap()
    }

    async fn stored(&self) -> Vec<EncryptedObject> {
        let items = self.plain.range(Range::prefix(SECRETS)).await.unwrap().items;
        items.iter().map(|item| decode(item.value.strip_prefix(b"k8s:enc:kms:v2:vault:").unwrap()).unwrap()).collect()
    }
}

async fn put(store: &Arc<dyn Store>, name: &str, value: &str) -> Result<(), store::WriteError> {
    let (key, operation) = (format!("{SECRETS}default/{name}").into(), Operation::Put(value.to_owned().into()));
    store.write(Write { key, operation, expect: Expect::Any, durability: Durability::Synced }).await.map(drop)
}

async fn get(store: &Arc<dyn Store>, name: &str) -> Bytes {
    store.get(&format!("{SECRETS}default/{name}")).await.unwrap().unwrap().value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_sealed_under_the_plugins_key_and_rewritten_when_it_is_another() {
    let world = World::new();
    let plugin = Plugin::start(&world.socket());
    put(&world.plain, "old", "{\"old\":1}").await.unwrap();
    let (encryption, store) = world.load().await;
    assert_eq!((encryption.health())(), Some(Ok(())));
    assert_eq!(encryption.rewrite().await.unwrap(), 1);
    put(&store, "new", "{\"new\":1}").await.unwrap();
    let stored = world.stored().await;
    assert!(stored.iter().all(|one| one.key_id == "key-1" && one.source_type() == SourceType::HkdfSha256XnonceAesGcmSeed));
    assert!(stored[0].source == stored[1].source && stored[0].data[..INFO_BYTES] != stored[1].data[..INFO_BYTES]);
    assert_eq!((get(&store, "old").await, get(&store, "new").await), ("{\"old\":1}".into(), "{\"new\":1}".into()));
    assert_eq!(plugin.decrypted.load(Ordering::Relaxed), 0, "its own seed is known");

    assert!(!encryption.probe().await);
    plugin.key.store(2, Ordering::Relaxed);
    assert!(encryption.probe().await, "another key");
    assert_eq!((encryption.rewrite().await.unwrap(), encryption.rewrite().await.unwrap()), (2, 0));
    assert!(world.stored().await.iter().all(|one| one.key_id == "key-2"));
    assert_eq!(get(&store, "old").await, "{\"old\":1}");

    // A server that starts asks for each seed once.
    let (_again, store) = world.load().await;
    assert_eq!((get(&store, "old").await, get(&store, "new").await), ("{\"old\":1}".into(), "{\"new\":1}".into()));
    assert_eq!(plugin.decrypted.load(Ordering::Relaxed), 1);
    // A value that was moved to another name does not open.
    let moved = world.plain.get(&format!("{SECRETS}default/old")).await.unwrap().unwrap().value;
    put(&world.plain, "moved", "x").await.unwrap();
    let operation = Operation::Put(moved.clone());
    let key = format!("{SECRETS}default/moved").into();
    world.plain.write(Write { key, operation, expect: Expect::Any, durability: Durability::Synced }).await.unwrap();
    assert_eq!(get(&store, "moved").await, moved, "it stays as it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_is_away_is_said_and_its_return_noticed() {
    let world = World::new();
    let plugin = Plugin::start(&world.socket());
    let (encryption, store) = world.load().await;
    let secret = |name: &str| format!(r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"{name}","namespace":"default"}}}}"#);
    put(&store, "a", &secret("a")).await.unwrap();
    plugin.is_ill.store(true, Ordering::Relaxed);
    encryption.probe().await;
    let said = (encryption.health())().unwrap().unwrap_err();
    assert_eq!(said, "kms provider vault: got unexpected healthz status: locked");
    drop(plugin);
    // Its connections end in their own time.
    let unreachable = async {
        let is_said = |said: String| said.contains("failed to perform status section of the healthz check");
        while !(encryption.health())().unwrap().is_err_and(is_said) {
            encryption.probe().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), unreachable).await.unwrap();
    // What is known is enough for a while.
    put(&store, "b", &secret("b")).await.unwrap();
    assert_eq!((get(&store, "a").await, get(&store, "b").await), (secret("a").into(), secret("b").into()));

    // A server that starts without its plugin knows nothing, and says so; once the plugin is there, all is well again.
    let (encryption, store) = world.load().await;
    assert!((encryption.health())().unwrap().is_err());
    let refused = put(&store, "c", "{}").await.unwrap_err().to_string();
    assert!(refused.contains("kms provider vault has given no key yet"), "{refused}");
    assert!(get(&store, "a").await.starts_with(b"k8s:enc:kms:v2:vault:"));
    let cache = crate::cache::Cache::start(&store).await.unwrap();
    let resource = api::registry::Registry::get().resource("", "v1", "secrets").unwrap();
    let id = cache.kind(resource).unwrap();
    assert_eq!(cache.unreadable_under(id, SECRETS, 10).len(), 2);
    let _plugin = Plugin::start(&world.socket());
    encryption.probe().await;
    assert_eq!((encryption.health())(), Some(Ok(())));
    cache.read_again(&store).await.unwrap();
    assert!(cache.unreadable_under(id, SECRETS, 10).is_empty());
    assert!(cache.get("", "secrets", "default", "a").is_some() && cache.get("", "secrets", "default", "b").is_some());
}

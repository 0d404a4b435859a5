//! Tokens that another server judges.
//!
//! Models k8s.io/apiserver/plugin/pkg/authenticator/token/webhook/webhook.go and pkg/authentication/token/cache. Who was believed, and who was not, is kept
//! for the same time; errors are not. A token that many show at once is asked about once.
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::tree::{Object, Tree};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use super::kept::{self, Kept, Key};
use super::kubeconfig::{Endpoint, KubeconfigError};
use crate::auth::{Authenticated, UserInfo};

const ANSWERS_MAX: usize = 16_384;
const TIMEOUT: Duration = Duration::from_secs(30);
const TOKEN_BYTES_MAX: usize = 64 << 10;

type Judged = Result<Option<Authenticated>, String>;
type Flight = Shared<BoxFuture<'static, Judged>>;

pub struct TokenWebhook {
    shared: Arc<Inner>,
    flights: Mutex<HashMap<Key, Flight>>,
}

struct Inner {
    endpoint: Endpoint,
    version: String,
    ttl: Duration,
    answers: Kept<Option<Authenticated>>,
}

impl TokenWebhook {
    /// `version`: `v1` or `v1beta1`; `ttl`: how long answers are kept.
    pub fn load(kubeconfig: &Path, version: &str, ttl: Duration) -> Result<Self, KubeconfigError> {
        let endpoint = Endpoint::load(kubeconfig)?;
        let inner = Inner { endpoint, version: format!("authentication.k8s.io/{version}"), ttl, answers: Kept::new(ANSWERS_MAX) };
        Ok(Self { shared: Arc::new(inner), flights: Mutex::default() })
    }

    /// `asked`: whom the token must be for; `own`: the API server's own audiences.
    pub async fn authenticate(&self, token: &str, asked: &[String], own: &[String]) -> Judged {
        if token.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        let wanted = if asked.is_empty() { own } else { asked };
        let texts = Tree::Array(wanted.iter().map(|audience| audience.as_str().into()).collect());
        let spec = Tree::Object([("token", Tree::from(token)), ("audiences", texts)].into_iter().collect());
        let key = kept::key(&spec.to_json());
        if let Some(answer) = self.shared.answers.get(&key) {
            return Ok(answer);
        }
        let flight = {
            let mut flights = self.flights.lock().expect("no panic under the lock");
            flights.retain(|_, flight| flight.peek().is_none());
            flights.entry(key).or_insert_with(|| ask(self.shared.clone(), key, spec, wanted.to_vec(), own.to_vec())).clone()
        };
        flight.await
    }
}

/// Goes on when the one who asked first has left.
fn ask(shared: Arc<Inner>, key: Key, spec: Tree, wanted: Vec<String>, own: Vec<String>) -> Flight {
    let task = tokio::spawn(async move {
        let answer = shared.endpoint.review("TokenReview", &shared.version, &spec, TIMEOUT, |_, _| {}).await;
        let status = answer.map_err(|error| {
            tracing::error!(%error, "failed to make webhook authenticator request");
            error.text
        })?;
        let judged = judge(&status, &wanted, &own)?;
        shared.answers.put(key, judged.clone(), shared.ttl);
        Ok(judged)
    });
    let flight = async move { task.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed().shared();
    // It ends though nobody waits for it any more, and is forgotten then.
    tokio::spawn(flight.clone());
    flight
}

fn judge(status: &Tree, wanted: &[String], own: &[String]) -> Judged {
    let said = texts(status, "audiences");
    let good_for = if said.is_empty() { own } else { &said };
    let audiences: Vec<String> = wanted.iter().filter(|audience| good_for.contains(audience)).cloned().collect();
    if audiences.is_empty() {
        return Ok(None);
    }
    if status.get("authenticated").and_then(Tree::as_bool) != Some(true) {
        return match status.str_at(&["error"]) {
            "" => Ok(None),
            error => Err(error.to_owned()),
        };
    }
    let user = status.get("user").cloned().unwrap_or_default();
    let extra = user.get("extra").cloned().unwrap_or_default();
    let keys = extra.as_object().into_iter().flat_map(Object::keys);
    let extra = keys.map(|key| (key.to_owned(), texts(&extra, key))).collect();
    let user = UserInfo {
        name: user.str_at(&["username"]).to_owned(),
        uid: user.str_at(&["uid"]).to_owned(),
        groups: texts(&user, "groups"),
        extra,
    };
    Ok(Some(Authenticated { user, audiences }))
}

fn texts(of: &Tree, field: &str) -> Vec<String> {
    of.array_at(&[field]).iter().filter_map(Tree::as_str).map(str::to_owned).collect()
}

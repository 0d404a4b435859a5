//! Requests that wait for the quotas of their namespace, charged together.
//!
//! Models quotaEvaluator of k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go, v1.37: whoever comes while a namespace is being
//! charged waits for the next write. A write for each, and hundreds at once would each lose hundreds of races.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::quota;
use api::registry::Registry;
use api::tree::Tree;
use tokio::sync::oneshot;

use super::added;
use crate::admission::Request;
use crate::auth::UserInfo;
use crate::rest::storage::{Part, Target};
use crate::server::ApiServer;
use crate::status::Status;

struct Waiting {
    request: Arc<Request>,
    answer: oneshot::Sender<Result<(), Status>>,
}

type ByNamespace = HashMap<String, Vec<Waiting>>;

/// By namespace; one that is there is being worked on. Bounded by the requests that are under way.
#[derive(Default)]
pub struct Charges(Mutex<ByNamespace>);

impl Charges {
    fn lock(&self) -> std::sync::MutexGuard<'_, ByNamespace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn charge(&self, server: &ApiServer, request: Request) -> Result<Request, Status> {
        let request = Arc::new(request);
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { request: request.clone(), answer };
        let begins = {
            let mut all = self.lock();
            let begins = !all.contains_key(&request.namespace);
            all.entry(request.namespace.clone()).or_default().push(waiting);
            begins
        };
        if begins {
            // A task of its own: a client that goes away must not leave others waiting.
            let mut working = Working { server: server.clone(), namespace: request.namespace.clone(), is_done: false };
            tokio::spawn(async move { working.run().await });
        }
        answered.await.unwrap_or_else(|_| Err(Status::internal("the quotas of the namespace could not be charged")))?;
        // The worker lets go of it before it answers.
        Ok(Arc::into_inner(request).expect("nobody else has the request any more"))
    }
}

/// The one that charges a namespace.
struct Working {
    server: ApiServer,
    namespace: String,
    /// The namespace is nobody's, or another one's by now.
    is_done: bool,
}

impl Drop for Working {
    /// Whoever still waits, after a panic, hears that nobody will answer.
    fn drop(&mut self) {
        if !self.is_done {
            self.server.0.charges.lock().remove(&self.namespace);
        }
    }
}

impl Working {
    async fn run(&mut self) {
        while let Some(waiting) = self.next() {
            let (requests, answers): (Vec<_>, Vec<_>) = waiting.into_iter().map(|w| (w.request, w.answer)).unzip();
            let results = charge_all(&self.server, &self.namespace, &requests).await;
            drop(requests);
            for (answer, result) in answers.into_iter().zip(results) {
                // A client that went away does not listen; what was charged for it comes back with the next count.
                let _ = answer.send(result);
            }
        }
    }

    /// Those that have come meanwhile; once there are none the namespace is nobody's.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut all = self.server.0.charges.lock();
        let waiting = all.get_mut(&self.namespace).map(std::mem::take).unwrap_or_default();
        if waiting.is_empty() {
            all.remove(&self.namespace);
            self.is_done = true;
            return None;
        }
        Some(waiting)
    }
}

type Results = Vec<Result<(), Status>>;

async fn charge_all(server: &ApiServer, namespace: &str, requests: &[Arc<Request>]) -> Results {
    let quotas: Vec<Tree> = server.0.parts.cache.list("", "resourcequotas", Some(namespace)).iter().map(|q| q.tree()).collect();
    // All quotas are asked before any is charged.
    let (mut results, charged) = admit(requests, quotas);
    for name in charged {
        let target = Target {
            server: server.clone(),
            user: Arc::new(UserInfo::new("system:apiserver", &["system:masters"])),
            resource: Registry::get().resource("", "v1", "resourcequotas").expect("the core group has quotas").into(),
            namespace: namespace.to_owned(),
            name,
            verb: "update",
            manager: Some(crate::rest::managed::SERVER.into()),
        };
        // Of the latest try: the quota may have changed since it was asked.
        let latest = Mutex::new(Results::new());
        let change = |old: &Tree| {
            let mut new = old.clone();
            let mut tried = results.clone();
            if !old.is_null() {
                for (request, result) in requests.iter().zip(&mut tried).filter(|(request, result)| result.is_ok() && !request.dry_run) {
                    *result = add(request, &mut new).map(drop);
                }
            }
            *latest.lock().unwrap_or_else(PoisonError::into_inner) = tried;
            Ok(new)
        };
        match target.update(Part::Status, true, false, &mut Vec::new(), &change).await {
            Ok(_) => results = latest.into_inner().unwrap_or_else(PoisonError::into_inner),
            // The quota has been deleted meanwhile.
            Err(status) if status.code == 404 => {}
            Err(status) => results.iter_mut().filter(|r| r.is_ok()).for_each(|r| *r = Err(status.clone())),
        }
    }
    results
}

/// Who may go on, each after those before it; and the names of the quotas that this costs something. Pure.
fn admit(requests: &[Arc<Request>], mut quotas: Vec<Tree>) -> (Results, Vec<String>) {
    let mut costs = vec![false; quotas.len()];
    let results = requests.iter().map(|request| {
        let mut after = quotas.clone();
        let mut changes = vec![false; quotas.len()];
        for (quota, changes) in after.iter_mut().zip(&mut changes) {
            *changes = add(request, quota)?;
        }
        if !request.dry_run {
            quotas = after;
            costs.iter_mut().zip(changes).for_each(|(all, one)| *all |= one);
        }
        Ok(())
    });
    let results = results.collect();
    let names = quotas.iter().zip(costs).filter(|(_, costs)| *costs).map(|(quota, _)| api::meta::name(quota).to_owned());
    (results, names.collect())
}

/// Adds what the request uses to the quota's status; tells whether that is anything.
fn add(request: &Request, quota: &mut Tree) -> Result<bool, Status> {
    let used = added(request, quota)?;
    let Some(used) = used else { return Ok(false) };
    quota.set(&["status", "used"], quota::to_tree(&used));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Operation;

    fn pod(name: &str, dry_run: bool) -> Arc<Request> {
        Arc::new(Request {
            user: std::sync::Arc::new(UserInfo::new("u", &[])),
            operation: Operation::Create,
            resource: Registry::get().resource("", "v1", "pods").unwrap().into(),
            subresource: "",
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            object: Tree::from_json(br#"{"spec":{"containers":[{"name":"c"}]}}"#).unwrap(),
            old: None,
            dry_run,
            warnings: Vec::new(),
        })
    }

    #[test]
    fn those_who_wait_together_share_what_is_left() {
        let quota = |name: &str, left: u32| {
            let text = format!(r#"{{"metadata":{{"name":"{name}"}},"status":{{"hard":{{"pods":"{left}"}},"used":{{"pods":"0"}}}}}}"#);
            Tree::from_json(text.as_bytes()).unwrap()
        };
        let other = Tree::from_json(br#"{"metadata":{"name":"other"},"status":{"hard":{"services":"1"},"used":{"services":"0"}}}"#).unwrap();
        let requests = [pod("a", false), pod("dry", true), pod("b", false), pod("c", false)];
        let (results, charged) = admit(&requests, vec![quota("wide", 9), other, quota("narrow", 2)]);
        assert_eq!(charged, ["wide", "narrow"]);
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false]);
        let why = "pods \"c\" is forbidden: exceeded quota: narrow, requested: pods=1, used: pods=2, limited: pods=2";
        assert_eq!(results[3].as_ref().unwrap_err().message, why);
        let (results, charged) = admit(&requests[1..2], vec![quota("narrow", 1)]);
        assert!(results[0].is_ok() && charged.is_empty(), "a dry run costs nothing");
    }
}

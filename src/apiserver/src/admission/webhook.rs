//! Asks others: webhooks that mutate and webhooks that validate.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/webhook/{mutating,validating,generic}. Configurations are kept compiled, in step with the
//! watch cache; what one asks is decided in [`matching`] and by its conditions, written and read in [`review`], sent by [`outbound`]. Mutating
//! webhooks are called one after another, validating ones at once.
mod hook;
pub(super) mod review;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use api::registry::Registry;
use api::tree::Tree;
use futures::future::join_all;

use self::hook::{Hook, SideEffects};
use self::review::{Refusal, Reply, Verdict};
use super::asker::Asker;
use super::conditions::{self, Match};
use super::expression::Seen;
use super::matching::{self, Invocation};
use super::reinvocation::Reinvocation;
use super::{Operation, Request, changed};
use crate::audit::notes;
use crate::auth::Authorization;
use crate::cache::Cache;
use crate::metrics::{self, Times};
use crate::outbound;
use crate::rest::options::FieldValidation;
use crate::status::Status;

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// Beginnings of audit annotations.
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const VALIDATION: &str = "validating.webhook.admission.k8s.io/";

type Compiled = BTreeMap<String, Vec<Arc<Hook>>>;

/// The webhooks of one kind of configuration, by the configuration's name.
struct Table(Arc<Mutex<Compiled>>);

impl Table {
    fn follow(cache: &Cache, plural: &'static str) -> Self {
        let table = Arc::new(Mutex::new(Compiled::new()));
        let resource = Registry::get().resource("admissionregistration.k8s.io", "v1", plural);
        if let Some(id) = resource.and_then(|resource| cache.kind(resource)) {
            let followed = table.clone();
            // Told before the write is answered: the next request meets the new configuration.
            cache.listen(
                id,
                Box::new(move |change| {
                    let mut table = followed.lock().unwrap_or_else(PoisonError::into_inner);
                    if change.deleted {
                        table.remove(change.object.name());
                    } else {
                        table.insert(change.object.name().to_owned(), hook::compile(&change.object.tree()));
                    }
                }),
            );
        }
        for object in cache.list("admissionregistration.k8s.io", plural, None) {
            let compiled = hook::compile(&object.tree());
            table.lock().unwrap_or_else(PoisonError::into_inner).entry(object.name().to_owned()).or_insert(compiled);
        }
        Self(table)
    }

    /// In the order in which they are called: by the names of their configurations.
    fn hooks(&self) -> Vec<Arc<Hook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }
}

pub struct Webhooks {
    cache: Cache,
    authorization: Arc<Authorization>,
    times: Arc<Times>,
    mutating: Table,
    validating: Table,
}

/// How one call ended.
enum Outcome {
    Allowed(Reply),
    /// The webhook's own no.
    Denied(Status),
    /// It could not be asked; `failurePolicy` says what that means.
    Failed(String),
    /// Neither: the request cannot be put to it.
    Refused(Status),
}

impl Webhooks {
    pub fn new(cache: &Cache, authorization: Arc<Authorization>, times: Arc<Times>) -> Self {
        Self { cache: cache.clone(), authorization, times, mutating: Table::follow(cache, MUTATING), validating: Table::follow(cache, VALIDATING) }
    }

    /// Whether a webhook of that name is configured.
    pub fn has(&self, name: &str) -> bool {
        [&self.mutating, &self.validating].into_iter().any(|table| table.hooks().iter().any(|hook| hook.name == name))
    }

    /// One round of the mutating webhooks.
    pub async fn mutate(&self, request: &mut Request, rounds: &mut Reinvocation) -> Result<(), Status> {
        let hooks = self.mutating.hooks();
        if hooks.is_empty() || is_own(request) || matching::is_exempt(request) {
            return Ok(());
        }
        let is_again = rounds.is_again();
        rounds.webhooks.begin(is_again, &request.object);
        for (i, hook) in hooks.into_iter().enumerate() {
            let Some(invocation) = self.invocation(&hook, request).await? else { continue };
            if is_again && !rounds.webhooks.is_required(&hook.uid) {
                continue;
            }
            let reply = self.ask(&hook, &invocation, request, true).await;
            let noted = Noted { hook: &hook, place: format!("round_{}_index_{i}", u8::from(is_again)) };
            let reply = decided(&hook, reply).inspect_err(|_| noted.mutation(false))?;
            let mut is_changed = false;
            match reply {
                None => noted.failed_open(MUTATION),
                Some(reply) => {
                    request.warnings.extend(reply.warnings);
                    if let Some(patch) = reply.patch {
                        let applied = apply(&self.cache, &hook, &invocation, request, &patch).await;
                        is_changed = applied.inspect_err(|_| noted.mutation(false))?;
                        noted.patch(&patch);
                    }
                }
            }
            noted.mutation(is_changed);
            if is_changed {
                rounds.webhooks.require();
                rounds.want();
            }
            if hook.is_reinvoked {
                rounds.webhooks.invoked(&hook.uid);
            }
        }
        rounds.webhooks.end(&request.object);
        Ok(())
    }

    /// All validating webhooks, at once; the first refusal counts.
    pub async fn validate(&self, request: &mut Request) -> Result<(), Status> {
        let hooks = self.validating.hooks();
        if hooks.is_empty() || is_own(request) || matching::is_exempt(request) {
            return Ok(());
        }
        let mut asked = Vec::new();
        for hook in &hooks {
            if let Some(invocation) = self.invocation(hook, request).await? {
                asked.push((hook, invocation));
            }
        }
        let of = &*request;
        let began = Instant::now();
        let replies = join_all(asked.iter().map(|(hook, invocation)| self.ask(hook, invocation, of, false))).await;
        metrics::waited(began.elapsed());
        let mut result = Ok(());
        for (i, ((hook, _), reply)) in asked.iter().zip(replies).enumerate() {
            match decided(hook, reply) {
                Ok(Some(reply)) => request.warnings.extend(reply.warnings),
                Ok(None) => Noted { hook, place: format!("round_0_index_{i}") }.failed_open(VALIDATION),
                Err(status) => result = result.and(Err(status)),
            }
        }
        result
    }

    /// How a webhook is to be asked, if it is.
    async fn invocation(&self, hook: &Hook, request: &Request) -> Result<Option<Invocation>, Status> {
        let Some(invocation) = matching::invocation(&self.cache, &hook.criteria, request)? else { return Ok(None) };
        if hook.conditions.is_empty() {
            return Ok(Some(invocation));
        }
        let object = invocation.shown(&self.cache, &request.object).await?;
        let old = invocation.shown(&self.cache, request.old.as_deref().unwrap_or(&Tree::Null)).await?;
        match self.hold(hook, &invocation, request, (&object, &old)) {
            Match::Yes => Ok(Some(invocation)),
            Match::No => Ok(None),
            Match::Failed(why) => {
                tracing::warn!(configuration = hook.configuration, webhook = hook.name, error = why, "match conditions failed, and so does the request");
                let resource = &request.resource;
                Err(Status::forbidden(&resource.group, &resource.plural, &request.name, &why))
            }
        }
    }

    /// Whether a webhook's conditions do.
    fn hold(&self, hook: &Hook, invocation: &Invocation, request: &Request, (object, old): (&Tree, &Tree)) -> Match {
        let expressions = hook.conditions.expressions();
        let asked = if expressions.iter().any(|e| e.uses("request")) { review::asked(invocation, request) } else { Tree::Null };
        let (asker, check) = (Asker::new(&*self.authorization, &request.user), matching::resource_check(request));
        let seen = Seen {
            object,
            old,
            request: &asked,
            params: &Tree::Null,
            namespace: &Tree::Null,
            asker: Some((&asker, &check)),
            variables: None,
        };
        conditions::evaluate(expressions, seen, hook.ignores_failure)
    }

    async fn ask(&self, hook: &Hook, invocation: &Invocation, request: &Request, is_mutating: bool) -> Outcome {
        let began = Instant::now();
        let outcome = self.ask_untimed(hook, invocation, request, is_mutating).await;
        let took = began.elapsed();
        if is_mutating {
            metrics::waited(took);
        }
        let code = match &outcome {
            Outcome::Allowed(_) => None,
            Outcome::Denied(status) | Outcome::Refused(status) => Some(status.code),
            // As upstream counts what a failure policy lets pass.
            Outcome::Failed(_) => Some(500).filter(|_| !hook.ignores_failure),
        };
        self.times.webhook(&hook.name, is_mutating, request.operation, code, took);
        outcome
    }

    async fn ask_untimed(&self, hook: &Hook, invocation: &Invocation, request: &Request, is_mutating: bool) -> Outcome {
        if request.dry_run && hook.side_effects == SideEffects::Some {
            return Outcome::Refused(Status::bad_request(format!("admission webhook {:?} does not support dry run", hook.name)));
        }
        let Some(version) = hook.review_version else {
            return Outcome::Failed("could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)".into());
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let shown = futures::future::try_join(
            invocation.shown(&self.cache, &request.object),
            invocation.shown(&self.cache, request.old.as_deref().unwrap_or(&Tree::Null)),
        );
        let shown = match shown.await {
            Ok((object, old)) => (object.into_owned(), old.into_owned()),
            Err(status) => return Outcome::Refused(status),
        };
        let body = review::write(version, &uid, invocation, request, shown);
        let answer = match outbound::post(&self.cache, &hook.to, hook.timeout, body.to_json()).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Failed(format!("failed to call webhook: {error}")),
        };
        match review::read(&hook.name, version, &uid, is_mutating, &answer) {
            Ok(Verdict::Allowed(reply)) => Outcome::Allowed(reply),
            Ok(Verdict::Denied(refusal)) => Outcome::Denied(denial(&hook.name, refusal)),
            Err(why) => Outcome::Failed(format!("received invalid webhook response: {why}")),
        }
    }
}

/// A call, as the audit log tells it. Models mutating/dispatcher.go webhookAnnotator.
struct Noted<'h> {
    hook: &'h Hook,
    /// In which round it was asked, and the how manieth.
    place: String,
}

impl Noted<'_> {
    fn about(&self) -> About<'_> {
        About { configuration: &self.hook.configuration, webhook: &self.hook.name, mutated: None, patch: None, patch_type: None }
    }

    fn mutation(&self, mutated: bool) {
        if notes::is_recorded() {
            let about = About { mutated: Some(mutated), ..self.about() };
            notes::annotate(format!("{MUTATION}{}", self.place), about.text());
        }
    }

    fn patch(&self, patch: &Tree) {
        let value = || About { patch: Some(patch), patch_type: Some("JSONPatch"), ..self.about() }.text();
        notes::annotate_with_request(format!("patch.webhook.admission.k8s.io/{}", self.place), value);
    }

    /// It could not be asked, and that was ignored.
    fn failed_open(&self, kind: &str) {
        notes::annotate(format!("failed-open.{kind}{}", self.place), self.hook.name.as_str());
    }
}

/// What an annotation says of a call.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'n> {
    configuration: &'n str,
    webhook: &'n str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'n Tree>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
}

impl About<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("it is JSON")
    }
}

/// What the server writes to come up must not wait for webhooks: they may run here, once it is up. Upstream's server waits.
fn is_own(request: &Request) -> bool {
    request.user.name == "system:apiserver"
}

/// What an outcome means under the webhook's failure policy; `None` where it is ignored.
fn decided(hook: &Hook, outcome: Outcome) -> Result<Option<Reply>, Status> {
    match outcome {
        Outcome::Allowed(reply) => Ok(Some(reply)),
        Outcome::Denied(status) | Outcome::Refused(status) => Err(status),
        Outcome::Failed(why) => {
            let text = format!("failed calling webhook {:?}: {why}", hook.name);
            if hook.ignores_failure {
                tracing::warn!(configuration = hook.configuration, error = text, "a webhook failed, and is ignored");
                return Ok(None);
            }
            tracing::warn!(configuration = hook.configuration, error = text, "a webhook failed, and so does the request");
            Err(Status::internal(text))
        }
    }
}

/// Models pkg/admission/plugin/webhook/errors/statuserror.go ToStatusErr.
fn denial(hook: &str, refusal: Refusal) -> Status {
    let by = format!("admission webhook {hook:?} denied the request");
    let message = match (refusal.message.as_str(), refusal.reason.as_str()) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    Status::by_webhook(refusal.code.max(400), &refusal.reason, message)
}

/// Applies a webhook's patch; whether that changed anything. Types are checked, unknown fields pruned and defaults set anew.
async fn apply(cache: &Cache, hook: &Hook, invocation: &Invocation, request: &mut Request, patch: &Tree) -> Result<bool, Status> {
    let cannot = || Status::internal(format!("admission webhook {:?} attempted to modify the object, which is not supported for this operation", hook.name));
    if request.object.is_null() || matches!(request.operation, Operation::Delete | Operation::Connect) {
        return Err(cannot());
    }
    let before = invocation.shown(cache, &request.object).await?.into_owned();
    let mut object = before.clone();
    api::patch::json_patch(&mut object, patch).map_err(|error| Status::internal(error.to_string()))?;
    let mut object = changed::typed(invocation, object, FieldValidation::Ignore).map_err(Status::internal)?;
    if object == before {
        return Ok(false);
    }
    keep_managers(&mut object, &before, &mut request.warnings);
    request.object = invocation.taken(cache, object, &request.object).await?;
    Ok(true)
}

/// A webhook that makes nonsense of the managers leaves them as they were. Models endpoints/handlers/fieldmanager/admission.go.
fn keep_managers(object: &mut Tree, before: &Tree, warnings: &mut Vec<String>) {
    const MANAGED: [&str; 2] = ["metadata", "managedFields"];
    let list = object.at(&MANAGED);
    if list == before.at(&MANAGED) {
        return;
    }
    if let Err(why) = api::apply::check_list(list) {
        warnings.push(format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission \
             controller; please fix your requests: {why}"
        ));
        match before.at(&MANAGED) {
            Some(list) => object.set(&MANAGED, list.clone()),
            None => drop(object.remove(&MANAGED)),
        }
    }
}

#[cfg(test)]
mod tests;

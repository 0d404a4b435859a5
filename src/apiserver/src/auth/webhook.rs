//! Servers that are asked who somebody is (TokenReview) and what he may (SubjectAccessReview).
//!
//! Models k8s.io/apiserver/plugin/pkg/authenticator/token/webhook, plugin/pkg/authorizer/webhook and pkg/util/webhook. Each is described by a
//! kubeconfig; what it answers is kept for a time, in a bounded number.
mod access;
mod conditions;
mod kept;
mod kubeconfig;
#[cfg(test)]
pub(crate) mod tests;
mod token;

use std::time::Duration;

use api::codec;
use api::tree::Tree;
use bytes::Bytes;

pub use access::{AccessWebhook, metrics_page};
pub use conditions::MatchConditions;
pub use kubeconfig::{Endpoint, KubeconfigError};
pub use token::TokenWebhook;

use crate::outbound::call::{self, CallError};

/// Attempts, and what lies between them; upstream's DefaultRetryBackoff.
const ATTEMPTS: u32 = 5;
const DELAY: Duration = Duration::from_millis(500);
const FACTOR: f64 = 1.5;

impl Endpoint {
    /// Posts a review and reads the answer's status; `each` is told of every attempt.
    async fn review(
        &self,
        kind: &str,
        version: &str,
        spec: &Tree,
        timeout: Duration,
        each: impl Fn(Result<(), &CallError>, Duration) + Send + Sync,
    ) -> Result<Tree, CallError> {
        let head = [("kind", Tree::from(kind)), ("apiVersion", version.into()), ("metadata", Tree::object())];
        let body = head.into_iter().chain([("spec", spec.clone()), ("status", Tree::object())]).collect();
        let answer = self.send(Tree::Object(body).to_json(), timeout, DELAY, false, each).await?;
        status_of(&answer, kind)
    }

    /// Posts a body. What may pass by itself is tried again, or whatever fails where it `insists`.
    pub async fn send(
        &self,
        body: Vec<u8>,
        timeout: Duration,
        mut delay: Duration,
        insists: bool,
        each: impl Fn(Result<(), &CallError>, Duration) + Send + Sync,
    ) -> Result<Bytes, CallError> {
        let mut attempt = 1;
        loop {
            let started = tokio::time::Instant::now();
            let answer = call::post(&self.url, &self.line, &self.authorization()?, timeout, body.clone()).await;
            each(answer.as_ref().map(drop), started.elapsed());
            match answer {
                Err(error) if (error.may_pass || insists) && attempt < ATTEMPTS => {
                    tracing::debug!(%error, url = self.url, attempt, "a webhook is asked again");
                    // Up to a fifth longer, so that callers do not come back together.
                    tokio::time::sleep(delay.mul_f64(1.0 + 0.2 * jitter())).await;
                    delay = delay.mul_f64(FACTOR);
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }
}

/// Of 0 to 1.
fn jitter() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0
}

fn status_of(bytes: &[u8], kind: &str) -> Result<Tree, CallError> {
    let wrong = |text: String| CallError { text, code: 0, may_pass: false, timed_out: false };
    let answer = codec::parse_json(bytes).map_err(|error| wrong(format!("couldn't get version/kind; json parse error: {error}")))?.tree;
    let said = answer.str_at(&["kind"]);
    if answer.as_object().is_none() || (!said.is_empty() && said != kind) {
        return Err(wrong(format!("the webhook answered {said:?}, not {kind}")));
    }
    Ok(answer.get("status").filter(|status| status.as_object().is_some()).cloned().unwrap_or_else(Tree::object))
}

//! ValidatingAdmissionPolicy: what its expressions say of a request.
//!
//! Models pkg/admission/plugin/policy/validating/{plugin,validator,dispatcher}.go.
use std::collections::BTreeMap;
use std::sync::Arc;

use api::admission::{Compiler, Returns, Speaks};
use api::tree::Tree;
use cel::ResourceCheck;

use super::index::{Active, Binding, Compile, Policy};
use super::select::{Met, select};
use super::{NULL, namespace_of};
use crate::admission::asker::Asker;
use crate::admission::conditions::{self, Match};
use crate::admission::expression::{BUDGET, Composed, Expression, OutOfBudget, Scope, Seen};
use crate::admission::webhook::review;
use crate::admission::{Request, matching};
use crate::audit::notes;
use crate::auth::Authorization;
use crate::cache::Cache;
use crate::status::Status;

/// The longest message that an expression may make.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// What the audit log keeps of the value of an annotation, and of how many failures.
const NOTE_BYTES_MAX: usize = 10 * 1024;
const FAILURES_MAX: usize = 50;

pub struct Validations {
    variables: Composed,
    conditions: Vec<Expression>,
    rules: Vec<Rule>,
    /// Keys of audit annotations, with what makes their values.
    annotations: Vec<(String, Expression)>,
    /// Whether any of it looks at the request itself, or at its namespace.
    uses_request: bool,
    uses_namespace: bool,
}

struct Rule {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

impl Compile for Validations {
    fn compile(spec: &Tree) -> Self {
        let has_params = spec.get("paramKind").is_some_and(|kind| !kind.is_null());
        let speaks = Speaks { params: has_params, authorizer: true, patches: false };
        let mut compiler = Compiler::composing();
        let variables = Composed::compile(&mut compiler, spec.array_at(&["variables"]), speaks);
        let one = |text: &str, speaks, returns| Expression::compile(&compiler, text, speaks, returns);
        let conditions: Vec<Expression> =
            spec.array_at(&["matchConditions"]).iter().map(|condition| one(condition.str_at(&["expression"]), speaks, Returns::Bool)).collect();
        let rule = |rule: &Tree| {
            let by_expression = rule.str_at(&["messageExpression"]);
            let without_authorizer = Speaks { authorizer: false, ..speaks };
            Rule {
                expression: one(rule.str_at(&["expression"]), speaks, Returns::Bool),
                message: rule.str_at(&["message"]).trim().to_owned(),
                message_expression: (!by_expression.is_empty()).then(|| one(by_expression, without_authorizer, Returns::String)),
                reason: rule.str_at(&["reason"]).to_owned(),
            }
        };
        let rules: Vec<Rule> = spec.array_at(&["validations"]).iter().map(rule).collect();
        let annotation = |annotation: &Tree| {
            let value = one(annotation.str_at(&["valueExpression"]), speaks, Returns::StringOrNull);
            (annotation.str_at(&["key"]).to_owned(), value)
        };
        let annotations: Vec<_> = spec.array_at(&["auditAnnotations"]).iter().map(annotation).collect();
        let all = || {
            let of_rules = rules.iter().flat_map(|rule| [&rule.expression].into_iter().chain(&rule.message_expression));
            variables.expressions().chain(&conditions).chain(of_rules).chain(annotations.iter().map(|(_, value)| value))
        };
        let uses_request = all().any(|expression| expression.uses("request"));
        let uses_namespace = all().any(|expression| expression.uses("namespaceObject"));
        Self { variables, conditions, rules, annotations, uses_request, uses_namespace }
    }
}

/// What one rule says no with.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    message: String,
    /// `""`: a rule gave none, or could not be asked.
    reason: String,
    /// An audit annotation failed, which no action of a binding makes good.
    is_final: bool,
    /// Which rule.
    index: usize,
}

/// What a policy says of a request.
#[derive(Default)]
struct Said {
    refusals: Vec<Refusal>,
    annotations: Vec<(String, String)>,
}

/// What comes of all policies.
#[derive(Default)]
struct Outcome<'i> {
    denials: Vec<Denial<'i>>,
    warnings: Vec<String>,
    /// For the audit log, of bindings that ask for that.
    failures: Vec<Failure<'i>>,
}

/// Models dispatcher.go ValidationFailureValue.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'i> {
    message: String,
    policy: &'i str,
    binding: &'i str,
    expression_index: usize,
    validation_actions: &'i [String],
}

struct Denial<'i> {
    policy: &'i str,
    binding: Option<&'i str>,
    refusal: Refusal,
}

pub async fn validate(
    cache: &Cache,
    authorization: &Authorization,
    policies: &[Active<Validations>],
    request: &mut Request,
) -> Result<(), Status> {
    let selection = select(cache, policies, request).await;
    let mut outcome = Outcome::default();
    for wrong in selection.wrong.into_iter().filter(|wrong| !wrong.policy.ignores_failure) {
        let refusal = Refusal { message: wrong.why, reason: String::new(), is_final: true, index: 0 };
        outcome.denials.push(Denial { policy: &wrong.policy.name, binding: wrong.binding.map(|binding| &*binding.name), refusal });
    }
    for met in &selection.met {
        let object = met.invocation.shown(cache, &request.object).await;
        let old = met.invocation.shown(cache, request.old.as_deref().unwrap_or(&NULL)).await;
        match (object, old) {
            (Ok(object), Ok(old)) => ask(cache, authorization, met, request, (&object, &old), &mut outcome)?,
            (Err(status), _) | (_, Err(status)) if !met.policy.ignores_failure => {
                let message = format!("failed to configure binding: failed to convert object version: {}", status.message);
                let refusal = Refusal { message, reason: String::new(), is_final: true, index: 0 };
                outcome.denials.push(Denial { policy: &met.policy.name, binding: met.bindings.first().map(|bound| &*bound.binding.name), refusal });
            }
            _ => {}
        }
    }
    let Outcome { mut denials, mut warnings, mut failures } = outcome;
    request.warnings.append(&mut warnings);
    if !failures.is_empty() {
        failures.truncate(FAILURES_MAX);
        let text = serde_json::to_string(&failures).expect("texts and numbers are JSON");
        notes::annotate("validation.policy.admission.k8s.io/validation_failure", text);
    }
    // Upstream's order is that of its map of policies; here they come by name.
    denials.sort_by(|a, b| a.policy.cmp(b.policy));
    match denials.into_iter().next() {
        Some(denial) => Err(denied(request, denial)),
        None => Ok(()),
    }
}

/// Asks one policy, with each parameter of each binding.
fn ask<'i>(
    cache: &Cache,
    authorization: &Authorization,
    met: &Met<'i, Validations>,
    request: &Request,
    (object, old): (&Tree, &Tree),
    outcome: &mut Outcome<'i>,
) -> Result<(), Status> {
    let (policy, rules) = (met.policy, met.policy.compiled());
    let asked = if rules.uses_request { review::asked(&met.invocation, request) } else { Tree::Null };
    let namespace = match rules.uses_namespace {
        true => namespace_of(cache, request)?,
        false => Arc::default(),
    };
    let (asker, check) = (Asker::new(authorization, &request.user), matching::resource_check(request));
    // Of several bindings and parameters, each value once.
    let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for bound in &met.bindings {
        for params in &bound.params {
            let seen = Seen {
                object,
                old,
                request: &asked,
                params,
                namespace: &namespace,
                asker: None,
                variables: Some(&rules.variables),
            };
            let said = decide(policy, rules, seen, (&asker, &check));
            for refusal in said.refusals {
                act(policy, bound.binding, refusal, outcome);
            }
            for (key, value) in said.annotations {
                let values = annotations.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
    }
    for (key, values) in annotations {
        notes::annotate_for(&policy.name, &key, values.join(", "));
    }
    Ok(())
}

/// What a binding makes of a refusal.
fn act<'i>(
    policy: &'i Policy<Validations>,
    binding: &'i Binding,
    refusal: Refusal,
    outcome: &mut Outcome<'i>,
) {
    let does = |action: &str| binding.actions.iter().any(|given| given == action);
    if does("Warn") && !refusal.is_final {
        let (policy, binding) = (&policy.name, &binding.name);
        let warning = format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}", refusal.message);
        if !outcome.warnings.contains(&warning) {
            outcome.warnings.push(warning);
        }
    }
    if does("Audit") && !refusal.is_final {
        outcome.failures.push(Failure {
            message: refusal.message.clone(),
            policy: &policy.name,
            binding: &binding.name,
            expression_index: refusal.index,
            validation_actions: &binding.actions,
        });
    }
    if does("Deny") || refusal.is_final {
        outcome.denials.push(Denial { policy: &policy.name, binding: Some(&binding.name), refusal });
    }
}

/// What a policy says of the request: nothing, or why not. Models validator.go Validate.
fn decide<'a>(
    policy: &Policy<Validations>,
    rules: &'a Validations,
    seen: Seen<'a>,
    may_ask: (&'a Asker<'a>, &'a ResourceCheck),
) -> Said {
    // Failures count, or are a yes.
    let refusal = |index: usize, message: String| {
        let refusal = Refusal { message, reason: String::new(), is_final: false, index };
        Some(refusal).filter(|_| !policy.ignores_failure)
    };
    let failed = |message: String| Said { refusals: refusal(0, message).into_iter().collect(), annotations: Vec::new() };
    let asking = Seen { asker: Some(may_ask), ..seen };
    if !rules.conditions.is_empty() {
        match conditions::evaluate(&rules.conditions, asking, policy.ignores_failure) {
            Match::Yes => {}
            Match::No => return Said::default(),
            Match::Failed(why) => return failed(why),
        }
    }
    let mut budget = BUDGET;
    let verdicts = match verdicts(rules, asking, &mut budget) {
        Ok(verdicts) => verdicts,
        Err(spent) => return failed(spent.to_string()),
    };
    let mut refusals = Vec::new();
    // Messages are made where one is needed; upstream makes them all, and drops them.
    if verdicts.iter().any(|verdict| *verdict == Ok(false)) {
        let messages = messages(rules, seen, &mut budget);
        for (i, verdict) in verdicts.into_iter().enumerate() {
            match (verdict, &messages) {
                (Err(error), _) => refusals.extend(refusal(i, error)),
                (Ok(_), Err(spent)) => refusals.extend(refusal(i, format!("failed messageExpression: {spent}"))),
                (Ok(true), _) => {}
                (Ok(false), Ok(messages)) => {
                    let reason = if rules.rules[i].reason.is_empty() { "Invalid" } else { &rules.rules[i].reason };
                    let message = rules.rules[i].message(messages[i].as_deref());
                    refusals.push(Refusal { message, reason: reason.to_owned(), is_final: false, index: i });
                }
            }
        }
    } else {
        refusals.extend(verdicts.into_iter().enumerate().filter_map(|(i, verdict)| refusal(i, verdict.err()?)));
    }
    match annotations(rules, seen) {
        Err(spent) => failed(spent.to_string()),
        Ok((annotations, _)) if policy.ignores_failure => Said { refusals, annotations },
        Ok((annotations, errors)) => {
            refusals.extend(errors.into_iter().map(|message| Refusal { message, reason: String::new(), is_final: true, index: 0 }));
            Said { refusals, annotations }
        }
    }
}

fn verdicts<'a>(rules: &'a Validations, seen: Seen<'a>, budget: &mut u64) -> Result<Vec<Result<bool, String>>, OutOfBudget> {
    let scope = Scope::new(seen);
    let one = |rule: &'a Rule| Ok(scope.evaluate(&rule.expression, budget)?.map(|value| value.as_bool() == Some(true)));
    rules.rules.iter().map(one).collect()
}

/// For each rule what its message expression makes, if that can be shown.
fn messages<'a>(rules: &'a Validations, seen: Seen<'a>, budget: &mut u64) -> Result<Vec<Option<String>>, OutOfBudget> {
    let scope = Scope::new(seen);
    let one = |rule: &'a Rule| {
        let Some(expression) = &rule.message_expression else { return Ok(None) };
        let value = scope.evaluate(expression, budget)?;
        if let Err(error) = &value {
            tracing::debug!(%error, "a message expression failed");
        }
        let text = value.ok().and_then(|value| value.as_str().map(|text| text.trim().to_owned()));
        Ok(text.filter(|text| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n')))
    };
    rules.rules.iter().map(one).collect()
}

impl Rule {
    fn message(&self, by_expression: Option<&str>) -> String {
        match by_expression {
            Some(message) => message.to_owned(),
            None if !self.message.is_empty() => self.message.clone(),
            None => format!("failed expression: {}", self.expression.text.trim()),
        }
    }
}

/// Audit annotations, and what is wrong with the values of others.
fn annotations<'a>(rules: &'a Validations, seen: Seen<'a>) -> Result<(Vec<(String, String)>, Vec<String>), OutOfBudget> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    if rules.annotations.is_empty() {
        return Ok((found, errors));
    }
    let (scope, mut budget) = (Scope::new(seen), BUDGET);
    for (key, expression) in &rules.annotations {
        match scope.evaluate(expression, &mut budget)? {
            Err(error) => errors.push(error),
            // Null is none.
            Ok(value) => {
                let text = value.as_str().unwrap_or_default().trim();
                let end = (0..=text.len().min(NOTE_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                found.extend((end > 0).then(|| (key.clone(), text[..end].to_owned())));
            }
        }
    }
    Ok((found, errors))
}

/// Models dispatcher.go's last lines and policy_decision.go reasonToCode.
fn denied(request: &Request, denial: Denial) -> Status {
    let Denial { policy, binding, refusal } = denial;
    let message = match binding {
        Some(binding) => format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}", refusal.message),
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {}", refusal.message),
    };
    let (reason, code) = match refusal.reason.as_str() {
        "Forbidden" => ("Forbidden", 403),
        "Unauthorized" => ("Unauthorized", 401),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    let status = request.forbidden(&message).with_cause("", message, "");
    Status { reason, code, ..status }
}

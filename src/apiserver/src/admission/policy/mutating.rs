//! MutatingAdmissionPolicy: changes that expressions make.
//!
//! Models pkg/admission/plugin/policy/mutating/{compilation,dispatcher}.go. All policies that match the request as it came are asked, one after
//! another, each about the object as the one before left it.
use std::sync::Arc;

use api::admission::{Compiler, Returns, Speaks};
use api::meta;
use api::tree::Tree;

use super::index::{Active, Binding, Compile, Policy};
use super::patch::{self, Failed};
use super::select::select;
use super::{NULL, namespace_of};
use crate::admission::asker::Asker;
use crate::admission::conditions::{self, Match};
use crate::admission::expression::{Composed, Expression, Seen};
use crate::admission::matching::{self, Invocation};
use crate::admission::reinvocation::Reinvocation;
use crate::admission::webhook::review;
use crate::admission::Request;
use crate::auth::Authorization;
use crate::cache::Cache;
use crate::status::Status;

pub struct Mutations {
    variables: Composed,
    conditions: Vec<Expression>,
    mutations: Vec<Mutation>,
    is_reinvoked: bool,
}

pub struct Mutation {
    pub kind: Kind,
    pub expression: Expression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ApplyConfiguration,
    JsonPatch,
}

impl Compile for Mutations {
    fn compile(spec: &Tree) -> Self {
        let has_params = spec.get("paramKind").is_some_and(|kind| !kind.is_null());
        let speaks = Speaks { params: has_params, authorizer: true, patches: false };
        let mut compiler = Compiler::composing();
        let variables = Composed::compile(&mut compiler, spec.array_at(&["variables"]), speaks);
        let one = |text: &str, speaks, returns| Expression::compile(&compiler, text, speaks, returns);
        let conditions = spec.array_at(&["matchConditions"]).iter();
        let mutation = |mutation: &Tree| {
            let (kind, field, returns) = match mutation.str_at(&["patchType"]) {
                "JSONPatch" => (Kind::JsonPatch, "jsonPatch", Returns::JsonPatches),
                _ => (Kind::ApplyConfiguration, "applyConfiguration", Returns::Object),
            };
            let text = mutation.str_at(&[field, "expression"]);
            Mutation { kind, expression: one(text, Speaks { patches: true, ..speaks }, returns) }
        };
        Self {
            conditions: conditions.map(|condition| one(condition.str_at(&["expression"]), speaks, Returns::Bool)).collect(),
            mutations: spec.array_at(&["mutations"]).iter().map(mutation).collect(),
            is_reinvoked: spec.str_at(&["reinvocationPolicy"]) == "IfNeeded",
            variables,
        }
    }
}

/// One policy, by one binding, with one parameter.
struct Turn<'i> {
    policy: &'i Policy<Mutations>,
    binding: &'i Binding,
    invocation: &'i Invocation,
    params: Arc<Tree>,
}

/// Why a policy's changes were not made.
struct Problem<'i> {
    policy: &'i str,
    binding: Option<&'i str>,
    why: String,
    reason: &'static str,
    is_ignored: bool,
}

pub async fn mutate(
    cache: &Cache,
    authorization: &Authorization,
    policies: &[Active<Mutations>],
    request: &mut Request,
    rounds: &mut Reinvocation,
) -> Result<(), Status> {
    let selection = select(cache, policies, request).await;
    let mut problems: Vec<Problem> = Vec::new();
    for wrong in selection.wrong {
        let (policy, binding) = (&*wrong.policy.name, wrong.binding.map(|binding| &*binding.name));
        problems.push(Problem { policy, binding, why: wrong.why, reason: "", is_ignored: wrong.policy.ignores_failure });
    }
    let turns: Vec<Turn> = selection
        .met
        .iter()
        .flat_map(|met| met.bindings.iter().flat_map(move |bound| bound.params.iter().map(move |params| (met, bound, params))))
        .map(|(met, bound, params)| Turn { policy: met.policy, binding: bound.binding, invocation: &met.invocation, params: params.clone() })
        .collect();
    if !turns.is_empty() {
        let is_again = rounds.is_again();
        rounds.policies.begin(is_again, &request.object);
        let namespace = namespace_of(cache, request)?;
        let mut is_taken = false;
        for turn in &turns {
            is_taken |= take(cache, authorization, turn, &namespace, request, rounds, &mut problems).await?;
        }
        // Upstream then asks again whether or not anything came out different, also who was asked last.
        if is_taken {
            rounds.policies.require();
            rounds.want();
        }
        rounds.policies.end(&request.object);
    }
    problems.retain(|problem| !problem.is_ignored);
    if problems.is_empty() { Ok(()) } else { Err(denied(request, &problems)) }
}

/// Whether anything was done, with or without effect.
async fn take<'i>(
    cache: &Cache,
    authorization: &Authorization,
    turn: &Turn<'i>,
    namespace: &Tree,
    request: &mut Request,
    rounds: &mut Reinvocation,
    problems: &mut Vec<Problem<'i>>,
) -> Result<bool, Status> {
    let invocation = turn.invocation;
    let object = invocation.shown(cache, &request.object).await?;
    let old = invocation.shown(cache, request.old.as_deref().unwrap_or(&NULL)).await?;
    let key = turn.key();
    let is_due = !rounds.is_again() || rounds.policies.is_required(&key);
    let Some(made) = make(authorization, turn, request, (object.into_owned(), &old, namespace), is_due)? else { return Ok(false) };
    problems.extend(made.problems.into_iter().map(|why| Problem {
        policy: &turn.policy.name,
        binding: Some(&turn.binding.name),
        why,
        reason: "Invalid",
        is_ignored: turn.policy.ignores_failure,
    }));
    let is_taken = made.object.is_some();
    if let Some(object) = made.object {
        let next = invocation.taken(cache, object, &request.object).await?;
        if next != request.object {
            rounds.policies.require();
            rounds.want();
        }
        request.object = next;
    }
    if turn.policy.compiled().is_reinvoked {
        rounds.policies.invoked(&key);
    }
    Ok(is_taken)
}

impl Turn<'_> {
    /// Tells it from all others.
    fn key(&self) -> String {
        let params = &self.params;
        format!("{}\n{}\n{}\n{}", self.policy.name, self.binding.name, meta::namespace(params), meta::name(params))
    }
}

/// What came of a turn.
struct Made {
    /// `None`: nothing was done.
    object: Option<Tree>,
    problems: Vec<String>,
}

/// Runs the expressions; `None` if it was not this policy's turn after all.
fn make(
    authorization: &Authorization,
    turn: &Turn<'_>,
    request: &Request,
    (mut object, old, namespace): (Tree, &Tree, &Tree),
    is_due: bool,
) -> Result<Option<Made>, Status> {
    let (policy, rules, invocation) = (turn.policy, turn.policy.compiled(), turn.invocation);
    let (asker, check) = (Asker::new(authorization, &request.user), matching::resource_check(request));
    let asked = review::asked(invocation, request);
    let around = Seen {
        object: &NULL,
        old,
        request: &asked,
        params: &turn.params,
        namespace,
        asker: Some((&asker, &check)),
        variables: Some(&rules.variables),
    };
    match conditions::evaluate(&rules.conditions, Seen { object: &object, ..around }, policy.ignores_failure) {
        Match::Yes if is_due => {}
        Match::Yes | Match::No => return Ok(None),
        Match::Failed(why) => return Ok(Some(Made { object: None, problems: vec![why] })),
    }
    let (mut is_changed, mut problems) = (false, Vec::new());
    for mutation in rules.mutations.iter().filter(|_| !request.object.is_null()) {
        match patch::patched(mutation, invocation, Seen { object: &object, ..around }) {
            Ok(next) => {
                object = next;
                is_changed = true;
            }
            Err(Failed::Answer(status)) => return Err(status),
            Err(Failed::Policy(why)) => problems.push(why),
        }
    }
    Ok(Some(Made { object: is_changed.then_some(object), problems }))
}

/// Models pkg/admission/plugin/policy/generic/policy_dispatcher.go Dispatch, at its end.
fn denied(request: &Request, problems: &[Problem]) -> Status {
    let message = |problem: &Problem| match problem.binding {
        Some(binding) => format!("policy '{}' with binding '{binding}' denied request: {}", problem.policy, problem.why),
        None => format!("policy {} denied request: {}", api::field_error::quote(problem.policy), problem.why),
    };
    let mut status = request.forbidden("admission request denied by policy");
    status.message = message(&problems[0]);
    if !problems[0].reason.is_empty() {
        status.reason = problems[0].reason;
    }
    problems.iter().fold(status, |status, problem| status.with_cause("", message(problem), ""))
}

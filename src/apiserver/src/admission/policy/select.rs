//! Which policies a request meets, by which bindings, with which parameters.
//!
//! Models pkg/admission/plugin/policy/generic/{policy_dispatcher,policy_matcher}.go.
use std::sync::Arc;

use api::registry::ResourceRef;
use api::tree::Tree;

use super::index::{Active, Binding, Compile, ParamKind, ParamRef, Policy};
use crate::admission::matching::{self, Invocation};
use crate::admission::Request;
use crate::cache::{Cache, Cached};
use crate::convert;

/// A policy that a request meets.
pub struct Met<'i, C> {
    pub policy: &'i Policy<C>,
    pub invocation: Invocation,
    pub bindings: Vec<Bound<'i>>,
}

/// A binding by which it does, with the parameters to be asked with; null stands for none.
pub struct Bound<'i> {
    pub binding: &'i Binding,
    pub params: Vec<Arc<Tree>>,
}

/// What is wrong with a policy or a binding that the request would meet.
pub struct Misconfigured<'i, C> {
    pub policy: &'i Policy<C>,
    pub binding: Option<&'i Binding>,
    pub why: String,
}

pub struct Selection<'i, C> {
    pub met: Vec<Met<'i, C>>,
    pub wrong: Vec<Misconfigured<'i, C>>,
}

pub async fn select<'i, C: Compile>(cache: &Cache, policies: &'i [Active<C>], request: &Request) -> Selection<'i, C> {
    let mut selection = Selection { met: Vec::new(), wrong: Vec::new() };
    for Active { policy, bindings } in policies {
        let policy = &**policy;
        let mut wrong = |binding: Option<&'i Binding>, why: String| {
            let what = if binding.is_some() { "binding" } else { "policy" };
            selection.wrong.push(Misconfigured { policy, binding, why: format!("failed to configure {what}: {why}") });
        };
        let invocation = match matching::invocation(cache, &policy.criteria, request) {
            Ok(Some(invocation)) => invocation,
            Ok(None) => continue,
            Err(status) => {
                wrong(None, status.message);
                continue;
            }
        };
        let params = match policy.param_kind.as_ref().map(|kind| (kind, resource_of(cache, kind))) {
            None => None,
            Some((_, Some(resource))) => Some(resource),
            Some((ParamKind { group, version, kind }, None)) => {
                wrong(None, format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'"));
                continue;
            }
        };
        let mut bound = Vec::new();
        for binding in bindings.iter().map(|binding| &**binding) {
            match matching::invocation(cache, &binding.criteria, request) {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(status) => {
                    wrong(Some(binding), status.message);
                    continue;
                }
            }
            let found = match (&params, &binding.params) {
                (Some(resource), Some(params)) => collect(cache, resource, params, matching::namespace(request)).await,
                _ => Ok(vec![Arc::default()]),
            };
            match found {
                Ok(params) if params.is_empty() => {}
                Ok(params) => bound.push(Bound { binding, params }),
                Err(why) => wrong(Some(binding), why),
            }
        }
        if !bound.is_empty() {
            selection.met.push(Met { policy, invocation, bindings: bound });
        }
    }
    selection
}

fn resource_of(cache: &Cache, kind: &ParamKind) -> Option<ResourceRef> {
    cache.kinds().by_kind(&kind.group, &kind.version, &kind.kind)
}

/// The parameters that a binding refers to, in the version that the policy asks for.
async fn collect(cache: &Cache, resource: &ResourceRef, params: &ParamRef, of_request: &str) -> Result<Vec<Arc<Tree>>, String> {
    let namespace = match (resource.namespaced, params.namespace.as_str()) {
        (true, "") if of_request.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
        }
        (true, "") => of_request,
        (true, namespace) => namespace,
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
    };
    let (group, plural) = (&*resource.group, &*resource.plural);
    let found = match (params.name.as_str(), &params.selector) {
        ("", None) => return Err("one of name or selector must be provided".to_owned()),
        ("", Some(Err(why))) => return Err(why.clone()),
        ("", Some(Ok(selector))) => {
            let mut all = cache.list(group, plural, Some(namespace));
            all.retain(|object| selector.matches(&|key| object.label(key)));
            all
        }
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned()),
        (name, None) => cache.get(group, plural, namespace, name).into_iter().collect(),
    };
    if found.is_empty() && params.denies_without {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let found = convert::views(cache, resource, found).await.map_err(|status| status.message)?;
    let shown = |object: &Arc<Cached>| {
        let mut tree = object.tree();
        convert::from_stored(resource, &mut tree);
        Arc::new(tree)
    };
    Ok(found.iter().map(shown).collect())
}

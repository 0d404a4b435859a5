//! Functions of `authorizer`. Models k8s.io/apiserver/pkg/cel/library/authz.go; the caller decides.
use super::{Body, Result, error, no_overload};
use crate::authorize::{Authorize, Check, Decision, PathCheck, ResourceCheck, What};
use crate::names;
use crate::special::{Special, Subject};
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "path" => |args| {
            let (Some((authorize, subject)), Some(path)) = (authorizer(&args[0]), args[1].as_str()) else { return no_overload() };
            if path.is_empty() {
                return error("path must not be empty");
            }
            Ok(Value::special(Special::PathCheck(authorize, subject, PathCheck { path: path.to_owned() })))
        },
        "group" => |args| {
            let (Some((authorize, subject)), Some(group)) = (authorizer(&args[0]), args[1].as_str()) else { return no_overload() };
            Ok(Value::special(Special::GroupCheck(authorize, subject, group.to_owned())))
        },
        "serviceAccount" => service_account,
        "resource" => |args| {
            let (Some(Special::GroupCheck(authorize, subject, group)), Some(resource)) = (args[0].as_special(), args[1].as_str()) else {
                return no_overload();
            };
            if resource.is_empty() {
                return error("resource must not be empty");
            }
            let check = ResourceCheck { group: group.clone(), resource: resource.to_owned(), ..ResourceCheck::default() };
            Ok(Value::special(Special::ResourceCheck(*authorize, subject.clone(), check)))
        },
        "subresource" => |args| refine(args, |check, text| check.subresource = text),
        "namespace" => |args| refine(args, |check, text| check.namespace = text),
        "name" => |args| refine(args, |check, text| check.name = text),
        "fieldSelector" => |args| refine(args, |check, text| check.field_selector = Some(text)),
        "labelSelector" => |args| refine(args, |check, text| check.label_selector = Some(text)),
        "check" => check,
        "allowed" => |args| decision(args, |of| Value::Bool(of.allowed)),
        "reason" => |args| decision(args, |of| Value::from(of.reason.clone())),
        "errored" => |args| decision(args, |of| Value::Bool(of.error.is_some())),
        "error" => |args| decision(args, |of| Value::from(of.error.clone().unwrap_or_default())),
        _ => return None,
    })
}

fn authorizer<'a>(value: &Value<'a>) -> Option<(&'a dyn Authorize, Subject)> {
    match value {
        Value::Authorizer(authorize) => Some((*authorize, None)),
        other => match other.as_special()? {
            Special::Authorizer(authorize, subject) => Some((*authorize, subject.clone())),
            _ => None,
        },
    }
}

fn resource_check<'a>(value: &Value<'a>) -> Option<(&'a dyn Authorize, Subject, ResourceCheck)> {
    match value {
        Value::ResourceCheck(authorize, check) => Some((*authorize, None, (**check).clone())),
        other => match other.as_special()? {
            Special::ResourceCheck(authorize, subject, check) => Some((*authorize, subject.clone(), check.clone())),
            _ => None,
        },
    }
}

fn service_account<'a>(args: &[Value<'a>]) -> Result<'a> {
    let (Some((authorize, _)), Some(namespace), Some(name)) = (authorizer(&args[0]), args[1].as_str(), args[2].as_str()) else {
        return no_overload();
    };
    if let [first, ..] = &names::dns1123_subdomain(name)[..] {
        return error(format!("Invalid service account name: {first}"));
    }
    if let [first, ..] = &names::dns1123_label(namespace)[..] {
        return error(format!("Invalid service account namespace: {first}"));
    }
    Ok(Value::special(Special::Authorizer(authorize, Some((namespace.to_owned(), name.to_owned())))))
}

fn refine<'a>(args: &[Value<'a>], set: fn(&mut ResourceCheck, String)) -> Result<'a> {
    let (Some((authorize, subject, mut check)), Some(text)) = (resource_check(&args[0]), args[1].as_str()) else { return no_overload() };
    set(&mut check, text.to_owned());
    Ok(Value::special(Special::ResourceCheck(authorize, subject, check)))
}

fn check<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Some(verb) = args[1].as_str() else { return no_overload() };
    let (authorize, subject, what) = match args[0].as_special() {
        Some(Special::PathCheck(authorize, subject, check)) => (*authorize, subject.clone(), What::Path(check.clone())),
        _ => match resource_check(&args[0]) {
            Some((authorize, subject, check)) => (authorize, subject, What::Resource(check)),
            None => return no_overload(),
        },
    };
    let decision = authorize.check(&Check { service_account: subject, verb: verb.to_owned(), what });
    Ok(Value::special(Special::Decision(decision)))
}

fn decision<'a>(args: &[Value<'a>], read: fn(&Decision) -> Value<'a>) -> Result<'a> {
    match args[0].as_special() {
        Some(Special::Decision(of)) => Ok(read(of)),
        _ => no_overload(),
    }
}

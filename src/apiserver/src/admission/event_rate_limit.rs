//! On request: so many Events and no more, of the server, a namespace, a user, or a source about an object.
//!
//! Models plugin/pkg/admission/eventratelimit, v1.37, with its configuration.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::field_error::{FieldError, Path};
use api::tree::Tree;
use tokio::time::Instant;

use super::{Operation, Request};
use crate::status::{self, Status};

const CACHE_SIZE: usize = 4096;
const TYPES: [&str; 4] = ["Namespace", "Server", "SourceAndObject", "User"];

pub struct EventRateLimit {
    limits: Vec<Limit>,
}

struct Limit {
    kind: Box<str>,
    per_second: f64,
    burst: f64,
    /// As many keys are remembered; the one that was not asked about for the longest time is forgotten first.
    keys_max: usize,
    buckets: Mutex<HashMap<String, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl EventRateLimit {
    /// From a `Configuration` of eventratelimit.admission.k8s.io.
    pub fn new(configuration: &Tree) -> Result<Self, Vec<FieldError>> {
        let limits = configuration.array_at(&["limits"]);
        let path = Path::new("limits");
        let mut errors = Vec::new();
        if limits.is_empty() {
            errors.push(FieldError::invalid(path, &Tree::Array(Vec::new()), "must not be empty"));
        }
        let integer = |limit: &Tree, key: &str| limit.get(key).and_then(Tree::as_i64).unwrap_or(0);
        for (i, limit) in limits.iter().enumerate() {
            let path = path.index(i);
            let kind = limit.str_at(&["type"]);
            if !TYPES.contains(&kind) {
                errors.push(FieldError::not_supported(path.child("type"), kind, &TYPES));
            }
            for key in ["burst", "qps"] {
                if integer(limit, key) <= 0 {
                    errors.push(FieldError::invalid(path.child(key), integer(limit, key), "must be positive"));
                }
            }
            if kind != "Server" && integer(limit, "cacheSize") < 0 {
                errors.push(FieldError::invalid(path.child("cacheSize"), integer(limit, "cacheSize"), "must not be negative"));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let limit = |limit: &Tree| Limit {
            kind: limit.str_at(&["type"]).into(),
            per_second: integer(limit, "qps") as f64,
            burst: integer(limit, "burst") as f64,
            keys_max: usize::try_from(integer(limit, "cacheSize")).ok().filter(|size| *size > 0).unwrap_or(CACHE_SIZE),
            buckets: Mutex::default(),
        };
        Ok(Self { limits: limits.iter().map(limit).collect() })
    }

    pub fn validate(&self, request: &Request, now: Instant) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !writes || request.dry_run || !request.is("", "events") {
            return Ok(());
        }
        let refused = |limit: &Limit| {
            let key = limit.key(request);
            (!limit.accepts(&key, now)).then(|| format!("limit reached on type {} for key {key}", limit.kind))
        };
        // Each counts, also where another said no.
        let refused: Vec<String> = self.limits.iter().filter_map(refused).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let message = format!("Too many requests: {}", status::aggregate(&refused));
        Err(Status { details: None, ..Status::too_many_requests(message, 0) })
    }
}

impl Limit {
    fn key(&self, request: &Request) -> String {
        let event = &request.object;
        match &*self.kind {
            "Namespace" => request.namespace.clone(),
            "User" => request.user.name.clone(),
            "SourceAndObject" => {
                let source = ["component", "host"].map(|key| event.str_at(&["source", key]));
                let object = ["kind", "namespace", "name", "uid", "apiVersion"].map(|key| event.str_at(&["involvedObject", key]));
                source.into_iter().chain(object).collect()
            }
            _ => String::new(),
        }
    }

    fn accepts(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.contains_key(key) {
            if buckets.len() >= self.keys_max
                && let Some(oldest) = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone())
            {
                buckets.remove(&oldest);
            }
            buckets.insert(key.to_owned(), Bucket { tokens: self.burst, at: now });
        }
        let Some(bucket) = buckets.get_mut(key) else { return true };
        let since: Duration = now.saturating_duration_since(bucket.at);
        bucket.tokens = (bucket.tokens + since.as_secs_f64() * self.per_second).min(self.burst);
        bucket.at = now;
        let accepts = bucket.tokens >= 1.0;
        if accepts {
            bucket.tokens -= 1.0;
        }
        accepts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UserInfo;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_configuration_says_how_many() {
        let texts = |json: &str| -> Vec<String> {
            EventRateLimit::new(&tree(json)).err().unwrap_or_default().iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts("{}"), ["limits: Invalid value: []: must not be empty"]);
        let bad = r#"{"limits":[{"type":"Node","qps":0,"burst":1}]}"#;
        assert_eq!(
            texts(bad),
            [
                r#"limits[0].type: Unsupported value: "Node": supported values: "Namespace", "Server", "SourceAndObject", "User""#,
                "limits[0].qps: Invalid value: 0: must be positive"
            ]
        );
    }

    #[test]
    fn a_burst_is_let_through_and_then_so_many_in_a_second() {
        let limits = r#"{"limits":[{"type":"User","qps":2,"burst":3,"cacheSize":1},{"type":"Server","qps":100,"burst":100}]}"#;
        let plugin = EventRateLimit::new(&tree(limits)).ok().unwrap();
        let event = |user: &str| Request {
            user: std::sync::Arc::new(UserInfo::new(user, &[])),
            operation: Operation::Create,
            resource: api::Registry::get().resource("", "v1", "events").unwrap().into(),
            subresource: "",
            namespace: "n".to_owned(),
            name: String::new(),
            object: tree("{}"),
            old: None,
            dry_run: false,
            warnings: Vec::new(),
        };
        let start = Instant::now();
        let accepted = |user: &str, after: u64| plugin.validate(&event(user), start + Duration::from_millis(after)).is_ok();
        assert_eq!([0, 0, 0, 0, 500, 500].map(|after| accepted("a", after)), [true, true, true, false, true, false]);
        // Another user takes the only place; who comes back begins anew.
        assert!(accepted("b", 500) && accepted("a", 500));
        let refused = [(); 4].map(|()| plugin.validate(&event("c"), start)).into_iter().find_map(Result::err).unwrap();
        assert_eq!((refused.code, refused.message.as_str()), (429, "Too many requests: limit reached on type User for key c"));
    }
}

//! Query parameters and bodies that say how a verb works: CreateOptions, UpdateOptions, PatchOptions, DeleteOptions, ListOptions.
use api::field_error::FieldError;
use api::tree::Tree;

use super::managed::{MANAGER_BYTES_MAX, is_printable};
use crate::request::Query;
use crate::status::Status;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// What create, update and patch share.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// Empty: whoever the user agent is.
    pub field_manager: String,
    /// Of an apply: takes fields from their managers.
    pub force: bool,
}

impl WriteOptions {
    pub fn parse(query: &Query, options_kind: &str) -> Result<Self, Status> {
        Self::checked(query, options_kind, Vec::new())
    }

    /// Models apimachinery/pkg/apis/meta/v1/validation ValidatePatchOptions.
    pub fn parse_patch(query: &Query, is_apply: bool) -> Result<Self, Status> {
        let mut errors = Vec::new();
        if is_apply && query.nonempty("fieldManager").is_none() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        } else if !is_apply && query.get("force").is_some() {
            errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
        Self::checked(query, "PatchOptions", errors)
    }

    fn checked(query: &Query, options_kind: &str, mut errors: Vec<FieldError>) -> Result<Self, Status> {
        let field_manager = query.get("fieldManager").unwrap_or("").to_owned();
        if field_manager.len() > MANAGER_BYTES_MAX {
            errors.push(FieldError::too_long("fieldManager", MANAGER_BYTES_MAX));
        }
        for (at, c) in field_manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
            let detail = format!("invalid character U+{:04X} (at position {at})", c as u32);
            errors.push(FieldError::invalid("fieldManager", field_manager.as_str(), detail));
        }
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation").unwrap_or("") {
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(FieldError::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        refuse(options_kind, &errors)?;
        Ok(Self { dry_run, field_validation, field_manager, force: query.flag("force") })
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.filter(|v| !v.is_empty()).collect();
    if values.iter().any(|v| *v != "All") {
        let list = Tree::Array(values.iter().map(|v| Tree::from(*v)).collect());
        errors.push(FieldError::not_supported("dryRun", &list, &["All"]));
    }
    !values.is_empty()
}

fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", errors)) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

pub const UNREADABLE: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub precondition_uid: Option<String>,
    pub precondition_version: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
    /// `ignoreStoreReadErrorWithClusterBreakingPotential`: removes what is no object that can be read, and nothing else.
    pub unreadable: bool,
}

impl DeleteOptions {
    /// From the body where there is one, else from the query.
    pub fn parse(query: &Query, body: Option<&Tree>) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let mut options = Self::default();
        let mut policy = None;
        let mut has_preconditions = false;
        match body {
            Some(tree) => {
                options.grace_period_seconds = match tree.get("gracePeriodSeconds") {
                    None | Some(Tree::Null) => None,
                    Some(Tree::Integer(seconds)) => Some(*seconds),
                    Some(other) => {
                        let text = format!(
                            "json: cannot unmarshal {} into Go struct field DeleteOptions.gracePeriodSeconds of type int64",
                            other.type_name()
                        );
                        return Err(Status::bad_request(text));
                    }
                };
                options.precondition_uid = string(tree, &["preconditions", "uid"]);
                options.precondition_version = string(tree, &["preconditions", "resourceVersion"]);
                options.orphan_dependents = tree.get("orphanDependents").and_then(Tree::as_bool);
                policy = string(tree, &["propagationPolicy"]);
                options.dry_run = dry_run(tree.array_at(&["dryRun"]).iter().filter_map(Tree::as_str), &mut errors);
                options.unreadable = tree.get(UNREADABLE).and_then(Tree::as_bool) == Some(true);
                has_preconditions = tree.get("preconditions").is_some_and(|preconditions| !preconditions.is_null());
            }
            None => {
                if let Some(text) = query.nonempty("gracePeriodSeconds") {
                    let seconds = text.parse().map_err(|_| {
                        Status::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
                    })?;
                    options.grace_period_seconds = Some(seconds);
                }
                options.orphan_dependents = query.get("orphanDependents").map(|_| query.flag("orphanDependents"));
                policy = query.nonempty("propagationPolicy").map(ToOwned::to_owned).or(policy);
                options.dry_run = dry_run(query.all("dryRun"), &mut errors);
                options.unreadable = query.flag(UNREADABLE);
            }
        }
        let has_policy = policy.is_some();
        options.propagation = match policy.as_deref() {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                errors.push(FieldError::not_supported("propagationPolicy", other, &["Foreground", "Background", "Orphan", "nil"]));
                None
            }
        };
        if options.propagation.is_some() && options.orphan_dependents.is_some() {
            errors.push(FieldError::invalid(
                "propagationPolicy",
                policy.as_deref().unwrap_or(""),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if options.unreadable {
            let others = [
                (has_policy, "propagationPolicy"),
                (options.orphan_dependents.is_some(), "orphanDependents"),
                (options.grace_period_seconds.is_some(), "gracePeriodSeconds"),
                (has_preconditions, "preconditions"),
            ];
            for (_, other) in others.iter().filter(|(is_set, _)| *is_set) {
                errors.push(FieldError::invalid(UNREADABLE, true, format!("cannot be set together with .{other}")));
            }
        }
        refuse("DeleteOptions", &errors)?;
        Ok(options)
    }
}

fn string(tree: &Tree, path: &[&str]) -> Option<String> {
    tree.at(path).and_then(Tree::as_str).map(ToOwned::to_owned)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Unset,
    Exact,
    NotOlderThan,
}

/// What list, watch and deletecollection share.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// `None`: unset (the most recent state).
    pub version: Option<u64>,
    pub version_match: VersionMatch,
    pub limit: usize,
    pub continue_token: Option<String>,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Models apimachinery/pkg/apis/meta/internalversion/validation ValidateListOptions.
    pub fn parse(query: &Query, is_watch: bool) -> Result<Self, Status> {
        let version_text = query.nonempty("resourceVersion");
        let match_text = query.nonempty("resourceVersionMatch");
        let continue_token = query.nonempty("continue").map(ToOwned::to_owned);
        let send_initial_events = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let mut errors = Vec::new();
        let forbidden = |path: &str, why: &str| FieldError::forbidden(path, why);
        if is_watch && send_initial_events.is_some() {
            match match_text {
                None => errors.push(forbidden("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")),
                Some("NotOlderThan") => {}
                Some(other) => errors.push(FieldError::not_supported("resourceVersionMatch", other, &["NotOlderThan"])),
            }
            if continue_token.is_some() {
                errors.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"));
            }
        } else {
            if !is_watch && send_initial_events.is_some() {
                errors.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
            }
            if let Some(text) = match_text {
                if is_watch {
                    errors.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
                }
                if version_text.is_none() {
                    errors.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"));
                }
                if continue_token.is_some() {
                    errors.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"));
                }
                if !matches!(text, "Exact" | "NotOlderThan") {
                    errors.push(FieldError::not_supported("resourceVersionMatch", text, &["Exact", "NotOlderThan", ""]));
                }
                if text == "Exact" && version_text == Some("0") {
                    errors.push(forbidden("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
                }
            }
        }
        refuse("ListOptions", &errors)?;
        let version = version_text.map(parse_version).transpose()?;
        let number = |key: &str| -> Result<Option<i64>, Status> {
            let Some(text) = query.nonempty(key) else { return Ok(None) };
            let parsed = text.parse::<i64>();
            parsed.map(Some).map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))
        };
        Ok(Self {
            version,
            version_match: match match_text {
                Some("Exact") => VersionMatch::Exact,
                Some(_) => VersionMatch::NotOlderThan,
                None => VersionMatch::Unset,
            },
            limit: number("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            continue_token,
            timeout_seconds: number("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events,
        })
    }
}

pub fn parse_version(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let detail = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
        Status::bad_request(FieldError::invalid("resourceVersion", text, detail).to_string())
    })
}

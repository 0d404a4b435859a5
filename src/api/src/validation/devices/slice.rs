//! What a driver offers on a node.
use super::super::check::*;
use super::{SPEC, binding_conditions, bounded, capacity, declared_unique, pool_name, taint};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;
use crate::validation::{affinity, volume};

const DEVICES_MAX: usize = 128;
/// Where any has taints or counters.
const RICH_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMED_SETS_MAX: usize = 2;
const PROPERTIES_MAX: usize = 32;
const VALUES_MAX: usize = 48;
const VALUE_BYTES_MAX: usize = 64;
const TAINTS_MAX: usize = 16;
const ID_BYTES_MAX: usize = 32;
pub(super) const DOMAIN_BYTES_MAX: usize = 63;
/// Of a key as it is shown.
const KEY_BYTES_MAX: usize = DOMAIN_BYTES_MAX + 1 + ID_BYTES_MAX;
const VALUES: [&str; 4] = ["int", "bool", "string", "version"];
const UNSET_OR_TRUE: &str = "must be either unset or set to true";
const ONE_PLACE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
const ONE_PLACE_OF_DEVICE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
                                   set to true in the ResourceSlice spec";

pub(super) fn spec(errors: &mut Errors, spec: &Tree, old: Option<&Tree>) {
    volume::driver_name(errors, text(spec, "driver"), &SPEC.child("driver"));
    pool(errors, at(spec, "pool"), &SPEC.child("pool"));
    if let Some(old) = old {
        immutable(errors, at(at(spec, "pool"), "name"), at(at(old, "pool"), "name"), &SPEC.child("pool").child("name"));
        immutable(errors, at(spec, "driver"), at(old, "driver"), &SPEC.child("driver"));
        immutable(errors, at(spec, "nodeName"), at(old, "nodeName"), &SPEC.child("nodeName"));
    }
    places(errors, spec);
    if set(spec, "sharedCounters").is_some() && set(spec, "devices").is_some() {
        errors.push(FieldError::invalid(SPEC, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let path = SPEC.child("devices");
    let is_rich = |device: &Tree| ["taints", "consumesCounters"].iter().any(|key| !list(device, key).is_empty());
    let most = if list(spec, "devices").iter().any(is_rich) { RICH_DEVICES_MAX } else { DEVICES_MAX };
    let devices = bounded(errors, spec, "devices", most, &path);
    let each_has_place = flag(spec, "perDeviceNodeSelection");
    for (i, one) in devices.iter().enumerate() {
        let before = old.and_then(|old| list(old, "devices").iter().find(|before| text(before, "name") == text(one, "name")));
        device(errors, one, before, each_has_place, &path.index(i));
    }
    for (i, one) in devices.iter().enumerate() {
        if devices[..i].iter().any(|before| text(before, "name") == text(one, "name")) {
            errors.push(FieldError::duplicate(path.index(i), text(one, "name")));
        }
    }
    let path = SPEC.child("sharedCounters");
    let sets = bounded(errors, spec, "sharedCounters", COUNTER_SETS_MAX, &path);
    for (i, one) in sets.iter().enumerate() {
        counters(errors, one, "name", &path.index(i));
    }
    declared_unique(errors, sets, |set| text(set, "name").to_owned(), &path);
}

fn pool(errors: &mut Errors, pool: &Tree, path: &Path) {
    pool_name(errors, text(pool, "name"), &path.child("name"));
    let number = |key| int(pool, key).unwrap_or(0);
    if number("resourceSliceCount") <= 0 {
        errors.push(FieldError::invalid(path.child("resourceSliceCount"), number("resourceSliceCount"), "must be greater than zero"));
    }
    if number("generation") < 0 {
        errors.push(FieldError::invalid(path.child("generation"), number("generation"), "must be greater than or equal to zero"));
    }
}

/// Where the devices can be used.
fn places(errors: &mut Errors, spec: &Tree) {
    let mut found = Vec::new();
    match set(spec, "nodeName").map(|name| name.as_str().unwrap_or("")) {
        None => {}
        Some("") => {
            errors.push(FieldError::invalid(SPEC.child("nodeName"), "", "must be either unset or set to a non-empty string"));
        }
        Some(name) => {
            found.push("`nodeName`");
            dns_subdomain(errors, name, &SPEC.child("nodeName"));
        }
    }
    if let Some(selector) = set(spec, "nodeSelector") {
        found.push("`nodeSelector`");
        let path = SPEC.child("nodeSelector");
        affinity::node_selector(errors, selector, &path);
        if list(selector, "nodeSelectorTerms").len() != 1 {
            let detail = "must have exactly one node selector term";
            errors.push(FieldError::invalid(path.child("nodeSelectorTerms"), at(selector, "nodeSelectorTerms"), detail));
        }
    }
    for (key, name) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match set(spec, key) {
            None => {}
            Some(Tree::Bool(true)) => found.push(name),
            Some(_) => errors.push(FieldError::invalid(SPEC.child(key), false, UNSET_OR_TRUE)),
        }
    }
    one_place(errors, &found, ONE_PLACE, ", but multiple fields are set", &SPEC);
}

fn one_place(errors: &mut Errors, found: &[&str], detail: &str, too_many: &str, path: &Path) {
    match found.len() {
        0 => errors.push(FieldError::required(path, detail)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, format!("{{{}}}", found.join(", ")), format!("{detail}{too_many}"))),
    }
}

fn device(errors: &mut Errors, device: &Tree, old: Option<&Tree>, has_place: bool, path: &Path) {
    dns_label(errors, text(device, "name"), &path.child("name"));
    let attributes = entries(device, "attributes").count();
    let properties = attributes + entries(device, "capacity").count();
    for (count, most, what) in [(properties, PROPERTIES_MAX, "attributes and capacities"), (attributes, VALUES_MAX, "attribute values")] {
        if count > most {
            errors.push(FieldError::invalid(path, count as i64, format!("the total number of {what} must not exceed {most}")));
        }
    }
    let attributes_path = path.child("attributes");
    for (name, value) in entries(device, "attributes") {
        qualified_name(errors, name, &attributes_path);
        attribute(errors, name, value, &attributes_path);
    }
    // What stays as it was is not looked at anew.
    let differs = |key| old.is_none_or(|old| !same_at(old, device, key));
    if differs("capacity") {
        let path = path.child("capacity");
        for (name, value) in entries(device, "capacity") {
            qualified_name(errors, name, &path);
            let (shown, policy) = (shortened(name, KEY_BYTES_MAX), set(value, "requestPolicy"));
            let path = path.key(&shown);
            let path = path.child("requestPolicy");
            match policy {
                None => {}
                Some(policy) if flag(device, "allowMultipleAllocations") => capacity::policy(errors, at(value, "value"), policy, &path),
                Some(_) => errors.push(FieldError::forbidden(path, "allowMultipleAllocations must be true")),
            }
        }
    }
    if differs("taints") {
        let path = path.child("taints");
        for (i, one) in bounded(errors, device, "taints", TAINTS_MAX, &path).iter().enumerate() {
            taint(errors, one, &path.index(i));
        }
    }
    let consumed_path = path.child("consumesCounters");
    let consumed = bounded(errors, device, "consumesCounters", CONSUMED_SETS_MAX, &consumed_path);
    for (i, one) in consumed.iter().enumerate() {
        counters(errors, one, "counterSet", &consumed_path.index(i));
    }
    declared_unique(errors, consumed, |consumed| text(consumed, "counterSet").to_owned(), &consumed_path);
    place_of_device(errors, device, has_place, path);
    binding_conditions(errors, device, path);
}

fn place_of_device(errors: &mut Errors, device: &Tree, has_place: bool, path: &Path) {
    let [name, selector, all] = ["nodeName", "nodeSelector", "allNodes"].map(|key| set(device, key));
    if !has_place {
        if name.or(selector).or(all).is_some() {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the \
                          ResourceSlice spec";
            errors.push(FieldError::invalid(path, &Tree::Null, detail));
        }
        return;
    }
    let mut found = Vec::new();
    match name.map(|name| name.as_str().unwrap_or("")) {
        None => {}
        Some("") => errors.push(FieldError::invalid(path.child("nodeName"), "", "must not be empty")),
        Some(name) => {
            found.push("`nodeName`");
            dns_subdomain(errors, name, &path.child("nodeName"));
        }
    }
    if let Some(selector) = selector {
        found.push("`nodeSelector`");
        affinity::node_selector(errors, selector, &path.child("nodeSelector"));
    }
    match all {
        None => {}
        Some(Tree::Bool(true)) => found.push("`allNodes`"),
        Some(_) => errors.push(FieldError::invalid(path.child("allNodes"), false, UNSET_OR_TRUE)),
    }
    one_place(errors, &found, ONE_PLACE_OF_DEVICE, "", path);
}

/// A set of counters, as it is shared and as a device consumes it.
fn counters(errors: &mut Errors, of: &Tree, name_key: &str, path: &Path) {
    let name = text(of, name_key);
    if name.is_empty() {
        errors.push(FieldError::required(path.child(name_key), ""));
    } else {
        invalid(errors, &path.child(name_key), name, names::short_name(name));
    }
    let path = path.child("counters");
    match entries(of, "counters").count() {
        0 => errors.push(FieldError::required(path, "")),
        count if count > COUNTERS_MAX => errors.push(FieldError::too_many(path, count, COUNTERS_MAX)),
        _ => entries(of, "counters").for_each(|(name, _)| invalid(errors, &path, name, names::short_name(name))),
    }
}

/// The last part of such a name.
pub(super) fn identifier(errors: &mut Errors, id: &str, path: &Path) {
    if id.len() > ID_BYTES_MAX {
        errors.push(FieldError::too_long(path, ID_BYTES_MAX));
    }
    invalid(errors, path, id, names::c_identifier(id));
}

/// The name of an attribute or a capacity: an identifier, behind a domain unless that is the driver's. One of three parts passes.
fn qualified_name(errors: &mut Errors, name: &str, path: &Path) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(errors, id, path),
        [domain, id] => {
            match domain {
                "" => errors.push(FieldError::invalid(path, "", "the domain must not be empty")),
                domain => volume::driver_name(errors, domain, path),
            }
            match id {
                "" => errors.push(FieldError::invalid(path, "", "the name must not be empty")),
                id => identifier(errors, id, path),
            }
        }
        _ => {}
    }
}

/// A long key with its middle left out.
fn shortened(key: &str, bytes_max: usize) -> String {
    if key.len() <= bytes_max {
        return key.to_owned();
    }
    let remaining = bytes_max - "...".len();
    let head = key.floor_char_boundary(remaining.div_ceil(2));
    let tail = key.ceil_char_boundary(key.len() - remaining / 2);
    format!("{}...{}", &key[..head], &key[tail..])
}

fn attribute(errors: &mut Errors, name: &str, attribute: &Tree, all: &Path) {
    let shown = shortened(name, KEY_BYTES_MAX);
    let path = all.key(&shown);
    let bounded = |errors: &mut Errors, key: &str| {
        if text(attribute, key).len() > VALUE_BYTES_MAX {
            errors.push(FieldError::too_long(path.child(key), VALUE_BYTES_MAX));
        }
    };
    bounded(errors, "string");
    if let Some(version) = set(attribute, "version").map(|version| version.as_str().unwrap_or("")) {
        if !is_semver(version) {
            errors.push(FieldError::invalid(path.child("version"), version, "must be a string compatible with semver.org spec 2.0.0"));
        }
        bounded(errors, "version");
    }
    let found: Vec<&str> = VALUES.into_iter().filter(|key| set(attribute, key).is_some()).collect();
    if found.len() == 1 {
        return;
    }
    // The type counts its members itself; with a key too long to show, the two do not see that they say the same.
    if shown != name {
        let value = if found.is_empty() { &Tree::from("") } else { attribute };
        errors.push(FieldError::invalid(path, value, "exactly one value must be specified"));
    }
    let members = [&VALUES[..], &["ints", "bools", "strings", "versions"]].concat().iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let path = all.key(name);
    errors.push(match found.is_empty() {
        true => FieldError::invalid(path, "", format!("must specify one of: {members}")),
        false => FieldError::invalid(path, format!("{{{}}}", found.join(", ")), format!("must specify exactly one of: {members}")),
    });
}

/// `1.2.3-alpha.1+build`: no leading zeros in numbers.
fn is_semver(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (numbers, before) = text.split_once('-').map_or((text, None), |(text, before)| (text, Some(before)));
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'));
    let is_word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_identifier = |s: &str| is_number(s) || is_word(s) && s.bytes().any(|b| !b.is_ascii_digit());
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && before.is_none_or(|before| before.split('.').all(is_identifier))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_semver() {
        for sound in ["1.2.3", "0.0.0", "1.2.3-alpha.1", "1.2.3-0a", "1.2.3+01.b", "1.2.3-a+b", "1.2.3--"] {
            assert!(is_semver(sound), "{sound}");
        }
        for wrong in ["", "1.2", "01.2.3", "1.2.3-01", "1.2.3-", "1.2.3+", "v1.2.3", "1.2.3-a..b", "1.2.3.4"] {
            assert!(!is_semver(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_long_key_loses_its_middle() {
        assert_eq!(shortened("abcdefghijklmnopqrstuvwxyz", 16), "abcdefg...uvwxyz");
        assert_eq!(shortened("short", 16), "short");
    }
}

//! What was allocated to a claim, for whom, and what drivers tell of it.
use super::super::check::*;
use super::claim::{RequestNames, request_refs};
use super::{LIST_MAX, binding_conditions, bounded, configuration, declared_driver, declared_unique, pool_name, raw_object, toleration};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;
use crate::validation::{affinity, conditions, volume};

const STATUS: Path<'static> = Path::new("status");
const USERS_MAX: usize = 256;
const CONDITIONS_MAX: usize = 8;
const DATA_BYTES_MAX: usize = 10 * 1024;
const ADDRESSES_MAX: usize = 16;

pub(super) fn check(errors: &mut Errors, new: &Tree, old: &Tree) {
    let (status, before) = (at(new, "status"), at(old, "status"));
    let (allocation, allocation_before) = (set(status, "allocation"), set(before, "allocation"));
    reserved_for(errors, status, before, set(at(new, "metadata"), "deletionTimestamp").is_some());
    let allocated: Vec<[&str; 4]> = list(at(at(status, "allocation"), "devices"), "results").iter().map(device_id).collect();
    let devices_path = STATUS.child("devices");
    let devices = list(status, "devices");
    for (i, device) in devices.iter().enumerate() {
        device_status(errors, device, &allocated, &devices_path.index(i));
    }
    declared_unique(errors, devices, |device| device_id(device).map(str::to_owned), &devices_path);
    let path = STATUS.child("allocation");
    match (allocation, allocation_before) {
        (Some(new), Some(old)) if !same(new, old) => {
            errors.push(FieldError::invalid(path, &Tree::Null, "field cannot be modified once set"));
        }
        (Some(_), Some(_)) | (None, _) => {}
        (Some(allocation), None) => allocation_result(errors, allocation, &RequestNames::of(at(new, "spec")), &path),
    }
}

fn device_id(device: &Tree) -> [&str; 4] {
    ["driver", "pool", "device", "shareID"].map(|key| text(device, key))
}

fn reserved_for(errors: &mut Errors, status: &Tree, before: &Tree, is_deleted: bool) {
    let path = STATUS.child("reservedFor");
    let users = bounded(errors, status, "reservedFor", USERS_MAX, &path);
    for (i, user) in users.iter().enumerate() {
        ["resource", "name", "uid"].iter().for_each(|key| require(errors, user, key, &path.index(i)));
    }
    declared_unique(errors, users, |user| text(user, "uid").to_owned(), &path);
    if list(status, "reservedFor").is_empty() {
        return;
    }
    if set(status, "allocation").is_none() {
        errors.push(FieldError::forbidden(path, "may not be specified when `allocated` is not set"));
    } else if is_deleted && users.iter().any(|user| !list(before, "reservedFor").iter().any(|known| same(user, known))) {
        let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn allocation_result(errors: &mut Errors, allocation: &Tree, known: &RequestNames, path: &Path) {
    let devices = at(allocation, "devices");
    let devices_path = path.child("devices");
    let results = devices_path.child("results");
    for (i, one) in bounded(errors, devices, "results", LIST_MAX, &results).iter().enumerate() {
        result(errors, one, known, &results.index(i));
    }
    let config = devices_path.child("config");
    for (i, one) in bounded(errors, devices, "config", 2 * LIST_MAX, &config).iter().enumerate() {
        let path = config.index(i);
        one_of(errors, text(one, "source"), &["FromClaim", "FromClass"], &path.child("source"));
        request_refs(errors, one, known, &path);
        configuration(errors, one, false, &path);
    }
    if let Some(selector) = set(allocation, "nodeSelector") {
        affinity::node_selector(errors, selector, &path.child("nodeSelector"));
    }
}

fn result(errors: &mut Errors, result: &Tree, known: &RequestNames, path: &Path) {
    known.check(errors, text(result, "request"), &path.child("request"));
    declared_driver(errors, text(result, "driver"), &path.child("driver"));
    declared_pool(errors, text(result, "pool"), &path.child("pool"));
    dns_label(errors, text(result, "device"), &path.child("device"));
    binding_conditions(errors, result, path);
    let tolerations = path.child("tolerations");
    for (i, one) in list(result, "tolerations").iter().enumerate() {
        toleration(errors, one, &tolerations.index(i));
    }
    declared_share(errors, result, path);
}

fn declared_pool(errors: &mut Errors, name: &str, path: &Path) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > super::POOL_BYTES_MAX {
        errors.push(FieldError::too_long(path, super::POOL_BYTES_MAX));
    }
    for (i, part) in name.split('/').enumerate() {
        if part.is_empty() {
            errors.push(FieldError::invalid(path, name, format!("segment {i}: must not be empty")));
        } else {
            invalid(errors, path, part, names::long_name(part).into_iter().map(|text| format!("segment {i}: {text}")).collect());
        }
    }
}

fn declared_share(errors: &mut Errors, of: &Tree, path: &Path) {
    let Some(share) = set(of, "shareID") else { return };
    let share = share.as_str().unwrap_or("");
    let is_shaped = share.len() == 36
        && share.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        });
    if !is_shaped {
        errors.push(FieldError::invalid(path.child("shareID"), share, "must be a lowercase UUID in 8-4-4-4-12 format"));
    }
}

/// What a driver tells of a device.
fn device_status(errors: &mut Errors, device: &Tree, allocated: &[[&str; 4]], path: &Path) {
    volume::driver_name(errors, text(device, "driver"), &path.child("driver"));
    pool_name(errors, text(device, "pool"), &path.child("pool"));
    dns_label(errors, text(device, "device"), &path.child("device"));
    declared_share(errors, device, path);
    if !allocated.contains(&device_id(device)) {
        errors.push(FieldError::invalid(path, device_id(device).join("/"), "must be an allocated device in the claim"));
    }
    let (found, conditions_path) = (list(device, "conditions"), path.child("conditions"));
    if found.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(conditions_path, found.len(), CONDITIONS_MAX));
    }
    conditions::check(errors, found, &conditions_path);
    if let Some(data) = set(device, "data") {
        raw_object(errors, data, DATA_BYTES_MAX, &path.child("data"));
    }
    let Some(network) = set(device, "networkData") else { return };
    let path = path.child("networkData");
    for (key, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if text(network, key).len() > most {
            errors.push(FieldError::too_long(path.child(key), most));
        }
    }
    let path = path.child("ips");
    let addresses = bounded(errors, network, "ips", ADDRESSES_MAX, &path);
    for (i, address) in addresses.iter().enumerate() {
        let address = address.as_str().unwrap_or("");
        invalid(errors, &path.index(i), address, names::interface_address(address));
    }
    declared_unique(errors, addresses, Tree::to_json, &path);
}

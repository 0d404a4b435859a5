//! How much of a device one claim may take of it.
use super::super::check::*;
use crate::field_error::{FieldError, Path};
use crate::quantity::Quantity;
use crate::tree::Tree;

const OPTIONS_MAX: usize = 10;
const TOO_LARGE: &str = "must not be larger than 9223372036854775807";

pub(super) fn policy(errors: &mut Errors, value: &Tree, policy: &Tree, path: &Path) {
    let most = quantity(value);
    let (values, range) = (list(policy, "validValues"), set(policy, "validRange"));
    let default = set(policy, "default").map(quantity);
    match (values.is_empty(), range, default) {
        (false, Some(_), _) => {
            let detail = r#"exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time"#;
            errors.push(FieldError::forbidden(path, detail));
        }
        (true, None, _) => {}
        (false, _, None) => errors.push(FieldError::required(path.child("default"), "required when validValues is defined")),
        (true, Some(_), None) => errors.push(FieldError::required(path.child("default"), "required when validRange is defined")),
        (false, _, Some(default)) => {
            let values: Vec<Quantity> = values.iter().map(quantity).collect();
            options(errors, default, most, &values, &path.child("validValues"));
        }
        (true, Some(range), Some(default)) => in_range(errors, default, most, range, &path.child("validRange")),
    }
}

fn options(errors: &mut Errors, default: Quantity, most: Quantity, values: &[Quantity], path: &Path) {
    for (i, pair) in values.windows(2).enumerate() {
        if pair[0] > pair[1] {
            errors.push(FieldError::invalid(path.index(i + 1), &pair[1], "values must be sorted in ascending order"));
        }
    }
    if values.len() > OPTIONS_MAX {
        errors.push(FieldError::too_many(path, values.len(), OPTIONS_MAX));
    } else {
        for (i, value) in values.iter().enumerate().filter(|(_, value)| **value > most) {
            errors.push(FieldError::invalid(path.index(i), value, format!("option is larger than capacity value: {most}")));
        }
        for (i, value) in values.iter().enumerate().filter(|(i, value)| values[..*i].contains(value)) {
            let shown = if value.is_whole() { value.value().to_string() } else { value.to_string() };
            errors.push(FieldError::duplicate(path.index(i), shown));
        }
    }
    if values.len() > OPTIONS_MAX || !values.contains(&default) {
        errors.push(FieldError::invalid(path, &default, "default value is not valid according to the requestPolicy"));
    }
}

fn in_range(errors: &mut Errors, default: Quantity, most: Quantity, range: &Tree, path: &Path) {
    let [min, max, step] = ["min", "max", "step"].map(|key| set(range, key).map(quantity));
    let Some(min) = min else {
        errors.push(FieldError::required(path.child("min"), "required when validRange is defined"));
        return;
    };
    let mut wrong = |key: &str, value: Quantity, detail: String| errors.push(FieldError::invalid(path.child(key), &value, detail));
    if min > most {
        wrong("min", min, format!("min is larger than capacity value: {most}"));
    }
    if default < min {
        wrong("default", default, format!("default is less than min: {min}"));
    }
    if let Some(max) = max {
        if min > max {
            wrong("max", min, format!("min is larger than max: {max}"));
        }
        if max > most {
            wrong("max", max, format!("max is larger than capacity value: {most}"));
        }
        if default > max {
            wrong("default", default, format!("default is more than max: {max}"));
        }
    }
    let all = [("default", Some(default)), ("min", Some(min)), ("max", max), ("step", step)];
    let given = || all.iter().filter_map(|(key, value)| value.map(|value| (*key, value)));
    let in_pieces = given().any(|(_, value)| !value.is_whole());
    if in_pieces {
        let unsafe_values: Vec<_> = given().filter(|(_, value)| !value.is_whole_milli()).collect();
        unsafe_values.iter().for_each(|(key, value)| wrong(key, *value, "value cannot be represented as a milli value".to_owned()));
        if !unsafe_values.is_empty() {
            return;
        }
    }
    let Some(step) = step else { return };
    if step.sign() <= 0 {
        wrong("step", step, "must be greater than zero".to_owned());
        return;
    }
    if min + step > most {
        wrong("step", step, format!("one step {} is larger than capacity value: {most}", min + step));
    }
    if !in_pieces {
        let largest = Quantity::from_whole(i64::MAX, step.format());
        let unsafe_values: Vec<_> = given().filter(|(_, value)| value.sign() < 0 || *value > largest).collect();
        for (key, value) in &unsafe_values {
            wrong(key, *value, if value.sign() < 0 { NOT_NEGATIVE } else { TOO_LARGE }.to_owned());
        }
        if !unsafe_values.is_empty() {
            return;
        }
    }
    let amount = |of: Quantity| i128::from(if in_pieces { of.milli_value() } else { of.value() });
    for value in [Some(default), max].into_iter().flatten() {
        if (amount(value) - amount(min)) % amount(step) != 0 {
            wrong("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}

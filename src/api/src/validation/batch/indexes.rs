//! The text form of completion indexes, `1,3-5`. Models parseIndexInterval and its users in pkg/apis/batch/validation/validation.go, v1.37.

fn number(text: &str, completions: i64) -> Result<i64, String> {
    let value: i64 = text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
    if value >= completions { Err(format!("too large index: {text:?}")) } else { Ok(value) }
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = text.split('-').collect();
    match parts[..] {
        [one] => number(one, completions).map(|x| (x, x)),
        [first, last] => {
            let (x, y) = (number(first, completions)?, number(last, completions)?);
            if x >= y { Err(format!("non-increasing order, previous: {x}, current: {y}")) } else { Ok((x, y)) }
        }
        _ => {
            let rule = "violates the requirement that an index interval can have at most two parts separated by '-'";
            Err(format!("the fragment {text:?} {rule}"))
        }
    }
}

/// How many indexes the text names.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (x, y) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= x) {
            return Err(format!("non-increasing order, previous: {last}, current: {x}"));
        }
        total += y - x + 1;
        last = Some(y);
    }
    Ok(total)
}

/// The first index that both texts name.
pub(super) fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    // What does not parse is told elsewhere.
    let read = |text: &str| -> Vec<(i64, i64)> { text.split(',').filter_map(|part| interval(part, completions).ok()).collect() };
    let failed = read(failed);
    let pairs = read(completed).into_iter().flat_map(|c| failed.iter().map(move |f| (c, *f)));
    pairs.filter(|(c, f)| c.0 <= f.1 && f.0 <= c.1).map(|(c, f)| c.0.max(f.0)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_indexes_are_checked() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        assert_eq!(count("2,1", 5), Err("non-increasing order, previous: 2, current: 1".to_owned()));
        assert_eq!(count("3-3", 5), Err("non-increasing order, previous: 3, current: 3".to_owned()));
        assert_eq!(count("5", 5), Err("too large index: \"5\"".to_owned()));
        assert_eq!(count("a", 5), Err("cannot convert string to integer for index: \"a\"".to_owned()));
        assert!(count("1-2-3", 5).unwrap_err().starts_with("the fragment \"1-2-3\" violates"));
        assert_eq!(overlap("0-2", "1,4", 5), Some(1));
        assert_eq!(overlap("0-2", "3,4", 5), None);
    }
}

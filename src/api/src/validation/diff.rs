//! Shows how two versions of a spec differ, for the messages that name a forbidden change.
//!
//! In the shape of the go-cmp report that upstream prints (its exact text is unstable by design): one line for each field that differs.
use crate::tree::Tree;

/// `go_type` is what the report opens with: `core.PodSpec`.
pub(super) fn diff(old: &Tree, new: &Tree, go_type: &str) -> String {
    let mut out = format!("  {go_type}{{\n");
    lines(&mut out, old, new, 1);
    out.push_str("  }\n");
    out
}

fn lines(out: &mut String, old: &Tree, new: &Tree, depth: usize) {
    let tabs = "\t".repeat(depth);
    let mut identical = 0;
    let mut keys: Vec<&str> = [old, new].iter().filter_map(|t| t.as_object()).flat_map(|o| o.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let flush = |out: &mut String, identical: &mut usize| {
        if *identical > 0 {
            out.push_str(&format!("  {tabs}... // {identical} identical field{}\n", if *identical == 1 { "" } else { "s" }));
        }
        *identical = 0;
    };
    for key in keys {
        let (before, after) = (old.get(key), new.get(key));
        if before == after {
            identical += 1;
            continue;
        }
        flush(out, &mut identical);
        let name = field_name(key);
        match (before, after) {
            (Some(before @ Tree::Object(_)), Some(after @ Tree::Object(_))) => {
                out.push_str(&format!("  {tabs}{name}: {{\n"));
                lines(out, before, after, depth + 1);
                out.push_str(&format!("  {tabs}}},\n"));
            }
            (Some(Tree::Array(before)), Some(Tree::Array(after))) => {
                out.push_str(&format!("  {tabs}{name}: {{\n"));
                items(out, before, after, depth + 1);
                out.push_str(&format!("  {tabs}}},\n"));
            }
            _ => {
                let show = |t: Option<&Tree>| t.map_or("nil".to_owned(), |t| String::from_utf8_lossy(&t.to_json()).into_owned());
                out.push_str(&format!("- {tabs}{name}: {},\n+ {tabs}{name}: {},\n", show(before), show(after)));
            }
        }
    }
    flush(out, &mut identical);
}

fn items(out: &mut String, before: &[Tree], after: &[Tree], depth: usize) {
    let tabs = "\t".repeat(depth);
    for i in 0..before.len().max(after.len()) {
        match (before.get(i), after.get(i)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a @ Tree::Object(_)), Some(b @ Tree::Object(_))) => {
                out.push_str(&format!("  {tabs}{{\n"));
                lines(out, a, b, depth + 1);
                out.push_str(&format!("  {tabs}}},\n"));
            }
            (a, b) => {
                for (sign, item) in [("-", a), ("+", b)] {
                    if let Some(item) = item {
                        out.push_str(&format!("{sign} {tabs}{},\n", String::from_utf8_lossy(&item.to_json())));
                    }
                }
            }
        }
    }
}

/// The Go name of a JSON field.
fn field_name(key: &str) -> String {
    let mut chars = key.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

//! YAML through serde-saphyr, set to read what sigs.k8s.io/yaml reads (YAML 1.1 booleans, octal numbers, merge keys).
use serde_saphyr::{Budget, DuplicateKeyPolicy, Error, Options};

use super::{DEPTH_MAX, ParseError, Parsed};
use crate::tree::Tree;

/// For the deepest document: serde-saphyr recurses, with some 40 KiB for each level where nothing is optimized.
const STACK_BYTES: usize = 16 << 20;

/// Reads on a stack of its own, as callers' stacks are small.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("yaml".into()).stack_size(STACK_BYTES).spawn_scoped(scope, || read(bytes));
        let reader = reader.map_err(|error| ParseError(format!("yaml: no thread to read on: {error}")))?;
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn read(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ParseError("yaml: invalid leading UTF-8 octet".into()))?;
    let tree: Tree = serde_saphyr::from_str_with_options(text, options(bytes.len(), DuplicateKeyPolicy::LastWins)).map_err(conversion)?;
    super::check_bounds(&tree)?;
    // A second reading names the first duplicate, as upstream's strict converter does.
    let strict = serde_saphyr::from_str_with_options::<Tree>(text, options(bytes.len(), DuplicateKeyPolicy::Error));
    let duplicates = strict.err().map(duplicate).into_iter().collect();
    Ok(Parsed { tree, duplicates })
}

fn options(size: usize, duplicate_keys: DuplicateKeyPolicy) -> Options {
    // The budget grows with the input: aliases may repeat what is there a few times, not blow it up.
    let nodes = size.saturating_mul(4).max(10_000);
    let mut budget = Budget::default();
    budget.max_depth = DEPTH_MAX;
    budget.max_nodes = nodes;
    budget.max_events = nodes.saturating_mul(2);
    let mut options = Options::default();
    options.budget = Some(budget);
    options.duplicate_keys = duplicate_keys;
    options.legacy_octal_numbers = true;
    options.with_snippet = false;
    options
}

/// As go-yaml names it.
fn duplicate(error: Error) -> String {
    match error {
        Error::DuplicateMappingKey { key: Some(key), location } => {
            format!("yaml: unmarshal errors:\n  line {}: key {} already set in map", location.line(), super::quote(&key))
        }
        error => conversion(error).0,
    }
}

fn conversion(error: Error) -> ParseError {
    let text = error.to_string();
    ParseError(format!("error converting YAML to JSON: yaml: {}", text.lines().next().unwrap_or_default()))
}

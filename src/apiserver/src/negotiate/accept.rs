//! The clauses of an Accept header, read and ordered as upstream's library does it (github.com/munnerz/goautoneg).

/// More clauses than any client sends are passed over.
const CLAUSES_MAX: usize = 64;

/// One media range with its parameters.
#[derive(Debug, PartialEq)]
pub struct Clause<'h> {
    pub kind: &'h str,
    pub subtype: &'h str,
    quality: f64,
    parameters: Vec<(&'h str, &'h str)>,
}

impl<'h> Clause<'h> {
    fn parse(text: &'h str) -> Option<Self> {
        let mut parts = text.split(';');
        let media = parts.next()?.trim_matches(' ');
        let (kind, subtype) = match media.split_once('/') {
            None if media == "*" => ("*", "*"),
            None => return None,
            Some((_, subtype)) if subtype.contains('/') => return None,
            Some((kind, subtype)) => (kind.trim_matches(' '), subtype.trim_matches(' ')),
        };
        let mut clause = Clause { kind, subtype, quality: 1.0, parameters: Vec::new() };
        for (name, value) in parts.filter_map(|part| part.split_once('=')).filter(|(_, value)| !value.is_empty() && !value.contains('=')) {
            match name.trim_matches(' ') {
                // What is no number is no quality, and comes last.
                "q" => clause.quality = value.parse().unwrap_or(0.0),
                name => clause.parameters.push((name, value.trim_matches(' '))),
            }
        }
        Some(clause)
    }

    /// A parameter's value; the last one counts.
    pub fn parameter(&self, name: &str) -> Option<&'h str> {
        self.parameters.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    pub fn covers(&self, media: &str) -> bool {
        let (kind, subtype) = media.split_once('/').unwrap_or((media, ""));
        match (self.kind, self.subtype) {
            ("*", "*") => true,
            (own, "*") => own == kind,
            (own, own_subtype) => own == kind && own_subtype == subtype,
        }
    }

    /// Not an order: a range that is more specific comes before one that is less so, whatever their qualities say.
    fn comes_before(&self, other: &Self) -> bool {
        self.quality > other.quality || (self.kind != "*" && other.kind == "*") || (self.subtype != "*" && other.subtype == "*")
    }
}

/// The clauses, most wanted first.
pub fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause> = header.split(',').take(CLAUSES_MAX).filter_map(|text| Clause::parse(text.trim_matches(' '))).collect();
    // Sorted by insertion, as Go sorts what is short; with a relation that is no order the way of sorting shows.
    for i in 1..clauses.len() {
        let mut j = i;
        while j > 0 && clauses[j].comes_before(&clauses[j - 1]) {
            clauses.swap(j, j - 1);
            j -= 1;
        }
    }
    clauses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, expected: &[&str]) {
        let found: Vec<String> = clauses(header).iter().map(|c| format!("{}/{}", c.kind, c.subtype)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn clauses_come_by_quality_and_the_specific_ones_first() {
        check("application/json;q=0.5,application/vnd.kubernetes.protobuf", &["application/vnd.kubernetes.protobuf", "application/json"]);
        check("*/*,application/yaml;q=0.1", &["application/yaml", "*/*"]);
        check("*", &["*/*"]);
        check("json, a/b/c, application/json", &["application/json"]);
        check("", &[]);
    }

    #[test]
    fn parameters_are_read() {
        let clause = &clauses("application/json;as=Table; g=meta.k8s.io;v=v1;x;q=z")[0];
        assert_eq!((clause.parameter("as"), clause.parameter("g"), clause.parameter("x")), (Some("Table"), Some("meta.k8s.io"), None));
        assert_eq!(clause.quality, 0.0);
        assert!(clause.covers("application/json") && !clause.covers("application/yaml"));
    }
}

//! What is wrong with an expression, in upstream's words.
use std::fmt;

/// One thing that is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From 1; -1 where upstream names no place.
    pub line: i32,
    /// From 0, in characters, as upstream keeps it.
    pub column: i32,
    pub message: String,
}

/// Why an expression does not compile; never empty. Prints as cel-go's `Issues`:
///
/// ```text
/// ERROR: <input>:1:1: undeclared reference to 'x' (in container '')
///  | x
///  | ^
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    source: String,
    issues: Vec<Issue>,
}

/// Upstream reports no more.
const ISSUES_MAX: usize = 100;
/// The longest line that is shown.
const SNIPPET_BYTES_MAX: usize = 16384;

/// A text and where its lines are.
pub(crate) struct Source<'t> {
    pub text: &'t str,
}

impl Source<'_> {
    pub fn issue(&self, at: u32, message: String) -> Issue {
        if self.text.is_empty() {
            return Issue { line: 1, column: -1, message };
        }
        let before = &self.text[..at as usize];
        let line = before.matches('\n').count() as i32 + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) as i32;
        Issue { line, column, message }
    }
}

impl Issues {
    pub(crate) fn new(source: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| (issue.line, issue.column));
        Self { source: source.to_owned(), issues }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter()
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, issue) in self.issues.iter().take(ISSUES_MAX).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "ERROR: <input>:{}:{}: {}", issue.line, issue.column + 1, issue.message)?;
            let line = usize::try_from(issue.line - 1).ok().and_then(|n| self.source.split('\n').nth(n));
            let Some(line) = line.filter(|line| line.len() <= SNIPPET_BYTES_MAX && !self.source.is_empty()) else { continue };
            write!(f, "\n | {}\n | ", line.replace('\t', " "))?;
            let column = usize::try_from(issue.column).unwrap_or(0);
            for c in line.chars().take(column) {
                f.write_str(if wide(c) { "．" } else { "." })?;
            }
            f.write_str(if line.chars().nth(column).is_some_and(wide) { "＾" } else { "^" })?;
        }
        match self.issues.len().checked_sub(ISSUES_MAX) {
            Some(more @ 1..) => write!(f, "\n{more} more errors were truncated"),
            _ => Ok(()),
        }
    }
}

/// Printed over two columns, as cel-go counts: any character of more than one byte.
fn wide(c: char) -> bool {
    c.len_utf8() > 1
}

impl std::error::Error for Issues {}

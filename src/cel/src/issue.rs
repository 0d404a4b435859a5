//! What is wrong with an expression, in upstream's words.
use std::fmt;

/// One thing that is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From 1.
    pub line: u32,
    /// From 0, in characters, as upstream keeps it.
    pub column: u32,
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
    pub(crate) source: String,
    pub(crate) issues: Vec<Issue>,
}

impl Issues {
    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter()
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, issue) in self.issues.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "ERROR: <input>:{}:{}: {}", issue.line, issue.column + 1, issue.message)?;
            let Some(line) = self.source.split('\n').nth(issue.line.saturating_sub(1) as usize) else { continue };
            write!(f, "\n | {}\n | ", line.replace('\t', " "))?;
            for c in line.chars().take(issue.column as usize) {
                f.write_str(if wide(c) { "．" } else { "." })?;
            }
            f.write_str(if line.chars().nth(issue.column as usize).is_some_and(wide) { "＾" } else { "^" })?;
        }
        Ok(())
    }
}

/// Printed over two columns, as cel-go counts: any character of more than one byte.
fn wide(c: char) -> bool {
    c.len_utf8() > 1
}

impl std::error::Error for Issues {}

//! What is wrong with a zone, where, and what was expected instead.

use std::fmt;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The zone is served; somebody should look.
    Warning,
    /// The zone is not served.
    Error,
}

/// One fault of a zone file. `line` and `column` count from 1; 0 means "the file as a whole".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the zone can be served nevertheless.
    pub severity: Severity,
    /// The file, as the source named it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The octet of the line, from 1; 0 where a whole record is meant.
    pub column: u32,
    /// The text or record at fault, printable and short.
    pub text: String,
    /// What was expected, or what is wrong: a phrase.
    pub expected: String,
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: error: "text": expected ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, ": {severity}: ")?;
        if !self.text.is_empty() {
            write!(f, "\"{}\": ", self.text)?;
        }
        f.write_str(&self.expected)
    }
}

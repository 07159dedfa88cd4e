//! Zones: from text to prepared fragments and an index.
//!
//! ```text
//!   Source ──> text (several parts at once) ──> stage ──> check ──> nodes + index = Zone
//! ```

pub mod diagnostic;
pub mod source;
pub mod text;

pub use diagnostic::{Diagnostic, Severity};
pub use source::{Source, SourceText, Text};

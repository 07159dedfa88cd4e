//! Which queries are sent: files, what a zone has, profiles of real traffic.
//!
//! ```text
//!   file, zone, profile ──> Questions { messages ready to send, the order they are asked in }
//! ```

pub mod cli;
pub mod profile;
mod questions;

pub use questions::{Entry, Expected, Questions, QuestionsBuilder, Traits};

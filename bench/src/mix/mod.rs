//! Which queries are sent: files, what a zone has, profiles of real traffic.
//!
//! ```text
//!   file ────┐
//!   zone ────┼─> Composer ──> Questions { messages ready to send, the order they are asked in }
//!   profile ─┘                    └──> Expected, from the zones' own answers ──> verify
//! ```

pub mod cli;
pub mod draw;
pub mod expect;
pub mod file;
pub mod generate;
pub mod names;
pub mod profile;
pub mod query;
mod questions;
pub mod verify;
pub mod zone;

pub use questions::{Entry, Expected, Questions, QuestionsBuilder, Traits};

//! What a buyer needs: what this machine carries within agreed bounds, what limits it, how many of
//! it to buy; and how well that was predicted.
//!
//! ```text
//!   classes ──> campaign ──> runs ──> fit ──> predict ──> draw ──> Plan
//!                  │                 (core time by class,   └─ limits: NIC, line, buffers, memory
//!                  v                  scaling with cores)
//!                 Lab: testbed (server, place, core_time, zone), or a model of one in the tests
//! ```
//!
//! `fit`, `predict`, `limits` and `draw` are pure.

pub mod campaign;
pub mod classes;
mod cli;
pub mod core_time;
pub mod draw;
pub mod fit;
pub mod lab;
pub mod limits;
pub mod place;
pub mod predict;
mod prepare;
pub mod server;
pub mod sorting;
pub mod testbed;
pub mod upstream;
pub mod zone;

pub use cli::{Options, run};

//! Load, capacity and measurements for DNS servers: what `ring53-bench` is made of.
//!
//! ```text
//!   compare ─┐
//!   plan ────┼─> find ──> load ──> { mix, report }        bed, probe, inside: the pieces that
//!            └──────────────────> { mix, report }         measurements on one machine need
//!   truth: a server whose answers are late and lost as a script says, to check the generator
//! ```

pub mod bed;
pub mod compare;
pub mod find;
pub mod inside;
pub mod load;
pub mod mix;
pub mod plan;
pub mod ports;
pub mod probe;
pub mod report;
pub mod truth;
pub mod zones;

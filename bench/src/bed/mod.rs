//! Where measurements on one machine happen, and what stands at their two ends.
//!
//! ```text
//!   namespace of the server, core S        namespace of the client, core C
//!   server, spinner, echo, reflector   <─ veth ─>   generator, prober
//! ```

pub mod buffers;
pub mod cli;
pub mod counters;
pub mod echo;
pub mod namespaces;
pub mod reflect;
pub mod spin;

pub use namespaces::Bed;

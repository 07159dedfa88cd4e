//! Zones on their way between servers, as state machines: octets and time come in, octets go out.
//!
//! ```text
//!   request ──> outgoing ──> messages of a zone, one at a time          (primary)
//!   messages ──> incoming ──> a zone that was checked                   (secondary)
//!   message ──> update ──> a change of a zone                           (primary)
//! ```

pub mod incoming;
pub mod outgoing;
mod pack;
pub mod refresh;
pub mod update;

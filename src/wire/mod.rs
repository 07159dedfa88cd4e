//! DNS bytes: names, header, EDNS, records and the builder. No allocation on the hot path, no
//! unsafe, no panic on any bytes.

mod name;
pub mod rtype;

pub use name::{Name, NameError};

//! DNS bytes: names, header, EDNS, records and the builder. No allocation on the hot path, no
//! unsafe, no panic on any bytes.

mod lower;
pub mod message;
mod name;
pub mod query;
pub mod rcode;
pub mod rtype;

pub use lower::{LOWER_BUFFER_LEN, LowerName};
pub use name::{Name, NameError};

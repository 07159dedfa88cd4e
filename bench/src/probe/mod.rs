//! Single questions to a server: is it right, how fast is a transfer, does it stand bad octets; and
//! one of each, for a cache to have.

pub mod change;
pub mod fill;
pub mod malformed;
pub mod transfer;
pub mod verify;

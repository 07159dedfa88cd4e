//! Single questions to a server: is it right, how fast is a transfer, does it stand bad octets.

pub mod change;
pub mod malformed;
pub mod transfer;
pub mod verify;

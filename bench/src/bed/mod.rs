//! What stands at the two ends of a measurement: an echo, a reflector, a spinner.

pub mod echo;
pub mod reflect;
pub mod spin;

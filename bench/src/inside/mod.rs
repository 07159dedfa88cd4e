//! Measurements in process, without a network.

pub mod answer;
pub mod counts;
pub mod pieces;
pub mod zone;

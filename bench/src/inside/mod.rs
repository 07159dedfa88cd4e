//! Measurements in process, without a network.

pub mod answer;

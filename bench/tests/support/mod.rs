//! What the tests of mixes share: seeded traffic, and captures of it as programs write them.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod frames;
pub mod servers;
pub mod traffic;

//! The unsafe that the upper layers stand on, behind safe faces.
//!
//! - [`Region`]: a large anonymous mapping that asks for huge pages and goes back to the kernel
//!   whole when it is dropped.
//! - [`Shared`]: one with several owners.
//! - [`Pages`]: a growing array that does the same.
//! - [`prefetch`]: asks for a cache line before it is needed.
//! - [`epoch`]: publishes a value that the cores read without locks; only the publisher frees.

pub mod epoch;
mod pages;
mod prefetch;
mod region;

pub use pages::Pages;
pub use prefetch::prefetch;
pub use region::{HUGE_PAGE_LEN, Region, Shared};

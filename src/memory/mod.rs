//! The unsafe that the upper layers stand on, behind safe faces.
//!
//! - [`Region`]: a large anonymous mapping that asks for huge pages and goes back to the kernel
//!   whole when it is dropped.
//! - [`Shared`]: one with several owners.
//! - [`Pages`]: a growing array that does the same.
//! - [`small_pages()`]: keeps huge pages for those two.
//! - [`prefetch()`]: asks for a cache line before it is needed.
//! - [`store`]: a table of octets in fixed memory, read without waiting, with one writer.
//! - [`epoch`]: publishes a value that the cores read without locks; only the publisher frees.

pub mod epoch;
mod heap;
mod pages;
mod prefetch;
mod region;
pub mod store;

pub use heap::small_pages;
pub use pages::Pages;
pub use prefetch::{prefetch, prefetch_address};
pub use region::{HUGE_PAGE_LEN, Region, Shared};

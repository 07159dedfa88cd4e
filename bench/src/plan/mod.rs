//! What a buyer needs.

pub mod campaign;
pub mod draw;
pub mod fit;
pub mod lab;
pub mod limits;
pub mod predict;

use std::io;

/// Options.
#[derive(clap::Args)]
pub struct Options {}

/// Runs it.
pub fn run(_options: &Options) -> io::Result<()> {
    Err(io::Error::other("not yet"))
}

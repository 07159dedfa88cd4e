//! PLACEHOLDER

use std::io;

/// Options.
#[derive(clap::Args)]
pub struct Options {}

/// Runs it.
pub fn run(_options: &Options) -> io::Result<()> {
    Err(io::Error::other("not yet"))
}

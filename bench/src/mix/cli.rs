//! The options that choose queries, for every command that sends load.

use std::io;
use std::path::PathBuf;

use super::Questions;

/// Which queries are sent.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MixOptions {
    /// A query file as dnsperf reads it: `name type` a line, in this order.
    #[arg(long, value_name = "FILE")]
    pub queries: Option<PathBuf>,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 53)]
    pub seed: u64,
}

impl MixOptions {
    /// The queries; reads and generates what is needed.
    pub fn questions(&self) -> io::Result<Questions> {
        Err(io::Error::other("which queries? see --queries"))
    }
}

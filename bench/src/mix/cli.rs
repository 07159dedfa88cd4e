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
        let Some(path) = &self.queries else {
            return Err(io::Error::other("which queries? see --queries"));
        };
        let mut builder = super::QuestionsBuilder::default();
        for line in std::fs::read_to_string(path)?.lines() {
            let Some((name, rtype)) = line.split_once(' ') else { continue };
            let name: ring53::wire::Name = name.parse().map_err(io::Error::other)?;
            let rtype: u16 = match rtype {
                "A" => 1,
                "AAAA" => 28,
                "MX" => 15,
                _ => 1,
            };
            let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            query.extend(name.as_wire());
            query.extend(rtype.to_be_bytes());
            query.extend([0, 1]);
            builder.add(&query, query.len() - 12, super::Traits::default());
        }
        Ok(builder.build(path.display().to_string()))
    }
}

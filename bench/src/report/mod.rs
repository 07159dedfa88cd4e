//! What was measured: as JSON, as a page, as a line that moves.

pub mod diff;
pub mod model;
pub mod page;

use std::io;
use std::path::PathBuf;

/// Where the results of a command go.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Outputs {
    /// Write the results as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the results as a page to this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Show no progress.
    #[arg(long)]
    pub quiet: bool,
}

impl Outputs {
    /// Writes the files that were asked for.
    pub fn write(&self, report: &model::Report) -> io::Result<()> {
        if let Some(path) = &self.json {
            let mut text = serde_json::to_vec_pretty(report)?;
            text.push(b'\n');
            std::fs::write(path, text)?;
        }
        Ok(())
    }
}

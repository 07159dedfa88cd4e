//! What was measured: as JSON, as a page, as text, as a line that moves, and beside another result.
//!
//! ```text
//!   load::Live ──> progress                      Report ─┬─> JSON (REPORT.md)
//!                                                        ├─> text ──┐
//!   diff: two reports ──> lines with verdicts            └─> page ──┴─> tables, units
//!                                                             └─> svg
//! ```

pub mod diff;
pub mod model;
pub mod page;
pub mod progress;
pub mod svg;
pub mod table;
pub mod tables;
pub mod text;
pub mod units;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use progress::Progress;

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
    /// What shows the loads of this command while they run.
    pub fn progress(&self) -> Progress {
        Progress::new(self.quiet)
    }

    /// Prints the summary and writes the files that were asked for.
    pub fn finish(&self, report: &model::Report) -> io::Result<()> {
        // The files come first, and the summary whether they could be written or not: neither a
        // closed pipe nor a full disk loses all that was measured.
        let written = self.write(report);
        io::stdout().write_all(text::summary(report).as_bytes())?;
        written
    }

    /// Writes the files that were asked for.
    pub fn write(&self, report: &model::Report) -> io::Result<()> {
        let page = match &self.html {
            Some(path) => save(path, page::html(report).as_bytes()),
            None => Ok(()),
        };
        if let Some(path) = &self.json {
            save(path, &json(report)?)?;
        }
        page
    }
}

/// A report as JSON: fields in the order of the schema, names of maps in order.
pub fn json(report: &model::Report) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    // JSON has no infinity: it would be written as null, which no figure can be.
    if let Err(error) = serde_json::from_slice::<model::Report>(&text) {
        let message = format!("a figure of the report is not finite, so it has no JSON: {error}");
        return Err(io::Error::other(message));
    }
    Ok(text)
}

/// Reads a report that was written as JSON.
pub fn read(path: &Path) -> io::Result<model::Report> {
    let text = fs::read(path).map_err(|error| named(path, error))?;
    parse(&text).map_err(|message| io::Error::other(format!("{}: {message}", path.display())))
}

/// Reads the schema number first: what another schema means is not guessed.
fn parse(text: &[u8]) -> Result<model::Report, String> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: Option<u32>,
    }
    let head: Head = serde_json::from_slice(text)
        .map_err(|error| format!("not JSON of ring53-bench (written with --json): {error}"))?;
    let known = model::SCHEMA;
    match head.schema {
        None => Err("no \"schema\" in it: it is no result of ring53-bench".into()),
        Some(schema) if schema < known => Err(format!(
            "schema {schema} is older than {known}, which this ring53-bench reads: measure again, \
             or read it with the ring53-bench that wrote it"
        )),
        Some(schema) if schema > known => Err(format!(
            "schema {schema} is newer than {known}, which this ring53-bench reads: use a newer one"
        )),
        Some(_) => serde_json::from_slice(text)
            .map_err(|error| format!("not a whole result of schema {known}: {error}")),
    }
}

fn save(path: &Path, octets: &[u8]) -> io::Result<()> {
    fs::write(path, octets).map_err(|error| named(path, error))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_report_of_this_schema_says_why() {
        for (text, message) in [
            ("", "not JSON"),
            ("{}", "no \"schema\""),
            ("{\"schema\": 0}", "older"),
            ("{\"schema\": 99}", "use a newer one"),
            ("{\"schema\": 1, \"command\": \"load\"}", "not a whole result"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
        let error = read(Path::new("no/such/file.json")).unwrap_err().to_string();
        assert!(error.starts_with("no/such/file.json: "), "{error}");
    }

    #[test]
    fn json_is_read_back_as_it_was() {
        let report = model::Report { schema: model::SCHEMA, ..Default::default() };
        let text = json(&report).unwrap();
        assert_eq!(parse(&text).unwrap(), report);
        assert_eq!(json(&report).unwrap(), text);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let report = model::Report { seconds: f64::NAN, ..Default::default() };
        assert!(json(&report).unwrap_err().to_string().contains("not finite"));
    }
}

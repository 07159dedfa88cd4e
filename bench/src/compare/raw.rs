//! Every measurement, kept in a file as it is made: a comparison that is cut off goes on from it.
//!
//! ```text
//!   <directory>/settings.json        what is measured; read again by --resume
//!   <directory>/measurements.jsonl   one step of one contender a line
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::settings::Settings;

/// One step of one contender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Shape of the zone; empty for what belongs to none.
    #[serde(default)]
    pub shape: String,
    /// Mix of queries; empty for steps without.
    #[serde(default)]
    pub mix: String,
    /// `alone`, `filled`, `buffer`, `offer`, `cost`, `latency`, `half`, `overload 2`, `ceiling`,
    /// `received`, `note`.
    pub step: String,
    /// Queries a second that were offered; 0 for steps without.
    #[serde(default)]
    pub rate: u64,
    /// From 0.
    #[serde(default)]
    pub round: u32,
    /// Who; empty for what belongs to all.
    #[serde(default)]
    pub contender: String,
    /// When, RFC 3339 in UTC.
    #[serde(default)]
    pub at: String,
    /// Each figure.
    #[serde(default)]
    pub values: BTreeMap<String, f64>,
    /// What a reader has to know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

type Key = (String, String, String, u64, u32, String);

impl Line {
    fn key(&self) -> Key {
        (
            self.shape.clone(),
            self.mix.clone(),
            self.step.clone(),
            self.rate,
            self.round,
            self.contender.clone(),
        )
    }
}

/// The file of measurements.
pub struct Raw {
    directory: PathBuf,
    file: File,
    lines: Vec<Line>,
    done: HashSet<Key>,
}

impl Raw {
    /// Begins in `directory`, which is made.
    pub fn create(directory: &Path, settings: &Settings) -> io::Result<Raw> {
        fs::create_dir_all(directory)?;
        let text = serde_json::to_vec_pretty(settings)?;
        fs::write(directory.join("settings.json"), text)?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(directory.join("measurements.jsonl"))?;
        let directory = directory.to_path_buf();
        Ok(Raw { directory, file, lines: Vec::new(), done: HashSet::new() })
    }

    /// Goes on in `directory`. What was being written when the earlier run was cut off is
    /// forgotten.
    pub fn resume(directory: &Path) -> io::Result<(Raw, Settings)> {
        let bad = |path: &Path, error: &dyn std::fmt::Display| {
            let remedy = "--resume takes a directory that a comparison has begun";
            io::Error::other(format!("{}: {error}: {remedy}", path.display()))
        };
        let path = directory.join("settings.json");
        let text = fs::read(&path).map_err(|error| bad(&path, &error))?;
        let settings = serde_json::from_slice(&text).map_err(|error| bad(&path, &error))?;
        let path = directory.join("measurements.jsonl");
        let text = fs::read_to_string(&path).map_err(|error| bad(&path, &error))?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let mut lines = Vec::new();
        for (number, line) in text[..whole].lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                io::Error::other(format!("{}:{}: {error}", path.display(), number + 1))
            })?;
            lines.push(line);
        }
        let file = OpenOptions::new().append(true).open(&path)?;
        file.set_len(whole as u64)?;
        let done = lines.iter().map(Line::key).collect();
        Ok((Raw { directory: directory.to_path_buf(), file, lines, done }, settings))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether this step was measured.
    pub fn has(&self, line: &Line) -> bool {
        self.done.contains(&line.key())
    }

    /// Keeps a measurement.
    pub fn keep(&mut self, mut line: Line) -> io::Result<()> {
        line.at = super::clock::now();
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.done.insert(line.key());
        self.lines.push(line);
        Ok(())
    }

    /// All of them, in the order in which they were made.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn line(contender: &str, round: u32) -> Line {
        Line {
            shape: "hosts".into(),
            mix: "uniform".into(),
            step: "cost".into(),
            rate: 100_000,
            round,
            contender: contender.into(),
            values: BTreeMap::from([("core_us".into(), 2.9)]),
            ..Line::default()
        }
    }

    /// What was measured is not measured again, what was cut off is.
    #[test]
    fn a_comparison_goes_on_where_it_was_cut_off() {
        let directory = std::env::temp_dir().join(format!("ring53-raw-{}", std::process::id()));
        let settings = Settings { names: 5, ..Settings::default() };
        let mut raw = Raw::create(&directory, &settings).unwrap();
        raw.keep(line("nsd", 0)).unwrap();
        raw.keep(line("knot", 0)).unwrap();
        drop(raw);
        let path = directory.join("measurements.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{}", &text[..40])).unwrap();

        let (mut raw, again) = Raw::resume(&directory).unwrap();
        assert_eq!(again, settings);
        assert!(raw.has(&line("nsd", 0)) && raw.has(&line("knot", 0)));
        assert!(!raw.has(&line("nsd", 1)) && !raw.has(&line("bind", 0)));
        raw.keep(line("nsd", 1)).unwrap();
        assert_eq!(raw.lines().len(), 3);
        drop(raw);
        assert_eq!(Raw::resume(&directory).unwrap().0.lines().len(), 3);
        assert!(Raw::create(&directory, &settings).is_err(), "nothing is written over");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_without_a_comparison_is_refused() {
        let Err(error) = Raw::resume(Path::new("there/is/nothing")) else { panic!("there is") };
        assert!(error.to_string().contains("--resume"), "{error}");
    }
}

//! `ring53 check`: what is wrong with a configuration or a zone, for people and, with `--json`, for
//! programs. The exit status is the worst of what was found: 0 nothing, 1 errors, 3 warnings only.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::wire::Name;
use crate::zone::{Checks, Denial, Diagnostic, LoadOptions, Loaded, Severity, Zone, load, verify};

use super::config::{Config, ZoneConfig};
use super::report::tell;
use super::zones::files::Files;
use super::{cores, interfaces, zones};

/// Clap's own status for a wrong command line is 2.
const ONLY_WARNINGS: u8 = 3;

/// What was found out about one zone.
struct Checked {
    name: Name,
    file: String,
    loaded: Loaded,
}

impl Checked {
    fn new(zone: &ZoneConfig) -> Result<Checked, String> {
        let threads = cores::allowed().len();
        let options = LoadOptions {
            key: zones::hash_key()?,
            threads,
            nsec3_iterations_max: zone.nsec3_iterations_max,
        };
        let file = zone.file().unwrap_or_default().display().to_string();
        let mut loaded = load(&zone.name, &file, &Files::default(), &options);
        if let Some(loaded_zone) = &loaded.zone {
            let checks = Checks { signatures: true, digest: zone.zonemd };
            let found = verify(loaded_zone, &file, zones::now(), threads, checks);
            loaded.diagnostics.extend(found);
        }
        Ok(Checked { name: zone.name.clone(), file, loaded })
    }

    fn count(&self, severity: Severity) -> usize {
        self.loaded.diagnostics.iter().filter(|found| found.severity == severity).count()
    }

    fn status(&self) -> u8 {
        if self.loaded.zone.is_none() || self.count(Severity::Error) > 0 {
            1
        } else if self.count(Severity::Warning) > 0 {
            ONLY_WARNINGS
        } else {
            0
        }
    }

    fn print(&self) {
        for found in &self.loaded.diagnostics {
            tell!("{found}");
        }
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        match &self.loaded.zone {
            Some(zone) => tell!(
                "{}: serial {}, {} names, {} records, {}; {errors} errors, {warnings} warnings",
                self.name,
                zone.serial(),
                zone.name_count(),
                zone.record_count(),
                signing(zone),
            ),
            None => tell!("{}: {errors} errors in {}: it cannot be served", self.name, self.file),
        }
    }

    fn json(&self) -> serde_json::Value {
        let finding = |found: &Diagnostic| {
            json!({
                "severity": if found.severity == Severity::Error { "error" } else { "warning" },
                "file": found.file,
                "line": found.line,
                "column": found.column,
                "text": found.text,
                "expected": found.expected,
            })
        };
        let zone = self.loaded.zone.as_ref();
        json!({
            "zone": self.name.to_string(),
            "file": self.file,
            "serial": zone.map(Zone::serial),
            "names": zone.map(Zone::name_count),
            "records": zone.map(Zone::record_count),
            "signing": zone.map(signing),
            "signatures_expire": zone.and_then(Zone::signatures_expire),
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "findings": self.loaded.diagnostics.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

fn signing(zone: &Zone) -> &'static str {
    match zone.denial() {
        Denial::Unsigned => "unsigned",
        Denial::Nsec(_) => "NSEC",
        Denial::Nsec3(_) => "NSEC3",
    }
}

/// Checks one zone file.
pub fn zone(name: Name, file: &Path, as_json: bool) -> Result<ExitCode, String> {
    let checked = Checked::new(&ZoneConfig::new(name, Some(file.into())))?;
    if as_json {
        tell!("{}", checked.json());
    } else {
        checked.print();
    }
    Ok(checked.status().into())
}

/// Checks a configuration and all of its zones.
pub fn config(file: &Path, as_json: bool) -> Result<ExitCode, String> {
    let config = Config::read(file)?;
    config.check_forwards(&interfaces::addresses())?;
    let mut worst = if config.warnings.is_empty() { 0 } else { ONLY_WARNINGS };
    if !as_json {
        config.warnings.iter().for_each(|warning| tell!("{warning}"));
    }
    let mut all = Vec::new();
    for zone in config.zones.iter().filter(|zone| zone.has_file()) {
        let checked = Checked::new(zone)?;
        worst = match (worst, checked.status()) {
            (1, _) | (_, 1) => 1,
            (a, b) => a.max(b),
        };
        if as_json {
            all.push(checked.json());
        } else {
            checked.print();
        }
    }
    if as_json {
        let (config, warnings) = (file.display().to_string(), config.warnings);
        tell!("{}", json!({ "config": config, "warnings": warnings, "zones": all }));
    } else if worst != 1 {
        tell!("{}: good", file.display());
    }
    Ok(worst.into())
}

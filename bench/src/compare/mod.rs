//! Servers side by side on this machine: one command, one table.
//!
//! ```text
//!   settings ──> bed ──> ceiling ──> for each shape:
//!                                      zones ──> each alone, in turn
//!                                      all started ──> for each mix:
//!                                          offer .. ──> peaks ──> cost, latency ──> overload
//!   of caches:                      upstreams ──> all started ──> each name asked for once ──> ..
//!   every measurement ──> raw file ──> rows ──> report, table            A B B A, medians
//! ```

mod builds;
mod caches;
mod clock;
pub mod contenders;
mod kxdpgun;
mod measure;
mod mixes;
mod order;
mod peaks;
mod prober;
mod raw;
mod run;
mod server;
mod settings;
mod shapes;
mod slices;
mod table;
mod upstream;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use contenders::{Contender, Role, find_program};
use raw::Raw;
use settings::Settings;

use crate::bed::Bed;
use crate::bed::buffers::Buffers;
use crate::bed::spin::Awake;
use crate::report::model::{Generator, Report, SCHEMA};

pub use settings::Options;

/// Programs without which nothing is measured, and the packages of Debian they are in. What is part
/// of every system (taskset, chrt) is not among them.
const PROGRAMS: [(&str, &str); 6] = [
    ("kxdpgun", "knot-dnsutils"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("tc", "iproute2"),
    ("ethtool", "ethtool"),
    ("sysctl", "procps"),
];

/// Compares, and prints the table.
pub fn run(options: &Options) -> io::Result<()> {
    let (begun, began) = (Instant::now(), clock::now());
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("namespaces, kxdpgun and priorities need root: sudo does it"));
    }
    if let Some((program, package)) =
        PROGRAMS.into_iter().find(|(program, _)| find_program(program).is_none())
    {
        let message = format!("{program} is missing: apt-get install {package}");
        return Err(io::Error::other(message));
    }
    let (mut raw, settings, (present, missing)) = begin(options, &began)?;
    for note in &missing {
        eprintln!("{note}");
    }
    eprintln!("measurements: {}", raw.directory().display());
    let bed = Bed::new(settings.server_core, settings.client_core)?;
    for (contender, _) in &present {
        bed.add_address(contender.address())?;
    }
    bed.keep_ports_beside()?;
    let _awake = Awake::new(&[settings.client_core])?;
    // Before a server has a socket, until the last is gone.
    let buffers = Buffers::raise()?;
    let all: Vec<_> = present.iter().map(|(contender, _)| *contender).collect();
    run::all(&bed, &settings, &mut raw, &all, options.outputs.quiet)?;
    drop(buffers);

    let compare = table::compare(raw.lines(), &settings, &present);
    let mut notes = missing;
    notes.extend(table::notes(raw.lines(), &compare));
    let ratios = caches::ratios(&compare, &settings);
    let text = table::markdown(&compare, &settings, &notes) + &caches::markdown(&ratios);
    notes.extend(ratios.iter().map(ToString::to_string));
    let report = Report {
        schema: SCHEMA,
        command: "compare".into(),
        arguments: settings.arguments.clone(),
        began,
        seconds: begun.elapsed().as_secs_f64(),
        machine: crate::load::kernel::machine(),
        generator: Generator {
            version: env!("CARGO_PKG_VERSION").into(),
            path: "kxdpgun (AF_XDP) for load, this program for latency and TCP".into(),
            cores: vec![settings.client_core as u32],
            ..Generator::default()
        },
        compare: Some(compare),
        notes,
        ..Report::default()
    };
    let directory = raw.directory();
    fs::write(directory.join("table.md"), &text)?;
    let mut json = serde_json::to_vec_pretty(&report)?;
    json.push(b'\n');
    fs::write(directory.join("report.json"), json)?;
    options.outputs.write(&report)?;
    print!("{text}");
    Ok(())
}

/// Where measurements go, what is measured, and who is here; of an earlier comparison only if its
/// builds are.
fn begin(options: &Options, began: &str) -> io::Result<(Raw, Settings, (Present, Vec<String>))> {
    Ok(match &options.resume {
        Some(directory) => {
            let (raw, settings) = Raw::resume(directory)?;
            let found = contenders(&settings)?;
            if let Some(other) = builds::differ(&settings.builds, &builds::of(&found.0)?) {
                return Err(io::Error::other(other));
            }
            (raw, settings, found)
        }
        None => {
            let mut settings = options.settings()?;
            let found = contenders(&settings)?;
            settings.builds = builds::of(&found.0)?;
            let directory = directory_of(&options.results, began)?;
            (Raw::create(&directory, &settings)?, settings, found)
        }
    })
}

/// Those that are here, with their versions, and a word on each that is not.
type Present = Vec<(&'static Contender, String)>;

fn contenders(settings: &Settings) -> io::Result<(Present, Vec<String>)> {
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    let shapes = settings.shapes()?;
    let wanted = settings.contenders()?.into_iter();
    for contender in wanted.filter(|one| shapes.iter().any(|&shape| one.takes_part(shape))) {
        match contender.missing() {
            Some(program) => {
                missing.push(format!("{}: not measured: no {program} here", contender.title));
            }
            None => present.push((contender, (contender.version)()?)),
        }
    }
    if present.iter().all(|(contender, _)| contender.role == Role::Echo) {
        return Err(io::Error::other(format!("nobody to compare: {}", missing.join("; "))));
    }
    Ok((present, missing))
}

/// A new directory, `<date>-<machine>`, with a number if there is one of that name.
fn directory_of(results: &Path, began: &str) -> io::Result<PathBuf> {
    let date = began.split('T').next().unwrap_or("");
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = results.join(format!("{date}-{}", machine.trim()));
    let numbered = (2..1000).map(|number| {
        let mut name = first.clone().into_os_string();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    });
    std::iter::once(first.clone()).chain(numbered).find(|path| !path.exists()).ok_or_else(|| {
        io::Error::other(format!("{}: there are a thousand of them", first.display()))
    })
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_new() {
        let results = std::env::temp_dir().join(format!("ring53-results-{}", std::process::id()));
        let first = directory_of(&results, "2026-11-26T07:00:00Z").unwrap();
        assert!(first.file_name().unwrap().to_str().unwrap().starts_with("2026-11-26-"));
        fs::create_dir_all(&first).unwrap();
        let second = directory_of(&results, "2026-11-26T08:00:00Z").unwrap();
        assert!(second.to_str().unwrap().ends_with("-2"));
        fs::remove_dir_all(&results).unwrap();
    }

    #[test]
    fn an_echo_alone_is_no_comparison() {
        let shapes = vec!["hosts".into()];
        let settings = Settings { contenders: vec!["echo".into()], shapes, ..Settings::default() };
        assert!(contenders(&settings).is_err());
        // Nor is who does not do what is asked for.
        let settings = Settings {
            contenders: vec!["kresd".into()],
            shapes: vec!["cached-tls".into()],
            ..Settings::default()
        };
        assert!(contenders(&settings).is_err());
    }
}

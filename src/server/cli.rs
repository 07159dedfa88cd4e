//! The command line.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::wire::Name;
use crate::zone::{LoadOptions, Severity, load};

use super::config::{Config, PathChoice, ZoneConfig};
use super::control::Reread;
use super::report::say;
use super::{startup, zones};

/// The nameserver for port 53 at the edge.
#[derive(Parser)]
#[command(name = "ring53", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve zones. Without arguments: a sample zone on 127.0.0.1:5300.
    Serve(Serve),
    /// Check a configuration or a zone, and say everything that is wrong with it.
    #[command(subcommand)]
    Check(Check),
}

#[derive(Args, Clone)]
struct Serve {
    /// The configuration file (TOML); SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to listen on, UDP and TCP; may be repeated.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// A zone and its file; may be repeated.
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_zone)]
    zone: Vec<ZoneConfig>,
    /// Cores to run on, one pinned thread each; default: all this process may use.
    #[arg(long, value_name = "0,1,...", value_delimiter = ',')]
    cores: Vec<usize>,
    /// How datagrams are carried.
    #[arg(long, value_enum)]
    path: Option<PathChoice>,
    /// The user to become once the ports are bound.
    #[arg(long)]
    user: Option<String>,
}

#[derive(Subcommand)]
enum Check {
    /// Check a configuration file and the zones it names.
    Config {
        /// The file.
        file: PathBuf,
    },
    /// Check a zone file.
    Zone {
        /// The zone's name.
        name: Name,
        /// Its file.
        file: PathBuf,
    },
}

fn parse_zone(text: &str) -> Result<ZoneConfig, String> {
    let (name, file) =
        text.split_once('=').ok_or("expected NAME=FILE, such as example.org=example.org.zone")?;
    let name = name.parse().map_err(|error| format!("zone name \"{name}\": expected {error}"))?;
    Ok(ZoneConfig { name, file: Some(file.into()) })
}

/// Parses the arguments and does what they say.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Check(Check::Config { file }) => check_config(&file),
        Command::Check(Check::Zone { name, file }) => check_zone(&name, &file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say!("{message}");
            ExitCode::FAILURE
        }
    }
}

impl Serve {
    /// The configuration: the file's, with what the command line says instead or beside it.
    fn settle(&self) -> Result<Config, String> {
        let mut config = match &self.config {
            Some(file) => Config::read(file)?,
            None => Config::default(),
        };
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        if !self.cores.is_empty() {
            config.cores.clone_from(&self.cores);
        }
        if let Some(path) = self.path {
            config.path = path;
        }
        if self.user.is_some() {
            config.user.clone_from(&self.user);
        }
        config.zones.extend(self.zone.iter().cloned());
        if config.zones.is_empty() {
            if self.config.is_some() {
                return Err("no zone to serve: add a [[zone]] with name and file".into());
            }
            config.zones.push(ZoneConfig::sample());
        }
        let mut names = HashSet::new();
        for zone in &config.zones {
            if !names.insert(&zone.name) {
                return Err(format!("zone {} is named twice: remove one", zone.name));
            }
        }
        Ok(config)
    }

    fn run(&self) -> Result<(), String> {
        let config = self.settle()?;
        let again = self.clone();
        let reread: Arc<Reread> = Arc::new(move || again.settle());
        startup::serve(config, &reread)
    }
}

/// A line on stdout. Whoever pipes it into `head` has seen enough: a failed write is no failure.
fn print(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn check_zone(name: &Name, file: &std::path::Path) -> Result<(), String> {
    let options = LoadOptions { key: zones::hash_key()?, threads: super::cores::allowed().len() };
    let loaded = load(name, &file.to_string_lossy(), &zones::Files::default(), &options);
    for diagnostic in &loaded.diagnostics {
        print(format_args!("{diagnostic}"));
    }
    let count = |severity| {
        loaded.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    };
    match loaded.zone {
        Some(zone) => {
            print(format_args!(
                "{name}: serial {}, {} names, {} records, {} warnings",
                zone.serial(),
                zone.name_count(),
                zone.record_count(),
                count(Severity::Warning),
            ));
            Ok(())
        }
        None => Err(format!("{name}: {} errors in {}", count(Severity::Error), file.display())),
    }
}

fn check_config(file: &std::path::Path) -> Result<(), String> {
    let config = Config::read(file)?;
    let mut failed = Vec::new();
    for zone in &config.zones {
        if let Some(zone_file) = &zone.file
            && let Err(error) = check_zone(&zone.name, zone_file)
        {
            failed.push(error);
        }
    }
    if failed.is_empty() {
        print(format_args!("{}: good", file.display()));
        return Ok(());
    }
    Err(failed.join("\nring53: "))
}

//! The command line.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::tsig::Algorithm;
use crate::wire::{Name, rtype};

use super::config::{Config, PathChoice, ZoneConfig};
use super::control::Reread;
use super::forwarding::cache_control::{self, CacheCommand};
use super::report::say;
use super::{check, commands, explain, export, interfaces, key, startup, tune};

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
    /// Tell how a question is answered, step by step; of names of others, what the running server
    /// has of it in its cache and knows of its upstreams.
    Explain(Explain),
    /// Ask a running server about its zones, or have it do something with one.
    #[command(subcommand)]
    Zone(Zone),
    /// Ask a running server about its cache, or have it forget something.
    #[command(subcommand)]
    Cache(Cache),
    /// What a running server knows of those whom it asks: health, round-trip times, failures.
    Upstreams {
        #[command(flatten)]
        to: To,
    },
    /// Make keys that servers sign with.
    #[command(subcommand)]
    Key(Key),
    /// Tell how this machine is set, and what is advised for a nameserver; changes nothing.
    #[command(subcommand)]
    Tune(tune::Tune),
}

#[derive(Subcommand)]
enum Zone {
    /// What there is to know of a zone, or of all: serial, state, when its primaries are asked.
    Status {
        /// The zone; default: all.
        name: Option<Name>,
        #[command(flatten)]
        to: To,
    },
    /// Ask the zone's primaries now.
    Transfer {
        /// The zone.
        name: Name,
        #[command(flatten)]
        to: To,
    },
    /// Send NOTIFY for the zone now.
    Notify {
        /// The zone.
        name: Name,
        #[command(flatten)]
        to: To,
    },
    /// Which changes of the zone are kept for IXFR.
    Journal {
        /// The zone.
        name: Name,
        #[command(flatten)]
        to: To,
    },
    /// Print the zone as text, in canonical order. The server need not run.
    Export {
        /// The zone.
        name: Name,
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

#[derive(Subcommand)]
enum Cache {
    /// Forget what is known of a name, of all below it as well, or of all names.
    Flush {
        /// The name: all of its types.
        #[arg(required_unless_present = "all")]
        name: Option<Name>,
        /// Also what is below the name.
        #[arg(long)]
        below: bool,
        /// All names.
        #[arg(long, conflicts_with_all = ["name", "below"])]
        all: bool,
        #[command(flatten)]
        to: To,
    },
    /// What the cache holds, and what it was asked for since the start.
    Stats {
        #[command(flatten)]
        to: To,
    },
}

impl Cache {
    fn run(self) -> Result<ExitCode, String> {
        let (command, to) = match self {
            Cache::Flush { name: Some(name), below: false, to, .. } => {
                (CacheCommand::FlushName(name), to)
            }
            Cache::Flush { name: Some(name), to, .. } => (CacheCommand::FlushBelow(name), to),
            Cache::Flush { name: None, to, .. } => (CacheCommand::FlushAll, to),
            Cache::Stats { to } => (CacheCommand::Stats, to),
        };
        to.give_resolver(&commands::Command::Cache(command))
    }
}

impl To {
    /// Gives a command that only a server with forwards knows.
    fn give_resolver(&self, command: &commands::Command) -> Result<ExitCode, String> {
        let config = Config::read(&self.config)?;
        if config.caching.is_none() {
            return Err(cache_control::NO_CACHE.into());
        }
        commands::give(&config.state, command, self.json)
    }
}

/// Which server a command is for.
#[derive(Args)]
struct To {
    /// The configuration file (TOML) of the running server.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Key {
    /// Print a new TSIG key.
    Generate {
        /// The key's name, the same on all servers.
        name: Name,
        /// hmac-sha256, hmac-sha384, hmac-sha512 or hmac-sha1.
        #[arg(long, default_value = "hmac-sha256", value_parser = key::parse_algorithm)]
        algorithm: Algorithm,
        /// Whose configuration it is for.
        #[arg(long, value_enum, default_value = "ring53")]
        format: key::Format,
    },
}

#[derive(Args)]
struct Explain {
    /// The name.
    name: Name,
    /// The type.
    #[arg(value_name = "TYPE", value_parser = parse_type)]
    rtype: u16,
    /// Ask for DNSSEC records (DO).
    #[arg(long)]
    dnssec: bool,
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A zone and its file; may be repeated.
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_zone)]
    zone: Vec<ZoneConfig>,
    /// Have the running server ask its upstreams now, and tell what was tried; the answer goes into
    /// its cache.
    #[arg(long, requires = "config")]
    ask: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
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
    #[command(after_help = STATUS)]
    Config {
        /// The file.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a zone file: its structure, glue, signatures, denial of existence and ZONEMD.
    #[command(after_help = STATUS)]
    Zone {
        /// The zone's name.
        name: Name,
        /// Its file.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

const STATUS: &str = "Exit status: 0 nothing is wrong, 1 errors, 3 only warnings";

fn parse_type(text: &str) -> Result<u16, String> {
    rtype::parse(text.as_bytes()).ok_or_else(|| "expected a type such as AAAA or TYPE65".into())
}

fn parse_zone(text: &str) -> Result<ZoneConfig, String> {
    let (name, file) =
        text.split_once('=').ok_or("expected NAME=FILE, such as example.org=example.org.zone")?;
    let name = name.parse().map_err(|error| format!("zone name \"{name}\": expected {error}"))?;
    Ok(ZoneConfig::new(name, Some(file.into())))
}

/// Parses the arguments and does what they say.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => serve.run().map(|()| ExitCode::SUCCESS),
        Command::Check(Check::Config { file, json }) => check::config(&file, json),
        Command::Check(Check::Zone { name, file, json }) => check::zone(name, &file, json),
        Command::Explain(explain) => explain.run(),
        Command::Zone(zone) => zone.run(),
        Command::Cache(cache) => cache.run(),
        Command::Upstreams { to } => to.give_resolver(&commands::Command::Upstreams),
        Command::Key(Key::Generate { name, algorithm, format }) => {
            key::generate(&name, algorithm, format).map(|()| ExitCode::SUCCESS)
        }
        Command::Tune(tune) => tune::run(tune),
    };
    match done {
        Ok(status) => status,
        Err(message) => {
            say!("{message}");
            ExitCode::FAILURE
        }
    }
}

impl Zone {
    fn run(self) -> Result<ExitCode, String> {
        let (command, to) = match self {
            Zone::Status { name, to } => (commands::Command::Status(name), to),
            Zone::Transfer { name, to } => (commands::Command::Transfer(name), to),
            Zone::Notify { name, to } => (commands::Command::Notify(name), to),
            Zone::Journal { name, to } => (commands::Command::Journal(name), to),
            Zone::Export { name, config } => {
                let config = Config::read(&config)?;
                export::export(config, &name, &mut std::io::stdout().lock())?;
                return Ok(ExitCode::SUCCESS);
            }
        };
        let config = Config::read(&to.config)?;
        commands::give(&config.state, &command, to.json)
    }
}

impl Explain {
    fn run(self) -> Result<ExitCode, String> {
        let mut config = match &self.config {
            Some(file) => Config::read(file)?,
            None => Config::default(),
        };
        config.zones.extend(self.zone);
        if config.zones.is_empty() && config.forwards.is_empty() {
            config.zones.push(ZoneConfig::sample());
        }
        let question = explain::Question {
            name: self.name,
            rtype: self.rtype,
            dnssec: self.dnssec,
            asks: self.ask,
        };
        explain::run(&config, &question, self.json)
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
        if config.zones.is_empty() && config.forwards.is_empty() {
            if self.config.is_some() {
                return Err(
                    "nothing to serve: add a [[zone]] with name and file, or a [[forward]] \
                            with zone and to"
                        .into(),
                );
            }
            config.zones.push(ZoneConfig::sample());
        }
        let mut names = HashSet::new();
        for zone in &config.zones {
            if !names.insert(&zone.name) {
                return Err(format!("zone {} is named twice: remove one", zone.name));
            }
        }
        config.check_forwards(&interfaces::addresses())?;
        config.warnings.iter().for_each(|warning| say!("{warning}"));
        Ok(config)
    }

    fn run(&self) -> Result<(), String> {
        let config = self.settle()?;
        let again = self.clone();
        let reread: Arc<Reread> = Arc::new(move || again.settle());
        startup::serve(config, &reread)
    }
}

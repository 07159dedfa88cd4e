//! `ring53 tune`: how a machine is set, what is advised for a nameserver with a thread on each
//! core, and a script that sets it. Nothing is changed from here.
//!
//! ```text
//!   Tree, Calls ──facts::read──> Facts ──advise(role)──> Knobs ──> print, script
//! ```

mod advise;
mod facts;
mod interface;
mod knob;
mod nic;
mod print;
mod script;
mod source;
mod sysctl;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::config::{Config, PathChoice};
use super::cores;
use super::report::tell;
use knob::{Knob, Verdict};
use source::{Kernel, Tree};

/// What is done with the advice.
#[derive(Subcommand)]
pub enum Tune {
    /// Print each knob: its value, what is advised, why, how to set, verify and undo it.
    Check {
        #[command(flatten)]
        machine: Machine,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Exit with 1 if anything that could be read is not as advised.
        #[arg(long)]
        strict: bool,
    },
    /// Print a shell script that sets what is not as advised, and sets it back: apply, undo, show.
    Script {
        #[command(flatten)]
        machine: Machine,
    },
}

/// Which machine, and what for.
#[derive(Args)]
pub struct Machine {
    /// An interface queries arrive on; may be repeated. Default: those that are up and have a
    /// device behind them or an address of the server; if none has, all that are up, but lo.
    #[arg(long, value_name = "INTERFACE")]
    interface: Vec<String>,
    /// The cores of the server; default: all this process may use.
    #[arg(long, value_name = "0,1,...", value_delimiter = ',')]
    cores: Vec<usize>,
    /// The configuration file (TOML) of the server; default: port 53 of all addresses.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only knobs whose name begins like this, such as net.ipv4 or eth0; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

//----------- Role -----------------------------------------------------------

/// What the machine is for.
pub struct Role {
    /// The cores, one thread each.
    pub cores: Vec<usize>,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Interfaces; empty: those that queries can arrive on.
    pub interfaces: Vec<String>,
    /// Octets of a socket's receive buffer.
    pub receive_buffer: usize,
    /// Octets of a UDP answer.
    pub answer_size_max: usize,
    /// TCP connections at once.
    pub connections: usize,
    /// Whether io_uring is wanted.
    pub uring: bool,
}

impl Role {
    /// The ports, each once.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.listen.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether anybody outside of the machine is answered.
    pub fn on_network(&self) -> bool {
        !self.listen.iter().all(|address| address.ip().is_loopback())
    }

    fn new(machine: &Machine) -> Result<Role, String> {
        let mut config = match &machine.config {
            Some(file) => Config::read(file)?,
            None => Config {
                listen: vec![
                    (Ipv4Addr::UNSPECIFIED, 53).into(),
                    (Ipv6Addr::UNSPECIFIED, 53).into(),
                ],
                ..Config::default()
            },
        };
        if !machine.cores.is_empty() {
            config.cores.clone_from(&machine.cores);
        }
        Ok(Role {
            cores: cores::settle(&config.cores)?,
            listen: config.listen,
            interfaces: machine.interface.clone(),
            receive_buffer: config.receive_buffer,
            answer_size_max: config.identity.answer_size_max,
            connections: config.stream.connections,
            uring: config.path != PathChoice::Mmsg,
        })
    }
}

//----------- The commands ---------------------------------------------------

impl Machine {
    /// Reads this machine.
    fn knobs(&self) -> Result<Vec<Knob>, String> {
        let role = Role::new(self)?;
        let facts = facts::read(&Tree::new("/"), &Kernel, &role);
        let mut knobs = advise::advise(&facts, &role);
        if !self.only.is_empty() {
            knobs.retain(|knob| self.only.iter().any(|start| knob.name.starts_with(start)));
        }
        Ok(knobs)
    }
}

/// Does what was asked for.
pub fn run(tune: Tune) -> Result<ExitCode, String> {
    match tune {
        Tune::Check { machine, json, strict } => {
            let knobs = machine.knobs()?;
            if json {
                tell!("{}", print::json(&knobs));
            } else {
                print::lines(&knobs).iter().for_each(|line| tell!("{line}"));
            }
            let differs = knobs.iter().any(|knob| knob.verdict == Verdict::Differs);
            Ok(if strict && differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Tune::Script { machine } => {
            let script = script::script(&machine.knobs()?);
            script.lines().for_each(|line| tell!("{line}"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

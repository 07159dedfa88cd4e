//! What a comparison measures: its options, and the settings that follow and are kept.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::builds::Builds;
use super::contenders::{ALL, Contender};
use super::mixes::Mix;
use super::shapes::Shape;
use crate::report::Outputs;

/// Compares servers on this machine, each on the same core, in turn. Needs root and two cores;
/// about five minutes with --quick, a night without.
#[derive(clap::Args)]
pub struct Options {
    /// A look: 100,000 names, loads of a second, one round, hosts, uniform, few rates.
    #[arg(long)]
    quick: bool,
    /// Shapes of zones [default: all of authorities]; cached, cached-tls and cached-https compare
    /// caches.
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// Mixes: hot, zipf, uniform, random, each with +tcp, +replaced or +spoofed if wanted, uniform
    /// of caches with +misses [default: what says something about the shape].
    #[arg(long, value_delimiter = ',')]
    mixes: Vec<Mix>,
    /// Who takes part: ring53, mmsg, nsd, knot, bind, powerdns, echo; of caches ring53-cache,
    /// unbound, recursor, dnsdist, kresd, dnsmasq, and ring53 and echo beside them [default: all].
    #[arg(long, value_delimiter = ',', value_parser = Contender::find)]
    contenders: Vec<&'static Contender>,
    /// Names of a zone [default: 1000000].
    #[arg(long)]
    names: Option<u64>,
    /// Rounds; in each all are asked in turn, in every other one backwards [default: 4].
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds of each load [default: 3].
    #[arg(long)]
    seconds: Option<f64>,
    /// The agreed rate of core time and latency, queries a second [default: 100000].
    #[arg(long)]
    rate: Option<u64>,
    /// Rates to look for the peak at; a quarter of them for misses.
    #[arg(long, value_delimiter = ',')]
    rates: Vec<u64>,
    /// The server's core.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The generator's core.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Where all directories of results are.
    #[arg(long, default_value = "bench/results", value_name = "DIR")]
    pub results: PathBuf,
    /// Go on with the comparison in this directory, with its settings.
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// Outputs beside that directory.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// What is measured, as it is kept beside the measurements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Shapes of zones.
    pub shapes: Vec<String>,
    /// Mixes; empty: the usual ones of each shape.
    pub mixes: Vec<String>,
    /// Who takes part.
    pub contenders: Vec<String>,
    /// Names of a zone.
    pub names: u64,
    /// Rounds.
    pub rounds: u32,
    /// Seconds of each load.
    pub seconds: f64,
    /// The agreed rate.
    pub rate: u64,
    /// Rates to look for the peak at, rising.
    pub rates: Vec<u64>,
    /// The server's core.
    pub server_core: usize,
    /// The generator's core.
    pub client_core: usize,
    /// The arguments it was called with.
    pub arguments: Vec<String>,
    /// What was measured, and with what.
    #[serde(default)]
    pub builds: Builds,
}

const RATES: [u64; 14] = [
    20_000, 40_000, 60_000, 80_000, 100_000, 120_000, 150_000, 175_000, 200_000, 225_000, 250_000,
    275_000, 300_000, 350_000,
];
const RATES_QUICK: [u64; 6] = [30_000, 60_000, 100_000, 150_000, 200_000, 300_000];

impl Options {
    /// The settings that follow from the options.
    pub fn settings(&self) -> io::Result<Settings> {
        let shapes = match (self.shapes.is_empty(), self.quick) {
            (false, _) => self.shapes.clone(),
            (true, true) => vec![Shape::Hosts],
            (true, false) => vec![
                Shape::Hosts,
                Shape::Delegations,
                Shape::Hosting,
                Shape::Ip6arpa,
                Shape::Signed,
            ],
        };
        let mixes = match (self.mixes.is_empty(), self.quick) {
            (true, true) => vec!["uniform".into()],
            _ => self.mixes.iter().map(Mix::to_string).collect(),
        };
        let contenders = match self.contenders.is_empty() {
            true => ALL.to_vec(),
            false => self.contenders.clone(),
        };
        let mut rates = match (self.rates.is_empty(), self.quick) {
            (false, _) => self.rates.clone(),
            (true, true) => RATES_QUICK.to_vec(),
            (true, false) => RATES.to_vec(),
        };
        let rate = self.rate.unwrap_or(100_000);
        rates.push(rate);
        rates.sort_unstable();
        rates.dedup();
        let seconds = self.seconds.unwrap_or(if self.quick { 1.0 } else { 3.0 });
        if !(0.2..=600.0).contains(&seconds) || rates[0] == 0 {
            return Err(io::Error::other(
                "a load takes 0.2 to 600 seconds, and its rate is not zero",
            ));
        }
        Ok(Settings {
            shapes: shapes.iter().map(|shape| shape.name().to_string()).collect(),
            mixes,
            contenders: contenders.iter().map(|contender| contender.name.to_string()).collect(),
            names: self.names.unwrap_or(if self.quick { 100_000 } else { 1_000_000 }).max(1),
            rounds: self.rounds.unwrap_or(if self.quick { 1 } else { 4 }).max(1),
            seconds,
            rate,
            rates,
            server_core: self.server_core,
            client_core: self.client_core,
            arguments: std::env::args().skip(1).collect(),
            builds: Builds::new(),
        })
    }
}

impl Settings {
    /// The shapes.
    pub fn shapes(&self) -> io::Result<Vec<Shape>> {
        let read = |name: &String| <Shape as clap::ValueEnum>::from_str(name, false);
        self.shapes.iter().map(read).collect::<Result<_, _>>().map_err(io::Error::other)
    }

    /// The mixes that are measured of `shape`.
    pub fn mixes(&self, shape: Shape) -> io::Result<Vec<Mix>> {
        if self.mixes.is_empty() {
            return Ok(Mix::usual(shape));
        }
        self.mixes
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)
    }

    /// Who takes part.
    pub fn contenders(&self) -> io::Result<Vec<&'static Contender>> {
        let find = |name: &String| Contender::find(name);
        self.contenders.iter().map(find).collect::<Result<_, _>>().map_err(io::Error::other)
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn settings(arguments: &str) -> Settings {
        let all = ["compare"].into_iter().chain(arguments.split_whitespace());
        Command::try_parse_from(all).unwrap().options.settings().unwrap()
    }

    #[test]
    fn a_look_is_the_same_command_with_less() {
        let (look, night) = (settings("--quick"), settings(""));
        assert_eq!((look.rounds, look.names), (1, 100_000));
        assert_eq!((night.rounds, night.names, night.shapes.len()), (4, 1_000_000, 5));
        assert_eq!(look.contenders, night.contenders);
        let own = settings("--quick --rounds 2 --shapes ip6arpa --mixes hot,random+replaced");
        assert_eq!((own.rounds, own.shapes.len(), own.mixes.len()), (2, 1, 2));
        assert_eq!(own.mixes(Shape::Ip6arpa).unwrap()[1].to_string(), "random+replaced");
        assert_eq!(night.mixes(Shape::Hosts).unwrap().len(), 7);
    }

    /// The agreed rate is one of those that are offered: it says who sustains it.
    #[test]
    fn the_agreed_rate_is_offered() {
        let own = settings("--rate 55000 --rates 80000,10000");
        assert_eq!(own.rates, [10_000, 55_000, 80_000]);
    }

    #[test]
    fn settings_are_kept_and_read() {
        let kept = settings("--contenders nsd,echo");
        let text = serde_json::to_string(&kept).unwrap();
        let read: Settings = serde_json::from_str(&text).unwrap();
        assert_eq!(read, kept);
        assert_eq!(read.contenders().unwrap()[1].title, "UDP echo");
        assert_eq!(read.shapes().unwrap()[4], Shape::Signed);
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for arguments in ["--contenders djbdns", "--mixes warm", "--shapes round"] {
            let all = ["compare"].into_iter().chain(arguments.split_whitespace());
            assert!(Command::try_parse_from(all).is_err(), "{arguments}");
        }
    }
}

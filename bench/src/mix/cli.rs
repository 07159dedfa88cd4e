//! The options that choose queries, for every command that sends load.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ring53::limits::ANSWER_SIZE_MAX;
use ring53::wire::Name;
use ring53::zone::Zone;

use super::draw::{Popularity, Share, Shares};
use super::expect::Answers;
use super::profile::{Profile, replay};
use super::{Questions, file, generate, zone};
use crate::load::Schedule;
use crate::zones::Shape;

/// Which queries are sent: of a file, of a profile, or made from a zone.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MixOptions {
    /// A query file as dnsperf reads it: `name type` a line, in this order.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pub queries: Option<PathBuf>,
    /// A profile of real traffic: replayed on the names of the zone, or on names made up below
    /// --apex for a resolver.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pub profile: Option<PathBuf>,
    /// A zone file; its names are asked for.
    #[arg(long, value_name = "FILE", requires = "apex", help_heading = HEADING)]
    pub zone: Option<PathBuf>,
    /// The zone's name.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub apex: Option<Name>,
    /// Take the zone from this server by AXFR.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "apex", conflicts_with = "zone",
          help_heading = HEADING)]
    pub zone_from: Option<SocketAddr>,
    /// A zone as `ring53-bench zone` writes it.
    #[arg(long, value_enum, conflicts_with_all = ["zone", "zone_from"], help_heading = HEADING)]
    pub shape: Option<Shape>,
    /// Names of the shape [default: 1000000].
    #[arg(long, requires = "shape", help_heading = HEADING)]
    pub names: Option<u64>,
    /// How often each name is asked for: uniform, zipf:EXPONENT or hot (one name).
    #[arg(long, default_value = "uniform", help_heading = HEADING)]
    pub popularity: Popularity,
    /// Types and weights, as A=70,AAAA=20,MX=1 [default: those that each name has].
    #[arg(long, value_parser = types, help_heading = HEADING)]
    pub types: Option<Shares<u16>>,
    /// Share of queries for names that do not exist; the same ones come again.
    #[arg(long, value_name = "SHARE", help_heading = HEADING)]
    pub nxdomain: Option<Share>,
    /// Share of queries with a label that is never asked for again.
    #[arg(long, value_name = "SHARE", default_value = "0", help_heading = HEADING)]
    pub random_subdomains: Share,
    /// What such labels are below.
    #[arg(long, value_enum, default_value = "apex", help_heading = HEADING)]
    pub random_below: RandomBelow,
    /// Share of queries over TCP.
    #[arg(long, value_name = "SHARE", help_heading = HEADING)]
    pub tcp: Option<Share>,
    /// Share of queries that ask for DNSSEC records.
    #[arg(long = "do", value_name = "SHARE", help_heading = HEADING)]
    pub dnssec_ok: Option<Share>,
    /// EDNS sizes, 4096 at most, and weights, as 1232=80,4096=10,none=10 [default: none; 1232 with
    /// DO or an option].
    #[arg(long, value_name = "SIZES", value_parser = sizes, help_heading = HEADING)]
    pub edns: Option<Shares<Option<u16>>>,
    /// Share of queries in which the case of each letter is drawn.
    #[arg(long, value_name = "SHARE", help_heading = HEADING)]
    pub mixed_case: Option<Share>,
    /// Share of queries with a client subnet (RFC 7871), of 256 networks that are drawn.
    #[arg(long, value_name = "SHARE", help_heading = HEADING)]
    pub ecs: Option<Share>,
    /// Send a client cookie (RFC 7873).
    #[arg(long, help_heading = HEADING)]
    pub cookies: bool,
    /// Queries before the order begins anew [default: those of the file; 1000000 of a zone; those
    /// of the profile, 4000000 at most].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..),
          help_heading = HEADING)]
    pub positions: Option<u64>,
    /// Compare each answer with that of ring53 for this zone, from FILE, or from what the mix is
    /// made of: then for all of its zones at or below ZONE. May be repeated.
    #[arg(long, value_name = "ZONE[=FILE]", help_heading = HEADING)]
    pub verify: Vec<Truth>,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 53, help_heading = HEADING)]
    pub seed: u64,
}

const HEADING: &str = "Queries";

/// What labels that are drawn anew are below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RandomBelow {
    /// The zone's name.
    #[default]
    Apex,
    /// Names that exist, as popular as they are.
    Names,
}

/// A zone that says what answers have to be.
#[derive(Clone, Debug)]
pub struct Truth {
    apex: Name,
    file: Option<PathBuf>,
}

impl FromStr for Truth {
    type Err = String;

    fn from_str(text: &str) -> Result<Truth, String> {
        let (apex, file) = match text.split_once('=') {
            Some((apex, file)) => (apex, Some(file.into())),
            None => (text, None),
        };
        let apex = apex.parse().map_err(|error| format!("{apex:?}: expected {error}"))?;
        Ok(Truth { apex, file })
    }
}

fn types(text: &str) -> Result<Shares<u16>, String> {
    Shares::read(text, generate::type_named, "A=70,AAAA=20,MX=1")
}

fn sizes(text: &str) -> Result<Shares<Option<u16>>, String> {
    let size = |text: &str| match text {
        "none" => Some(None),
        _ => text.parse().ok().filter(|&size| usize::from(size) <= ANSWER_SIZE_MAX).map(Some),
    };
    // The paths read no longer datagrams: such an answer would be lost here.
    Shares::read(text, size, "1232=80,4096=10,none=10")
}

impl MixOptions {
    /// The queries; reads and generates what is needed.
    pub fn questions(&self) -> io::Result<Questions> {
        let zones = self.zones()?;
        let mut questions = match (&self.queries, &self.profile) {
            (Some(_), Some(_)) => return Err(unclear("--queries or --profile, not both")),
            (Some(path), None) => generate::from_file(path, self)?,
            (None, Some(path)) => replay::questions(&Profile::read(path)?, &zones, self)?,
            (None, None) if !zones.is_empty() => generate::from_zones(&zones, self)?,
            (None, None) => {
                return Err(unclear(
                    "which queries? --queries FILE, --zone FILE --apex NAME, --shape SHAPE or \
                     --profile FILE",
                ));
            }
        };
        if !self.verify.is_empty() {
            let mut answers = Answers::new(&self.truths(&zones)?);
            questions.expect(|message, entry| {
                answers.expected(message, usize::from(entry.question_len))
            });
        }
        Ok(questions)
    }

    /// Writes the queries to a file, and says what they are.
    pub fn write(&self, out: &Path) -> io::Result<()> {
        let questions = self.questions()?;
        file::write(&questions, self.seed, out)?;
        println!("{}", questions.text());
        Ok(())
    }

    /// The times of sending that the profile asks for, if there is a profile.
    pub fn schedule(&self) -> io::Result<Option<Schedule>> {
        let profile = self.profile.as_deref().map(Profile::read).transpose()?;
        Ok(profile.map(|profile| profile.schedule()))
    }

    /// The rate of the profile's original in queries a second, if there is a profile.
    pub fn rate(&self) -> io::Result<Option<f64>> {
        let profile = self.profile.as_deref().map(Profile::read).transpose()?;
        Ok(profile.map(|profile| profile.rate()))
    }

    /// The zones that the mix is made of.
    fn zones(&self) -> io::Result<Vec<Arc<Zone>>> {
        if let Some(shape) = self.shape {
            return zone::of_shape(shape, self.names.unwrap_or(1_000_000));
        }
        let apex = || self.apex.as_ref().ok_or_else(|| unclear("which zone? --apex NAME"));
        match (&self.zone, self.zone_from) {
            (Some(path), _) => Ok(vec![zone::from_file(apex()?, path)?]),
            (None, Some(server)) => Ok(vec![zone::from_server(apex()?, server)?]),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// The zones that say what answers have to be.
    fn truths(&self, mixed: &[Arc<Zone>]) -> io::Result<Vec<Arc<Zone>>> {
        let mut truths = Vec::new();
        for Truth { apex, file } in &self.verify {
            if let Some(path) = file {
                truths.push(zone::from_file(apex, path)?);
                continue;
            }
            let before = truths.len();
            let below = |zone: &&Arc<Zone>| generate::is_at_or_below(zone.apex(), apex);
            truths.extend(mixed.iter().filter(below).cloned());
            if truths.len() == before {
                return Err(unclear(&format!(
                    "--verify {apex}: no zone of the mix has this name: say --verify {apex}=FILE"
                )));
            }
        }
        Ok(truths)
    }

    /// What is said of all queries, in words.
    pub(super) fn text_of_variants(&self) -> String {
        let mut text = String::new();
        let shares = [
            (self.tcp, "TCP"),
            (self.dnssec_ok, "DO"),
            (self.mixed_case, "mixed case"),
            (self.ecs, "client subnets"),
        ];
        for (share, what) in shares {
            if let Some(share) = share {
                text += &format!(", {share} {what}");
            }
        }
        if let Some(sizes) = &self.edns {
            let sum: f64 = sizes.0.iter().map(|(_, weight)| weight).sum();
            let shown = |(size, weight): &(Option<u16>, f64)| {
                let size = size.map_or("none".into(), |size| size.to_string());
                format!("{size} {}", Share(weight / sum))
            };
            let shown: Vec<String> = sizes.0.iter().map(shown).collect();
            text += &format!(", EDNS {}", shown.join(" "));
        }
        if self.cookies {
            text += ", cookies";
        }
        text
    }
}

fn unclear(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.to_string())
}

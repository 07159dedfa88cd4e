//! Mixes made of what zones have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

use ring53::wire::{Name, rtype};
use ring53::zone::Zone;

use super::cli::{MixOptions, RandomBelow};
use super::draw::{Alias, Share, shuffle};
use super::names::{LABEL_LEN, Missing, Names, below, draw_label};
use super::query::{Composer, NETWORKS, Variant};
use super::{Questions, file};
use crate::zones::queries::Random;

/// Queries before the order begins anew, unless said.
pub const POSITIONS_DEFAULT: u64 = 1_000_000;

//----------- Variants -------------------------------------------------------

/// Draws what each query has besides its question.
pub struct Variants<'a> {
    options: &'a MixOptions,
    edns: Option<Alias>,
    random: Random,
}

impl<'a> Variants<'a> {
    /// What the options say; what they do not say stays as it comes.
    pub fn new(options: &'a MixOptions) -> Variants<'a> {
        let edns = options.edns.as_ref().map(|shares| shares.alias());
        Variants { options, edns, random: Random::new(options.seed ^ 0x5641) }
    }

    /// The variant of the next query.
    pub fn draw(&mut self, mut variant: Variant) -> Variant {
        let (options, random) = (self.options, &mut self.random);
        let set = |share: Option<Share>, at: &mut bool, random: &mut Random| {
            if let Some(share) = share {
                *at = share.draw(random);
            }
        };
        set(options.tcp, &mut variant.stream, random);
        set(options.dnssec_ok, &mut variant.dnssec_ok, random);
        set(options.mixed_case, &mut variant.mixed_case, random);
        if let (Some(alias), Some(sizes)) = (&self.edns, &options.edns) {
            variant.edns = sizes.0[alias.draw(random)].0;
        }
        if let Some(share) = options.ecs {
            variant.network = u16::from(share.draw(random));
        }
        if variant.network > 0 {
            variant.network = 1 + random.below(NETWORKS as u64) as u16;
        }
        variant.cookie |= options.cookies;
        variant
    }
}

//----------- From a file ----------------------------------------------------

/// The queries of a file, in its order.
pub fn from_file(path: &std::path::Path, options: &MixOptions) -> io::Result<Questions> {
    let mut composer = Composer::new(&mut Random::new(options.seed));
    let mut variants = Variants::new(options);
    let mut count = 0u64;
    let limit = options.positions.unwrap_or(u64::MAX);
    file::read(path, |line| {
        if count < limit {
            let variant = variants.draw(line.variant);
            composer.ask(line.question, line.name.as_wire(), line.qtype, 0, variant);
            count += 1;
        }
    })?;
    let text = format!("{count} queries of a file{}", options.text_of_variants());
    Ok(composer.finish().build(text))
}

//----------- From zones -----------------------------------------------------

/// What kind of name a question has: two bits of its number.
const EXISTING: u64 = 0;
const MISSING: u64 = 1 << 62;
const FRESH: u64 = 2 << 62;

/// Queries over the names of zones.
pub fn from_zones(zones: &[Arc<Zone>], options: &MixOptions) -> io::Result<Questions> {
    let names = Names::of(zones, options.seed);
    if names.is_empty() {
        return Err(io::Error::other("the zone has no name to ask for"));
    }
    let mut random = Random::new(options.seed);
    let mut composer = Composer::new(&mut random);
    let mut variants = Variants::new(options);
    let mut ranked: Vec<u32> = (0..names.len() as u32).collect();
    shuffle(&mut ranked, &mut random);
    let draws = options.popularity.over(names.len());
    let types = options.types.as_ref().map(|types| (types, types.alias()));
    let nxdomain = options.nxdomain.unwrap_or_default();
    let mut missing = Missing::new(zones, &names, options.seed);
    let mut missed: HashMap<usize, Vec<u8>> = HashMap::new();
    let plain = Variant { recursion_desired: true, ..Variant::default() };
    for _ in 0..options.positions.unwrap_or(POSITIONS_DEFAULT) {
        let rank = draws.draw(&mut random);
        let (name, own) = names.get(ranked[rank] as usize);
        let variant = variants.draw(plain);
        let given = types.as_ref().map(|(types, alias)| types.0[alias.draw(&mut random)].0);
        if options.random_subdomains.draw(&mut random) {
            let (parent, number) = match options.random_below {
                RandomBelow::Names => (name, rank as u64),
                RandomBelow::Apex => {
                    let number = random.below(zones.len() as u64);
                    (zones[number as usize].apex_wire(), number)
                }
            };
            let qtype = given.unwrap_or(rtype::A);
            let mut label = [0; LABEL_LEN];
            draw_label(&mut label, &mut random);
            if let Some(name) = below(&label, parent) {
                let question = FRESH | number << 16 | u64::from(qtype);
                composer.ask(question, &name, qtype, LABEL_LEN as u8, variant);
                continue;
            }
        }
        if nxdomain.draw(&mut random) {
            let qtype = given.unwrap_or(rtype::A);
            let name = match missed.entry(rank) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(missing.next_name()?),
            };
            let question = MISSING | (rank as u64) << 16 | u64::from(qtype);
            composer.ask(question, name, qtype, 0, variant);
            continue;
        }
        let qtype = given.unwrap_or_else(|| own[random.below(own.len() as u64) as usize]);
        composer.ask(EXISTING | (rank as u64) << 16 | u64::from(qtype), name, qtype, 0, variant);
    }
    Ok(composer.finish().build(text(zones, &names, options)))
}

/// The mix in words.
fn text(zones: &[Arc<Zone>], names: &Names, options: &MixOptions) -> String {
    let whose = match zones {
        [zone] => zone.apex().to_string(),
        _ => format!("{} zones", zones.len()),
    };
    let mut text = format!("{} over {} names of {whose}", options.popularity, names.len());
    if let Some(types) = &options.types {
        let sum: f64 = types.0.iter().map(|(_, weight)| weight).sum();
        let shares = types
            .0
            .iter()
            .map(|(kind, weight)| format!("{} {}", rtype::name(*kind), Share(weight / sum)));
        text += &format!(", types {}", shares.collect::<Vec<_>>().join(" "));
    }
    if let Some(share) = options.nxdomain {
        text += &format!(", {share} NXDOMAIN");
    }
    if options.random_subdomains.0 > 0.0 {
        let below = match options.random_below {
            RandomBelow::Apex => "the apex",
            RandomBelow::Names => "names",
        };
        text += &format!(", {} random subdomains of {below}", options.random_subdomains);
    }
    text + &options.text_of_variants()
}

/// Reads `A=70,AAAA=20`.
pub fn type_named(text: &str) -> Option<u16> {
    rtype::parse(text.as_bytes())
}

/// Whether `name` is `apex` or below it.
pub fn is_at_or_below(name: &Name, apex: &Name) -> bool {
    let (name, apex) = (name.as_wire(), apex.as_wire());
    let Some(start) = name.len().checked_sub(apex.len()) else { return false };
    name[start..].eq_ignore_ascii_case(apex) && ring53::wire::message::is_label_start(name, start)
}

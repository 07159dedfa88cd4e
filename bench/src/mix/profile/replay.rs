//! A profile as queries: the same shape, other names.
//!
//! ```text
//!   class ──> questions: count, life, start, gaps ──> |..x...x.......x...x.....|
//!                                                     |.x.x................x...|   all merged
//!   zone, or an apex ──> names, in a seeded order ──> the question's name and type
//! ```
//!
//! Times are places on a line from 0 to 1 until all are merged; then only their order counts. Each
//! question of a class is drawn by itself, which keeps the gaps of the original, and with them what
//! caches of any size find (`classes.rs`).

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use ring53::limits::{LABEL_LEN_MAX, NAME_LEN_MAX};
use ring53::wire::Name;
use ring53::zone::Zone;

use super::classes::GAPS_KEPT_FROM;
use super::model::{Class, GAP_BINS, Profile, VariantShare};
use crate::mix::Questions;
use crate::mix::cli::MixOptions;
use crate::mix::draw::{Alias, gamma, shuffle, uniform};
use crate::mix::generate::Variants;
use crate::mix::names::{Missing, Names, draw_label};
use crate::mix::query::{Composer, Variant};
use crate::zones::queries::Random;

/// Queries before the order begins anew, at most, unless said.
const POSITIONS_DEFAULT: u64 = 4_000_000;
/// Names that do not exist are below this label where there is no zone to ask.
pub const MISSING_LABEL: &[u8] = b"nx";

//----------- Order ----------------------------------------------------------

/// A question to be given a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its type.
    pub qtype: u16,
    /// Whether its name does not exist.
    pub nxdomain: bool,
    /// Whether its name has no record of this type.
    pub nodata: bool,
}

/// The questions that a profile stands for, and the order of their numbers: `positions` of them, or
/// about as many as the original had.
pub fn order(profile: &Profile, positions: u64, random: &mut Random) -> (Vec<Asked>, Vec<u32>) {
    // Of a shorter replay only the times that may fall into its part, and some to spare.
    let part = (1.5 * positions as f64 / profile.queries as f64).min(1.0);
    let end = (part * u32::MAX as f64) as u64;
    let mut asked = Vec::new();
    let mut times: Vec<u64> = Vec::new();
    for class in &profile.classes {
        let types = Alias::new(class.types.iter().map(|it| it.share));
        let gaps = class_gaps(class);
        for nth in 0..class.questions {
            let before = times.len();
            let number = asked.len() as u64;
            // Counts are those of the steps in their order, so that their sum is right.
            let step = ((nth + 1) * class.counts.len() as u64 - 1) / class.questions;
            let count = (class.counts[step as usize] + uniform(random)).max(1.0) as usize;
            let life = at_quantile(&class.lives, uniform(random)).min(1.0);
            let start = at_quantile(&class.starts, uniform(random)) * (1.0 - life);
            let mut push = |time: f64| {
                let time = (time.clamp(0.0, 1.0) * u32::MAX as f64) as u64;
                if time <= end {
                    times.push(time << 32 | number);
                }
            };
            push(start);
            if count > 1 {
                let drawn = draw_gaps(class, &gaps, count - 1, random);
                let scale = life / drawn.iter().sum::<f64>().max(f64::MIN_POSITIVE);
                let mut time = start;
                for gap in drawn {
                    time += gap * scale;
                    push(time);
                }
            }
            if times.len() > before {
                let it = &class.types[types.draw(random)];
                let nxdomain = uniform(random) < it.nxdomain;
                let nodata = !nxdomain && uniform(random) < it.nodata;
                asked.push(Asked { qtype: it.r#type, nxdomain, nodata });
            }
        }
    }
    times.sort_unstable();
    times.truncate(usize::try_from(positions).unwrap_or(usize::MAX));
    (asked, times.into_iter().map(|time| time as u32).collect())
}

/// A sampler of the bins of a class's gaps.
fn class_gaps(class: &Class) -> Option<Alias> {
    let mut from = 0.0;
    let widths = GAP_BINS.iter().map(|&end| end - std::mem::replace(&mut from, end));
    (!class.gaps.is_empty()).then(|| Alias::new(widths))
}

/// So many gaps, relative to one another.
fn draw_gaps(class: &Class, bins: &Option<Alias>, count: usize, random: &mut Random) -> Vec<f64> {
    let one = |random: &mut Random| match bins {
        // Between the ends of its bin as logarithms are: bursts are of all lengths.
        Some(bins) => {
            let bin = bins.draw(random);
            let (low, high) = (class.gaps[bin].max(1e-9), class.gaps[bin + 1].max(1e-9));
            low * (high / low).powf(uniform(random))
        }
        None => gamma(class.gap_shape.max(1e-3), random).max(1e-12),
    };
    (0..count).map(|_| one(random)).collect()
}

const _: () = assert!(GAPS_KEPT_FROM > 2);

/// The value at `share` of quantiles in even steps.
fn at_quantile(quantiles: &[f64], share: f64) -> f64 {
    let place = share * (quantiles.len() - 1) as f64;
    let low = place as usize;
    match quantiles.get(low + 1) {
        Some(high) => quantiles[low] + (high - quantiles[low]) * (place - low as f64),
        None => quantiles[low],
    }
}

//----------- Questions ------------------------------------------------------

/// The queries of a profile, on the names of `zones` or, if there is none, below the apex.
pub fn questions(
    profile: &Profile,
    zones: &[Arc<Zone>],
    options: &MixOptions,
) -> io::Result<Questions> {
    let mut random = Random::new(options.seed);
    let positions = options.positions.unwrap_or(profile.queries.min(POSITIONS_DEFAULT));
    let (asked, order) = order(profile, positions, &mut random);
    let given = match (&options.apex, zones) {
        (None, []) => {
            let error = "on which names? --zone FILE --apex NAME, --shape SHAPE, or --apex NAME \
                         alone for names made up below it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        (Some(apex), []) => made_up(profile, &asked, apex, &mut random)?,
        _ => of_zones(profile, &asked, zones, options.seed)?,
    };
    let mut composer = Composer::new(&mut random);
    let mut variants = Variants::new(options);
    let of_profile = Alias::new(profile.variants.iter().map(|variant| variant.share));
    for number in &order {
        let drawn = variant(&profile.variants[of_profile.draw(&mut random)]);
        let (name, qtype) = (given.names.get(*number as usize).0, asked[*number as usize].qtype);
        composer.ask(u64::from(*number), name, qtype, 0, variants.draw(drawn));
    }
    let mut text = format!(
        "profile of {} queries, {} questions on {}",
        profile.queries, profile.questions, given.text
    );
    if given.shared > 0 {
        text += &format!(" (too few of them: {} questions share a name and type)", given.shared);
    }
    Ok(composer.finish().build(text + &options.text_of_variants()))
}

fn variant(share: &VariantShare) -> Variant {
    Variant {
        stream: share.stream,
        mixed_case: share.mixed_case,
        edns: share.edns,
        dnssec_ok: share.dnssec_ok,
        recursion_desired: share.recursion_desired,
        authentic: share.authentic,
        checking_disabled: share.checking_disabled,
        cookie: share.cookie,
        network: u16::from(share.subnet),
    }
}

/// A name for each question.
struct Given {
    names: Names,
    text: String,
    /// Questions whose name and type another has as well.
    shared: u64,
}

/// Which name of the commonest type's a question of another type has, if any: as their ranks
/// follow each other, and as often as in the original.
struct Pairs {
    commonest: u16,
    shares: Vec<(u16, f64)>,
    /// The next name of the commonest type that each type may share.
    next: Vec<usize>,
}

impl Pairs {
    fn new(profile: &Profile) -> Pairs {
        let shares: Vec<(u16, f64)> =
            profile.beside.iter().map(|it| (it.r#type, it.share)).collect();
        let commonest = shares.first().map_or(0, |it| it.0);
        Pairs { commonest, next: vec![0; shares.len()], shares }
    }

    /// The place among `given` names of the commonest type.
    fn place(&mut self, qtype: u16, given: usize, random: &mut Random) -> Option<usize> {
        let at = self.shares.iter().position(|&(other, _)| other == qtype)?;
        if qtype == self.commonest || uniform(random) >= self.shares[at].1 {
            return None;
        }
        let place = self.next[at];
        self.next[at] = place + usize::from(place < given);
        (place < given).then_some(place)
    }
}

/// Names below `apex`, with the labels of the original.
fn made_up(
    profile: &Profile,
    asked: &[Asked],
    apex: &Name,
    random: &mut Random,
) -> io::Result<Given> {
    let counts = alias(&profile.labels.counts);
    let lengths = alias(&profile.labels.lengths);
    let mut names = Names::default();
    let mut pairs = Pairs::new(profile);
    let mut commonest: Vec<usize> = Vec::new();
    let mut used: HashSet<Vec<u8>> = HashSet::new();
    let mut name = Vec::new();
    for (number, question) in asked.iter().enumerate() {
        let hit = !question.nxdomain;
        if hit && let Some(place) = pairs.place(question.qtype, commonest.len(), random) {
            let shared = names.get(commonest[place]).0.to_vec();
            names.push(&shared, &[]);
            continue;
        }
        for attempt in 0.. {
            name.clear();
            let labels = counts.draw(random).saturating_sub(apex.label_count()).max(1);
            for _ in 0..labels {
                // Short labels are soon used up: then longer ones.
                let len = (lengths.draw(random) + attempt / 4).clamp(1, LABEL_LEN_MAX);
                let at = name.len();
                name.resize(at + 1 + len, len as u8);
                draw_label(&mut name[at + 1..], random);
            }
            if question.nxdomain {
                name.push(MISSING_LABEL.len() as u8);
                name.extend(MISSING_LABEL);
            }
            name.extend_from_slice(apex.as_wire());
            if name.len() <= NAME_LEN_MAX && !used.contains(&name) {
                break;
            }
            if attempt == 1000 {
                return Err(io::Error::other(format!("{apex} leaves no room for names below it")));
            }
        }
        used.insert(name.clone());
        names.push(&name, &[]);
        if hit && question.qtype == pairs.commonest {
            commonest.push(number);
        }
    }
    Ok(Given { names, text: format!("names below {apex}"), shared: 0 })
}

/// A sampler of shares; without any, of the first.
fn alias(shares: &[f64]) -> Alias {
    let none = shares.iter().sum::<f64>() <= 0.0;
    Alias::new(if none { &[1.0] } else { shares }.iter().copied())
}

/// Names of zones in a seeded order, each for a question whose type it has, or has not.
fn of_zones(
    profile: &Profile,
    asked: &[Asked],
    zones: &[Arc<Zone>],
    seed: u64,
) -> io::Result<Given> {
    let had = Names::of(zones, seed);
    if had.is_empty() {
        return Err(io::Error::other("the zone has no name to ask for"));
    }
    let mut random = Random::new(seed ^ 0x7065);
    let mut permuted: Vec<u32> = (0..had.len() as u32).collect();
    shuffle(&mut permuted, &mut random);
    let mut missing = Missing::new(zones, &had, seed);
    let mut pairs = Pairs::new(profile);
    let (mut commonest, mut names) = (Vec::new(), Names::default());
    let (mut used, mut shared) = (HashSet::new(), 0);
    // For each type, with and without it: how far the names have been given away.
    let mut nexts: std::collections::BTreeMap<(u16, bool), u64> = Default::default();
    for question in asked {
        if question.nxdomain {
            names.push(&missing.next_name()?, &[]);
            continue;
        }
        let has = |index: u32| had.get(index as usize).1.contains(&question.qtype);
        let beside = pairs.place(question.qtype, commonest.len(), &mut random);
        let beside = beside.map(|place| commonest[place]).filter(|&it| has(it) != question.nodata);
        let index = beside.unwrap_or_else(|| {
            let next = nexts.entry((question.qtype, question.nodata)).or_default();
            // All names once round at most: perhaps none has the type.
            let turn = |step| permuted[((*next + step) % permuted.len() as u64) as usize];
            let fits = |step: &u64| has(turn(*step)) != question.nodata;
            let step = (0..permuted.len() as u64).find(fits).unwrap_or(0);
            let index = turn(step);
            *next += step + 1;
            index
        });
        shared += u64::from(!used.insert((index, question.qtype)));
        names.push(had.get(index as usize).0, &[]);
        if question.qtype == pairs.commonest {
            commonest.push(index);
        }
    }
    let whose = match zones {
        [zone] => zone.apex().to_string(),
        _ => format!("{} zones", zones.len()),
    };
    Ok(Given { names, text: format!("{} names of {whose}", had.len()), shared })
}

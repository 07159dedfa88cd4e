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

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use ring53::limits::{ANSWER_SIZE_MAX, LABEL_LEN_MAX, NAME_LEN_MAX};
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
/// Of a question that comes more often no more gaps are drawn than the replay has positions: a
/// profile may come from anywhere, and say four thousand million.
const GAPS_DRAWN: usize = 1 << 22;
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
    let mut end = (part * u32::MAX as f64) as u64 + 1;
    let positions = usize::try_from(positions).unwrap_or(usize::MAX);
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
                if time < end {
                    times.push(time << 32 | number);
                }
            };
            push(start);
            if count > 1 {
                let kept = (count - 1).min(positions.max(GAPS_DRAWN));
                let drawn = draw_gaps(class, &gaps, kept, random);
                let life = life * kept as f64 / (count - 1) as f64;
                let scale = life / drawn.iter().sum::<f64>().max(f64::MIN_POSITIVE);
                let mut time = start;
                for gap in drawn {
                    time += gap * scale;
                    push(time);
                }
            }
            let pushed = times.len() - before;
            // Far more than are asked for: the earliest, and of the rest none that is as late.
            if times.len() > positions.saturating_mul(2).max(TIMES_MIN) {
                let (_, last, _) = times.select_nth_unstable(positions.max(1) - 1);
                end = end.min(*last >> 32);
                times.truncate(positions);
            }
            if pushed > 0 {
                let it = &class.types[types.draw(random)];
                let nxdomain = uniform(random) < it.nxdomain;
                let nodata = !nxdomain && uniform(random) < it.nodata;
                asked.push(Asked { qtype: it.r#type, nxdomain, nodata });
            }
        }
    }
    times.sort_unstable();
    times.truncate(positions);
    (asked, times.into_iter().map(|time| time as u32).collect())
}

/// Times that are kept before the latest are thrown out, at least.
const TIMES_MIN: usize = 1 << 20;

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
        // The paths read no longer datagrams.
        edns: share.edns.map(|size| size.min(ANSWER_SIZE_MAX as u16)),
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

/// Names in a seeded order, given away in turn: for each type those that have it, and those that
/// have not.
///
/// Whoever has a type is listed; who has not is passed over to, and listed too where most have it:
/// a question costs a step or two, however rare its type is.
struct Turns<'a> {
    names: &'a Names,
    permuted: Vec<u32>,
    /// By type, in the order of `permuted`.
    having: HashMap<u16, Vec<u32>>,
    lacking: HashMap<u16, Vec<u32>>,
    /// For each type, with it or without: how far the names have been given away.
    nexts: HashMap<(u16, bool), usize>,
}

impl<'a> Turns<'a> {
    fn new(names: &'a Names, random: &mut Random) -> Turns<'a> {
        let mut permuted: Vec<u32> = (0..names.len() as u32).collect();
        shuffle(&mut permuted, random);
        let mut having: HashMap<u16, Vec<u32>> = HashMap::new();
        for &index in &permuted {
            for &qtype in names.get(index as usize).1 {
                let listed = having.entry(qtype).or_default();
                if listed.last() != Some(&index) {
                    listed.push(index);
                }
            }
        }
        Turns { names, permuted, having, lacking: HashMap::new(), nexts: HashMap::new() }
    }

    /// The next name that has `qtype`, or has it not; the next of all, if there is none.
    fn next(&mut self, qtype: u16, has: bool) -> u32 {
        let all = &self.permuted[..];
        let next = self.nexts.entry((qtype, has)).or_default();
        let listed = self.having.get(&qtype).map_or(&[][..], Vec::as_slice);
        let lacks = |index: &u32| !self.names.get(*index as usize).1.contains(&qtype);
        let mut fitting = listed;
        if !has && listed.len() * 2 < all.len() {
            while !lacks(&all[*next % all.len()]) {
                *next += 1;
            }
            fitting = all;
        } else if !has {
            let lacking = || all.iter().copied().filter(lacks).collect();
            fitting = self.lacking.entry(qtype).or_insert_with(lacking);
        }
        let fitting = if fitting.is_empty() { all } else { fitting };
        let index = fitting[*next % fitting.len()];
        *next += 1;
        index
    }
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
    let mut turns = Turns::new(&had, &mut random);
    let mut missing = Missing::new(zones, &had, seed);
    let mut pairs = Pairs::new(profile);
    let (mut commonest, mut names) = (Vec::new(), Names::default());
    let (mut used, mut shared) = (HashSet::new(), 0);
    for question in asked {
        if question.nxdomain {
            names.push(&missing.next_name()?, &[]);
            continue;
        }
        let has = |index: u32| had.get(index as usize).1.contains(&question.qtype);
        let beside = pairs.place(question.qtype, commonest.len(), &mut random);
        let beside = beside.map(|place| commonest[place]).filter(|&it| has(it) != question.nodata);
        let index = beside.unwrap_or_else(|| turns.next(question.qtype, !question.nodata));
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

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::super::model::TypeShare;
    use super::*;

    fn names(count: u32, types: impl Fn(u32) -> Vec<u16>) -> Names {
        let mut names = Names::default();
        for index in 0..count {
            names.push(format!("\x04{index:04}\0").as_bytes(), &types(index));
        }
        names
    }

    /// What a scan of all names finds, from where the last one has ended.
    fn scanned(turns: &Turns<'_>, next: &mut usize, qtype: u16, has: bool) -> u32 {
        let all = &turns.permuted;
        let turn = |step: usize| all[(*next + step) % all.len()];
        let fits = |index: u32| turns.names.get(index as usize).1.contains(&qtype) == has;
        let step = (0..all.len()).find(|&step| fits(turn(step))).unwrap_or(0);
        let index = turn(step);
        *next += step + 1;
        index
    }

    #[test]
    fn names_are_given_away_in_their_order() {
        let names = names(100, |index| match index % 10 {
            0 => vec![1, 28, 15],
            1 => vec![],
            _ => vec![1, 28],
        });
        let mut turns = Turns::new(&names, &mut Random::new(3));
        for (qtype, has) in
            [(1, true), (1, false), (15, true), (15, false), (99, true), (99, false)]
        {
            let mut next = 0;
            for _ in 0..250 {
                let expected = scanned(&turns, &mut next, qtype, has);
                assert_eq!(turns.next(qtype, has), expected, "{qtype} {has}");
            }
        }
    }

    /// A type that no name has, or one, or all but one, costs each question a step: with a scan of
    /// all names this takes hours.
    #[test]
    fn rare_types_cost_no_more_than_common_ones() {
        let names = names(1 << 17, |index| if index == 7 { vec![15] } else { vec![1] });
        let mut turns = Turns::new(&names, &mut Random::new(3));
        for _ in 0..1 << 20 {
            turns.next(99, true);
            turns.next(1, true);
            assert_eq!((turns.next(15, true), turns.next(1, false)), (7, 7));
            assert_ne!(turns.next(15, false), 7);
        }
    }

    fn hostile(queries: u64, class: Class) -> Profile {
        Profile {
            format: String::new(),
            version: 1,
            queries,
            seconds: 1.0,
            questions: class.questions,
            names: 1,
            seen_once: 0,
            new: Vec::new(),
            reuse: Default::default(),
            classes: vec![class],
            beside: Vec::new(),
            variants: Vec::new(),
            labels: Default::default(),
            clients: Default::default(),
            responses: None,
        }
    }

    /// A question that is said to come four thousand million times costs what is replayed of it.
    #[test]
    fn counts_of_a_hostile_profile_are_bounded() {
        let class = |questions, count, life| Class {
            questions,
            counts: vec![count],
            lives: vec![life],
            starts: vec![0.0],
            gaps: Vec::new(),
            gap_shape: 1.0,
            types: vec![TypeShare { r#type: 1, share: 1.0, nxdomain: 0.0, nodata: 0.0 }],
        };
        let all = u64::from(u32::MAX);
        for life in [1.0, 0.0] {
            let profile = hostile(all, class(1, all as f64, life));
            let (asked, order) = order(&profile, 1000, &mut Random::new(1));
            assert_eq!((asked.len(), order.len()), (1, 1000), "{life}");
        }
        // All at once: those that are first are kept, the others not even as questions.
        let (asked, order) =
            order(&hostile(all, class(3_000_000, 1.0, 0.0)), 10, &mut Random::new(1));
        assert_eq!(order, (0..10).collect::<Vec<u32>>());
        assert!(asked.len() <= TIMES_MIN + 1, "{}", asked.len());
    }
}

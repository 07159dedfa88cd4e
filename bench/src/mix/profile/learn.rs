//! From messages to a profile.
//!
//! ```text
//!   query ──> question (hash of name, type) ──> its number ──> the order of numbers
//!                                                                  │ per question: times, gaps
//!   classes: how often x how long  <────────────────────────────────┘
//! ```
//!
//! Names are hashed with a key that is drawn for each run and forgotten; only numbers of questions
//! are kept from then on. What does not depend on names must not depend on the hash either: the
//! profile of a capture in which every name was replaced by another of its form is the same.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use ring53::wire::message::{CLASS_IN, Message, Section, opcode};
use ring53::wire::rtype;

use super::capture::{Seen, Skipped};
use super::classes;
use super::model::*;
use super::reuse;

/// Variants that are kept; the rest is not replayed.
const VARIANTS_MAX: usize = 64;
/// A variant, or a type, that was sent fewer times says more of who asked than of the traffic.
const QUERIES_MIN: u64 = 10;
/// Types that are kept, by their share of the queries.
pub const TYPES_MAX: usize = 32;
/// Steps of the gaps between queries.
const GAP_STEPS: usize = 512;
/// Parts of a capture for which new questions are counted.
const NEW_PARTS: usize = 32;

/// What is known of one question.
pub(super) struct Question {
    pub qtype: u16,
    name: u64,
    nxdomain: u32,
    nodata: u32,
    answered: u32,
}

impl Question {
    pub fn is_nxdomain(&self) -> bool {
        self.nxdomain * 2 > self.answered
    }

    pub fn is_nodata(&self) -> bool {
        self.nodata * 2 > self.answered
    }
}

/// Gaps between queries of one client that are looked at, over all clients.
const CLIENT_GAPS_MAX: usize = 1 << 22;

/// Collects what a profile is made of.
#[derive(Default)]
pub struct Learner {
    key: RandomState,
    known: HashMap<(u64, u16), u32>,
    questions: Vec<Question>,
    asked: Vec<u32>,
    times_ns: Vec<u64>,
    clients: HashMap<IpAddr, u32>,
    client_of: Vec<u32>,
    variants: HashMap<Features, u64>,
    names: HashSet<u64>,
    labels: LabelCounts,
    responses: ResponseCounts,
    /// Messages that are no queries of a name: other opcodes and classes, or malformed.
    pub others: u64,
}

#[derive(Default)]
struct LabelCounts {
    counts: Vec<u64>,
    lengths: Vec<u64>,
}

#[derive(Default)]
struct ResponseCounts {
    count: u64,
    rcodes: [u64; 16],
    nodata: u64,
    truncated: u64,
    octets: u64,
}

/// [`VariantShare`] without its share.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Features {
    stream: bool,
    edns: Option<u16>,
    dnssec_ok: bool,
    recursion_desired: bool,
    authentic: bool,
    checking_disabled: bool,
    cookie: bool,
    subnet: bool,
    mixed_case: bool,
}

impl Learner {
    /// Takes a message.
    pub fn take(&mut self, seen: &Seen<'_>) {
        let message = Message::new(seen.message).filter(|it| it.opcode() == opcode::QUERY);
        let question = message.and_then(|message| message.question().ok().flatten());
        let question = question.filter(|question| question.qclass == CLASS_IN);
        let (Some(message), Some(question)) = (message, question) else {
            self.others += 1;
            return;
        };
        let lower = question.name.to_ascii_lowercase();
        let key = (self.key.hash_one(&lower[..]), question.qtype);
        if !seen.to_server {
            if let Some(&number) = self.known.get(&key) {
                self.response(number, message);
            }
            return;
        }
        let next = self.questions.len() as u32;
        let number = match self.known.entry(key) {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(vacant) => {
                let (name, qtype) = key;
                let question = Question { qtype, name, nxdomain: 0, nodata: 0, answered: 0 };
                self.questions.push(question);
                if self.names.insert(name) {
                    self.labels.take(&lower);
                }
                *vacant.insert(next)
            }
        };
        self.asked.push(number);
        self.times_ns.push(seen.at_ns);
        let next = self.clients.len() as u32;
        self.client_of.push(*self.clients.entry(seen.client).or_insert(next));
        *self.variants.entry(features(seen, message, &question.name)).or_default() += 1;
    }

    fn response(&mut self, number: u32, message: Message<'_>) {
        let (question, counts) = (&mut self.questions[number as usize], &mut self.responses);
        counts.count += 1;
        counts.rcodes[usize::from(message.rcode())] += 1;
        counts.octets += message.octets().len() as u64;
        counts.truncated += u64::from(message.octets()[2] & 2 != 0);
        question.answered += 1;
        question.nxdomain += u32::from(message.rcode() == 3);
        if message.rcode() == 0 && message.count(1) == 0 && message.octets()[2] & 2 == 0 {
            let mut records = message.records().into_iter().flatten().flatten();
            let refers =
                records.any(|it| it.section == Section::Authority && it.rtype == rtype::NS);
            question.nodata += u32::from(!refers);
            counts.nodata += u64::from(!refers);
        }
    }

    /// How many queries there were.
    pub fn queries(&self) -> usize {
        self.asked.len()
    }

    /// Puts queries into the order of time: servers log what each of their threads did in turn.
    fn sort(&mut self) {
        if self.times_ns.is_sorted() {
            return;
        }
        let mut order: Vec<u32> = (0..self.asked.len() as u32).collect();
        order.sort_by_key(|&at| self.times_ns[at as usize]);
        self.times_ns.sort_unstable();
        for numbers in [&mut self.asked, &mut self.client_of] {
            *numbers = order.iter().map(|&at| numbers[at as usize]).collect();
        }
    }

    /// The profile.
    pub fn finish(mut self, skipped: &Skipped) -> Profile {
        self.sort();
        let queries = self.asked.len() as u64;
        let seconds = self.seconds();
        let mut counts = vec![0u32; self.questions.len()];
        self.asked.iter().for_each(|&number| counts[number as usize] += 1);
        let (reuse, new) = self.reuse();
        let kept = self.kept_types(&counts);
        Profile {
            format: FORMAT.into(),
            version: VERSION,
            queries,
            seconds: rounded(seconds),
            questions: self.questions.len() as u64,
            names: self.names.len() as u64,
            seen_once: counts.iter().filter(|&&count| count == 1).count() as u64,
            new,
            reuse,
            classes: classes::of(&self.asked, &counts, &self.questions, &kept),
            beside: self.beside(&counts, &kept),
            variants: self.variants(),
            labels: self.labels.shares(),
            clients: self.clients(skipped),
            responses: self.responses.shares(queries),
        }
    }

    /// From the first query to the last, and one mean gap.
    fn seconds(&self) -> f64 {
        let (first, last) = (self.times_ns.first(), self.times_ns.last());
        let ns = last.zip(first).map_or(0, |(last, first)| last - first) as f64;
        let gaps = (self.times_ns.len() as f64 - 1.0).max(1.0);
        ns * (1.0 + 1.0 / gaps) / 1e9
    }

    fn reuse(&self) -> (Reuse, Vec<f64>) {
        let mut bins = Vec::new();
        let mut new = vec![0u64; NEW_PARTS];
        let (mut position, mut first) = (0usize, 0u64);
        let count = self.asked.len();
        reuse::distances(&self.asked, self.questions.len(), |distance| {
            match distance {
                None => {
                    first += 1;
                    new[position * NEW_PARTS / count] += 1;
                }
                Some(distance) => {
                    let bin = (2.0 * f64::from(distance).log2()) as usize;
                    bins.resize(bins.len().max(bin + 1), 0u64);
                    bins[bin] += 1;
                }
            }
            position += 1;
        });
        let share = |count: &u64, of: usize| rounded(*count as f64 / of.max(1) as f64);
        let distances = bins.iter().map(|bin| share(bin, count)).collect();
        let new = new.iter().map(|part| share(part, count.div_ceil(NEW_PARTS))).collect();
        (Reuse { first: share(&first, count), distances }, new)
    }

    /// The types that are kept, the commonest first, and how often each was asked for.
    fn kept_types(&self, counts: &[u32]) -> Vec<(u16, u64)> {
        let mut types: HashMap<u16, u64> = HashMap::new();
        for (question, &count) in self.questions.iter().zip(counts) {
            *types.entry(question.qtype).or_default() += u64::from(count);
        }
        let mut types: Vec<(u16, u64)> = types.into_iter().collect();
        types.sort_unstable_by_key(|&(qtype, count)| (std::cmp::Reverse(count), qtype));
        let often = types.iter().filter(|(_, count)| *count >= QUERIES_MIN).count();
        types.truncate(often.clamp(1, TYPES_MAX));
        types
    }

    fn beside(&self, counts: &[u32], kept: &[(u16, u64)]) -> Vec<Beside> {
        let Some(&(commonest, _)) = kept.first() else { return Vec::new() };
        let of = |qtype| self.questions.iter().filter(move |question| question.qtype == qtype);
        let names: HashSet<u64> = of(commonest).map(|question| question.name).collect();
        let all = counts.iter().map(|&count| u64::from(count)).sum::<u64>().max(1) as f64;
        let beside = |&(qtype, queries): &(u16, u64)| {
            let count = of(qtype).count().max(1) as f64;
            let both = of(qtype).filter(|question| names.contains(&question.name)).count() as f64;
            let queries = rounded(queries as f64 / all);
            Beside { r#type: qtype, queries, share: rounded(both / count) }
        };
        kept.iter().map(beside).collect()
    }

    fn variants(&self) -> Vec<VariantShare> {
        let mut variants: Vec<(&Features, &u64)> = self.variants.iter().collect();
        variants.sort_unstable_by_key(|&(features, count)| (std::cmp::Reverse(count), features));
        let often = variants.iter().filter(|(_, count)| **count >= QUERIES_MIN).count();
        variants.truncate(often.clamp(1, VARIANTS_MAX));
        let all = self.asked.len() as f64;
        let share = |(features, count): (&Features, &u64)| VariantShare {
            share: rounded(*count as f64 / all),
            stream: features.stream,
            edns: features.edns,
            dnssec_ok: features.dnssec_ok,
            recursion_desired: features.recursion_desired,
            authentic: features.authentic,
            checking_disabled: features.checking_disabled,
            cookie: features.cookie,
            subnet: features.subnet,
            mixed_case: features.mixed_case,
        };
        variants.into_iter().map(share).collect()
    }

    fn clients(&self, skipped: &Skipped) -> Clients {
        // Of each client the queries, and the first and the last time.
        let mut seen = vec![(0u64, 0u64, 0u64); self.clients.len()];
        for (&client, &at_ns) in self.client_of.iter().zip(&self.times_ns) {
            let (count, first, last) = &mut seen[client as usize];
            *first = if *count == 0 { at_ns } else { *first };
            (*count, *last) = (*count + 1, at_ns);
        }
        let mut queries: Vec<u64> = seen.iter().map(|(count, ..)| *count).collect();
        queries.sort_unstable_by(|a, b| b.cmp(a));
        let (all, mut sum, mut shares) = (self.asked.len() as f64, 0, Vec::new());
        for (rank, count) in (1..).zip(&queries) {
            sum += count;
            if usize::is_power_of_two(rank) || rank == queries.len() {
                shares.push(rounded(sum as f64 / all));
            }
        }
        let gaps = self.times_ns.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mut last_ns: Vec<u64> = seen.iter().map(|(_, first, _)| *first).collect();
        let mut met = vec![false; seen.len()];
        let mut of_one = Vec::new();
        for (&client, &at_ns) in self.client_of.iter().zip(&self.times_ns) {
            let (count, first, last) = seen[client as usize];
            let gap = at_ns - std::mem::replace(&mut last_ns[client as usize], at_ns);
            if std::mem::replace(&mut met[client as usize], true) && last > first {
                of_one.push(gap as f64 * (count - 1) as f64 / (last - first) as f64);
            }
            if of_one.len() >= CLIENT_GAPS_MAX {
                break;
            }
        }
        Clients {
            count: self.clients.len() as u64,
            shares,
            gaps: steps(gaps),
            gaps_of_one: steps(of_one),
            connections: skipped.connections,
        }
    }
}

/// Means over even steps of numbers in their order, relative to the mean of all.
fn steps(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_unstable_by(f64::total_cmp);
    let mean = numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
    // One query, or all at once: as chance has it.
    if mean <= 0.0 {
        return vec![1.0];
    }
    let count = GAP_STEPS.min(numbers.len());
    let step = |step: usize| {
        let part = &numbers[step * numbers.len() / count..(step + 1) * numbers.len() / count];
        rounded(part.iter().sum::<f64>() / part.len() as f64 / mean)
    };
    (0..count).map(step).collect()
}

impl LabelCounts {
    fn take(&mut self, name: &[u8]) {
        fn count(counts: &mut Vec<u64>, at: usize) {
            counts.resize(counts.len().max(at + 1), 0);
            counts[at] += 1;
        }
        let (mut at, mut labels) = (0, 0);
        while let Some(&len) = name.get(at).filter(|&&len| len > 0) {
            count(&mut self.lengths, usize::from(len));
            labels += 1;
            at += 1 + usize::from(len);
        }
        count(&mut self.counts, labels);
    }

    fn shares(&self) -> Labels {
        let shares = |counts: &[u64]| {
            let all = counts.iter().sum::<u64>().max(1) as f64;
            counts.iter().map(|&count| rounded(count as f64 / all)).collect()
        };
        Labels { counts: shares(&self.counts), lengths: shares(&self.lengths) }
    }
}

impl ResponseCounts {
    fn shares(&self, queries: u64) -> Option<Responses> {
        let of = |count: u64| rounded(count as f64 / self.count as f64);
        (self.count > 0).then(|| Responses {
            answered: rounded(self.count as f64 / queries.max(1) as f64),
            rcodes: self.rcodes.iter().map(|&count| of(count)).collect(),
            nodata: of(self.nodata),
            truncated: of(self.truncated),
            octets: rounded(self.octets as f64 / self.count as f64),
        })
    }
}

/// What a query has besides its question.
fn features(seen: &Seen<'_>, message: Message<'_>, name: &[u8]) -> Features {
    let flags = message.flags();
    let mut features = Features {
        stream: seen.stream,
        recursion_desired: flags & 0x0100 != 0,
        authentic: flags & 0x0020 != 0,
        checking_disabled: flags & 0x0010 != 0,
        mixed_case: name.iter().any(u8::is_ascii_uppercase)
            && name.iter().any(u8::is_ascii_lowercase),
        ..Features::default()
    };
    // A query stands in its own octets; of a response that stands for one, OPT is the server's.
    let records = message.records().into_iter().flatten().map_while(Result::ok);
    for record in records.filter(|record| record.rtype == rtype::OPT && !message.is_response()) {
        features.edns = Some(record.class);
        features.dnssec_ok = record.ttl & 0x8000 != 0;
        let mut options = &message.octets()[record.rdata];
        while let Some(&[a, b, c, d]) = options.first_chunk::<4>() {
            features.subnet |= [a, b] == [0, 8];
            features.cookie |= [a, b] == [0, 10];
            options = options.get(4 + usize::from(u16::from_be_bytes([c, d]))..).unwrap_or(&[]);
        }
    }
    features
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use ring53::wire::message::Writer;

    use super::*;

    fn take(learner: &mut Learner, name: &[u8], qtype: u16, flags: u16, at_ns: u64) {
        let mut writer = Writer::new(0, flags);
        writer.question(name, qtype, CLASS_IN);
        let message = &writer.into_octets();
        let client = IpAddr::from([192, 0, 2, 1]);
        learner.take(&Seen { message, to_server: true, stream: false, client, at_ns });
    }

    /// What few have sent would say who they are.
    #[test]
    fn a_variant_is_kept_if_it_came_ten_times() {
        const RD: u16 = 0x0100;
        const CD: u16 = 0x0010;
        let learned = |rare: u64| {
            let mut learner = Learner::default();
            for at in 0..100 {
                let flags = if at < rare { RD | CD } else { RD };
                take(&mut learner, b"\x03www\0", rtype::A, flags, at);
            }
            learner.finish(&Skipped::default()).variants
        };
        assert_eq!(learned(9).len(), 1);
        assert!(!learned(9)[0].checking_disabled);
        let kept = learned(10);
        assert_eq!((kept.len(), kept[1].checking_disabled, kept[1].share), (2, true, 0.1));
    }

    /// A name that is asked for with three types is one name.
    #[test]
    fn labels_are_those_of_different_names() {
        let mut learner = Learner::default();
        for (at, qtype) in [rtype::A, rtype::AAAA, rtype::MX].into_iter().enumerate() {
            take(&mut learner, b"\x03www\x02ex\0", qtype, 0, at as u64);
        }
        take(&mut learner, b"\x04mail\0", rtype::A, 0, 3);
        let profile = learner.finish(&Skipped::default());
        assert_eq!((profile.names, profile.questions), (2, 4));
        assert_eq!(profile.labels.counts, [0.0, 0.5, 0.5]);
        assert_eq!(profile.labels.lengths, [0.0, 0.0, 0.3333, 0.3333, 0.3333]);
    }
}

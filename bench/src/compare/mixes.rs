//! Which queries are sent in a comparison.
//!
//! ```text
//!   base       hot | zipf | uniform | random      over the names of a shape; DO if it is signed
//!   + tcp      one of a hundred over TCP
//!   + replaced the zone is replaced every second meanwhile
//!   + spoofed  from addresses that nobody has, beside a little honest traffic
//!   + misses   every fifth for a name that nobody has asked for, of an upstream that is far away
//! ```
//!
//! Uniform questions over delegations are a TLD's referrals; random ones over the signed zone are
//! what its denial costs. Random ones over what caches are asked for do exist: each is a miss.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

use ring53::limits::HEADER_LEN;
use ring53::wire::message::{CLASS_IN, Writer, header};
use ring53::wire::{Name, rtype};

use super::shapes::Shape;
use super::upstream::{FAR_ZONE, MISS_ZONE};
use crate::mix::draw::{Draws, Popularity, shuffle};
use crate::mix::expect::Answers;
use crate::mix::{Expected, Questions, QuestionsBuilder, Traits};
use crate::zones::queries::{Random, about};
use crate::zones::{HOSTING_ZONES, apex};

/// Names that Zipf's law is drawn over.
const ZIPF_NAMES: u64 = 100_000;
const NXDOMAIN: u8 = 3;
/// Of so many questions one is a miss, beside hits.
const MISS_EVERY: u64 = 5;

//----------- Mix ------------------------------------------------------------

/// Which names are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// One name, always.
    Hot,
    /// The `n`th of 100,000 names `n` times less often than the first.
    Zipf,
    /// All names of the zone alike, 9 % of the questions for others (signed: none).
    Uniform,
    /// Random names that do not exist.
    Random,
}

/// A base and what happens beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// The names.
    pub base: Base,
    /// One query of a hundred over TCP.
    pub tcp: bool,
    /// The zone is replaced every second.
    pub replaced: bool,
    /// Sources that nobody has.
    pub spoofed: bool,
    /// Every fifth question is for a name nobody has asked for.
    pub misses: bool,
}

const BASES: [(Base, &str); 4] = [
    (Base::Hot, "hot"),
    (Base::Zipf, "zipf"),
    (Base::Uniform, "uniform"),
    (Base::Random, "random"),
];

impl Mix {
    /// The base alone.
    pub const fn of(base: Base) -> Mix {
        Mix { base, tcp: false, replaced: false, spoofed: false, misses: false }
    }

    /// What is measured of a shape unless something else is asked for.
    pub fn usual(shape: Shape) -> Vec<Mix> {
        let [hot, zipf, uniform, random] =
            [Base::Hot, Base::Zipf, Base::Uniform, Base::Random].map(Mix::of);
        let replaced = Mix { replaced: true, ..uniform };
        match shape {
            Shape::Hosts => {
                let tcp = Mix { tcp: true, ..uniform };
                let spoofed = Mix { spoofed: true, ..uniform };
                vec![hot, zipf, uniform, random, tcp, replaced, spoofed]
            }
            Shape::Delegations => vec![zipf, uniform, random],
            Shape::Hosting => vec![zipf, uniform, random],
            Shape::Ip6arpa => vec![uniform, random],
            Shape::Signed => vec![zipf, uniform, random, replaced],
            // Random names last: a cache that counts answers throws others out for them.
            Shape::Cached => vec![uniform, Mix { misses: true, ..uniform }, random],
            Shape::CachedTls | Shape::CachedHttps => vec![random],
        }
    }

    /// Why it cannot be measured with `shape`.
    pub fn refusal(self, shape: Shape) -> Option<&'static str> {
        if self.replaced && shape == Shape::Hosting {
            return Some("writing 10,000 files a second takes what the generator needs");
        }
        if self.spoofed && (self.tcp || self.replaced) {
            return Some("spoofed sources are measured by themselves");
        }
        match shape {
            Shape::Cached if self.replaced => Some("a cache has no zone that could be replaced"),
            Shape::Cached if self.misses && (self.tcp || self.spoofed || self.is_random()) => {
                Some("misses beside hits are measured over UDP, with hits")
            }
            Shape::CachedTls | Shape::CachedHttps if self != Mix::of(Base::Random) => {
                Some("of upstreams over TLS and HTTPS misses are measured: random names")
            }
            _ if self.misses && shape != Shape::Cached => Some("an authority has no misses"),
            _ => None,
        }
    }

    /// Whether answers come over kxdpgun, which can offer more than a core answers.
    pub fn overloads(self) -> bool {
        !self.tcp && !self.spoofed
    }

    /// Whether each load asks for names that no other has asked for.
    pub fn is_fresh(self) -> bool {
        self.is_random() || self.misses
    }

    /// Whether all names are random.
    pub fn is_random(self) -> bool {
        self.base == Base::Random
    }

    /// What of the names: a hundred kinds, as `zones::queries` has them.
    fn draw(self, shape: Shape, names: u64, zipf: &Zipf, random: &mut Random) -> Asked {
        let (kind, index) = match self.base {
            Base::Random => {
                let rtype = if shape == Shape::Ip6arpa { "PTR" } else { "A" };
                let exists = shape.carrier().is_some();
                return Asked { name: absent(shape, names, random), rtype, exists };
            }
            Base::Hot => (0, names / 2),
            Base::Zipf => (random.below(100), zipf.draw(random)),
            Base::Uniform => (random.below(100), random.below(names)),
        };
        // The kinds from 90 to 98 are for names that do not exist, but for the signed shape.
        let all_exist = shape == Shape::Signed || shape.carrier().is_some();
        let exists = all_exist || !(90..99).contains(&kind);
        let (name, rtype) = about(shape.of_zones(), names, kind, index, random);
        Asked { name, rtype, exists }
    }

    /// Writes `count` queries as kxdpgun reads them.
    pub fn write(
        self,
        shape: Shape,
        names: u64,
        count: u64,
        seed: u64,
        path: &Path,
    ) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let (zipf, mut random) = (Zipf::new(names), Random::new(seed));
        let flags = if shape == Shape::Signed { " D" } else { "" };
        for number in 0..count {
            if self.misses && number % MISS_EVERY == 0 {
                writeln!(file, "x{:x}.{FAR_ZONE} A", random.below(1 << 48))?;
                continue;
            }
            let asked = self.draw(shape, names, &zipf, &mut random);
            writeln!(file, "{} {}{flags}", asked.name, asked.rtype)?;
        }
        file.flush()
    }

    /// `count` queries for the generator of this program, misses beside hits left out: it is the
    /// hits that are watched. With `answers` each says what its answer has to be: the rcode follows
    /// from the name, the records are those that the zones have.
    pub fn questions(
        self,
        shape: Shape,
        names: u64,
        count: u64,
        seed: u64,
        answers: Option<&mut Answers>,
    ) -> io::Result<Questions> {
        let mut builder = QuestionsBuilder::default();
        let (zipf, mut random) = (Zipf::new(names), Random::new(seed));
        let mut rcodes = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let asked = self.draw(shape, names, &zipf, &mut random);
            let (message, question_len) = asked.message(shape)?;
            let stream = self.tcp && random.below(100) == 0;
            let traits = Traits { fresh: 0, mixed_case: false, stream };
            builder.add(&message, question_len, traits);
            rcodes.push(if asked.exists { 0 } else { NXDOMAIN });
        }
        let mut questions = builder.build(format!("{self} over {}", shape.name()));
        if let Some(answers) = answers {
            let mut rcodes = rcodes.into_iter();
            questions.expect(|query, entry| {
                let records = answers.expected(query, entry.question_len.into());
                let digest = records.and_then(|expected| expected.digest);
                let proof = records.is_some_and(|expected| expected.proof);
                Some(Expected { rcode: rcodes.next()?, digest, proof })
            });
        }
        Ok(questions)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = BASES.iter().find(|(base, _)| *base == self.base).map_or("", |(_, name)| name);
        f.write_str(base)?;
        for (on, word) in [
            (self.tcp, "+tcp"),
            (self.replaced, "+replaced"),
            (self.spoofed, "+spoofed"),
            (self.misses, "+misses"),
        ] {
            if on {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let unknown = || {
            format!(
                "{text:?} is no mix: hot, zipf, uniform or random, then +tcp, +replaced, +spoofed \
                 or +misses, for example uniform+replaced"
            )
        };
        let mut words = text.split('+');
        let first = words.next().unwrap_or("");
        let base = BASES.iter().find(|(_, name)| *name == first).ok_or_else(unknown)?.0;
        let mut mix = Mix::of(base);
        for word in words {
            match word {
                "tcp" => mix.tcp = true,
                "replaced" => mix.replaced = true,
                "spoofed" => mix.spoofed = true,
                "misses" => mix.misses = true,
                _ => return Err(unknown()),
            }
        }
        Ok(mix)
    }
}

//----------- Asked ----------------------------------------------------------

struct Asked {
    name: String,
    rtype: &'static str,
    exists: bool,
}

impl Asked {
    /// The message and the octets of its question.
    fn message(&self, shape: Shape) -> io::Result<(Vec<u8>, usize)> {
        let name: Name = self.name.parse().map_err(io::Error::other)?;
        let qtype = rtype::parse(self.rtype.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
        // Who wants a cache to ask others says so.
        let flags = if shape.carrier().is_some() { header::RD } else { 0 };
        let mut query = Writer::new(0, flags);
        query.question(name.as_wire(), qtype, CLASS_IN);
        let mut message = query.into_octets();
        let question_len = message.len() - HEADER_LEN;
        if shape == Shape::Signed {
            // OPT: root, type 41, 1232 octets, DO.
            message.extend([0, 0, 41, 0x04, 0xD0, 0, 0, 0x80, 0, 0, 0]);
            message[11] = 1;
        }
        Ok((message, question_len))
    }
}

/// A random name that does not exist, as deep as those of the zone that do; for caches one that
/// does, below a wildcard.
fn absent(shape: Shape, names: u64, random: &mut Random) -> String {
    let word = random.below(1 << 48);
    match shape {
        Shape::Hosting => format!("x{word:x}.z{}.test.", random.below(HOSTING_ZONES)),
        Shape::Ip6arpa => {
            let network = random.below(names) / 256;
            let digits = format!("{network:08x}{:016x}", random.below(u64::MAX));
            let labels: Vec<String> = digits.chars().rev().map(String::from).collect();
            format!("{}.{}", labels.join("."), apex(shape.of_zones()))
        }
        _ if shape.carrier().is_some() => format!("x{word:x}.{MISS_ZONE}"),
        _ => format!("x{word:x}.{}", apex(shape.of_zones())),
    }
}

//----------- Zipf -----------------------------------------------------------

/// Names by Zipf's law with the exponent 1, their ranks in an order of chance: the same names are
/// hot in every load and to every prober.
struct Zipf {
    ranks: Draws,
    names: Vec<u32>,
    stride: u64,
}

impl Zipf {
    /// Of as many as there are, or as many as are drawn over, in even steps through the zone.
    fn new(names: u64) -> Zipf {
        const SEED: u64 = 0x5A49;
        let population = names.clamp(1, ZIPF_NAMES);
        let mut scattered: Vec<u32> = (0..population as u32).collect();
        shuffle(&mut scattered, &mut Random::new(SEED));
        let ranks = Popularity::Zipf(1.0).over(scattered.len());
        Zipf { ranks, names: scattered, stride: names / population }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        u64::from(self.names[self.ranks.draw(random)]) * self.stride
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::mix::zone::of_shape;

    const SHAPES: [Shape; 5] =
        [Shape::Hosts, Shape::Delegations, Shape::Hosting, Shape::Ip6arpa, Shape::Signed];

    #[test]
    fn mixes_are_read_as_they_are_written() {
        for text in ["hot", "zipf", "uniform+tcp", "random+replaced", "uniform+tcp+replaced"] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        for text in ["", "warm", "hot+", "hot+cold", "+tcp"] {
            assert!(text.parse::<Mix>().unwrap_err().contains("uniform+replaced"), "{text}");
        }
        for shape in SHAPES {
            assert!(Mix::usual(shape).into_iter().all(|mix| mix.refusal(shape).is_none()));
        }
    }

    fn drawn(mix: &str, shape: Shape, count: usize) -> Vec<Asked> {
        let mix: Mix = mix.parse().unwrap();
        let (zipf, mut random) = (Zipf::new(200_000), Random::new(5));
        (0..count).map(|_| mix.draw(shape, 200_000, &zipf, &mut random)).collect()
    }

    #[test]
    fn a_mix_asks_for_as_many_names_as_it_says() {
        let distinct = |mix: &str| {
            let mut counts: HashMap<String, usize> = HashMap::new();
            for asked in drawn(mix, Shape::Hosts, 20_000) {
                *counts.entry(asked.name).or_default() += 1;
            }
            (counts.len(), counts.into_values().max().unwrap())
        };
        assert_eq!(distinct("hot"), (1, 20_000));
        // The first of 100,000 names has 1 / 12.1 of the questions, 9 % of them for another name.
        let (names, most) = distinct("zipf");
        assert!(names < 12_000 && (1300..1700).contains(&most), "{names} {most}");
        assert!(distinct("uniform").0 > 18_000);
        assert_eq!(distinct("random").0, 20_000);
    }

    /// Names of neighbouring ranks are as far apart as any two are, a third of the zone, and not
    /// in the same page of a server's memory.
    #[test]
    fn neighbours_in_rank_are_none_in_the_zone() {
        for names in [100_000u64, 1_000_000] {
            let zipf = Zipf::new(names);
            let places: Vec<f64> = zipf.names[..1000].iter().map(|&at| f64::from(at)).collect();
            let apart = places.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum::<f64>();
            let share = apart / 999.0 / 100_000.0;
            assert!((share - 1.0 / 3.0).abs() < 0.05, "{share}");
            let again = Zipf::new(names);
            assert_eq!(zipf.names, again.names, "each load has the same hot names");
            let mut random = Random::new(1);
            assert!((0..10_000).all(|_| zipf.draw(&mut random) < names));
        }
    }

    #[test]
    fn random_names_are_below_the_zone_and_as_deep() {
        let depth = |asked: &Asked| asked.name.matches('.').count();
        for shape in SHAPES {
            let there = drawn("hot", shape, 1);
            let absent = drawn("random", shape, 100);
            assert!(absent.iter().all(|asked| !asked.exists));
            let less = usize::from(shape == Shape::Delegations);
            assert!(absent.iter().all(|asked| depth(asked) == depth(&there[0]) - less));
        }
    }

    #[test]
    fn messages_are_queries_that_say_what_they_expect() {
        let mix: Mix = "uniform+tcp".parse().unwrap();
        let zones = of_shape(Shape::Hosts.of_zones(), 1000).unwrap();
        let mut answers = Answers::new(&zones);
        let questions = mix.questions(Shape::Hosts, 1000, 5000, 3, Some(&mut answers)).unwrap();
        assert_eq!(questions.len(), 5000);
        let share = |of: &dyn Fn(&crate::mix::Entry) -> bool| {
            questions.entries().iter().filter(|entry| of(entry)).count() as f64 / 5000.0
        };
        assert!((share(&|entry| entry.stream) - 0.01).abs() < 0.006);
        let misses = share(&|entry| entry.expected.is_some_and(|expected| expected.rcode == 3));
        assert!((misses - 0.09).abs() < 0.02, "{misses}");
        // What the names say and what the zones say is the same.
        for entry in questions.entries() {
            let of_zones = answers.expected(questions.message(entry), entry.question_len.into());
            assert_eq!(entry.expected, of_zones);
        }
        assert!(questions.entries()[0].expected.is_some_and(|expected| expected.digest.is_some()));
        let signed = Mix::of(Base::Hot).questions(Shape::Signed, 100, 1, 3, None).unwrap();
        let message = signed.message(&signed.entries()[0]);
        let parsed = ring53::wire::message::Message::new(message).unwrap();
        assert_eq!((parsed.count(0), parsed.count(3)), (1, 1));
        assert_eq!(message[message.len() - 4], 0x80);
        assert_eq!(signed.entries()[0].expected, None);
    }
}

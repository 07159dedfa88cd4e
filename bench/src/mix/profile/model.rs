//! The profile as it is written: `bench/PROFILE.md` describes it field by field.
//!
//! There is no text in it but the name of the format, and no number that says more than four digits
//! of a measure: names, labels, addresses and times of day have no place to be in.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::load::Schedule;

/// What the file says it is.
pub const FORMAT: &str = "ring53-profile";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// The most classes, bins and shares that are read: a profile may come from anywhere.
const ITEMS_MAX: usize = 1 << 16;
/// The most queries a profile may stand for.
const QUERIES_MAX: u64 = u32::MAX as u64;

/// A traffic's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Queries it was learned from.
    pub queries: u64,
    /// For how long.
    pub seconds: f64,
    /// Different questions: a name and a type.
    pub questions: u64,
    /// Different names.
    pub names: u64,
    /// Questions that came once.
    pub seen_once: u64,
    /// Of each 32nd of the queries, the share that asked something for the first time.
    pub new: Vec<f64>,
    /// How far back the same question was: see [`Reuse`].
    pub reuse: Reuse,
    /// Questions by how often and for how long they come.
    pub classes: Vec<Class>,
    /// For each type, the share of its questions whose name is also asked for with the commonest
    /// type.
    pub beside: Vec<Beside>,
    /// What queries have besides their question.
    pub variants: Vec<VariantShare>,
    /// Labels and their octets.
    pub labels: Labels,
    /// Who asks, and when.
    pub clients: Clients,
    /// What was answered, if the capture has answers.
    pub responses: Option<Responses>,
}

/// How many other questions came since the same one came last: what decides whether a cache of a
/// given size still has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reuse {
    /// Share of queries that are the first of their question.
    pub first: f64,
    /// Share of queries at distances from 2^(n/2) to 2^((n+1)/2), n from 0 on.
    pub distances: Vec<f64>,
}

/// Questions that come about equally often over about equally long times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// How many.
    pub questions: u64,
    /// How often each came: means over even steps of them, in their order.
    pub counts: Vec<f64>,
    /// From the first to the last time, as a share of all queries: quantiles in even steps, both
    /// ends included.
    pub lives: Vec<f64>,
    /// The first time, as a share of what its life leaves: quantiles.
    pub starts: Vec<f64>,
    /// Gaps between two times relative to their question's mean: the quantiles at 0 and at the ends
    /// of [`GAP_BINS`]. Only where questions come 6 times or more.
    pub gaps: Vec<f64>,
    /// Otherwise the shape of the gamma distribution that gaps follow: 1 is as chance has it, less
    /// comes in bursts, more is regular. 0 where there is one gap at most.
    pub gap_shape: f64,
    /// Their types.
    pub types: Vec<TypeShare>,
}

/// Where the bins of gaps end, as shares of all gaps: finer where the long ones are.
pub const GAP_BINS: &[f64] = &[
    0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.998, 0.999, 0.9995, 0.9999, 1.0,
];

/// A type among the questions of a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeShare {
    /// Its number.
    pub r#type: u16,
    /// Its share of the questions.
    pub share: f64,
    /// Of these, the share answered with NXDOMAIN.
    pub nxdomain: f64,
    /// And without records, but no error.
    pub nodata: f64,
}

/// How a type's names overlap with those of the commonest type.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    /// The type's number.
    pub r#type: u16,
    /// Its share of all queries.
    pub queries: f64,
    /// The share of its questions whose name is asked for with the commonest type too.
    pub share: f64,
}

/// What queries have besides their question.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantShare {
    /// Share of the queries.
    pub share: f64,
    /// Over TCP or another stream.
    pub stream: bool,
    /// EDNS size; `null`: no OPT record.
    pub edns: Option<u16>,
    /// DO.
    pub dnssec_ok: bool,
    /// RD.
    pub recursion_desired: bool,
    /// AD.
    pub authentic: bool,
    /// CD.
    pub checking_disabled: bool,
    /// A cookie.
    pub cookie: bool,
    /// A client subnet.
    pub subnet: bool,
    /// A name in both cases.
    pub mixed_case: bool,
}

/// Labels and their octets, over different names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Share of names with 0, 1, 2 ... labels.
    pub counts: Vec<f64>,
    /// Share of labels with 0, 1, 2 ... octets.
    pub lengths: Vec<f64>,
}

/// Who asks, and when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// Addresses.
    pub count: u64,
    /// The share of all queries that the first 1, 2, 4, 8 ... of them sent.
    pub shares: Vec<f64>,
    /// Gaps between queries relative to their mean: means over so many even steps.
    pub gaps: Vec<f64>,
    /// The same between queries of one client, relative to that client's mean.
    pub gaps_of_one: Vec<f64>,
    /// TCP connections seen.
    pub connections: u64,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Responses {
    /// Responses, as a share of the queries.
    pub answered: f64,
    /// Share of responses with rcode 0, 1, 2 ... 15.
    pub rcodes: Vec<f64>,
    /// Share without records or referral, but no error.
    pub nodata: f64,
    /// Share that was truncated.
    pub truncated: f64,
    /// Octets of a response.
    pub octets: f64,
}

/// Four digits: enough for a measure, too few to hide anything in.
pub fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powf(3.0 - number.abs().log10().floor());
    (number * scale).round() / scale
}

impl Profile {
    /// Reads a file and checks that it can be replayed.
    pub fn read(path: &Path) -> io::Result<Profile> {
        let text = std::fs::read(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}: check --profile", path.display()))
        })?;
        let invalid = |message: String| {
            let message = format!("{}: {message}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let loose: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|error| invalid(format!("no profile: {error}")))?;
        let (format, version) = (&loose["format"], &loose["version"]);
        if format != FORMAT || version != VERSION {
            return Err(invalid(format!(
                "format {format}, version {version}: expected \"{FORMAT}\", version {VERSION}, as \
                 `ring53-bench profile` writes it"
            )));
        }
        let profile: Profile = serde_json::from_value(loose)
            .map_err(|error| invalid(format!("no profile: {error}")))?;
        profile.check().map_err(|what| invalid(format!("no profile: {what}")))?;
        Ok(profile)
    }

    /// Writes it, a field a line and a class a line.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let fields = match serde_json::to_value(self)? {
            serde_json::Value::Object(fields) => fields,
            _ => unreachable!("a struct is an object"),
        };
        let lines = fields.iter().map(|(key, value)| {
            let text = match value.as_array() {
                Some(items) if items.iter().all(serde_json::Value::is_object) => {
                    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                    format!("[\n  {}\n]", items.join(",\n  "))
                }
                _ => value.to_string(),
            };
            format!("\"{key}\": {text}")
        });
        let text = format!("{{\n{}\n}}\n", lines.collect::<Vec<_>>().join(",\n"));
        std::fs::write(path, text)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// What keeps it from being replayed.
    fn check(&self) -> Result<(), &'static str> {
        let shares = |shares: &[f64]| {
            shares.len() <= ITEMS_MAX && shares.iter().all(|share| (0.0..=1.001).contains(share))
        };
        let positive = |numbers: &[f64]| {
            numbers.len() <= ITEMS_MAX && numbers.iter().all(|number| (0.0..1e12).contains(number))
        };
        if self.queries == 0 || self.queries > QUERIES_MAX || self.questions > self.queries {
            return Err("queries and questions do not fit each other");
        }
        if !(0.0..1e12).contains(&self.seconds) || self.classes.len() > ITEMS_MAX {
            return Err("seconds or classes are out of all bounds");
        }
        for class in &self.classes {
            let typed = class.types.iter().map(|it| it.share).sum::<f64>() > 0.0;
            let all = [&class.counts, &class.lives, &class.starts];
            let fits = typed
                && class.types.len() <= ITEMS_MAX
                && class.types.iter().all(|it| shares(&[it.share, it.nxdomain, it.nodata]))
                && all.iter().all(|numbers| !numbers.is_empty() && positive(numbers))
                && class.counts.iter().all(|count| *count <= self.queries as f64 * 1.001)
                // Each step stands for a question: their mean is what is asked.
                && class.counts.len() as u64 <= class.questions
                && shares(&class.lives)
                && shares(&class.starts)
                && positive(&class.gaps)
                && (class.gaps.is_empty() || class.gaps.len() == GAP_BINS.len() + 1)
                && (0.0..=1e4).contains(&class.gap_shape);
            if !fits {
                return Err("a class is not whole");
            }
        }
        let questions: u64 = self.classes.iter().map(|class| class.questions.min(1 << 40)).sum();
        let asked: f64 = self.classes.iter().map(Class::queries).sum();
        if questions != self.questions || asked > self.queries as f64 * 1.2 {
            return Err("its classes have other questions than it says");
        }
        if self.beside.len() > ITEMS_MAX || self.beside.iter().any(|it| !shares(&[it.share])) {
            return Err("its types are no shares");
        }
        let some = |shares: &[f64]| shares.iter().sum::<f64>() > 0.0;
        let varied: Vec<f64> = self.variants.iter().map(|variant| variant.share).collect();
        let labels = [&self.labels.counts, &self.labels.lengths];
        if !shares(&varied) || !some(&varied) {
            return Err("its variants have no shares");
        }
        if labels.iter().any(|labels| !shares(labels) || labels.len() > 128) {
            return Err("its labels are no shares");
        }
        if !positive(&self.clients.gaps) || !some(&self.clients.gaps) {
            return Err("its gaps are no times");
        }
        Ok(())
    }

    /// Queries a second of the original.
    pub fn rate(&self) -> f64 {
        self.queries as f64 / self.seconds.max(1e-9)
    }

    /// When queries are sent: with the gaps of the original.
    pub fn schedule(&self) -> Schedule {
        let gaps: Arc<[f32]> = self.clients.gaps.iter().map(|gap| *gap as f32).collect();
        Schedule::Gaps(gaps)
    }

    /// The hit ratio of a cache of so many questions that never expire, least recently used out
    /// first: what the reuse distances say.
    pub fn hit_ratio(&self, size: f64) -> f64 {
        let mut ratio = 0.0;
        for (bin, share) in self.reuse.distances.iter().enumerate() {
            let (low, high) = (2f64.powf(bin as f64 / 2.0), 2f64.powf((bin + 1) as f64 / 2.0));
            ratio += share * ((size - low) / (high - low)).clamp(0.0, 1.0);
        }
        ratio
    }
}

impl Class {
    /// About how many queries it stands for.
    pub fn queries(&self) -> f64 {
        let mean = self.counts.iter().sum::<f64>() / self.counts.len().max(1) as f64;
        mean * self.questions as f64
    }
}

//! `ring53 cache`: what a running server's cache holds, and what it is to forget.
//!
//! ```text
//!   ring53 cache flush --below corp.example ──> | cache flush-below corp.example.\n |
//!                                           <── | {"done": "42 answers are forgotten", ...}
//! ```

use serde_json::{Value, json};

use crate::wire::Name;

use crate::server::report::tell;

/// What a server says that has none.
pub const NO_CACHE: &str = "this server has no cache: it has one once there is a [[forward]]";

//----------- CacheControl ---------------------------------------------------

/// A cache, as commands see it. Called on a thread that may take its time.
pub trait CacheControl: Send + Sync {
    /// Forgets all types of `name`; how many answers that were.
    fn flush_name(&self, name: &Name) -> u64;

    /// Forgets all types of `name` and of what is below it; how many answers that were.
    fn flush_below(&self, name: &Name) -> u64;

    /// Forgets everything; how many answers that were.
    fn flush_all(&self) -> u64;

    /// What there is, and what has happened since the start.
    fn stats(&self) -> CacheStats;
}

/// What a cache holds, and what has happened in it since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Octets it has in all.
    pub octets_max: u64,
    /// Octets that answers fill.
    pub octets: u64,
    /// Answers in it: with records, without (NXDOMAIN, NODATA), and failures.
    pub answers: u64,
    /// Of them, those without records.
    pub negative: u64,
    /// Of them, failures.
    pub failures: u64,
    /// Of them, those whose TTL is over.
    pub stale: u64,
    /// Questions that it answered.
    pub hits: u64,
    /// Of them, with an answer whose TTL was over.
    pub stale_hits: u64,
    /// Questions that it did not answer.
    pub misses: u64,
    /// Of the misses, those that waited for a question already in flight.
    pub joined: u64,
    /// Questions that nobody waited for: names asked for again before they expired.
    pub prefetched: u64,
    /// Answers that came into it.
    pub inserted: u64,
    /// Those that made room for others.
    pub evicted: u64,
    /// Those that were too large to be kept.
    pub too_large: u64,
    /// Those that commands had it forget.
    pub flushed: u64,
    /// Questions in flight.
    pub outstanding: u64,
}

impl CacheStats {
    fn json(&self) -> Value {
        json!({
            "octets_max": self.octets_max,
            "octets": self.octets,
            "answers": self.answers,
            "negative": self.negative,
            "failures": self.failures,
            "stale": self.stale,
            "hits": self.hits,
            "stale_hits": self.stale_hits,
            "misses": self.misses,
            "joined": self.joined,
            "prefetched": self.prefetched,
            "inserted": self.inserted,
            "evicted": self.evicted,
            "too_large": self.too_large,
            "flushed": self.flushed,
            "outstanding": self.outstanding,
        })
    }
}

//----------- CacheCommand ---------------------------------------------------

/// What can be asked of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheCommand {
    /// Forget one name.
    FlushName(Name),
    /// Forget one name and what is below it.
    FlushBelow(Name),
    /// Forget everything.
    FlushAll,
    /// Tell what there is.
    Stats,
}

impl CacheCommand {
    /// As it is sent, behind `cache`.
    pub fn to_words(&self) -> String {
        match self {
            CacheCommand::FlushName(name) => format!("flush {name}"),
            CacheCommand::FlushBelow(name) => format!("flush-below {name}"),
            CacheCommand::FlushAll => "flush-all".into(),
            CacheCommand::Stats => "stats".into(),
        }
    }

    /// Reads what follows `cache`.
    pub fn parse(words: &[&str]) -> Option<CacheCommand> {
        match words {
            ["flush", name] => name.parse().ok().map(CacheCommand::FlushName),
            ["flush-below", name] => name.parse().ok().map(CacheCommand::FlushBelow),
            ["flush-all"] => Some(CacheCommand::FlushAll),
            ["stats"] => Some(CacheCommand::Stats),
            _ => None,
        }
    }

    /// Has `cache` do it; what is to be said.
    pub fn run(&self, cache: Option<&dyn CacheControl>) -> Value {
        let Some(cache) = cache else { return json!({ "error": NO_CACHE }) };
        let (count, of) = match self {
            CacheCommand::FlushName(name) => (cache.flush_name(name), format!("{name}: ")),
            CacheCommand::FlushBelow(name) => {
                (cache.flush_below(name), format!("{name} and below: "))
            }
            CacheCommand::FlushAll => (cache.flush_all(), String::new()),
            CacheCommand::Stats => return json!({ "cache": cache.stats().json() }),
        };
        let answers = if count == 1 { "answer is" } else { "answers are" };
        json!({ "done": format!("{of}{count} {answers} forgotten"), "flushed": count })
    }
}

/// Prints the statistics for people.
pub fn print(stats: &Value) {
    lines(stats).iter().for_each(|line| tell!("{line}"));
}

fn lines(stats: &Value) -> [String; 5] {
    let count = |key: &str| stats[key].as_u64().unwrap_or(0);
    let percent = |part: u64, all: u64| match all {
        0 => "-".to_string(),
        _ => format!("{:.1} %", part as f64 * 100.0 / all as f64),
    };
    let mib = |key: &str| format!("{:.1} MiB", count(key) as f64 / f64::from(1 << 20));
    let (hits, misses) = (count("hits"), count("misses"));
    [
        format!(
            "memory    {} of {} ({})",
            mib("octets"),
            mib("octets_max"),
            percent(count("octets"), count("octets_max"))
        ),
        format!(
            "answers   {}: {} negative, {} failures, {} stale",
            count("answers"),
            count("negative"),
            count("failures"),
            count("stale")
        ),
        format!(
            "hits      {hits} ({}), {} of them stale",
            percent(hits, hits + misses),
            count("stale_hits")
        ),
        format!(
            "misses    {misses}, {} of them joined; {} in flight, {} prefetched",
            count("joined"),
            count("outstanding"),
            count("prefetched")
        ),
        format!(
            "changes   {} inserted, {} evicted, {} too large, {} flushed",
            count("inserted"),
            count("evicted"),
            count("too_large"),
            count("flushed")
        ),
    ]
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Remembers what it was told.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn note(&self, what: String) -> u64 {
            let mut told = self.0.lock().unwrap();
            told.push(what);
            told.len() as u64
        }
    }

    impl CacheControl for Told {
        fn flush_name(&self, name: &Name) -> u64 {
            self.note(format!("name {name}"))
        }

        fn flush_below(&self, name: &Name) -> u64 {
            self.note(format!("below {name}"))
        }

        fn flush_all(&self) -> u64 {
            self.note("all".into())
        }

        fn stats(&self) -> CacheStats {
            CacheStats {
                octets_max: 64 << 20,
                octets: 16 << 20,
                answers: 7,
                hits: 3,
                misses: 1,
                ..CacheStats::default()
            }
        }
    }

    #[test]
    fn each_command_does_what_it_says() {
        let cache = Told::default();
        let run = |words: &[&str]| CacheCommand::parse(words).unwrap().run(Some(&cache));
        assert_eq!(
            run(&["flush", "a.example"]),
            json!({ "done": "a.example.: 1 answer is forgotten", "flushed": 1 })
        );
        assert_eq!(
            run(&["flush-below", "example"]),
            json!({ "done": "example. and below: 2 answers are forgotten", "flushed": 2 })
        );
        assert_eq!(run(&["flush-all"]), json!({ "done": "3 answers are forgotten", "flushed": 3 }));
        assert_eq!(*cache.0.lock().unwrap(), ["name a.example.", "below example.", "all"]);
        let stats = run(&["stats"]);
        assert_eq!(stats["cache"]["answers"], 7);
        let lines = lines(&stats["cache"]);
        assert_eq!(lines[0], "memory    16.0 MiB of 64.0 MiB (25.0 %)");
        assert_eq!(lines[2], "hits      3 (75.0 %), 0 of them stale");
    }

    #[test]
    fn without_a_cache_it_says_so() {
        for command in [CacheCommand::FlushAll, CacheCommand::Stats] {
            assert_eq!(command.run(None), json!({ "error": NO_CACHE }));
        }
    }
}

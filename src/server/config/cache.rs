//! The `[cache]` table: how much is kept of what others answered, and for how long.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::{
    CACHE_FAILURE_DEFAULT, CACHE_FAILURE_MAX, CACHE_FAILURE_MIN, CACHE_MEMORY_DEFAULT,
    CACHE_MEMORY_MAX, CACHE_MEMORY_MIN, CACHE_NEGATIVE_DEFAULT, CACHE_NEGATIVE_MAX,
    CACHE_STALE_AFTER_DEFAULT, CACHE_STALE_DEFAULT, CACHE_STALE_MAX, CACHE_STALE_TTL_DEFAULT,
    CACHE_TTL_DEFAULT, CACHE_TTL_MAX, CACHE_TTL_MIN_MAX,
};

use super::super::commands;
use super::super::keys::Table;

const SECOND: Duration = Duration::from_secs(1);

//----------- Caching --------------------------------------------------------

/// How answers of others are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caching {
    /// Octets that it has in all.
    pub memory: usize,
    /// A shorter TTL becomes this one.
    pub ttl_min: Duration,
    /// A longer TTL becomes this one.
    pub ttl_max: Duration,
    /// The same for NXDOMAIN and NODATA (RFC 2308).
    pub negative_ttl_max: Duration,
    /// How long a failure is kept the first time; from then on it doubles, up to
    /// `CACHE_FAILURE_MAX` (RFC 9520).
    pub failure_ttl: Duration,
    /// Whether names that are asked for are asked anew before they expire.
    pub prefetch: bool,
    /// How long past its TTL an answer may be served while no upstream answers (RFC 8767); zero:
    /// not at all.
    pub serve_stale: Duration,
    /// The TTL of such an answer.
    pub stale_ttl: Duration,
    /// How long a client waits before it gets one; at most as long as a question may take.
    pub stale_after: Duration,
    /// Where it is kept from a stop to the next start.
    pub save: Option<PathBuf>,
}

impl Caching {
    /// What is not configured, where a question may take `timeout`.
    pub fn new(timeout: Duration) -> Caching {
        Caching {
            memory: CACHE_MEMORY_DEFAULT,
            ttl_min: Duration::ZERO,
            ttl_max: CACHE_TTL_DEFAULT,
            negative_ttl_max: CACHE_NEGATIVE_DEFAULT,
            failure_ttl: CACHE_FAILURE_DEFAULT,
            prefetch: true,
            serve_stale: CACHE_STALE_DEFAULT,
            stale_ttl: CACHE_STALE_TTL_DEFAULT,
            stale_after: CACHE_STALE_AFTER_DEFAULT.min(timeout / 2),
            save: None,
        }
    }

    /// Reads the table; what is wrong goes to its errors. `state` is the directory of the state.
    pub fn read(table: &mut Table<'_>, timeout: Duration, state: &Path) -> Caching {
        let mut caching = Caching::new(timeout);
        if let Some(memory) = table.size("memory", CACHE_MEMORY_MIN, CACHE_MEMORY_MAX) {
            caching.memory = memory;
        }
        for (key, min, max, value) in [
            ("ttl_min", Duration::ZERO, CACHE_TTL_MIN_MAX, &mut caching.ttl_min),
            ("ttl_max", SECOND, CACHE_TTL_MAX, &mut caching.ttl_max),
            ("negative_ttl_max", SECOND, CACHE_NEGATIVE_MAX, &mut caching.negative_ttl_max),
            ("failure_ttl", CACHE_FAILURE_MIN, CACHE_FAILURE_MAX, &mut caching.failure_ttl),
            ("serve_stale", Duration::ZERO, CACHE_STALE_MAX, &mut caching.serve_stale),
            ("stale_ttl", SECOND, CACHE_TTL_MIN_MAX, &mut caching.stale_ttl),
            ("stale_after", Duration::ZERO, timeout, &mut caching.stale_after),
        ] {
            *value = table.duration_in(key, min, max).unwrap_or(*value);
        }
        caching.prefetch = table.boolean("prefetch").unwrap_or(caching.prefetch);
        caching.save = saved(table, state);
        if caching.ttl_min > caching.ttl_max {
            let key = if table.has("ttl_min") { "ttl_min" } else { "ttl_max" };
            table.error(key, "ttl_min is longer than ttl_max: change one of them");
        }
        for key in ["stale_ttl", "stale_after"] {
            if table.has(key) && caching.serve_stale.is_zero() {
                table.error(key, "nothing stale is served: remove it, or raise serve_stale");
            }
        }
        caching
    }
}

fn saved(table: &mut Table<'_>, state: &Path) -> Option<PathBuf> {
    let text = table.string("save")?;
    let file = state.join(&text);
    if text.is_empty() || text.ends_with('/') || file == commands::socket_path(state) {
        table.error("save", "expected the name of a file of its own, such as \"cache\"");
        return None;
    }
    Some(file)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(table: &str) -> Result<Caching, String> {
        let text = format!("version = 1\n[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\"]\n{table}");
        let config = Config::parse("ring53.toml", &text, Path::new("/etc"))?;
        Ok(config.caching.expect("a forward has a cache"))
    }

    #[test]
    fn what_is_said_and_what_is_not() {
        assert_eq!(parse("").unwrap(), Caching::new(Duration::from_secs(4)));
        let caching = parse(
            "[cache]\nmemory = \"1GiB\"\nttl_min = \"0s\"\nttl_max = \"7d\"\n\
             negative_ttl_max = \"10m\"\nfailure_ttl = \"1s\"\nprefetch = false\n\
             serve_stale = \"3d\"\nstale_ttl = \"1m\"\nstale_after = \"0s\"\nsave = \"cache\"\n",
        );
        let seconds = Duration::from_secs;
        let expected = Caching {
            memory: 1 << 30,
            ttl_min: Duration::ZERO,
            ttl_max: seconds(7 * 86_400),
            negative_ttl_max: seconds(600),
            failure_ttl: seconds(1),
            prefetch: false,
            serve_stale: seconds(3 * 86_400),
            stale_ttl: seconds(60),
            stale_after: Duration::ZERO,
            save: Some("/etc/state/cache".into()),
        };
        assert_eq!(caching, Ok(expected));
        // Who waits shorter for an answer waits shorter for a stale one.
        let caching = parse("[recursion]\ntimeout = \"1s\"\n").unwrap();
        assert_eq!(caching.stale_after, Duration::from_millis(500));
        assert!(parse("[cache]\nserve_stale = \"0s\"\n").unwrap().serve_stale.is_zero());
    }

    #[test]
    fn errors_name_the_place_and_the_bounds() {
        for (text, expected) in [
            ("memory = \"0MiB\"", "ring53.toml:6:10: memory: expected a size from 4194304 to"),
            (
                "ttl_min = \"2h\"",
                "ring53.toml:6:11: ttl_min: expected a time from \"0s\" to \"1h\"",
            ),
            ("ttl_max = \"0s\"", "ttl_max: expected a time from \"1s\" to \"7d\""),
            ("ttl_max = \"5\"", "ttl_max: expected a time from \"1s\" to \"7d\""),
            ("failure_ttl = \"6m\"", "failure_ttl: expected a time from \"1s\" to \"5m\""),
            ("ttl_min = \"1h\"\nttl_max = \"1m\"", "ttl_min: ttl_min is longer than ttl_max"),
            ("stale_after = \"5s\"", "stale_after: expected a time from \"0s\" to \"4s\""),
            ("serve_stale = \"0s\"\nstale_ttl = \"1s\"", "stale_ttl: nothing stale is served"),
            ("save = \"control\"", "save: expected the name of a file of its own"),
            ("save = \"a/\"", "save: expected the name of a file of its own"),
            ("serve_stael = \"1d\"", "did you mean \"serve_stale\"?"),
        ] {
            let error = parse(&format!("[cache]\n{text}\n")).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

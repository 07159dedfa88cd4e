//! Whom a cache asks: another ring53, on the generator's side, on the last of its cores.
//!
//! ```text
//!   cache ──> upstream   h0 .. hn.plan-upstream.net.   a day each: what a cache is filled with
//!                        *.miss.plan-upstream.net.     every name: what it has never been asked
//!                        the zone of real traffic, if that is asked of the cache
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ring53::wire::Name;

use crate::bed::counters::core_seconds;

use super::place::Place;
use super::server::{Launch, Server, Side, Template};

/// What its zone is called: the first that has nothing to do with the zone of the plan. Neither is
/// a special-use name, which a cache would answer itself.
const NAMES: [&str; 2] = ["plan-upstream.net.", "plan-upstream.org."];
/// Below this label of it every name has an address.
const MISSES: &str = "miss";

const CONFIG: &str = r#"version = 1
[server]
listen = ["{listen}"]
cores = [{cores}]
receive_buffer = "8MiB"
state = "{directory}/state"
[[zone]]
name = "{apex}"
file = "{zone}"
"#;

//----------- Names ----------------------------------------------------------

/// The name of a zone that no name of `apex` is in, nor, if the cache itself serves `apex`, that is
/// in it.
pub fn zone_beside(apex: &Name, serves: bool) -> io::Result<Name> {
    let apex = apex.to_lowercase();
    let within =
        |inner: &Name, outer: &Name| suffixes(inner.as_wire()).any(|at| at == outer.as_wire());
    for name in NAMES {
        let name: Name = name.parse().map_err(io::Error::other)?;
        let collides = within(&apex, &name) || serves && within(&name, &apex);
        if !collides {
            return Ok(name);
        }
    }
    Err(io::Error::other(format!(
        "a server of {apex} has all names, and asks nobody for others: leave out cache-hit and \
         cache-miss, or give another --apex"
    )))
}

/// A name and all names above it, in wire form.
pub fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(name);
    std::iter::from_fn(move || {
        let now = rest?;
        let len = usize::from(*now.first()?);
        rest = if len == 0 { None } else { now.get(1 + len..) };
        Some(now)
    })
}

/// Host `number` of the upstream's zone, in wire form.
pub fn host(zone: &Name, number: u64) -> Vec<u8> {
    let label = format!("h{number}");
    [&[label.len() as u8], label.as_bytes(), zone.as_wire()].concat()
}

/// What names that no cache has are below, in wire form.
pub fn misses(zone: &Name) -> Vec<u8> {
    [&[MISSES.len() as u8], MISSES.as_bytes(), zone.as_wire()].concat()
}

/// Writes its zone with `names` hosts.
fn write(path: &Path, names: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    writeln!(file, "@ 86400 IN SOA ns hostmaster 1 3600 900 604800 300\n@ 86400 IN NS ns")?;
    writeln!(file, "ns 86400 IN A 192.0.2.53\n*.{MISSES} 86400 IN A 192.0.2.53")?;
    for number in 0..names {
        // Not 10/8: caches may keep private addresses from clients.
        let [_, b, c, d] = (number as u32).to_be_bytes();
        writeln!(file, "h{number} 86400 IN A 11.{b}.{c}.{d}")?;
    }
    file.flush()
}

//----------- Upstream -------------------------------------------------------

/// What an upstream is started with.
#[derive(Clone, Debug)]
pub struct Upstreams<'a> {
    /// The ring53 to start.
    pub program: &'a Path,
    /// For its files.
    pub directory: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its core.
    pub core: usize,
    /// The name of its zone.
    pub zone: &'a Name,
    /// Hosts in it.
    pub names: u64,
    /// A zone of real traffic that it has too: name and file.
    pub beside: Option<(&'a Name, &'a Path)>,
}

/// An upstream that runs; ended when dropped.
#[derive(Debug)]
pub struct Upstream {
    server: Server,
    /// The name of its zone.
    pub zone: Name,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its core.
    pub core: usize,
}

impl Upstream {
    /// Starts it where the generator is, and waits until it answers.
    pub fn start(place: &dyn Place, with: &Upstreams<'_>) -> io::Result<Upstream> {
        fs::create_dir_all(&with.directory)?;
        let zone = with.directory.join("zone");
        write(&zone, with.names)?;
        let mut config = CONFIG.to_string();
        if let Some((name, file)) = with.beside {
            let file = file.display();
            config.push_str(&format!("[[zone]]\nname = \"{name}\"\nfile = \"{file}\"\n"));
        }
        let template = Template { command: "{program} serve --config {config}".into(), config };
        let launch = Launch {
            template,
            program: with.program.to_path_buf(),
            apex: with.zone.clone(),
            zone,
            directory: with.directory.clone(),
            listen: with.listen,
            client: place.client(),
            side: Side::Generator,
            cache: None,
        };
        let server = Server::start(place, &launch, &[with.core])
            .map_err(|error| io::Error::other(format!("the upstream of the cache: {error}")))?;
        Ok(Upstream { server, zone: with.zone.clone(), listen: with.listen, core: with.core })
    }

    /// Seconds of its core that it has taken.
    pub fn core_seconds(&self) -> f64 {
        core_seconds(self.server.pid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_zone_collides_with_no_other() {
        let of = |apex: &str, serves| {
            zone_beside(&apex.parse().unwrap(), serves).map(|name| name.to_string())
        };
        assert_eq!(of("example.", true).unwrap(), NAMES[0]);
        assert_eq!(of("NET.", true).unwrap(), NAMES[1]);
        assert_eq!(of("net.", false).unwrap(), NAMES[0], "the longest zone a name is in has it");
        assert_eq!(of("plan-upstream.net.", false).unwrap(), NAMES[1]);
        assert_eq!(of("miss.plan-upstream.net.", true).unwrap(), NAMES[1]);
        assert!(of(".", true).unwrap_err().to_string().contains("--apex"));
        assert_eq!(of(".", false).unwrap(), NAMES[0]);
    }

    #[test]
    fn its_zone_has_what_is_asked() {
        let path = std::env::temp_dir().join(format!("ring53-plan-up-{}", std::process::id()));
        write(&path, 300).unwrap();
        let zone: Name = NAMES[0].parse().unwrap();
        let names = super::super::zone::ZoneNames::read(&zone, &path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(names.records, 4 + 300);
        assert!(names.hits.contains(&(host(&zone, 299), 1)));
        assert!(misses(&zone).starts_with(b"\x04miss\x0dplan-upstream\x03net\0"));
    }
}

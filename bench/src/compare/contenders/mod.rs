//! The servers that are compared: one file each says how a careful operator would run it on one
//! core, with minimal responses, no log of queries and no limits of rate.
//!
//! ```text
//!   Contender { what it is called, what it needs, its settings in words }
//!       version()            asked of the program itself
//!       prepare(place)  ──>  configuration in the place's directory, the command to start it
//!       reload(place)   ──>  it takes the zone anew, by whatever its operator would do
//! ```

mod bind;
mod dnsdist;
mod dnsmasq;
mod echo;
mod knot;
mod kresd;
mod nsd;
mod powerdns;
mod recursor;
mod ring53;
mod unbound;

use std::env;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::shapes::{Shape, Zones};
use super::upstream::Carrier;

/// What a server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It answers from zones of its own.
    Authority,
    /// It asks others and remembers.
    Cache,
    /// It sends back what it gets: what the kernel alone costs.
    Echo,
}

/// Where a contender runs.
pub struct Place<'a> {
    /// A directory of its own.
    pub directory: &'a Path,
    /// Its address; the port is 53.
    pub address: Ipv4Addr,
    /// Its core.
    pub core: usize,
    /// What it serves.
    pub zones: &'a Zones,
}

impl Place<'_> {
    /// Writes a file of configuration; returns its path.
    fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Octets that a cache may have: more than any needs for all names, and for misses beside them.
    fn cache_octets(&self) -> u64 {
        (self.zones.names * CACHE_OCTETS_PER_NAME).max(CACHE_OCTETS_MIN)
    }

    /// The same of a cache that counts answers.
    fn cache_answers(&self) -> u64 {
        (self.zones.names * 2).max(CACHE_ANSWERS_MIN)
    }
}

/// What no cache of the table needs for one answer.
const CACHE_OCTETS_PER_NAME: u64 = 2048;
const CACHE_OCTETS_MIN: u64 = 512 << 20;
const CACHE_ANSWERS_MIN: u64 = 1_000_000;

/// A server that takes part.
pub struct Contender {
    /// Its short name, as in `--contenders`.
    pub name: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// What it is asked for.
    pub role: Role,
    /// How it asks others.
    pub asks: &'static [Carrier],
    /// The programs it needs.
    pub programs: &'static [&'static str],
    /// How it is set, beyond what all have.
    pub settings: &'static str,
    /// What it says its version is.
    pub version: fn() -> io::Result<String>,
    /// Writes its configuration; the command that starts it, in the foreground.
    pub prepare: fn(&Place) -> io::Result<Command>,
    /// Has the process take its zones anew, whose files have changed.
    pub reload: fn(&Place, u32) -> io::Result<()>,
}

/// All of them, in the order of the tables.
pub const ALL: [&Contender; 13] = [
    &ring53::URING,
    &ring53::MMSG,
    &nsd::CONTENDER,
    &knot::CONTENDER,
    &bind::CONTENDER,
    &powerdns::CONTENDER,
    &ring53::CACHE,
    &unbound::CONTENDER,
    &recursor::CONTENDER,
    &dnsdist::CONTENDER,
    &kresd::CONTENDER,
    &dnsmasq::CONTENDER,
    &echo::CONTENDER,
];

impl Contender {
    /// The one that is called `name`.
    pub fn find(name: &str) -> Result<&'static Contender, String> {
        ALL.into_iter().find(|contender| contender.name == name).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|contender| contender.name).collect();
            format!("{name:?} is no contender: there are {}", names.join(", "))
        })
    }

    /// Whether it is measured with `shape`: authorities with their zones, caches with what they can
    /// ask for. Beside caches stand the echo and ring53's own authority, which never asks anybody.
    pub fn takes_part(&self, shape: Shape) -> bool {
        match (shape.carrier(), self.role) {
            (None, role) => role != Role::Cache,
            (Some(carrier), Role::Cache) => self.asks.contains(&carrier),
            (Some(carrier), Role::Echo) => carrier == Carrier::Udp,
            (Some(carrier), Role::Authority) => {
                carrier == Carrier::Udp && self.name == ring53::URING.name
            }
        }
    }

    /// Which of the programs it needs is not here.
    pub fn missing(&self) -> Option<&'static str> {
        self.programs.iter().copied().find(|program| find_program(program).is_none())
    }

    /// Its place among the addresses of the bed.
    pub fn address(&self) -> Ipv4Addr {
        let index = ALL.iter().position(|other| other.name == self.name).unwrap_or_default();
        crate::bed::counters::address(index as u8)
    }
}

//----------- Programs -------------------------------------------------------

/// Where a program is: beside this one, on the path, or where root's programs are.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_path_buf));
    let paths = env::var_os("PATH").unwrap_or_default();
    let roots = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    beside
        .into_iter()
        .chain(env::split_paths(&paths))
        .chain(roots)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// A command of a program that is here.
pub fn command(program: &str) -> io::Result<Command> {
    let path = find_program(program)
        .ok_or_else(|| io::Error::other(format!("{program} is not installed")))?;
    Ok(Command::new(path))
}

/// A command of a program that is here, which has `core` and no other from its first instruction.
pub fn pinned(program: &str, core: usize) -> io::Result<Command> {
    let path = command(program)?.get_program().to_owned();
    let mut command = command("taskset")?;
    command.args(["-c", &core.to_string()]).arg(path);
    Ok(command)
}

/// The first line with `mark` of what a program says, from `mark` on.
fn said(program: &str, argument: &str, mark: &str) -> io::Result<String> {
    let output = command(program)?.arg(argument).stdin(Stdio::null()).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    line_from(&text, mark).ok_or_else(|| {
        io::Error::other(format!("{program} {argument} does not say {mark:?}: {}", text.trim()))
    })
}

fn line_from(text: &str, mark: &str) -> Option<String> {
    text.lines().find_map(|line| Some(line[line.find(mark)?..].trim().to_string()))
}

/// SIGHUP, which most servers take as the wish to read their zones again.
fn hang_up(_place: &Place, process: u32) -> io::Result<()> {
    Ok(kill(Pid::from_raw(process as i32), Signal::SIGHUP)?)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::upstream::{FAR, FAR_ZONE, NEAR};

    #[test]
    fn names_and_addresses_are_different() {
        for (index, one) in ALL.iter().enumerate() {
            for other in &ALL[..index] {
                assert_ne!(one.name, other.name);
                assert_ne!(one.address(), other.address());
            }
            assert_eq!(Contender::find(one.name).unwrap().title, one.title);
        }
        let Err(error) = Contender::find("djbdns") else { panic!("it is none") };
        assert!(error.contains("powerdns"), "{error}");
    }

    #[test]
    fn what_is_not_here_is_named() {
        let absent = Contender {
            programs: &["sh", "no-such-nameserver"],
            name: "absent",
            title: "absent",
            role: Role::Cache,
            asks: &[],
            settings: "",
            version: || Ok(String::new()),
            prepare: |_| Err(io::ErrorKind::NotFound.into()),
            reload: hang_up,
        };
        assert_eq!(absent.missing(), Some("no-such-nameserver"));
        assert!(command("no-such-nameserver").unwrap_err().to_string().contains("not installed"));
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(line_from("NSD version 4.6.1\nWritten by", "NSD").unwrap(), "NSD version 4.6.1");
        let line = "Nov 26 07:14:48 PowerDNS Authoritative Server 4.7.3 (C) 2001";
        assert!(line_from(line, "PowerDNS").unwrap().starts_with("PowerDNS Authoritative"));
        assert_eq!(line_from("nothing of it", "NSD"), None);
    }

    /// Each configuration names its address and all its zones.
    #[test]
    fn configurations_name_what_they_serve() {
        let directory = env::temp_dir().join(format!("ring53-contenders-{}", std::process::id()));
        let zones = Zones::for_test(&directory);
        for contender in ALL.into_iter().filter(|one| one.role == Role::Authority) {
            if contender.missing().is_some() {
                continue;
            }
            let own = directory.join(contender.name);
            fs::create_dir_all(&own).unwrap();
            let address = contender.address();
            let place = Place { directory: &own, address, core: 0, zones: &zones };
            (contender.prepare)(&place).unwrap();
            let texts = fs::read_dir(&own).unwrap().flatten();
            let texts = texts.filter_map(|entry| fs::read_to_string(entry.path()).ok());
            let all: String = texts.collect();
            assert!(all.contains(&address.to_string()), "{}: {all}", contender.name);
            for (name, file) in &zones.files {
                assert!(all.contains(name.trim_end_matches('.')), "{}", contender.name);
                assert!(all.contains(&file.display().to_string()), "{}", contender.name);
            }
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    /// Each configuration of a cache names its address and whom it asks, by each carrier.
    #[test]
    fn configurations_name_whom_they_ask() {
        let directory = tempfile::tempdir().unwrap();
        for shape in [Shape::Cached, Shape::CachedTls, Shape::CachedHttps] {
            let zones = Zones::write(shape, 10, &directory.path().join(shape.name())).unwrap();
            let caches = ALL.into_iter().filter(|one| one.takes_part(shape));
            for contender in caches.filter(|one| one.role == Role::Cache) {
                if contender.missing().is_some() || find_program("taskset").is_none() {
                    continue;
                }
                let own = directory.path().join(shape.name()).join(contender.name);
                fs::create_dir_all(&own).unwrap();
                let address = contender.address();
                let place = Place { directory: &own, address, core: 0, zones: &zones };
                let command = (contender.prepare)(&place).unwrap();
                assert!(command.get_args().any(|argument| argument == "-c"), "{command:?}");
                let texts = fs::read_dir(&own).unwrap().flatten();
                let texts = texts.filter_map(|entry| fs::read_to_string(entry.path()).ok());
                let all: String = texts.collect();
                let (near, far) = (NEAR.to_string(), FAR.to_string());
                for wanted in [&address.to_string(), &near, &far, FAR_ZONE.trim_end_matches('.')] {
                    assert!(all.contains(wanted), "{} {wanted}: {all}", contender.name);
                }
                let encrypted = all.contains("ca.pem");
                assert_eq!(encrypted, shape != Shape::Cached, "{}: {all}", contender.name);
            }
        }
    }

    #[test]
    fn caches_are_measured_beside_caches() {
        let of = |shape| {
            let all = ALL.into_iter().filter(|contender| contender.takes_part(shape));
            all.map(|contender| contender.name).collect::<Vec<_>>()
        };
        assert!(of(Shape::Hosts).iter().all(|name| !of(Shape::CachedTls).contains(name)));
        assert_eq!(of(Shape::Cached)[0], "ring53");
        assert_eq!(of(Shape::Cached).len(), 8);
        assert_eq!(of(Shape::CachedTls), ["ring53-cache", "unbound", "dnsdist"]);
        assert_eq!(of(Shape::CachedHttps), ["ring53-cache", "dnsdist"]);
    }
}

//! Where facts come from: a tree with `/proc` and `/sys` in it, and a kernel that answers.
//!
//! ```text
//!   Tree("/")                 ─┐                        ┌─ Kernel        (calls)
//!   Tree("tests/machines/vm") ─┴──> facts::read <───────┴─ Answers       (a file of such a tree)
//! ```

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use nix::ifaddrs::getifaddrs;
use nix::unistd::{SysconfVar, sysconf};

use crate::net::{ETHTOOL_WORDS, ethtool};

/// A value, or why it cannot be read.
pub type Read<T> = Result<T, String>;

//----------- Tree -----------------------------------------------------------

/// A directory that stands for `/`. Paths are those of the machine: `/proc/...`, `/sys/...`.
pub struct Tree(PathBuf);

impl Tree {
    /// The tree below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Tree {
        Tree(root.into())
    }

    fn place(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// What a file says, without the space at its ends.
    pub fn read(&self, path: &str) -> Read<String> {
        let octets = fs::read(self.place(path)).map_err(|error| reason(path, &error))?;
        Ok(String::from_utf8_lossy(&octets).trim().to_string())
    }

    /// Whether there is such a file or directory.
    pub fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.place(path)).is_ok()
    }

    /// As [`Tree::read`], as a number.
    pub fn number(&self, path: &str) -> Read<u64> {
        let text = self.read(path)?;
        text.parse().map_err(|_| format!("{path} says \"{text}\", which is no number"))
    }

    /// The names in a directory, in order.
    pub fn list(&self, path: &str) -> Read<Vec<String>> {
        let entries = fs::read_dir(self.place(path)).map_err(|error| reason(path, &error))?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_by_key(|name| (last_number(name), name.clone()));
        Ok(names)
    }

    /// The last part of what a link points to.
    pub fn link(&self, path: &str) -> Read<String> {
        let target = fs::read_link(self.place(path)).map_err(|error| reason(path, &error))?;
        let last = target.file_name().and_then(|name| name.to_str());
        last.map(str::to_string).ok_or_else(|| format!("{path} points to nothing that has a name"))
    }
}

/// Why a file could not be read, in words.
fn reason(path: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{path} is not there"),
        io::ErrorKind::PermissionDenied => format!("{path} may be read by root only"),
        _ => format!("{path}: {error}"),
    }
}

/// The number at the end of a name: `rx-10` comes after `rx-9`.
fn last_number(name: &str) -> u64 {
    let digits = name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    name[digits..].parse().unwrap_or(0)
}

//----------- Calls ----------------------------------------------------------

/// How many there are of something, and how many there could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// In use.
    pub now: u32,
    /// The most the device offers.
    pub max: u32,
    /// The word of ethtool(8) for it: `combined` or `rx`.
    pub word: &'static str,
}

/// How interrupts of received frames are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// Whether the driver chooses by itself.
    pub adaptive: bool,
    /// Microseconds from a frame to its interrupt at most.
    pub usecs: u32,
}

/// A protocol whose datagrams are spread over queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

/// The seam to what the kernel and its network drivers say to calls.
pub trait Calls {
    /// Octets of a page of memory.
    fn page_len(&self) -> Read<u64>;
    /// The addresses of the machine, each with its interface.
    fn addresses(&self) -> Read<Vec<(String, IpAddr)>>;
    /// Queues that receive (and send, where they are combined).
    fn queues(&self, interface: &str) -> Read<Amount>;
    /// Descriptors of the receive ring.
    fn ring(&self, interface: &str) -> Read<Amount>;
    /// Moderation of receive interrupts.
    fn coalescing(&self, interface: &str) -> Read<Coalescing>;
    /// The fields that choose a queue, in the letters of ethtool(8): `sdfn` are both addresses and
    /// both ports.
    fn hash_fields(&self, interface: &str, flow: Flow) -> Read<String>;
    /// Rules that put chosen flows on chosen queues.
    fn steering_rules(&self, interface: &str) -> Read<u32>;
}

/// The kernel of this machine.
pub struct Kernel;

impl Kernel {
    /// Asks one command; the words of the answer.
    fn ask(interface: &str, command: u32, flow: u32) -> Read<[u32; ETHTOOL_WORDS]> {
        let mut words = [0; ETHTOOL_WORDS];
        words[0] = command;
        words[1] = flow;
        ethtool(interface, &mut words).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => "the driver has no such setting".to_string(),
            Some(libc::ENODEV) => format!("there is no interface {interface}"),
            _ => format!("the driver of {interface} does not say: {error}"),
        })?;
        Ok(words)
    }
}

// Commands and the places of their answers, as linux/ethtool.h has them.
const COALESCING: u32 = 0x0e;
const RING: u32 = 0x10;
const HASH_FIELDS: u32 = 0x29;
const STEERING_RULES: u32 = 0x2e;
const QUEUES: u32 = 0x3c;
/// The word of `struct ethtool_rxnfc` that counts rules: it stands behind one rule of 168 octets.
const RULE_COUNT_AT: usize = 46;
/// The bits of a hash, with the letters that ethtool(8) has for them.
const HASH_LETTERS: [(u32, char); 7] =
    [(1, 'm'), (2, 'v'), (3, 't'), (4, 's'), (5, 'd'), (6, 'f'), (7, 'n')];

impl Calls for Kernel {
    fn page_len(&self) -> Read<u64> {
        let len = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        let len = len.and_then(|len| u64::try_from(len).ok()).filter(|&len| len > 0);
        len.ok_or_else(|| "the kernel does not say how large a page is".into())
    }

    fn addresses(&self) -> Read<Vec<(String, IpAddr)>> {
        let all = getifaddrs().map_err(|error| format!("addresses cannot be listed: {error}"))?;
        let address = |it: nix::ifaddrs::InterfaceAddress| {
            let address = it.address?;
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            let v6 = address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip()));
            Some((it.interface_name, v4.or(v6)?))
        };
        Ok(all.filter_map(address).collect())
    }

    fn queues(&self, interface: &str) -> Read<Amount> {
        // | command | most: receive, send, other, combined | now: the same |
        let words = Kernel::ask(interface, QUEUES, 0)?;
        if words[4] > 0 {
            return Ok(Amount { now: words[8], max: words[4], word: "combined" });
        }
        Ok(Amount { now: words[5], max: words[1], word: "rx" })
    }

    fn ring(&self, interface: &str) -> Read<Amount> {
        // | command | most: receive, mini, jumbo, send | now: the same |
        let words = Kernel::ask(interface, RING, 0)?;
        Ok(Amount { now: words[5], max: words[1], word: "rx" })
    }

    fn coalescing(&self, interface: &str) -> Read<Coalescing> {
        // | command | receive: usecs, frames, two more | send: four | statistics | adaptive | ...
        let words = Kernel::ask(interface, COALESCING, 0)?;
        Ok(Coalescing { adaptive: words[10] != 0, usecs: words[1] })
    }

    fn hash_fields(&self, interface: &str, flow: Flow) -> Read<String> {
        let flow = match flow {
            Flow::Udp4 => 2,
            Flow::Udp6 => 6,
        };
        // | command | flow | bits, 64 of them |
        let words = Kernel::ask(interface, HASH_FIELDS, flow)?;
        let bits = words[2] | words[3];
        let set = HASH_LETTERS.iter().filter(|(bit, _)| bits & (1 << bit) != 0);
        Ok(set.map(|(_, letter)| letter).collect())
    }

    fn steering_rules(&self, interface: &str) -> Read<u32> {
        Ok(Kernel::ask(interface, STEERING_RULES, 0)?[RULE_COUNT_AT])
    }
}

//----------- Tests ----------------------------------------------------------

/// What the kernel of a machine in a directory says, from its file `ethtool`: lines such as
/// `eth0 queues 8 of 63`, `eth0 coalescing adaptive 50`, `eth0 udp4 sd`, `eth0 rules 0`,
/// `eth0 address 192.0.2.1`, `kernel page 4096`.
#[cfg(test)]
pub struct Answers(pub String);

#[cfg(test)]
impl Answers {
    fn line(&self, interface: &str, question: &str) -> Read<Vec<&str>> {
        let words = self.0.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut found = words.filter(|words| words.starts_with(&[interface, question]));
        let line = found.next().ok_or("the driver has no such setting")?;
        Ok(line[2..].to_vec())
    }

    fn amount(&self, interface: &str, question: &str, word: &'static str) -> Read<Amount> {
        let words = self.line(interface, question)?;
        Ok(Amount { now: words[0].parse().unwrap(), max: words[2].parse().unwrap(), word })
    }
}

#[cfg(test)]
impl Calls for Answers {
    fn page_len(&self) -> Read<u64> {
        Ok(self.line("kernel", "page")?[0].parse().unwrap())
    }

    fn addresses(&self) -> Read<Vec<(String, IpAddr)>> {
        let words = self.0.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let of_it = words.filter(|words| words.get(1) == Some(&"address"));
        Ok(of_it.map(|words| (words[0].to_string(), words[2].parse().unwrap())).collect())
    }

    fn queues(&self, interface: &str) -> Read<Amount> {
        self.amount(interface, "queues", "combined")
    }

    fn ring(&self, interface: &str) -> Read<Amount> {
        self.amount(interface, "ring", "rx")
    }

    fn coalescing(&self, interface: &str) -> Read<Coalescing> {
        let words = self.line(interface, "coalescing")?;
        Ok(Coalescing { adaptive: words[0] == "adaptive", usecs: words[1].parse().unwrap() })
    }

    fn hash_fields(&self, interface: &str, flow: Flow) -> Read<String> {
        let question = if flow == Flow::Udp4 { "udp4" } else { "udp6" };
        Ok(self.line(interface, question)?.concat())
    }

    fn steering_rules(&self, interface: &str) -> Read<u32> {
        Ok(self.line(interface, "rules")?[0].parse().unwrap())
    }
}

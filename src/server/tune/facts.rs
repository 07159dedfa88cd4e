//! What a machine says of itself, read once: every value or why there is none.

use std::collections::BTreeMap;

use super::Role;
use super::interface::{self, Interface};
use super::source::{Ethtool, Read, Tree};
use super::sysctl;

/// Where settings of transparent huge pages are.
pub const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// Huge pages that are reserved and that nobody has mapped.
pub const RESERVED: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// A machine.
pub struct Facts {
    /// Version of the kernel: major, minor.
    pub kernel: Read<(u32, u32)>,
    /// Sysctls by their path.
    pub sysctls: BTreeMap<&'static str, Read<String>>,
    /// Nodes of memory, with their cores.
    pub nodes: Vec<Node>,
    /// The cores of the role.
    pub cores: Vec<Core>,
    /// The chosen word of [`HUGE_PAGES`].
    pub huge_pages: Read<String>,
    /// Huge pages of 2 MiB that are reserved, and those of them that nobody uses.
    pub reserved: Read<(u64, u64)>,
    /// Whether irqbalance runs.
    pub irqbalance: Read<bool>,
    /// What is tracked of connections.
    pub conntrack: Conntrack,
    /// Octets this process may lock at most; `None`: any number.
    pub locked_max: Read<Option<u64>>,
    /// Files this process may open at most.
    pub files_max: Read<Option<u64>>,
    /// The interfaces of the role.
    pub interfaces: Vec<Interface>,
    /// Those that are not there, and why nothing is known of them.
    pub missing: Vec<(String, String)>,
}

/// A node of memory.
pub struct Node {
    /// Its number.
    pub number: usize,
    /// The cores that are near.
    pub cores: Vec<usize>,
}

/// What saves power on a core.
pub struct Core {
    /// Its number.
    pub number: usize,
    /// The frequency governor.
    pub governor: Read<String>,
    /// States of sleep.
    pub sleeps: Read<Vec<Sleep>>,
}

/// A C-state.
pub struct Sleep {
    /// Its directory.
    pub path: String,
    /// Its name.
    pub name: String,
    /// Microseconds until the core works again.
    pub wake_us: u64,
    /// Whether it is not used.
    pub disabled: bool,
}

/// Connection tracking.
pub struct Conntrack {
    /// Connections that are tracked now; an error: it is not loaded, or not for us to see.
    pub count: Read<u64>,
    /// Those of them on a port of the role.
    pub on_ports: Read<usize>,
}

/// Reads everything that [`super::advise::advise`] looks at.
pub fn read(tree: &Tree, ethtool: &dyn Ethtool, role: &Role) -> Facts {
    let (names, missing) = interface::names(tree, &role.interfaces);
    let interrupts = tree.read("/proc/interrupts");
    Facts {
        kernel: kernel(tree),
        sysctls: sysctl::SYSCTLS
            .iter()
            .map(|it| (it.path, tree.read(it.path).map_err(|reason| elsewhere(it.path, reason))))
            .collect(),
        nodes: nodes(tree),
        cores: role.cores.iter().map(|&core| read_core(tree, core)).collect(),
        huge_pages: tree.read(HUGE_PAGES).map(|text| chosen(&text)),
        reserved: reserved(tree),
        irqbalance: irqbalance(tree),
        conntrack: conntrack(tree, &role.ports()),
        locked_max: limit(tree, "Max locked memory"),
        files_max: limit(tree, "Max open files"),
        interfaces: names
            .iter()
            .map(|name| interface::read(tree, ethtool, name, &interrupts))
            .collect(),
        missing,
    }
}

/// What is not there may be there outside: network namespaces have few sysctls of their own.
fn elsewhere(path: &str, reason: String) -> String {
    if path.starts_with("/proc/sys/net/") {
        return format!("{reason}: not in this kernel, or only in the first network namespace");
    }
    reason
}

fn kernel(tree: &Tree) -> Read<(u32, u32)> {
    let text = tree.read("/proc/sys/kernel/osrelease")?;
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    match (next(), next()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(format!("\"{text}\" is no version")),
    }
}

fn nodes(tree: &Tree) -> Vec<Node> {
    let directory = "/sys/devices/system/node";
    let names = tree.list(directory).unwrap_or_default();
    let node = |name: &String| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        let cores = tree.read(&format!("{directory}/{name}/cpulist")).ok()?;
        Some(Node { number, cores: list(&cores) })
    };
    names.iter().filter_map(node).collect()
}

fn read_core(tree: &Tree, number: usize) -> Core {
    let directory = format!("/sys/devices/system/cpu/cpu{number}");
    let sleep = |name: &String| {
        let path = format!("{directory}/cpuidle/{name}");
        let name = tree.read(&format!("{path}/name")).ok()?;
        let wake_us = tree.number(&format!("{path}/latency")).ok()?;
        let disabled = tree.number(&format!("{path}/disable")).ok()? != 0;
        Some(Sleep { path, name, wake_us, disabled })
    };
    Core {
        number,
        governor: tree.read(&format!("{directory}/cpufreq/scaling_governor")),
        sleeps: tree
            .list(&format!("{directory}/cpuidle"))
            .map(|names| names.iter().filter_map(sleep).collect()),
    }
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> String {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(text, |(word, _)| word).to_string()
}

fn reserved(tree: &Tree) -> Read<(u64, u64)> {
    let number = |name: &str| tree.number(&format!("{RESERVED}/{name}"));
    Ok((number("nr_hugepages")?, number("free_hugepages")?))
}

fn irqbalance(tree: &Tree) -> Read<bool> {
    let names = tree.list("/proc")?;
    let mut processes = names.iter().filter(|name| name.bytes().all(|it| it.is_ascii_digit()));
    Ok(processes.any(|process| {
        tree.read(&format!("/proc/{process}/comm")).is_ok_and(|name| name == "irqbalance")
    }))
}

fn conntrack(tree: &Tree, ports: &[u16]) -> Conntrack {
    let on_port = |line: &&str| {
        let mut words = line.split_whitespace().filter_map(|word| word.strip_prefix("dport="));
        words.any(|port| port.parse().is_ok_and(|port| ports.contains(&port)))
    };
    Conntrack {
        count: tree.number("/proc/sys/net/netfilter/nf_conntrack_count"),
        on_ports: tree
            .read("/proc/net/nf_conntrack")
            .map(|text| text.lines().filter(on_port).count()),
    }
}

/// The hard limit of a line of `/proc/self/limits`; the server takes what it allows.
fn limit(tree: &Tree, name: &str) -> Read<Option<u64>> {
    let path = "/proc/self/limits";
    let text = tree.read(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let hard = line.and_then(|line| line.split_whitespace().nth(1));
    match hard {
        Some("unlimited") => Ok(None),
        Some(hard) => hard.parse().map(Some).map_err(|_| format!("{path}: {hard} is no number")),
        None => Err(format!("{path} has no line \"{name}\"")),
    }
}

//----------- Sets of cores --------------------------------------------------

/// The cores of a list such as `0-3,8`.
pub fn list(text: &str) -> Vec<usize> {
    /// Of a machine that could be: a range is bounded before it is taken apart.
    const MAX: usize = 1 << 16;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<usize>().ok()?);
        Some(first..last.min(MAX) + 1)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// The cores of a mask such as `00000001,000000ff`.
pub fn from_mask(text: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for (group, word) in text.trim().rsplit(',').enumerate() {
        let Ok(word) = u32::from_str_radix(word, 16) else { continue };
        cores.extend((0..32).filter(|bit| word & (1 << bit) != 0).map(|bit| group * 32 + bit));
    }
    cores
}

/// The mask of some cores, as [`from_mask`] reads it.
pub fn mask(cores: &[usize]) -> String {
    let groups = cores.iter().max().map_or(1, |most| most / 32 + 1);
    let mut words = vec![0u32; groups];
    for core in cores {
        words[core / 32] |= 1 << (core % 32);
    }
    let mut text = format!("{:x}", words[groups - 1]);
    for word in words[..groups - 1].iter().rev() {
        text += &format!(",{word:08x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cores() {
        assert_eq!(list("0-2,8"), [0, 1, 2, 8]);
        assert!(list("").is_empty());
        assert_eq!(from_mask("00000001,00000003"), [0, 1, 32]);
        for cores in [vec![], vec![0], vec![1, 31, 32, 95]] {
            assert_eq!(from_mask(&mask(&cores)), cores);
        }
        assert_eq!(mask(&[33]), "2,00000000");
        assert_eq!(chosen("always [madvise] never"), "madvise");
    }
}

//! What a machine says of itself, read once: every value or why there is none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Role;
use super::interface::{self, Interface};
use super::source::{Calls, Read, Tree};
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
    /// Huge pages of 2 MiB that are reserved; those of them that nobody uses or was promised.
    pub reserved: Read<(u64, u64)>,
    /// Octets of a page of memory.
    pub page_len: Read<u64>,
    /// Octets of memory.
    pub memory_len: Read<u64>,
    /// What irqbalance may do; `None`: it does not run.
    pub irqbalance: Read<Option<Irqbalance>>,
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

/// How irqbalance was started.
#[derive(Default)]
pub struct Irqbalance {
    /// Interrupts it leaves alone.
    pub interrupts: Vec<usize>,
    /// Drivers whose interrupts it leaves alone.
    pub drivers: Vec<String>,
    /// Cores it gives nothing to: it moves interrupts off them.
    pub cores: Vec<usize>,
    /// Whether a program of its own decides.
    pub script: bool,
}

/// Connection tracking.
pub struct Conntrack {
    /// Connections that are tracked now; `None`: it is not loaded.
    pub count: Read<Option<u64>>,
    /// Those of them that clients of the role made.
    pub of_clients: Read<usize>,
}

/// Reads everything that [`super::advise::advise`] looks at.
pub fn read(tree: &Tree, calls: &dyn Calls, role: &Role) -> Facts {
    let addresses = calls.addresses();
    let owned = addresses.iter().flatten();
    let owned = owned.filter(|(_, own)| role.listen.iter().any(|address| address.ip() == *own));
    let owned: Vec<String> = owned.map(|(name, _)| name.clone()).collect();
    let (names, missing) = interface::names(tree, &role.interfaces, &owned);
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
        page_len: calls.page_len(),
        memory_len: memory(tree),
        irqbalance: irqbalance(tree),
        conntrack: conntrack(tree, role, &addresses),
        locked_max: limit(tree, "Max locked memory"),
        files_max: limit(tree, "Max open files"),
        interfaces: names
            .iter()
            .map(|name| interface::read(tree, calls, name, &interrupts))
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
    let free = number("free_hugepages")?;
    Ok((number("nr_hugepages")?, free.saturating_sub(number("resv_hugepages")?)))
}

fn memory(tree: &Tree) -> Read<u64> {
    let path = "/proc/meminfo";
    let text = tree.read(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map(|it| it * 1024).ok_or_else(|| format!("{path} has no line \"MemTotal\""))
}

fn irqbalance(tree: &Tree) -> Read<Option<Irqbalance>> {
    let names = tree.list("/proc")?;
    let mut processes = names.iter().filter(|name| name.bytes().all(|it| it.is_ascii_digit()));
    let Some(process) = processes.find(|process| {
        tree.read(&format!("/proc/{process}/comm")).is_ok_and(|name| name == "irqbalance")
    }) else {
        return Ok(None);
    };
    let words = tree.read(&format!("/proc/{process}/cmdline"))?;
    // Who is not root may not read it, and is told less.
    let environment = tree.read(&format!("/proc/{process}/environ")).unwrap_or_default();
    Ok(Some(banned(&words, &environment)))
}

/// What the words of irqbalance(1) and its environment ban; a zero stands between them.
fn banned(words: &str, environment: &str) -> Irqbalance {
    let mut found = Irqbalance::default();
    let mut words = words.split('\0').skip(1);
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None if word.starts_with("--") => (word, None),
            None => (word.get(..2).unwrap_or(word), word.get(2..).filter(|it| !it.is_empty())),
        };
        let mut value = || value.or_else(|| words.next()).unwrap_or("");
        match option {
            "--banirq" | "-i" => found.interrupts.extend(value().parse::<usize>()),
            "--banmod" | "-m" => found.drivers.push(value().to_string()),
            "--policyscript" | "-l" => found.script = true,
            _ => {}
        }
    }
    for setting in environment.split('\0') {
        match setting.split_once('=') {
            Some(("IRQBALANCE_BANNED_CPULIST", cores)) => found.cores.extend(list(cores)),
            Some(("IRQBALANCE_BANNED_CPUS", mask)) => found.cores.extend(from_mask(mask)),
            _ => {}
        }
    }
    found
}

//----------- Connection tracking --------------------------------------------

fn conntrack(tree: &Tree, role: &Role, addresses: &Read<Vec<(String, IpAddr)>>) -> Conntrack {
    let file = "/proc/sys/net/netfilter/nf_conntrack_count";
    let loaded = [file, "/proc/net/nf_conntrack", "/sys/module/nf_conntrack"];
    let count = if loaded.iter().any(|path| tree.has(path)) {
        tree.number(file).map(Some)
    } else {
        // Without sysctls nobody knows.
        tree.list("/proc/sys/net").map(|_| None)
    };
    Conntrack { count, of_clients: of_clients(tree, role, addresses) }
}

fn of_clients(tree: &Tree, role: &Role, addresses: &Read<Vec<(String, IpAddr)>>) -> Read<usize> {
    let any = role.listen.iter().any(|address| address.ip().is_unspecified());
    let own = match addresses {
        Ok(addresses) => &addresses[..],
        Err(reason) if any => return Err(reason.clone()),
        Err(_) => &[],
    };
    let is_server = |ip: IpAddr, port: u16| {
        role.listen.iter().filter(|address| address.port() == port).any(|address| {
            let all = address.ip().is_unspecified() && address.is_ipv4() == ip.is_ipv4();
            address.ip() == ip || all && own.iter().any(|(_, own)| *own == ip)
        })
    };
    let text = tree.read("/proc/net/nf_conntrack")?;
    Ok(text.lines().filter(|line| asked(line, is_server)).count())
}

/// Whether a connection was made to the server: what its first datagram was sent to, or, behind
/// translated addresses, what the replies come from. What the server itself asks for is neither.
fn asked(line: &str, is_server: impl Fn(IpAddr, u16) -> bool) -> bool {
    let nth = |key: &str, index: usize| {
        let mut values = line.split_whitespace().filter_map(|word| word.strip_prefix(key));
        values.nth(index)
    };
    let end = |address: &str, port: &str, index: usize| {
        Some((nth(address, index)?.parse().ok()?, nth(port, index)?.parse().ok()?))
    };
    [end("dst=", "dport=", 0), end("src=", "sport=", 1)]
        .into_iter()
        .flatten()
        .any(|(ip, port)| is_server(ip, port))
}

//----------- Limits ---------------------------------------------------------

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

    #[test]
    fn what_irqbalance_leaves_alone() {
        let words =
            "/usr/sbin/irqbalance\0--foreground\0--banirq=25\0-i\x0026\0-i27\0--banmod\0ice";
        let found = banned(words, "A=b\0IRQBALANCE_BANNED_CPULIST=0-1\0IRQBALANCE_BANNED_CPUS=8");
        assert_eq!((found.interrupts, found.cores), (vec![25, 26, 27], vec![0, 1, 3]));
        assert_eq!((found.drivers, found.script), (vec!["ice".to_string()], false));
        assert!(banned("irqbalance\0--policyscript=x", "").script);
        assert!(banned("irqbalance", "").interrupts.is_empty());
    }

    #[test]
    fn clients_are_told_from_what_the_server_asks() {
        let is_server = |ip: IpAddr, port| port == 53 && ip.to_string() == "192.0.2.1";
        let line = |from: &str, to: &str| format!("ipv4 2 udp 17 28 {from} [UNREPLIED] {to} use=2");
        for (from, to, expected) in [
            (
                "src=192.0.2.7 dst=192.0.2.1 sport=4000 dport=53",
                "src=192.0.2.1 dst=192.0.2.7 sport=53 dport=4000",
                true,
            ),
            // A look-up of the server's.
            (
                "src=192.0.2.1 dst=192.0.2.9 sport=4000 dport=53",
                "src=192.0.2.9 dst=192.0.2.1 sport=53 dport=4000",
                false,
            ),
            // Forwarded to another server.
            (
                "src=192.0.2.7 dst=192.0.2.8 sport=4000 dport=53",
                "src=192.0.2.8 dst=192.0.2.7 sport=53 dport=4000",
                false,
            ),
            // Translated to the server.
            (
                "src=192.0.2.7 dst=198.51.100.1 sport=4000 dport=5353",
                "src=192.0.2.1 dst=192.0.2.7 sport=53 dport=4000",
                true,
            ),
            (
                "src=192.0.2.7 dst=192.0.2.1 type=8 code=0 id=1",
                "src=192.0.2.1 dst=192.0.2.7 type=0 code=0 id=1",
                false,
            ),
        ] {
            assert_eq!(asked(&line(from, to), is_server), expected, "{from}");
        }
    }
}

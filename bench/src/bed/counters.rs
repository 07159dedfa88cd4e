//! What the kernel counts of cores, processes and packets.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::Bed;

//----------- Packets --------------------------------------------------------

/// Packets that cores have taken from the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Those of the core in question.
    pub mine: u64,
    /// Those of all others.
    pub others: u64,
    /// Those that found the queue of the core in question full: no socket has seen them.
    pub refused: u64,
}

impl Received {
    /// What `core` and the others have taken since the machine started: who of them does the
    /// receiver's work.
    pub fn now(core: usize) -> io::Result<Received> {
        Ok(Received::parse(&fs::read_to_string("/proc/net/softnet_stat")?, core))
    }

    /// From the text of `/proc/net/softnet_stat`: a line a core, packets first, then those
    /// refused; the thirteenth word, where there is one, is the core.
    fn parse(text: &str, core: usize) -> Received {
        let mut received = Received::default();
        for (index, line) in text.lines().enumerate() {
            let number = |at: usize| {
                let word = line.split_whitespace().nth(at)?;
                u64::from_str_radix(word, 16).ok()
            };
            let of = number(12).map_or(index, |of| of as usize);
            let count = number(0).unwrap_or(0);
            if of == core {
                received.mine += count;
                received.refused += number(1).unwrap_or(0);
            } else {
                received.others += count;
            }
        }
        received
    }

    /// What was taken since `earlier`. The kernel counts in 32 bits.
    pub fn since(self, earlier: Received) -> Received {
        let difference = |now: u64, then: u64| u64::from((now as u32).wrapping_sub(then as u32));
        Received {
            mine: difference(self.mine, earlier.mine),
            others: difference(self.others, earlier.others),
            refused: difference(self.refused, earlier.refused),
        }
    }
}

impl Bed {
    /// What the server's core and the others have taken from the network.
    pub fn received(&self) -> io::Result<Received> {
        Received::now(self.server_core())
    }

    /// UDP counters of the server's namespace.
    pub fn server_udp(&self) -> io::Result<Udp> {
        let mut command = Command::new("cat");
        command.arg("/proc/net/snmp");
        let output = self.in_server(&command).output()?;
        Ok(Udp::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// UDP counters of the client's namespace, where upstreams are.
    pub fn client_udp(&self) -> io::Result<Udp> {
        let mut command = Command::new("cat");
        command.arg("/proc/net/snmp");
        let output = self.in_client(&command).output()?;
        Ok(Udp::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Octets that the kernel takes for the UDP socket at `address`, port 53; of several the least.
    pub fn receive_buffer(&self, address: Ipv4Addr) -> io::Result<Option<u64>> {
        let mut command = Command::new("ss");
        command.args(["-H", "-u", "-l", "-n", "-m"]);
        let output = self.in_server(&command).output()?;
        Ok(receive_buffer(&String::from_utf8_lossy(&output.stdout), address))
    }

    /// Entries of the server's table of neighbours that do not resolve are forgotten.
    pub fn forget_neighbours(&self) -> io::Result<()> {
        let arguments =
            ["-n", &self.server_namespace(), "neigh", "flush", "dev", &self.server_interface()];
        // Those that are permanent stay.
        Command::new("ip").args(arguments).output().map(drop)
    }
}

/// Datagrams at the sockets of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// Given to them.
    pub received: u64,
    /// No room in a receive buffer.
    pub receive_drops: u64,
    /// No room in a send buffer.
    pub send_drops: u64,
}

impl Udp {
    /// From the text of `/proc/net/snmp`: a line of names, then a line of numbers.
    fn parse(text: &str) -> Udp {
        let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
        let (names, numbers) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let of = |wanted: &str| {
            let at = names.split_whitespace().position(|name| name == wanted)?;
            numbers.split_whitespace().nth(at)?.parse().ok()
        };
        Udp {
            received: of("InDatagrams").unwrap_or(0),
            receive_drops: of("RcvbufErrors").unwrap_or(0),
            send_drops: of("SndbufErrors").unwrap_or(0),
        }
    }
}

/// From what ss prints: a line a socket, its memory behind it or in the next line.
fn receive_buffer(text: &str, address: Ipv4Addr) -> Option<u64> {
    let wanted = format!("{address}:53");
    let (mut is_it, mut least) = (false, None::<u64>);
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            is_it = line.split_whitespace().any(|word| word == wanted);
        }
        let of =
            || line.split_once("skmem:(")?.1.split(',').find_map(|word| word.strip_prefix("rb"));
        if let Some(octets) = of().filter(|_| is_it).and_then(|word| word.parse().ok()) {
            least = Some(least.map_or(octets, |least| least.min(octets)));
        }
    }
    least
}

//----------- Processes ------------------------------------------------------

/// A process and all that descend from it.
pub fn family(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut at = 0;
    while at < found.len() && found.len() < 1024 {
        let tasks = fs::read_dir(format!("/proc/{}/task", found[at])).into_iter().flatten();
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
}

/// Pins all threads of a process and of its descendants to `core`.
pub fn pin_family(process: u32, core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    for process in family(process) {
        for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            if let Some(task) = task.file_name().to_str().and_then(|name| name.parse().ok()) {
                // It may have ended since it was seen.
                let _ = sched_setaffinity(Pid::from_raw(task), &set);
            }
        }
    }
    Ok(())
}

/// Seconds of a core that a process and its descendants have taken, in ticks of the kernel.
pub fn core_seconds(process: u32) -> f64 {
    /// What the kernel shows processes, whatever its own clock is (USER_HZ).
    const TICKS_A_SECOND: f64 = 100.0;
    let of = |process: u32| {
        ticks_of(&fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default())
    };
    family(process).into_iter().map(of).sum::<u64>() as f64 / TICKS_A_SECOND
}

/// User and system ticks in `/proc/<process>/stat`, behind the name, which may have any letters.
fn ticks_of(text: &str) -> u64 {
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = behind.split_whitespace().skip(11).take(2);
    ticks.filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Resident memory of a process and its descendants in MiB, what they share counted once.
pub fn memory_mib(process: u32) -> f64 {
    let kib = |process: u32| {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    family(process).into_iter().filter_map(kib).sum::<u64>() as f64 / 1024.0
}

/// Memory that processes could still have, in MiB.
pub fn memory_available_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

/// The `index`th address of a server beside the first.
pub fn address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 53, 0, 11 + index)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTNET: &str = "\
54db2681 000017f8 00000146 0 0 0 0 0 0 044d2eec 00000000 00000000 00000000 00000000 00000000
0a9d1e50 0000040e 0000004e 0 0 0 0 0 0 0124987b 00000000 00000000 00000002 00000000 00000000
";

    #[test]
    fn packets_belong_to_the_core_that_took_them() {
        let first = Received::parse(SOFTNET, 0);
        assert_eq!(first, Received { mine: 0x54DB_2681, others: 0x0A9D_1E50, refused: 0x17F8 });
        // A core that is offline has no line: the number in the line counts.
        assert_eq!(Received::parse(SOFTNET, 2).mine, 0x0A9D_1E50);
        assert_eq!(Received::parse(SOFTNET, 1).mine, 0);
        let other = Received { mine: 0x34, others: 0x12, refused: 5 };
        assert_eq!(Received::parse("12 9 0\n34 5 0\n", 1), other);
    }

    #[test]
    fn counters_of_32_bits_pass_zero() {
        let then = Received { mine: 0xFFFF_FFFF, others: 5, refused: 0xFFFF_FFFE };
        let now = Received { mine: 4, others: 5, refused: 1 };
        assert_eq!(now.since(then), Received { mine: 5, others: 0, refused: 3 });
    }

    #[test]
    fn drops_are_found_by_name() {
        let text = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\n\
                    Udp: 9 1 2 8 7 6\nUdpLite: 0\n";
        assert_eq!(Udp::parse(text), Udp { received: 9, receive_drops: 7, send_drops: 6 });
        assert_eq!(Udp::parse(""), Udp::default());
    }

    #[test]
    fn the_least_buffer_of_an_address_counts() {
        let text = "UNCONN 0 0 10.53.0.11:53 0.0.0.0:*\n\t skmem:(r0,rb16777216,t0,tb9,f0)\n\
                    UNCONN 0 0 10.53.0.11:53 0.0.0.0:*\n\t skmem:(r0,rb425984,t0,tb9,f0)\n\
                    UNCONN 0 0 10.53.0.1:53 0.0.0.0:* skmem:(r0,rb212992,t0,tb9,f0)\n";
        let of = |last| receive_buffer(text, Ipv4Addr::new(10, 53, 0, last));
        assert_eq!([of(11), of(1), of(12)], [Some(425_984), Some(212_992), None]);
    }

    #[test]
    fn ticks_stand_behind_the_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 110 0 0 0 30 12 5 6 20 0 1 0 33 0";
        assert_eq!((ticks_of(text), ticks_of("")), (42, 0));
        assert!(core_seconds(std::process::id()) >= 0.0);
    }

    #[test]
    fn this_process_has_memory() {
        let own = std::process::id();
        assert_eq!(family(own)[0], own);
        assert!(memory_mib(own) > 0.1);
        assert!(memory_available_mib().unwrap() > 1);
    }
}

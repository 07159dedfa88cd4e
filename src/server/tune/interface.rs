//! What is known of one network interface.

use super::facts::{from_mask, list};
use super::source::{Amount, Calls, Coalescing, Flow, Read, Tree};

/// A network interface.
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The driver; an error: there is no device behind it.
    pub driver: Read<String>,
    /// Whether it stands on other interfaces, as bonds, bridges and VLANs do.
    pub stacked: bool,
    /// Octets of a packet.
    pub mtu: Read<u64>,
    /// Cores that received datagrams are passed on to, for each receive queue.
    pub rps: Vec<(String, Read<Vec<usize>>)>,
    /// Cores that use each send queue.
    pub xps: Vec<(String, Read<Vec<usize>>)>,
    /// Receive queues.
    pub queues: Read<Amount>,
    /// Descriptors of a receive ring.
    pub ring: Read<Amount>,
    /// Moderation of interrupts.
    pub coalescing: Read<Coalescing>,
    /// What chooses a queue for UDP over IPv4.
    pub hash4: Read<String>,
    /// What chooses a queue for UDP over IPv6.
    pub hash6: Read<String>,
    /// Rules that steer flows.
    pub rules: Read<u32>,
    /// Interrupts of receive queues, in order.
    pub interrupts: Read<Vec<Interrupt>>,
    /// The node of memory it is near to; an error: there is only one, or it is not known.
    pub node: Read<usize>,
    /// `napi_defer_hard_irqs`.
    pub defer_interrupts: Read<u64>,
    /// `gro_flush_timeout` in nanoseconds.
    pub flush_ns: Read<u64>,
    /// Whether a thread of its own receives.
    pub threaded: Read<u64>,
    /// Packets that wait to be sent.
    pub send_queue_len: Read<u64>,
}

/// An interrupt of a receive queue.
pub struct Interrupt {
    /// Its number.
    pub number: usize,
    /// Its name in `/proc/interrupts`.
    pub name: String,
    /// Cores it may go to.
    pub cores: Read<Vec<usize>>,
}

impl Interface {
    /// Receive queues there are, as far as anybody says.
    pub fn queue_count(&self) -> usize {
        self.queues.as_ref().map_or(self.rps.len().max(1), |queues| queues.now as usize)
    }
}

/// Those of `wanted`, and those of them that are not there, with the reason. If none is wanted, of
/// those that are up: what has a device behind it, or is one of `owned`. A container has neither:
/// all of them but lo.
pub fn names(
    tree: &Tree,
    wanted: &[String],
    owned: &[String],
) -> (Vec<String>, Vec<(String, String)>) {
    const UP: u64 = 1;
    let directory = "/sys/class/net";
    let nothing = |reason: String| (Vec::new(), vec![("interfaces".to_string(), reason)]);
    let all = match tree.list(directory) {
        Ok(all) => all,
        Err(reason) => return nothing(reason),
    };
    if !wanted.is_empty() {
        let (there, missing): (Vec<_>, Vec<_>) =
            wanted.iter().cloned().partition(|name| all.contains(name));
        let reason = |name| (name, format!("no such interface; there are {}", all.join(", ")));
        return (there, missing.into_iter().map(reason).collect());
    }
    let is_up = |name: &String| {
        let flags = tree.read(&format!("{directory}/{name}/flags")).unwrap_or_default();
        let flags = u64::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
        flags & UP != 0
    };
    let up: Vec<String> = all.into_iter().filter(|name| name != "lo" && is_up(name)).collect();
    if up.is_empty() {
        return nothing("none is up but lo".into());
    }
    let carries = |name: &&String| {
        owned.contains(name) || tree.link(&format!("{directory}/{name}/device/driver")).is_ok()
    };
    let carrying: Vec<String> = up.iter().filter(carries).cloned().collect();
    (if carrying.is_empty() { up } else { carrying }, Vec::new())
}

/// Reads one.
pub fn read(tree: &Tree, calls: &dyn Calls, name: &str, interrupts: &Read<String>) -> Interface {
    let directory = format!("/sys/class/net/{name}");
    let number = |file: &str| tree.number(&format!("{directory}/{file}"));
    let node = number("device/numa_node").map(|node| node as usize);
    Interface {
        name: name.to_string(),
        driver: tree.link(&format!("{directory}/device/driver")),
        stacked: tree
            .list(&directory)
            .is_ok_and(|files| files.iter().any(|file| file.starts_with("lower_"))),
        mtu: number("mtu"),
        rps: masks(tree, &directory, "rx-", "rps_cpus"),
        xps: masks(tree, &directory, "tx-", "xps_cpus"),
        queues: calls.queues(name),
        ring: calls.ring(name),
        coalescing: calls.coalescing(name),
        hash4: calls.hash_fields(name, Flow::Udp4),
        hash6: calls.hash_fields(name, Flow::Udp6),
        rules: calls.steering_rules(name),
        interrupts: read_interrupts(tree, name, interrupts),
        node,
        defer_interrupts: number("napi_defer_hard_irqs"),
        flush_ns: number("gro_flush_timeout"),
        threaded: number("threaded"),
        send_queue_len: number("tx_queue_len"),
    }
}

/// The mask of each queue of a kind, by the path of its file.
fn masks(tree: &Tree, directory: &str, kind: &str, file: &str) -> Vec<(String, Read<Vec<usize>>)> {
    let names = tree.list(&format!("{directory}/queues")).unwrap_or_default();
    let queues = names.iter().filter(|name| name.starts_with(kind));
    let path = |name: &String| format!("{directory}/queues/{name}/{file}");
    queues.map(|name| (path(name), tree.read(&path(name)).map(|text| from_mask(&text)))).collect()
}

//----------- Interrupts -----------------------------------------------------

fn read_interrupts(tree: &Tree, name: &str, table: &Read<String>) -> Read<Vec<Interrupt>> {
    let table = table.as_ref().map_err(Clone::clone)?;
    let device = tree.link(&format!("/sys/class/net/{name}/device")).ok();
    let own = tree.list(&format!("/sys/class/net/{name}/device/msi_irqs")).unwrap_or_default();
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((number, rest)) = line.trim_start().split_once(':') else { continue };
        let Some(action) = rest.split_whitespace().last() else { continue };
        let of_device = own.iter().any(|irq| irq == number) || belongs(action, name, &device);
        let Ok(number) = number.parse::<usize>() else { continue };
        if !of_device || !is_receive_queue(action) {
            continue;
        }
        let cores =
            tree.read(&format!("/proc/irq/{number}/smp_affinity_list")).map(|text| list(&text));
        found.push(Interrupt { number, name: action.to_string(), cores });
    }
    if found.is_empty() {
        return Err(format!("/proc/interrupts has no line of a receive queue of {name}"));
    }
    Ok(found)
}

/// Whether the action of an interrupt is that of an interface: `eth0-TxRx-3`, `virtio2-input.0`.
fn belongs(action: &str, name: &str, device: &Option<String>) -> bool {
    let starts = |whole: &str, part: &str| {
        let rest = whole.strip_prefix(part);
        rest.is_some_and(|rest| rest.starts_with(['-', '.', '@']))
    };
    let inside = |part: &str| {
        action.match_indices(part).any(|(at, _)| {
            (at == 0 || action.as_bytes()[at - 1] == b'-') && starts(&action[at..], part)
        })
    };
    inside(name) || device.as_ref().is_some_and(|device| starts(action, device))
}

/// Whether it is one of a queue that receives: it ends with a number, and neither with that of a
/// queue that only sends nor with that of the device itself.
fn is_receive_queue(action: &str) -> bool {
    let action = action.split('@').next().unwrap_or(action);
    let lower = action.to_lowercase();
    let other = ["output", "async", "config", "mgmnt", "misc"].iter().any(|it| lower.contains(it));
    let sends = lower.contains("-tx-") && !lower.contains("rx");
    lower.ends_with(|letter: char| letter.is_ascii_digit())
        && (lower.contains('-') || lower.contains("comp"))
        && !other
        && !sends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_of_real_drivers() {
        let device = Some("virtio2".to_string());
        for (action, own, receives) in [
            ("eth0-TxRx-0", true, true),
            ("i40e-eth0-TxRx-11", true, true),
            ("eth0-Tx-Rx-3", true, true),
            ("eth0-rx-1", true, true),
            ("eth0-tx-1", true, false),
            ("eth0", false, false),
            ("eth01-rx-1", false, true),
            ("virtio2-input.0", true, true),
            ("virtio2-output.0", true, false),
            ("virtio2-config", true, false),
            ("virtio21-input.0", false, true),
            ("mlx5_comp3@pci:0000:03:00.0", false, true),
            ("mlx5_async0@pci:0000:03:00.0", false, false),
        ] {
            assert_eq!(belongs(action, "eth0", &device), own, "{action}");
            assert_eq!(is_receive_queue(action), receives, "{action}");
        }
    }
}

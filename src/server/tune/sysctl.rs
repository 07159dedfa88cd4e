//! Sysctls: one line of a table for each.

use super::Role;
use super::facts::Facts;
use super::knob::{Knob, Step};
use super::source::Read;

/// A sysctl and what is advised.
pub struct Sysctl {
    /// Its file.
    pub path: &'static str,
    /// What the kernel sets by itself; empty: that depends on the machine.
    default: &'static str,
    /// What the value should be.
    judge: fn(&Facts, &Role, &str) -> Advice,
    why: &'static str,
    verify: &'static str,
}

/// What is advised, and what to write if the value is otherwise; an error: why that is not known.
struct Advice {
    advised: String,
    to: Read<Option<String>>,
}

fn at_least(value: &str, least: u64) -> Advice {
    let enough = value.parse::<u64>().is_ok_and(|value| value >= least);
    Advice { advised: format!("at least {least}"), to: Ok((!enough).then(|| least.to_string())) }
}

fn at_most(value: &str, most: u64) -> Advice {
    let enough = value.parse::<u64>().is_ok_and(|value| value <= most);
    Advice { advised: format!("at most {most}"), to: Ok((!enough).then(|| most.to_string())) }
}

fn is(value: &str, wanted: &str) -> Advice {
    Advice { advised: wanted.into(), to: Ok((value != wanted).then(|| wanted.into())) }
}

fn whatever(because: &str) -> Advice {
    Advice { advised: because.into(), to: Ok(None) }
}

/// The backlog of ring53's listeners.
const LISTEN_BACKLOG: u64 = 1024;
/// Octets of fragments that may wait, and those at which the kernel stops to throw them out.
const FRAGMENTS: (u64, u64) = (4 << 20, 3 << 20);
/// The part of the memory that UDP may fill before it is pressed: the kernel takes an eighth.
const UDP_MEMORY_PART: u64 = 4;

/// Pages to full receive buffers of all sockets, which the kernel counts twice; but no more than a
/// part of the memory. No field is made less than it is.
fn udp_mem(facts: &Facts, role: &Role, value: &str) -> Advice {
    let sockets = (role.cores.len() * role.listen.len()) as u64;
    let buffers = sockets * 2 * role.receive_buffer as u64;
    let sizes = facts.page_len.as_ref().and_then(|page| Ok((page, facts.memory_len.as_ref()?)));
    let (page_len, memory_len) = match sizes {
        Ok(sizes) => sizes,
        Err(reason) => {
            let advised = format!("a second value of {buffers} octets or more, in pages");
            return Advice { advised, to: Err(reason.clone()) };
        }
    };
    let most = memory_len / UDP_MEMORY_PART;
    let pages = buffers.min(most) / page_len;
    let now: Vec<u64> = value.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let enough = now.get(1).is_some_and(|&pressure| pressure >= pages);
    let field = |index: usize, least: u64| now.get(index).map_or(least, |&now| now.max(least));
    let wanted = format!("{} {} {}", field(0, pages), field(1, pages), field(2, pages + pages / 2));
    let advised = match buffers > most {
        true => format!(
            "a second value of at least {pages} pages, a part of the memory: receive buffers of \
             {buffers} octets do not fit, lower receive_buffer"
        ),
        false => format!("a second value of at least {pages} pages"),
    };
    Advice { advised, to: Ok((!enough).then_some(wanted)) }
}

fn ports(_: &Facts, _: &Role, value: &str) -> Advice {
    const LEAST: u64 = 16_384;
    let ends: Vec<u64> = value.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let enough = ends.len() == 2 && ends[1].saturating_sub(ends[0]) >= LEAST;
    Advice {
        advised: format!("at least {LEAST} ports; 10000 65535 once it recurses"),
        to: Ok((!enough).then(|| "32768 60999".into())),
    }
}

fn uring(_: &Facts, role: &Role, value: &str) -> Advice {
    if role.uring { is(value, "0") } else { whatever("anything: path = \"mmsg\" uses none") }
}

/// All of them.
pub const SYSCTLS: &[Sysctl] = &[
    Sysctl {
        path: "/proc/sys/net/core/rmem_max",
        default: "212992",
        judge: |_, role, value| at_least(value, role.receive_buffer as u64),
        why: "bursts wait in the socket; without CAP_NET_ADMIN this bounds receive_buffer",
        verify: "path.socket_drops of SIGUSR1 stays as it is; no warning at the start",
    },
    Sysctl {
        path: "/proc/sys/net/core/rmem_default",
        default: "212992",
        judge: |_, _, value| at_most(value, 1 << 20),
        why: "ring53 asks for what it needs; a large default is every socket's of the machine",
        verify: "ss -uam",
    },
    Sysctl {
        path: "/proc/sys/net/core/wmem_max",
        default: "212992",
        judge: |_, role, value| at_least(value, role.receive_buffer as u64),
        why: "the replies of a batch wait in the socket while the device is behind",
        verify: "SndbufErrors of /proc/net/snmp stays as it is",
    },
    Sysctl {
        path: "/proc/sys/net/core/netdev_max_backlog",
        default: "1000",
        judge: |_, _, value| at_least(value, 4096),
        why: "what RPS or a virtual device passes to a core waits here; a burst of more is dropped",
        verify: "the second column of /proc/net/softnet_stat stays as it is",
    },
    Sysctl {
        path: "/proc/sys/net/core/netdev_budget",
        default: "300",
        judge: |_, _, value| at_most(value, 600),
        why: "packets received before anything else runs: the thread that answers is on that core",
        verify: "the third column of /proc/net/softnet_stat (it may rise: nothing is lost by it)",
    },
    Sysctl {
        path: "/proc/sys/net/core/netdev_budget_usecs",
        default: "8000",
        judge: |_, _, value| at_most(value, 8000),
        why: "as netdev_budget, in time",
        verify: "the third column of /proc/net/softnet_stat",
    },
    Sysctl {
        path: "/proc/sys/net/core/busy_poll",
        default: "0",
        judge: |_, _, value| is(value, "0"),
        why: "every poll(2) of every process would spin; ring53 waits in its ring, which does not",
        verify: "cores are idle when nobody asks",
    },
    Sysctl {
        path: "/proc/sys/net/core/busy_read",
        default: "0",
        judge: |_, _, value| is(value, "0"),
        why: "new sockets would spin in the driver while they wait: a core that is never idle",
        verify: "cores are idle when nobody asks",
    },
    Sysctl {
        path: "/proc/sys/net/core/rps_sock_flow_entries",
        default: "0",
        judge: |_, _, value| is(value, "0"),
        why: "RFS follows a flow to its reader; here each core reads what arrives on it",
        verify: "the tenth column of /proc/net/softnet_stat is even over the cores",
    },
    Sysctl {
        path: "/proc/sys/net/core/default_qdisc",
        default: "pfifo_fast",
        judge: |_, _, value| {
            let to = Ok((value == "fq").then(|| "fq_codel".into()));
            Advice { advised: "any but fq; counts for devices that come up later".into(), to }
        },
        why: "fq has room for 100 packets of one socket: replies beyond are dropped, and each is timed",
        verify: "tc -s qdisc: dropped stays as it is",
    },
    Sysctl {
        path: "/proc/sys/net/core/somaxconn",
        default: "4096",
        judge: |_, _, value| at_least(value, LISTEN_BACKLOG),
        why: "connections that wait to be accepted: ring53 asks for 1024",
        verify: "ListenOverflows of /proc/net/netstat stays as it is",
    },
    Sysctl {
        path: "/proc/sys/net/ipv4/tcp_max_syn_backlog",
        default: "",
        judge: |_, _, value| at_least(value, LISTEN_BACKLOG),
        why: "connections whose handshake is not done",
        verify: "TCPReqQFullDrop of /proc/net/netstat stays as it is",
    },
    Sysctl {
        path: "/proc/sys/net/ipv4/tcp_syncookies",
        default: "1",
        judge: |_, _, value| is(value, "1"),
        why: "a flood of forged SYN does not keep real clients out",
        verify: "SyncookiesSent of /proc/net/netstat rises only under a flood",
    },
    Sysctl {
        path: "/proc/sys/net/ipv4/udp_mem",
        default: "",
        judge: udp_mem,
        why: "pages of all UDP sockets together: full receive buffers must fit",
        verify: "the field mem of UDP in /proc/net/sockstat is below; MemErrors of Udp in \
                 /proc/net/snmp stays as it is",
    },
    Sysctl {
        path: "/proc/sys/net/ipv4/ip_local_port_range",
        default: "32768 60999",
        judge: ports,
        why: "ports that transfers are asked from; a resolver asks from random ones",
        verify: "ss -s",
    },
    Sysctl {
        path: "/proc/sys/net/ipv4/udp_early_demux",
        default: "1",
        judge: |_, _, _| whatever("anything: nothing is known to be gained"),
        why: "1 looks for a connected socket for each datagram, and ring53 has none; the route is \
              found by it too",
        verify: "core time per answer",
    },
    Sysctl {
        path: "/proc/sys/net/ipv4/ipfrag_low_thresh",
        default: "3145728",
        judge: |_, _, value| at_most(value, FRAGMENTS.1),
        why: "the kernel refuses a high threshold that is below the low one: this comes first",
        verify: "the line FRAG of /proc/net/sockstat",
    },
    Sysctl {
        path: "/proc/sys/net/ipv4/ipfrag_high_thresh",
        default: "4194304",
        judge: |_, _, value| at_most(value, FRAGMENTS.0),
        why: "memory for fragments: no query needs them, ring53 sends none (RFC 9715)",
        verify: "the line FRAG of /proc/net/sockstat",
    },
    Sysctl {
        path: "/proc/sys/net/ipv6/ip6frag_low_thresh",
        default: "3145728",
        judge: |_, _, value| at_most(value, FRAGMENTS.1),
        why: "as ipfrag_low_thresh, for IPv6",
        verify: "the line FRAG6 of /proc/net/sockstat6",
    },
    Sysctl {
        path: "/proc/sys/net/ipv6/ip6frag_high_thresh",
        default: "4194304",
        judge: |_, _, value| at_most(value, FRAGMENTS.0),
        why: "as ipfrag_high_thresh, for IPv6",
        verify: "the line FRAG6 of /proc/net/sockstat6",
    },
    Sysctl {
        path: "/proc/sys/kernel/io_uring_disabled",
        default: "0",
        judge: uring,
        why: "1 forbids io_uring to all but root and a group, 2 to everybody: recvmmsg is used then",
        verify: "ring53 says io_uring when it starts",
    },
    Sysctl {
        path: "/proc/sys/kernel/numa_balancing",
        default: "1",
        judge: |facts, _, value| match facts.nodes.len() {
            0 | 1 => whatever("anything: there is one node"),
            _ => is(value, "0"),
        },
        why: "it unmaps pages to see who uses them: faults in the middle of answers",
        verify: "numa_hint_faults of /proc/vmstat stays as it is",
    },
];

/// What is advised for all of them.
pub fn advise(facts: &Facts, role: &Role) -> Vec<Knob> {
    SYSCTLS.iter().map(|sysctl| advise_one(sysctl, facts, role)).collect()
}

fn advise_one(sysctl: &Sysctl, facts: &Facts, role: &Role) -> Knob {
    let name = sysctl.path.trim_start_matches("/proc/sys/").replace('/', ".");
    let mut knob = Knob::new(&name, sysctl.why, sysctl.verify);
    if !sysctl.default.is_empty() {
        let default = super::knob::quoted(sysctl.default);
        knob = knob.back(format!("sysctl -w {name}={default} (the kernel's default)"));
    }
    let value = match &facts.sysctls[sysctl.path] {
        Ok(value) => value.split_whitespace().collect::<Vec<_>>().join(" "),
        Err(reason) => {
            let advised = (sysctl.judge)(facts, role, "").advised;
            return knob.unread(reason, advised);
        }
    };
    let Advice { advised, to } = (sysctl.judge)(facts, role, &value);
    let path = sysctl.path.to_string();
    let to = match to {
        Ok(to) => to,
        Err(reason) => return knob.unread(format!("{value}; {reason}"), advised),
    };
    let step = to.map(|to| Step::Write { path, from: value.clone(), to });
    knob.settle(value, advised, step.into_iter().collect())
}

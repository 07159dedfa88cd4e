//! What is advised for a machine: pure, from facts and a role.

use std::fmt::Display;

use super::Role;
use super::facts::{Core, Facts, HUGE_PAGES, RESERVED, Sleep};
use super::knob::{Knob, Step};
use super::nic::{self, join};
use super::source::Read;
use super::sysctl;

/// The oldest kernel whose io_uring is used: a single issuer that runs its work when it asks.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Microseconds that a core may take to wake.
const WAKE_US_MAX: u64 = 20;
/// Octets to lock: rings and their buffers, on kernels that count them.
const LOCKED_MIN: u64 = 8 << 20;
/// Files beside connections: sockets, zones, the state.
const FILES_MIN: u64 = 1024;

/// Everything there is to say of a machine in a role.
pub fn advise(facts: &Facts, role: &Role) -> Vec<Knob> {
    let mut knobs = sysctl::advise(facts, role);
    knobs.extend([
        kernel(facts, role),
        governor(facts),
        sleeps(facts),
        huge_pages(facts),
        reserved(facts),
        nodes(facts, role),
        irqbalance(facts),
        conntrack(facts, role),
        limit(
            "locked memory",
            &facts.locked_max,
            LOCKED_MIN,
            "buffers that the kernel writes into stay in memory; kernels before 5.12 count rings too",
            "LimitMEMLOCK",
        ),
        limit(
            "open files",
            &facts.files_max,
            role.connections as u64 + FILES_MIN,
            "a file for each TCP connection (tcp.connections), and some for sockets and zones",
            "LimitNOFILE",
        ),
    ]);
    if !role.on_network() {
        let knob = Knob::new("interfaces", "no device carries what loopback does", "ss -ulpn");
        knobs.push(knob.absent("the server listens on loopback only"));
        return knobs;
    }
    for (name, reason) in &facts.missing {
        let knob = Knob::new(name, "what queries arrive on", "ip link");
        knobs.push(knob.unread(reason, "one that is up"));
    }
    for interface in &facts.interfaces {
        knobs.extend(nic::advise(interface, role, &facts.nodes));
    }
    knobs
}

/// Both of two numbers with a point between them.
fn version((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

fn kernel(facts: &Facts, role: &Role) -> Knob {
    let knob = Knob::new(
        "kernel",
        "6.1 has what the rings of ring53 are made of (one issuer, work that is run when asked for, \
         rings of buffers); before it, recvmmsg is used",
        "ring53 says io_uring when it starts",
    );
    let least = if role.uring { KERNEL_MIN } else { (4, 6) };
    let advised = format!("at least {}", version(least));
    match &facts.kernel {
        Ok(found) if *found >= least => knob.good(version(*found), advised),
        Ok(found) => {
            let step = Step::ByHand {
                set: "install a newer kernel".into(),
                undo: "boot the old one".into(),
            };
            knob.differs(version(*found), advised, vec![step])
        }
        Err(reason) => knob.unread(reason, advised),
    }
}

//----------- Cores ----------------------------------------------------------

/// The same of all cores in one word, or core by core.
fn by_core<T: Display + PartialEq>(values: &[(usize, T)]) -> String {
    match values {
        [(_, first), rest @ ..] if rest.iter().all(|(_, value)| value == first) => {
            first.to_string()
        }
        _ => values
            .iter()
            .map(|(core, value)| format!("{core}: {value}"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn governor(facts: &Facts) -> Knob {
    const ADVISED: &str = "performance";
    let knob = Knob::new(
        "scaling_governor",
        "a core that slows down between bursts is slow when the next one comes",
        "grep MHz /proc/cpuinfo under load and without",
    );
    let mut values = Vec::new();
    let mut steps = Vec::new();
    for Core { number, governor, .. } in &facts.cores {
        let Ok(governor) = governor else { continue };
        values.push((*number, governor));
        if governor != ADVISED {
            let path = format!("/sys/devices/system/cpu/cpu{number}/cpufreq/scaling_governor");
            steps.push(Step::Write { path, from: governor.clone(), to: ADVISED.into() });
        }
    }
    if values.is_empty() {
        return knob.absent("the cores have no cpufreq: firmware or the host chooses");
    }
    knob.settle(by_core(&values), ADVISED, steps)
}

fn sleeps(facts: &Facts) -> Knob {
    let knob = Knob::new(
        "C-states",
        "the first datagram after a pause waits until the core has woken",
        "/sys/devices/system/cpu/cpu*/cpuidle/state*/time",
    );
    let advised = format!("none that takes more than {WAKE_US_MAX} us to wake");
    let mut values = Vec::new();
    let mut steps = Vec::new();
    for core in &facts.cores {
        let Ok(sleeps) = &core.sleeps else { continue };
        let used: Vec<&Sleep> = sleeps.iter().filter(|sleep| !sleep.disabled).collect();
        let names = used.iter().map(|sleep| format!("{} ({} us)", sleep.name, sleep.wake_us));
        values.push((core.number, names.collect::<Vec<_>>().join(" ")));
        for sleep in used.iter().filter(|sleep| sleep.wake_us > WAKE_US_MAX) {
            let path = format!("{}/disable", sleep.path);
            steps.push(Step::Write { path, from: "0".into(), to: "1".into() });
        }
    }
    if values.iter().all(|(_, names)| names.is_empty()) {
        return knob.absent("the cores have no states to choose from: the host chooses");
    }
    knob.settle(by_core(&values), advised, steps)
}

//----------- Memory ---------------------------------------------------------

fn huge_pages(facts: &Facts) -> Knob {
    let knob = Knob::new(
        "transparent_hugepage",
        "zones ask for huge pages (madvise): a random access walks fewer tables",
        "AnonHugePages of /proc/PID/smaps_rollup is as large as the zones",
    )
    .back(format!("echo madvise >{HUGE_PAGES} (most distributions have that)"));
    let advised = "madvise, or always";
    match &facts.huge_pages {
        Ok(word) if word == "never" => {
            let step =
                Step::Write { path: HUGE_PAGES.into(), from: word.clone(), to: "madvise".into() };
            knob.differs(word, advised, vec![step])
        }
        Ok(word) => knob.good(word, advised),
        Err(reason) => knob.unread(reason, advised),
    }
}

fn reserved(facts: &Facts) -> Knob {
    let knob = Knob::new(
        "hugepages-2048kB",
        "ring53 uses transparent ones: what is reserved and not used is lost to zones",
        "HugePages_Free less HugePages_Rsvd of /proc/meminfo",
    );
    let advised = "none that nobody uses";
    match &facts.reserved {
        Ok((all, 0)) => knob.good(format!("{all}, all used or promised"), advised),
        Ok((all, free)) => {
            let set = |count: u64| format!("echo {count} >{RESERVED}/nr_hugepages");
            let step = Step::ByHand {
                set: format!(
                    "{}, unless they wait for a program that does not run now: a database, a \
                     virtual machine",
                    set(all - free.min(all))
                ),
                undo: set(*all),
            };
            knob.differs(format!("{all}, {free} of them unused"), advised, vec![step])
        }
        Err(reason) => knob.unread(reason, advised),
    }
}

fn nodes(facts: &Facts, role: &Role) -> Knob {
    let knob = Knob::new(
        "NUMA nodes",
        "zones lie in the memory of one node: cores of another read them from afar",
        "numastat -p ring53",
    );
    if facts.nodes.len() < 2 {
        return knob.absent("there is one node of memory, or the kernel knows of none");
    }
    let used =
        facts.nodes.iter().filter(|node| node.cores.iter().any(|core| role.cores.contains(core)));
    let used: Vec<_> = used.collect();
    let value = used.iter().map(|node| format!("node {}", node.number)).collect::<Vec<_>>();
    let advised = "cores of one node";
    match used[..] {
        [first, _, ..] => {
            let near = join(&first.cores);
            let step = Step::ByHand {
                set: format!(
                    "cores = [{near}], and another ring53 with an address of its own on the other \
                     node"
                ),
                undo: format!("cores = [{}]", join(&role.cores)),
            };
            knob.differs(format!("cores of {}", value.join(", ")), advised, vec![step])
        }
        _ => knob.good(format!("cores of {}", value.join(", ")), advised),
    }
}

//----------- The rest of the system -----------------------------------------

fn irqbalance(facts: &Facts) -> Knob {
    let knob = Knob::new(
        "irqbalance",
        "it moves interrupts away from the cores they were put on, and off cores that are banned",
        "/proc/irq/*/smp_affinity_list is the same an hour later",
    );
    let advised = "not running, or with the interrupts of the interfaces banned (--banirq)";
    let found = match &facts.irqbalance {
        Ok(None) => return knob.good("not running", advised),
        Ok(Some(found)) => found,
        Err(reason) => return knob.unread(reason, advised),
    };
    let mut free = Vec::new();
    for interface in &facts.interfaces {
        let Ok(driver) = &interface.driver else { continue };
        match &interface.interrupts {
            _ if found.drivers.contains(driver) => {}
            Ok(interrupts) => free.extend(interrupts.iter().map(|it| it.number)),
            Err(reason) => return knob.unread(format!("running; {reason}"), advised),
        }
    }
    if facts.interfaces.iter().all(|interface| interface.driver.is_err()) {
        return knob.absent("running; no interface here has interrupts to move");
    }
    free.retain(|number| !found.interrupts.contains(number));
    if free.is_empty() {
        return knob.good("running, and leaves the interrupts of the interfaces alone", advised);
    }
    if found.script {
        return knob.unread("running; a script of its own decides (--policyscript)", advised);
    }
    let mut value = format!("running, and may move interrupts {}", join(&free));
    if !found.cores.is_empty() {
        value += &format!(", off cores {} too, which are banned", join(&found.cores));
    }
    let ban = free.iter().map(|number| format!("--banirq={number}")).collect::<Vec<_>>();
    let step = Step::ByHand {
        set: format!(
            "IRQBALANCE_ARGS=\"{}\" in its settings, with the numbers of each start of the machine, \
             and systemctl restart irqbalance; or systemctl stop irqbalance, which is for every \
             device of the machine",
            ban.join(" ")
        ),
        undo: "take that out again and restart it; or systemctl start irqbalance".into(),
    };
    knob.differs(value, advised, vec![step])
}

fn conntrack(facts: &Facts, role: &Role) -> Knob {
    let ports = role.ports().iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let knob = Knob::new(
        "conntrack",
        "an entry for each client's port: a lock and an allocation a query, and a table that an \
         attack fills, after which queries are dropped",
        format!("grep 'dport={} ' /proc/net/nf_conntrack while queries arrive", role.ports()[0]),
    );
    let advised = format!("no client of port {ports} tracked (notrack, in raw)");
    let count = match &facts.conntrack.count {
        Ok(Some(count)) => count,
        Ok(None) => return knob.good("not loaded", advised),
        Err(reason) => return knob.unread(format!("loaded or not: {reason}"), advised),
    };
    match &facts.conntrack.of_clients {
        Ok(0) => {
            let reason = format!(
                "loaded; of {count} connections none is of a client now: ask while queries arrive"
            );
            knob.unread(reason, advised)
        }
        Ok(tracked) => {
            let value = format!("{count} connections, {tracked} of them of clients");
            knob.differs(value, advised, vec![notrack(&ports)])
        }
        Err(reason) => {
            knob.unread(format!("{count} connections are tracked; which: {reason}"), advised)
        }
    }
}

/// Rules that take what arrives on the ports, and its replies, past conntrack. A firewall that
/// accepts what is established or new drops what is untracked, and addresses are translated only
/// for what is tracked: so it takes a person who knows the rules there are.
fn notrack(ports: &str) -> Step {
    let chain = |hook: &str, side: &str| {
        format!(
            "add chain inet ring53_notrack {hook} {{ type filter hook {hook} priority raw; }}; \
             add rule inet ring53_notrack {hook} udp {side} {{ {ports} }} notrack; \
             add rule inet ring53_notrack {hook} tcp {side} {{ {ports} }} notrack"
        )
    };
    let (input, output) = (chain("prerouting", "dport"), chain("output", "sport"));
    Step::ByHand {
        set: format!(
            "accept `ct state untracked` on port {ports} first; not with DNAT (containers whose ports \
             are published have it); then nft \
             'add table inet ring53_notrack; delete table inet ring53_notrack; \
             add table inet ring53_notrack; {input}; {output}'"
        ),
        undo: "nft 'add table inet ring53_notrack; delete table inet ring53_notrack'".into(),
    }
}

fn limit(name: &str, value: &Read<Option<u64>>, least: u64, why: &str, setting: &str) -> Knob {
    let knob =
        Knob::new(name, why, "/proc/PID/limits of the server; what is read here is this shell's");
    let advised = format!("at least {least} (the hard limit, which ring53 takes)");
    match value {
        Ok(None) => knob.good("unlimited", advised),
        Ok(Some(hard)) if *hard >= least => knob.good(hard.to_string(), advised),
        Ok(Some(hard)) => {
            let step = Step::ByHand {
                set: format!("{setting}={least} in the unit of the server"),
                undo: format!("{setting}={hard}"),
            };
            knob.differs(hard.to_string(), advised, vec![step])
        }
        Err(reason) => knob.unread(reason, advised),
    }
}

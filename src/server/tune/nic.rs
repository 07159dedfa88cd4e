//! Knobs of one network interface.

use std::net::SocketAddr;

use super::Role;
use super::facts::{Node, mask};
use super::interface::Interface;
use super::knob::{Knob, Step, quoted};
use super::source::Read;

/// Descriptors of a receive ring: ten milliseconds of 200,000 datagrams a second.
const RING_LEN: u32 = 2048;
/// Packets that may wait to be sent.
const SEND_QUEUE_LEN: u64 = 1000;
/// Microseconds that an interrupt may be held back.
const COALESCING_US: std::ops::RangeInclusive<u32> = 8..=100;
/// Octets of headers before a DNS message: IPv6 and UDP.
const HEADERS_LEN: u64 = 48;
/// What drivers do to take other queues or rings.
const CUTS: &str = "the link may be down for a moment";

/// What is advised for one interface of a machine with these nodes.
pub fn advise(interface: &Interface, role: &Role, nodes: &[Node]) -> Vec<Knob> {
    let nic = Nic { interface, role, name: quoted(&interface.name) };
    vec![
        nic.queues(),
        nic.hash("udp4", &interface.hash4, SocketAddr::is_ipv4),
        nic.hash("udp6", &interface.hash6, SocketAddr::is_ipv6),
        nic.rules(),
        nic.interrupts(),
        nic.rps(),
        nic.xps(),
        nic.ring(),
        nic.coalescing(),
        nic.number("napi_defer_hard_irqs", &interface.defer_interrupts, 0, DEFER),
        nic.number("gro_flush_timeout", &interface.flush_ns, 0, DEFER),
        nic.number("threaded", &interface.threaded, 0, THREADED),
        nic.send_queue(),
        nic.mtu(),
        nic.node(nodes),
    ]
}

const DEFER: &str = "it holds replies and queries back for up to the timeout, and the core polls \
                     instead: worth it only where interrupts are what a core is busy with";
const THREADED: &str = "a thread that receives competes with the thread that answers on its core, \
                        and no limit holds one back for the other";

struct Nic<'a> {
    interface: &'a Interface,
    role: &'a Role,
    /// As a word of a shell.
    name: String,
}

impl Nic<'_> {
    fn knob(&self, what: &str, why: &str, verify: impl Into<String>) -> Knob {
        Knob::new(format!("{} {what}", self.interface.name), why, verify)
    }

    fn cores(&self) -> usize {
        self.role.cores.len()
    }

    /// Whether no device is behind it: who has no interrupts receives on the core of the sender.
    fn is_virtual(&self) -> bool {
        self.interface.driver.is_err()
    }

    /// Receive queues there will be once the advice is taken.
    fn queues_wanted(&self) -> usize {
        match &self.interface.queues {
            Ok(queues) if !self.is_virtual() => {
                (self.cores() as u32).min(queues.max).max(1) as usize
            }
            _ => self.interface.queue_count(),
        }
    }

    /// Whether there are as many as that: if not, masks and interrupts are made anew with them.
    fn queues_stay(&self) -> bool {
        self.interface.queue_count() == self.queues_wanted()
    }

    /// Of `count` queues those whose masks are worth writing: the others will be gone.
    fn queues_to_set(&self, count: usize) -> usize {
        if self.queues_stay() { count } else { self.queues_wanted() }
    }

    /// The masks that are lost with the queues; the last first, as undoing turns them round.
    fn masks_kept(&self) -> Vec<Step> {
        let masks = self.interface.rps.iter().chain(&self.interface.xps);
        let read = masks.rev().filter_map(|(path, cores)| Some((path, cores.as_ref().ok()?)));
        read.map(|(path, cores)| Step::Keep { path: path.clone(), from: mask(cores) }).collect()
    }

    /// Commands that read a value of the interface, and set it to `$1`.
    fn run(&self, what: &str, read: String, set: String, from: String, to: String) -> Step {
        let name = format!("{} {what}", self.interface.name);
        Step::Run { name, read, set, from, to, warning: "" }
    }

    //--- Queues

    fn queues(&self) -> Knob {
        let name = &self.name;
        let why =
            "the core a datagram arrives on answers it: a queue for each core, none for others";
        let knob = self.knob("queues", why, format!("ethtool -l {name}; ethtool -S {name}"));
        if self.is_virtual() {
            return knob.absent("there is no device behind it: rps_cpus spreads");
        }
        let queues = match &self.interface.queues {
            Ok(queues) => queues,
            Err(reason) => {
                let count = self.interface.rps.len();
                return knob.absent(format!("{reason}; it has {count}, which its maker set"));
            }
        };
        let wanted = self.queues_wanted();
        let value = format!("{} of {}", queues.now, queues.max);
        let advised = match wanted == self.cores() {
            true => format!("{wanted}, one for each core"),
            false => format!("{wanted}: it has no more, rps_cpus spreads the rest"),
        };
        if self.queues_stay() {
            return knob.good(value, advised);
        }
        let line = if queues.word == "rx" { "RX" } else { "Combined" };
        let read = format!("ethtool -l {name} | {}", current(line));
        let set = format!("ethtool -L {name} {} $1", queues.word);
        let mut steps = self.masks_kept();
        let step = self.run("queues", read, set, queues.now.to_string(), wanted.to_string());
        steps.push(cuts(step));
        knob.differs(value, format!("{advised} ({CUTS})"), steps)
    }

    fn hash(&self, flow: &str, fields: &Read<String>, listens: fn(&SocketAddr) -> bool) -> Knob {
        let name = &self.name;
        let why = "resolvers with one address ask from many ports: hashed by addresses only, each is \
                   on one queue";
        let verify = format!("ethtool -S {name}: the queues' packets rise alike");
        let what = format!("rx-flow-hash {flow}");
        let knob = self.knob(&what, why, verify);
        if !self.role.listen.iter().any(listens) {
            return knob.absent("nothing listens on such an address");
        }
        if self.queues_wanted() < 2 {
            return knob.absent("there is one queue: nothing is spread");
        }
        let fields = match fields {
            Ok(fields) => fields,
            Err(reason) => return knob.unread(reason, "sdfn"),
        };
        // ethtool(8) has no word for no fields (`r` discards): a script could not undo it.
        if fields.is_empty() {
            let step = Step::ByHand {
                set: format!("ethtool -N {name} rx-flow-hash {flow} sdfn"),
                undo: "load the driver anew: ethtool has no word for no fields".into(),
            };
            return knob.differs("no fields", "sdfn", vec![step]);
        }
        let read = format!("ethtool -n {name} {what} | {HASH_LETTERS}");
        let set = format!("ethtool -N {name} {what} $1");
        let step = self.run(&what, read, set, fields.clone(), "sdfn".into());
        let differs = !["s", "d", "f", "n"].iter().all(|field| fields.contains(field));
        knob.settle(fields.clone(), "sdfn", Vec::from_iter(differs.then_some(step)))
    }

    fn rules(&self) -> Knob {
        let name = &self.name;
        let why = "a rule that steers port 53 to one queue leaves the other cores without work";
        let knob = self.knob("ntuple rules", why, format!("ethtool -n {name}"));
        match &self.interface.rules {
            Ok(0) => knob.good("0", "0"),
            Ok(count) => {
                let step = Step::ByHand {
                    set: format!("read ethtool -n {name}; ethtool -N {name} delete NUMBER"),
                    undo: format!("ethtool -N {name} flow-type ... as they were listed"),
                };
                knob.differs(count.to_string(), "0, unless they are meant", vec![step])
            }
            Err(reason) => knob.absent(reason),
        }
    }

    //--- Cores

    fn interrupts(&self) -> Knob {
        let why = "queue i interrupts core i, which answers: nothing moves between caches";
        let knob = self.knob("interrupts", why, "/proc/interrupts rises in one column a line");
        let interrupts = match &self.interface.interrupts {
            Ok(interrupts) => interrupts,
            Err(_) if self.is_virtual() => {
                return knob.absent("there is no device behind it, so it has no interrupts");
            }
            Err(reason) => return knob.unread(reason, "one core for each queue"),
        };
        if !self.queues_stay() {
            let advised = format!("queue by queue: {}", join(&self.role.cores));
            return knob
                .unread("they come anew with the queues: set those, then ask again", advised);
        }
        let mut value = Vec::new();
        let mut steps = Vec::new();
        for (index, interrupt) in interrupts.iter().enumerate() {
            let core = self.role.cores[index % self.cores()];
            let cores = match &interrupt.cores {
                Ok(cores) => cores,
                Err(reason) => return knob.unread(reason, "one core for each queue"),
            };
            let from = join(cores);
            value.push(format!("{} on {from}", interrupt.name));
            if *cores != [core] {
                let (action, number) = (interrupt.name.clone(), interrupt.number);
                steps.push(Step::Interrupt { action, number, from, to: core.to_string() });
            }
        }
        knob.settle(value.join(", "), format!("queue by queue: {}", join(&self.role.cores)), steps)
    }

    fn rps(&self) -> Knob {
        let spread = self.queues_wanted() < self.cores() || self.is_virtual();
        let (wanted, why) = match spread {
            true => (self.role.cores.as_slice(), "fewer queues than cores: the kernel spreads"),
            false => (&[][..], "the device spreads already: another move between cores costs time"),
        };
        let verify =
            "the tenth column of /proc/net/softnet_stat: RPS; the first: packets a core took";
        let knob = self.knob("rps_cpus", why, verify);
        if self.is_virtual() && self.interface.stacked {
            return knob.absent("the devices below it spread");
        }
        let mut queues = self.interface.rps.clone();
        // Those that come with the advice start with nothing set.
        let coming = if self.queues_stay() { 0 } else { self.queues_wanted() };
        for index in queues.len()..coming {
            let name = &self.interface.name;
            let path = format!("/sys/class/net/{name}/queues/rx-{index}/rps_cpus");
            queues.push((path, Ok(Vec::new())));
        }
        self.masks(knob, &queues, |_| wanted.to_vec())
    }

    fn xps(&self) -> Knob {
        let queues = &self.interface.xps;
        let why = "a core sends on a queue of its own: no lock is shared";
        let knob = self.knob("xps_cpus", why, format!("ethtool -S {}", self.name));
        if queues.len() < 2 {
            return knob.absent("there is one queue to send on");
        }
        let cores = &self.role.cores;
        self.masks(knob, queues, |queue| {
            let all = self.queues_to_set(queues.len()).max(1);
            let own = cores.iter().enumerate().filter(|(index, _)| index % all == queue);
            own.map(|(_, &core)| core).collect()
        })
    }

    /// Compares the masks of all queues with those that are wanted.
    fn masks(
        &self,
        knob: Knob,
        queues: &[(String, Read<Vec<usize>>)],
        wanted: impl Fn(usize) -> Vec<usize>,
    ) -> Knob {
        let mut values = Vec::new();
        let mut advised = Vec::new();
        let mut steps = Vec::new();
        let count = queues.len().min(self.queues_to_set(queues.len()));
        for (index, (path, cores)) in queues.iter().enumerate().take(count) {
            let mut wanted = wanted(index);
            wanted.sort_unstable();
            advised.push(mask(&wanted));
            let cores = match cores {
                Ok(cores) => cores,
                Err(reason) => return knob.unread(reason, mask(&wanted)),
            };
            values.push(mask(cores));
            if *cores != wanted {
                let (from, to) = (mask(cores), mask(&wanted));
                steps.push(Step::Write { path: path.clone(), from, to });
            }
        }
        if queues.is_empty() {
            let path = format!("/sys/class/net/{}/queues", self.interface.name);
            return knob.unread(format!("{path} is not there, or empty"), mask(&wanted(0)));
        }
        advised.dedup();
        values.dedup();
        knob.settle(values.join(" "), advised.join(" "), steps)
    }

    //--- Buffers and time

    fn ring(&self) -> Knob {
        let name = &self.name;
        let why = "what arrives while the core is busy waits here first";
        let verify = format!("rx_missed_errors and the like of ethtool -S {name} stay as they are");
        let knob = self.knob("rx ring", why, verify);
        let ring = match &self.interface.ring {
            Ok(ring) => ring,
            Err(reason) => return knob.absent(reason),
        };
        let least = RING_LEN.min(ring.max);
        let value = format!("{} of {}", ring.now, ring.max);
        if ring.now >= least {
            return knob.good(value, format!("at least {least}"));
        }
        let read = format!("ethtool -g {name} | {}", current("RX"));
        let set = format!("ethtool -G {name} rx $1");
        let step = self.run("rx ring", read, set, ring.now.to_string(), least.to_string());
        knob.differs(value, format!("at least {least} ({CUTS})"), vec![cuts(step)])
    }

    fn coalescing(&self) -> Knob {
        let name = &self.name;
        let why = "an interrupt for each datagram is most of a core's work at a hundred thousand a \
                   second; what is held back longer is seen in the latency";
        let knob = self.knob("rx-usecs", why, "interrupts a second: vmstat 1, column in");
        let advised = "adaptive, or 8 to 100";
        let coalescing = match &self.interface.coalescing {
            Ok(coalescing) => coalescing,
            Err(reason) => return knob.absent(reason),
        };
        if coalescing.adaptive {
            return knob.good(format!("adaptive, {} now", coalescing.usecs), advised);
        }
        let virtio = self.interface.driver.as_ref().is_ok_and(|driver| driver == "virtio_net");
        if virtio && coalescing.usecs == 0 {
            return knob.absent("the host moderates: virtio has nothing to set but 0 without it");
        }
        let read = format!("ethtool -c {name} | sed -n 's/^rx-usecs:[[:space:]]*//p'");
        let set = format!("ethtool -C {name} rx-usecs $1");
        let step = self.run("rx-usecs", read, set, coalescing.usecs.to_string(), "50".into());
        let differs = !COALESCING_US.contains(&coalescing.usecs);
        let value = coalescing.usecs.to_string();
        knob.settle(value, advised, Vec::from_iter(differs.then_some(step)))
    }

    /// A file that should have a certain number.
    fn number(&self, file: &str, value: &Read<u64>, wanted: u64, why: &str) -> Knob {
        let path = format!("/sys/class/net/{}/{file}", self.interface.name);
        let knob = self.knob(file, why, "core time per answer, and latency");
        match value {
            Ok(value) => {
                let (from, to) = (value.to_string(), wanted.to_string());
                let step = Step::Write { path, from, to };
                let steps = Vec::from_iter((*value != wanted).then_some(step));
                knob.settle(value.to_string(), wanted.to_string(), steps)
            }
            Err(reason) => knob.unread(reason, wanted.to_string()),
        }
    }

    fn send_queue(&self) -> Knob {
        let name = &self.name;
        let why = "replies wait here while the device is behind; without room they are dropped";
        let knob = self.knob("txqueuelen", why, format!("tc -s qdisc show dev {name}: dropped"));
        match self.interface.send_queue_len {
            Ok(len) => {
                let read = format!("cat /sys/class/net/{name}/tx_queue_len");
                let set = format!("ip link set dev {name} txqueuelen $1");
                let wanted = SEND_QUEUE_LEN.to_string();
                let step = self.run("txqueuelen", read, set, len.to_string(), wanted);
                let steps = Vec::from_iter((len < SEND_QUEUE_LEN).then_some(step));
                knob.settle(len.to_string(), format!("at least {SEND_QUEUE_LEN}"), steps)
            }
            Err(ref reason) => knob.unread(reason, format!("at least {SEND_QUEUE_LEN}")),
        }
    }

    fn mtu(&self) -> Knob {
        let least = self.role.answer_size_max as u64 + HEADERS_LEN;
        let why =
            "the largest answer (answer_size_max) must leave whole: ring53 sends no fragments";
        let verify =
            format!("dig +bufsize=4096 +ignore for a large answer, from outside of {least}");
        let knob = self.knob("mtu", why, verify);
        let name = &self.name;
        match self.interface.mtu {
            Ok(mtu) if mtu >= least => knob.good(mtu.to_string(), format!("at least {least}")),
            Ok(mtu) => {
                let room = mtu.saturating_sub(HEADERS_LEN).max(512);
                let step = Step::ByHand {
                    set: format!(
                        "ip link set dev {name} mtu {least}, if the network carries it; else \
                         answer_size_max = {room} in the configuration"
                    ),
                    undo: format!("ip link set dev {name} mtu {mtu}"),
                };
                knob.differs(mtu.to_string(), format!("at least {least}"), vec![step])
            }
            Err(ref reason) => knob.unread(reason, format!("at least {least}")),
        }
    }

    fn node(&self, nodes: &[Node]) -> Knob {
        let why = "a device writes into the memory of its node: cores of another read it from afar";
        let knob = self.knob("numa_node", why, "numastat -p ring53");
        if nodes.len() < 2 {
            return knob.absent("there is one node of memory");
        }
        let Ok(number) = self.interface.node else {
            return knob.absent("it belongs to no node");
        };
        let near = nodes.iter().find(|node| node.number == number);
        let near = near.map_or(&[][..], |node| &node.cores);
        let far: Vec<usize> =
            self.role.cores.iter().copied().filter(|core| !near.contains(core)).collect();
        let advised = format!("cores of node {number}: {}", join(near));
        if far.is_empty() {
            return knob.good(format!("{number}, as all cores"), advised);
        }
        let step = Step::ByHand {
            set: format!("cores = [{}] in the configuration, or fewer of them", join(near)),
            undo: format!("cores = [{}]", join(&self.role.cores)),
        };
        knob.differs(format!("{number}, but not cores {}", join(&far)), advised, vec![step])
    }
}

/// What finds a line in what `ethtool -l` and `-g` say of now, which comes after the most.
fn current(line: &str) -> String {
    format!("sed -n '/^Current/,$s/^{line}:[[:space:]]*//p'")
}

/// The same step with a warning that it cuts the link.
fn cuts(mut step: Step) -> Step {
    if let Step::Run { warning, .. } = &mut step {
        *warning = CUTS;
    }
    step
}

/// Makes letters of the lines in which ethtool(8) prints the fields of a hash.
const HASH_LETTERS: &str = "sed -n 's/^L2DA.*/m/p; s/^VLAN.*/v/p; s/^L3 proto.*/t/p; \
                            s/^IP SA.*/s/p; s/^IP DA.*/d/p; s/^L4 bytes 0.*/f/p; \
                            s/^L4 bytes 2.*/n/p' | tr -d '\\n'";

/// Cores as a list such as `0,1`.
pub fn join(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

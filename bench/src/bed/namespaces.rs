//! Two network namespaces and a veth between them: the server on one core, the generator on
//! another.
//!
//! ```text
//!   r53-s<tag>, core S                                     r53-c<tag>, core C
//!   s<tag> 02:53:..:01   10.53.0.1/16, 10.53.0.11, ..      c<tag> 02:53:..:02   10.53.0.2/16
//!     RPS to core S        a queue that holds back           polled by a thread of core C, 50 us
//! ```
//!
//! Neighbours are fixed, so nobody asks who has an address; addresses of [`NOBODY`] are on the link
//! and nobody has them.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The server's first address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 1);
/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 2);
/// A subnet of the link where nobody is. The kernel keeps its table of neighbours for all
/// namespaces together and begins to throw out entries at 512: this stays below.
pub const NOBODY: &str = "10.53.1.0/24";
/// Ports that sockets beside kxdpgun ask from: its program takes every reply to one from 2000 on.
pub const PORTS_BESIDE: (u16, u16) = (1024, 1999);

const SERVER_MAC: &str = "02:53:00:00:00:01";
const CLIENT_MAC: &str = "02:53:00:00:00:02";
/// How long processes of a namespace have to end before they are killed.
const PATIENCE: Duration = Duration::from_secs(5);

//----------- Bed ------------------------------------------------------------

/// Two namespaces and what joins them; taken down when dropped, and when this process is
/// interrupted or terminated.
#[derive(Debug)]
pub struct Bed {
    tag: String,
    server_core: usize,
    client_core: usize,
}

impl Bed {
    /// Makes a bed; needs root, `ip`, `tc`, `ethtool`, `taskset` and `chrt`.
    ///
    /// What earlier runs have left because they were killed is taken down first.
    pub fn new(server_core: usize, client_core: usize) -> io::Result<Bed> {
        static SEQUENCE: AtomicU8 = AtomicU8::new(0);
        sweep();
        let letter = char::from(b'a' + SEQUENCE.fetch_add(1, Ordering::Relaxed) % 26);
        let bed = Bed { tag: format!("{:x}{letter}", id()), server_core, client_core };
        watch_signals();
        standing().insert(bed.tag.clone());
        bed.make()?;
        Ok(bed)
    }

    /// Makes a bed that outlives this process: it ends with the process `owner`, see [`sweep`], or
    /// by [`take_down`].
    pub fn for_process(owner: u32, server_core: usize, client_core: usize) -> io::Result<Bed> {
        sweep();
        let bed = Bed::of_process(owner, server_core, client_core);
        bed.make().inspect_err(|_| take_down(&bed.tag))?;
        Ok(bed)
    }

    /// The bed that [`Bed::for_process`] has made.
    pub fn of_process(owner: u32, server_core: usize, client_core: usize) -> Bed {
        Bed { tag: format!("{owner:x}z"), server_core, client_core }
    }

    fn make(&self) -> io::Result<()> {
        let (server, client) = (self.server_namespace(), self.client_namespace());
        let (near, far) = (self.server_interface(), self.client_interface());
        call("ip", ["netns", "add", &server])?;
        call("ip", ["netns", "add", &client])?;
        let veth = format!(
            "link add {near} netns {server} address {SERVER_MAC} type veth \
             peer name {far} netns {client} address {CLIENT_MAC}"
        );
        call("ip", veth.split(' '))?;
        for (namespace, interface, address) in [(&server, &near, SERVER), (&client, &far, CLIENT)] {
            ip(namespace, &format!("addr add {address}/16 dev {interface}"))?;
            ip(namespace, "link set lo up")?;
            ip(namespace, &format!("link set {interface} up"))?;
        }
        ip(&server, &format!("neigh add {CLIENT} lladdr {CLIENT_MAC} dev {near} nud permanent"))?;
        ip(&client, &format!("neigh add {SERVER} lladdr {SERVER_MAC} dev {far} nud permanent"))?;
        // Receive work belongs on the receiver's core: a veth would do it on the sender's.
        let mask = format!("{:x}", 1u64 << (self.server_core % 64));
        sysfs(&server, &near, "queues/rx-0/rps_cpus", &mask)?;
        // With a queue the veth holds back what its ring of 256 has no room for; without, it
        // drops it.
        call(
            "tc",
            ["-n", &server, "qdisc", "add", "dev", &near, "root", "pfifo", "limit", "10000"],
        )?;
        // The generator's AF_XDP socket takes frames before RPS, and RPS from a core to itself
        // costs its sockets a queue more: the polling gets a thread. And what the generator sends
        // as one (UDP_SEGMENT) is cut on its own core, as for a NIC: the veth would pass it on
        // whole, for the server's core to cut.
        let features = ["ethtool", "-K", &far, "gro", "on", "tx-udp-segmentation", "off"];
        call("ip", ["netns", "exec", &client].into_iter().chain(features))?;
        sysfs(&client, &far, "threaded", "1")?;
        // As a real NIC would be, it is polled every 50 us, so that no reply costs the server's
        // core an interrupt of the generator's.
        sysfs(&client, &far, "napi_defer_hard_irqs", "100")?;
        sysfs(&client, &far, "gro_flush_timeout", "50000")?;
        self.pin_polling()
    }

    /// What its names have in common.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A directory that goes with the bed; made when it is first asked for.
    pub fn directory(&self) -> io::Result<PathBuf> {
        let directory = directory(&self.tag);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// The core of the server.
    pub fn server_core(&self) -> usize {
        self.server_core
    }

    /// The core of the generator.
    pub fn client_core(&self) -> usize {
        self.client_core
    }

    /// The name of the server's namespace, for `ip netns`.
    pub fn server_namespace(&self) -> String {
        format!("r53-s{}", self.tag)
    }

    /// The name of the client's namespace.
    pub fn client_namespace(&self) -> String {
        format!("r53-c{}", self.tag)
    }

    /// The server's end of the veth.
    pub fn server_interface(&self) -> String {
        format!("s{}", self.tag)
    }

    /// The client's end of the veth.
    pub fn client_interface(&self) -> String {
        format!("c{}", self.tag)
    }

    /// Gives the server one address more, within 10.53.0.0/16 and not of [`NOBODY`].
    pub fn add_address(&self, address: Ipv4Addr) -> io::Result<()> {
        let (near, far) = (self.server_interface(), self.client_interface());
        ip(&self.server_namespace(), &format!("addr add {address}/16 dev {near}"))?;
        let neighbour = format!("neigh add {address} lladdr {SERVER_MAC} dev {far} nud permanent");
        ip(&self.client_namespace(), &neighbour)
    }

    /// Gives the client one address more, of the same network, unless it has it.
    pub fn add_client_address(&self, address: Ipv4Addr) -> io::Result<()> {
        let (near, far) = (self.server_interface(), self.client_interface());
        ip(&self.client_namespace(), &format!("addr replace {address}/16 dev {far}"))?;
        let neighbour =
            format!("neigh replace {address} lladdr {CLIENT_MAC} dev {near} nud permanent");
        ip(&self.server_namespace(), &neighbour)
    }

    /// `command`, in the server's namespace.
    pub fn in_server(&self, command: &Command) -> Command {
        within(&self.server_namespace(), command)
    }

    /// `command`, in the client's namespace.
    pub fn in_client(&self, command: &Command) -> Command {
        within(&self.client_namespace(), command)
    }

    /// Moves the calling thread, and the threads it starts from now on, into the client's
    /// namespace.
    pub fn enter_client(&self) -> io::Result<()> {
        enter(&self.client_namespace())
    }

    /// Does `work` in a thread of the client's namespace.
    pub fn with_client<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let inside = || {
            self.enter_client()?;
            work()
        };
        let ended = |_| io::Error::other("a thread of the client's namespace has ended early");
        thread::scope(|scope| scope.spawn(inside).join().map_err(ended))?
    }

    /// Moves the calling thread, and the threads it starts from now on, into the server's
    /// namespace.
    pub fn enter_server(&self) -> io::Result<()> {
        enter(&self.server_namespace())
    }

    /// Sockets of the client that name no port get one of [`PORTS_BESIDE`].
    pub fn keep_ports_beside(&self) -> io::Result<()> {
        let (first, last) = PORTS_BESIDE;
        let mut command = Command::new("sysctl");
        command.arg("-qw").arg(format!("net.ipv4.ip_local_port_range={first} {last}"));
        // They are few: a port of a closed connection is free again after a second.
        command.arg("net.ipv4.tcp_tw_reuse=1");
        finish(self.in_client(&command))
    }

    /// Pins the threads that poll the veth to their cores, before everything else on them. The
    /// kernel makes them anew whenever a generator attaches: call it before each load.
    pub fn pin_polling(&self) -> io::Result<()> {
        for (interface, core) in [
            (self.client_interface(), self.client_core),
            (self.server_interface(), self.server_core),
        ] {
            for thread in polling(&interface)? {
                let mut set = CpuSet::new();
                set.set(core)?;
                // It may have ended since it was seen.
                let _ = sched_setaffinity(Pid::from_raw(thread as i32), &set);
                let _ = call("chrt", ["-f", "-p", "50", &thread.to_string()]);
            }
        }
        Ok(())
    }

    /// Whether the server's end polls in a thread with GRO, as a reflector in the driver needs it.
    pub fn poll_server(&self, on: bool) -> io::Result<()> {
        let (namespace, interface) = (self.server_namespace(), self.server_interface());
        let gro = |word| {
            call("ip", ["netns", "exec", &namespace, "ethtool", "-K", &interface, "gro", word])
        };
        if on {
            gro("on")?;
            return sysfs(&namespace, &interface, "threaded", "1");
        }
        // The kernel refuses this if nothing polls the interface any more: without GRO nothing
        // does.
        let _ = sysfs(&namespace, &interface, "threaded", "0");
        gro("off")?;
        for _ in 0..50 {
            if polling(&interface)?.is_empty() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other(format!("{interface} is still polled by a thread")))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // One of another process stays.
        if standing().remove(&self.tag) {
            take_down(&self.tag);
        }
    }
}

//----------- Taking down ----------------------------------------------------

/// The tags of the beds of this process.
fn standing() -> std::sync::MutexGuard<'static, BTreeSet<String>> {
    static STANDING: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether SIGINT or SIGTERM has come: the beds are going, and so is this process.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// From now on SIGINT and SIGTERM take all beds of this process down before they end it.
fn watch_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
        let watch = move || {
            let Some(signal) = signals.forever().next() else { return };
            INTERRUPTED.store(true, Ordering::Relaxed);
            for tag in std::mem::take(&mut *standing()) {
                take_down(&tag);
            }
            super::buffers::restore();
            std::process::exit(128 + signal);
        };
        // Without the thread the signals end the process as ever; the next bed sweeps.
        let _ = thread::Builder::new().name("signals".into()).spawn(watch);
    });
}

/// Ends all processes of the bed `tag`, removes it and its directory.
pub fn take_down(tag: &str) {
    for namespace in [format!("r53-s{tag}"), format!("r53-c{tag}")] {
        let begun = Instant::now();
        let mut signal = Signal::SIGTERM;
        loop {
            let found = processes(&namespace);
            if found.is_empty() || begun.elapsed() > PATIENCE * 2 {
                break;
            }
            for &process in &found {
                let _ = kill(Pid::from_raw(process), signal);
            }
            if begun.elapsed() > PATIENCE {
                signal = Signal::SIGKILL;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = call("ip", ["netns", "del", &namespace]);
    }
    let _ = fs::remove_dir_all(directory(tag));
}

/// Where the bed `tag` keeps files.
fn directory(tag: &str) -> PathBuf {
    env::temp_dir().join(format!("r53-{tag}"))
}

/// The processes of a namespace, without this one.
fn processes(namespace: &str) -> Vec<i32> {
    let Ok(output) = Command::new("ip").args(["netns", "pids", namespace]).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    numbers.filter(|&process: &i32| process != id() as i32).collect()
}

/// Takes down the beds whose process is gone.
pub fn sweep() {
    super::buffers::sweep();
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(tag) = name.to_str().and_then(|name| name.strip_prefix("r53-s")) else { continue };
        if owner(tag).is_some_and(|owner| !fs::exists(format!("/proc/{owner}")).unwrap_or(true)) {
            take_down(tag);
        }
    }
}

/// The process of a bed, from its tag: its number in hexadecimal and a letter.
fn owner(tag: &str) -> Option<u32> {
    let (number, _) = tag.split_at_checked(tag.len().checked_sub(1)?)?;
    u32::from_str_radix(number, 16).ok()
}

//----------- Calls ----------------------------------------------------------

fn enter(namespace: &str) -> io::Result<()> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// `command` in a network namespace. Its standard streams are to be set on the result.
fn within(namespace: &str, command: &Command) -> Command {
    let mut outer = Command::new("ip");
    outer.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        outer.current_dir(directory);
    }
    outer
}

fn ip(namespace: &str, words: &str) -> io::Result<()> {
    call("ip", ["-n", namespace].into_iter().chain(words.split(' ')))
}

fn sysfs(namespace: &str, interface: &str, file: &str, value: &str) -> io::Result<()> {
    // The namespace's own sysfs is seen only by what `ip netns exec` starts.
    let script = format!("echo {value} >/sys/class/net/{interface}/{file}");
    call("ip", ["netns", "exec", namespace, "sh", "-c", &script])
}

fn call<I, A>(program: &str, arguments: I) -> io::Result<()>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command)
}

/// Runs `command` to its end; its error says what it said.
fn finish(mut command: Command) -> io::Result<()> {
    let words = |command: &Command| {
        let arguments = command.get_args().map(OsStr::to_string_lossy);
        let all: Vec<_> =
            [command.get_program().to_string_lossy()].into_iter().chain(arguments).collect();
        all.join(" ")
    };
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        io::Error::other(format!(
            "{}: {error}: a bed needs iproute2, ethtool, taskset and chrt",
            command.get_program().display()
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}: is this root?", words(&command), said.trim())))
}

/// The kernel's threads that poll `interface`: `napi/<interface>-<number>`, cut to 15 letters.
fn polling(interface: &str) -> io::Result<Vec<u32>> {
    let prefix = format!("napi/{interface}-");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            found.push(process);
        }
    }
    Ok(found)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_whose_the_bed_is() {
        assert_eq!(owner("1f4a"), Some(0x1f4));
        assert_eq!(owner("3fffffz"), Some(0x003F_FFFF));
        assert_eq!(owner(""), None);
        assert_eq!(owner("z"), None);
        assert_eq!(owner("nonea"), None);
    }

    /// What names interfaces and threads has no more letters than the kernel keeps.
    #[test]
    fn names_fit() {
        let bed = Bed::of_process(1 << 22, 0, 1);
        assert!(bed.client_interface().len() < 16);
        assert!(format!("napi/{}-", bed.client_interface()).len() < 16);
        assert!(format!("/{}", bed.server_namespace()).len() < 255);
    }

    #[test]
    fn a_command_keeps_what_it_has() {
        let mut command = Command::new("nsd");
        command.args(["-d", "-c", "a file"]).env("LANG", "C").current_dir("/tmp");
        let outer = Bed::of_process(1, 0, 1).in_server(&command);
        let arguments: Vec<_> = outer.get_args().collect();
        assert_eq!(arguments, ["netns", "exec", "r53-s1z", "nsd", "-d", "-c", "a file"]);
        assert_eq!(outer.get_current_dir(), command.get_current_dir());
        assert_eq!(outer.get_envs().count(), 1);
    }

    #[test]
    fn a_call_that_fails_says_why() {
        let error = call("ip", ["netns", "frobnicate"]).unwrap_err().to_string();
        assert!(error.contains("ip netns frobnicate"), "{error}");
        let error = call("there-is-no-such-program", [""]).unwrap_err().to_string();
        assert!(error.contains("iproute2"), "{error}");
    }
}

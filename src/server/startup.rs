//! From a configuration to a server that answers, in the order that fails early and safely.
//!
//! ```text
//!   cores, path ── bind every port ── become the user ── load zones ── start threads ── ready
//! ```
//!
//! Ports come first, because they are what most often goes wrong and what needs the privilege;
//! zone files are read as the user the server runs as, so that a reload can read them too.

use std::ffi::CString;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{self, User};
use socket2::SockRef;
use tokio::sync::mpsc::UnboundedSender;

use crate::answer::{CoreState, Counters};
use crate::limits::DEFERRALS_MAX;
use crate::memory::epoch::{Published, Reader};
use crate::memory::small_pages;
use crate::net::socket::{BindError, Inherited, SocketOptions, bind_group, bind_stream};
use crate::net::{
    MmsgPath, PacketPath, PathCounters, Replier, UringPath, take_short_slices, uring_available,
};
use crate::snapshot::Snapshot;

use super::config::{Config, PathChoice};
use super::control::{self, Event, Reread, Running, Says};
use super::forwarding::cache_control::CacheControl;
use super::forwarding::inspection::Inspection;
use super::forwarding::misses::Misses;
use super::forwarding::renewal::Resolver;
use super::forwarding::{self, Kept};
use super::report::{Carried, Reported, say};
use super::stream::places::Places;
use super::stream::{self, Service, StreamCounters};
use super::worker::Deferrals;
use super::zones::loader::{self, Loader};
use super::zones::transfers::{self, Told, Transfers};
use super::zones::{ZoneSet, hash_key};
use super::{commands, cores, worker};

/// Small zones lie in the heap: where there are many, huge pages are worth their memory.
fn spare_heap(config: &Config) {
    const FEW_ZONES: usize = 256;
    let is_few = config.zones.len() <= FEW_ZONES;
    if is_few && config.zones.iter().all(|zone| zone.catalog.is_none()) {
        small_pages(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default());
    }
}

/// Serves until a signal ends it. `reread` reads the configuration again.
pub fn serve(mut config: Config, reread: &Arc<Reread>) -> Result<(), String> {
    config.owns_state = true;
    spare_heap(&config);
    let caught = control::catch()?;
    let core_list = cores::settle(&config.cores)?;
    raise_limits();
    let (groups, listeners) = bind_all(&config, &core_list)?;
    let addresses: Vec<SocketAddr> =
        listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    if let Some(user) = &config.user {
        become_user(user)?;
    }
    // As the user: kernel.io_uring_disabled=1 allows io_uring to root and forbids it to others.
    let path = choose_path(config.path)?;
    let mut zones = ZoneSet::new(hash_key()?);
    let snapshot = zones.load(&config, cores::allowed().len().max(core_list.len()));
    // Of the cores, of TCP, of the transfers, of who resolves.
    let readers = core_list.len() + config.stream.threads + 2;
    let mut published = Published::new(snapshot, readers);
    let started = Instant::now();
    let kept = Kept::new(&config, zones.key(), readers, started)?.map(Arc::new);
    let (queue, deferrals) = tokio::sync::mpsc::channel(DEFERRALS_MAX);
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let repliers = repliers(&groups)?;
    caught.end_in_order();
    let mut crew = Crew::new(caught.events.clone(), started, kept.clone());
    if let Some(plan) = forwarding::Plan::new(&config, path) {
        crew.resolving(plan, published.reader(), &core_list, self::repliers(&groups)?)?;
    }
    for (number, (sockets, &core)) in groups.into_iter().zip(&core_list).enumerate() {
        let misses = crew.misses.clone();
        let deferrals = Deferrals { core: number, queue: queue.clone(), misses };
        crew.core(core, path, sockets, published.reader(), deferrals)?;
    }
    crew.streams(&config, listeners, &mut published, &tell)?;
    let snapshot = published.reader();
    let (state, hash_key) = (config.state.clone(), zones.key());
    let cache = kept.clone().map(|kept| kept as Arc<dyn CacheControl>);
    let both = kept.clone().zip(crew.misses.clone());
    let inspection = both.clone().map(|(kept, misses)| Arc::new(Inspection { kept, misses }));
    let resolver = both.map(|(kept, misses)| Resolver { kept, misses, path });
    let commands = config.takes_commands().then_some(commands::Taken { cache, inspection });
    announce(&config, &addresses, &core_list, path, &zones);
    let loader = Arc::new(Mutex::new(Loader { config, zones, published, told: tell, resolver }));
    loader::lock(&loader).tell();
    let answers = Arc::new(Counters::default());
    let transfers = Transfers {
        snapshot,
        core: CoreState::new(Arc::clone(&answers)),
        deferrals,
        repliers,
        told,
        loader: Arc::clone(&loader),
        state,
        commands,
        hash_key,
        threads: cores::allowed().len(),
    };
    crew.transfers(transfers, answers)?;
    // Without a supervisor that wants to know, there is nobody to tell.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    let Crew { threads, reported, stop, .. } = crew;
    let ended = control::run(Running { loader, threads, reported, stop }, caught, reread);
    if let Some(kept) = kept {
        kept.save();
    }
    ended
}

/// What replies later from the sockets of each core.
fn repliers(groups: &[Vec<UdpSocket>]) -> Result<Vec<Replier>, String> {
    let repliers = groups.iter().map(|sockets| Replier::new(sockets)).collect::<io::Result<_>>();
    repliers.map_err(|error| format!("cannot share the sockets: {error}"))
}

fn announce(
    config: &Config,
    addresses: &[SocketAddr],
    core_list: &[usize],
    path: PathChoice,
    zones: &ZoneSet,
) {
    let (serving, all) = zones.serving();
    let listen: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let path = if path == PathChoice::Uring { "io_uring" } else { "recvmmsg" };
    say!(
        "serving {serving} of {all} zones on {} (UDP and TCP), cores {core_list:?}, {path}",
        listen.join(", "),
    );
    let from_files = config.zones.iter().any(|zone| zone.primaries.is_empty());
    if serving == 0 && from_files {
        say!("NO ZONE COULD BE LOADED: every answer is SERVFAIL until one is mended, then SIGHUP");
    }
    if let ([zone], [address, ..]) = (&config.zones[..], addresses)
        && !zone.has_file()
        && !zone.is_secondary()
        && zone.catalog.is_none()
    {
        let (ip, port) = (address.ip(), address.port());
        say!("this is a sample; try   dig @{ip} -p {port} www.example A");
        say!("then write a ring53.toml and run   ring53 serve --config ring53.toml");
    }
}

//----------- Limits and path ------------------------------------------------

/// Takes what the hard limits allow: rings lock memory, connections need descriptors.
fn raise_limits() {
    for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NOFILE] {
        if let Ok((_, hard)) = getrlimit(resource) {
            // Whether it was enough shows when it is used.
            let _ = setrlimit(resource, hard, hard);
        }
    }
}

fn choose_path(choice: PathChoice) -> Result<PathChoice, String> {
    if choice == PathChoice::Mmsg {
        return Ok(PathChoice::Mmsg);
    }
    let Err(error) = uring_available() else { return Ok(PathChoice::Uring) };
    let reason = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here (a container's seccomp profile, or kernel.io_uring_disabled)"
        }
        Some(libc::ENOMEM) => {
            "too little memory may be locked for io_uring (raise LimitMEMLOCK or ulimit -l)"
        }
        Some(libc::ENOSYS | libc::EINVAL) => "this kernel's io_uring is too old (6.1 is needed)",
        _ => "io_uring does not start",
    };
    if choice == PathChoice::Uring {
        return Err(format!("{reason}: {error}; use path = \"mmsg\" or \"auto\""));
    }
    say!("{reason}: {error}; using recvmmsg instead");
    Ok(PathChoice::Mmsg)
}

//----------- Sockets --------------------------------------------------------

/// For each core, its sockets; and the TCP listeners.
type Bound = (Vec<Vec<UdpSocket>>, Vec<TcpListener>);

fn bind_all(config: &Config, core_list: &[usize]) -> Result<Bound, String> {
    let options =
        SocketOptions { receive_buffer: config.receive_buffer, send_buffer: config.receive_buffer };
    let mut groups: Vec<Vec<UdpSocket>> = core_list.iter().map(|_| Vec::new()).collect();
    let mut listeners = Vec::new();
    let descriptors = sd_notify::listen_fds()
        .map_err(|error| format!("the sockets that were handed over cannot be used: {error}"))?;
    let mut inherited = Inherited::new(descriptors);
    for &address in &config.listen {
        let (group, listener) =
            bind_both(address, core_list, &options, &mut inherited).map_err(explain)?;
        if let Some(socket) = group.first() {
            note_small_buffer(socket, config.receive_buffer);
        }
        for (sockets, socket) in groups.iter_mut().zip(group) {
            sockets.push(socket);
        }
        listeners.push(listener);
    }
    if let Some((address, kind)) = inherited.left().next() {
        return Err(format!(
            "{address} ({kind}) was handed over, but is not listened on: add it to listen, or take \
             it out of the systemd socket"
        ));
    }
    Ok((groups, listeners))
}

/// Binds UDP and TCP of one address. Port 0 is replaced by one of the system's choice that is free
/// for both.
fn bind_both(
    address: SocketAddr,
    core_list: &[usize],
    options: &SocketOptions,
    inherited: &mut Inherited,
) -> Result<(Vec<UdpSocket>, TcpListener), BindError> {
    /// The choices that are tried.
    const TRIES: usize = 16;
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        let group = match inherited.group(address, core_list, options)? {
            Some(group) => group,
            None => bind_group(address, core_list, options)?,
        };
        let local = group.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(address);
        tries -= 1;
        if let Some(listener) = inherited.listener(local) {
            return Ok((group, listener));
        }
        match bind_stream(local) {
            Ok(listener) => return Ok((group, listener)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// Says that the system gave less than was asked for: bursts beyond it are lost.
fn note_small_buffer(socket: &UdpSocket, wanted: usize) {
    // The kernel doubles what it is asked for, to pay for its own bookkeeping.
    let given = SockRef::from(socket).recv_buffer_size().unwrap_or(usize::MAX) / 2;
    if given < wanted {
        let address = socket.local_addr().map_or_else(|_| "?".into(), |local| local.to_string());
        say!(
            "{address}: the receive buffer is {} KiB, not {} KiB: sysctl net.core.rmem_max={wanted} \
             or CAP_NET_ADMIN allows more",
            given >> 10,
            wanted >> 10,
        );
    }
}

/// A bind error for people: what is wrong and the ways out.
fn explain(failed: BindError) -> String {
    let remedy = match failed.error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => format!(
            "port {} needs a privilege. Any of these gives it:\n  \
             setcap cap_net_bind_service=+ep on the ring53 binary;\n  \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd unit;\n  \
             a systemd socket with ListenDatagram= and ListenStream= of the address;\n  \
             sysctl net.ipv4.ip_unprivileged_port_start={};\n  \
             start as root with --user to become another user afterwards",
            failed.address.port(),
            failed.address.port(),
        ),
        Some(libc::EADDRINUSE) => match &failed.holder {
            Some(holder) if holder.starts_with("systemd-resolve") => format!(
                "{holder} holds the port. Write DNSStubListener=no under [Resolve] in \
                 /etc/systemd/resolved.conf and restart systemd-resolved, or listen on one address \
                 instead of all"
            ),
            Some(holder) if holder.starts_with("ring53") => format!(
                "another ring53, {holder}, holds the port: the two would share its traffic. Stop \
                 it, or send it SIGHUP to reload"
            ),
            Some(holder) => format!("{holder} holds the port: stop it or choose another port"),
            None => "another process holds the port (run as root to see which)".into(),
        },
        Some(libc::EADDRNOTAVAIL) => {
            let own = own_addresses();
            format!("this machine does not have the address; it has {}", own.join(", "))
        }
        Some(libc::EAFNOSUPPORT) => "this kernel has no IPv6: leave the address out".into(),
        _ => "see the system's message above".into(),
    };
    format!("{failed}: {remedy}")
}

fn own_addresses() -> Vec<String> {
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let ip = |address: nix::ifaddrs::InterfaceAddress| {
        let storage = address.address?;
        let v4 = storage.as_sockaddr_in().map(|address| address.ip().to_string());
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| address.ip().to_string()))
    };
    addresses.filter_map(ip).collect()
}

//----------- Privileges -----------------------------------------------------

fn become_user(name: &str) -> Result<(), String> {
    let user = User::from_name(name)
        .map_err(|error| format!("user {name}: {error}"))?
        .ok_or_else(|| format!("user {name} does not exist: create it or choose another"))?;
    let failed = |error: nix::Error| {
        format!(
            "cannot become user {name}: {error} (only root can; start without --user otherwise)"
        )
    };
    if unistd::geteuid() == user.uid {
        return Ok(());
    }
    let login = CString::new(name).map_err(|_| format!("user {name:?}: no name of a user"))?;
    // All of the user's groups: zone files are often readable by one of them only.
    unistd::initgroups(&login, user.gid).map_err(failed)?;
    unistd::setgid(user.gid).map_err(failed)?;
    unistd::setuid(user.uid).map_err(failed)
}

//----------- Threads --------------------------------------------------------

/// A thread of the server.
pub type Thread = thread::JoinHandle<io::Result<()>>;

/// The threads that were started so far.
struct Crew {
    threads: Vec<Thread>,
    /// Their counters.
    reported: Vec<Reported>,
    /// Set to end them.
    stop: Arc<AtomicBool>,
    events: Sender<Event>,
    /// When time began for all of them.
    started: Instant,
    kept: Option<Arc<Kept>>,
    /// Where questions go that somebody else has to answer.
    misses: Option<Arc<Misses>>,
}

impl Crew {
    fn new(events: Sender<Event>, started: Instant, kept: Option<Arc<Kept>>) -> Crew {
        let (threads, reported) = (Vec::new(), Vec::new());
        Crew { threads, reported, stop: Arc::default(), events, started, kept, misses: None }
    }

    /// A thread's state, counting into `answers`.
    fn state(&self, answers: Arc<Counters>) -> CoreState {
        let mut state = CoreState::new(answers);
        state.cache = self.kept.as_ref().and_then(|kept| kept.cache.reader());
        state
    }

    /// A state of who answers clients at once.
    fn answering(&self, answers: &Arc<Counters>) -> CoreState {
        self.kept.iter().for_each(|kept| kept.count_too(answers));
        let mut state = self.state(Arc::clone(answers));
        state.asks_anew = true;
        state
    }

    /// Starts the thread that resolves and waits until its ports are open.
    fn resolving(
        &mut self,
        plan: forwarding::Plan,
        snapshot: Reader<Snapshot>,
        cores: &[usize],
        repliers: Vec<Replier>,
    ) -> Result<(), String> {
        let Some(kept) = self.kept.clone() else { return Ok(()) };
        let answers = Arc::new(Counters::default());
        let mut core = self.state(Arc::clone(&answers));
        core.cache = core.cache.map(crate::cache::Reader::unnoticed);
        let made = forwarding::Made {
            snapshot,
            core,
            cores: cores.to_vec(),
            repliers,
            started: self.started,
        };
        let carried = Carried::Resolving(Arc::clone(&kept.counters));
        let (ready, begun) = mpsc::channel();
        self.spawn("ring53-resolve".into(), move |stop| {
            forwarding::run(&plan, made, &kept, &ready, stop)
        })?;
        if let Ok(misses) = begun.recv() {
            self.misses = Some(misses);
            self.reported.push(Reported { name: "resolve".into(), answers, carried });
            return Ok(());
        }
        let ended = self.threads.pop().and_then(|thread| thread.join().ok());
        let error = ended.and_then(Result::err);
        let error = error.map_or_else(|| "it ended early".into(), |error| error.to_string());
        Err(format!("forwarding does not start: {error}"))
    }

    /// Starts a thread; `job` ends when what it is given is set.
    fn spawn(
        &mut self,
        name: String,
        job: impl FnOnce(&AtomicBool) -> io::Result<()> + Send + 'static,
    ) -> Result<(), String> {
        let says = Says(self.events.clone(), Some(Event::Ended));
        let stop = Arc::clone(&self.stop);
        let body = move || {
            let _says = says;
            job(&stop)
        };
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(body)
            .map_err(|error| format!("cannot start the thread {name}: {error}"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Starts the pinned thread of `core` and waits until its path is up.
    fn core(
        &mut self,
        core: usize,
        path: PathChoice,
        sockets: Vec<UdpSocket>,
        snapshot: Reader<Snapshot>,
        deferrals: Deferrals,
    ) -> Result<(), String> {
        let answers = Arc::new(Counters::default());
        let state = self.answering(&answers);
        let started_at = self.started;
        let (ready, started) = mpsc::channel();
        self.spawn(format!("ring53-core{core}"), move |stop| {
            // A ring belongs to the thread that makes it, and its memory to that thread's core.
            cores::pin(core)?;
            take_short_slices();
            let announce = |counters: &Arc<PathCounters>| {
                let _ = ready.send(Arc::clone(counters));
            };
            if path == PathChoice::Uring {
                let path = UringPath::new(sockets)?;
                announce(path.counters());
                worker::run(path, snapshot, state, &deferrals, started_at, stop)
            } else {
                let path = MmsgPath::new(sockets)?;
                announce(path.counters());
                worker::run(path, snapshot, state, &deferrals, started_at, stop)
            }
        })?;
        if let Ok(path) = started.recv() {
            let carried = Carried::Path(path);
            self.reported.push(Reported { name: format!("core {core}"), answers, carried });
            return Ok(());
        }
        let ended = self.threads.pop().and_then(|thread| thread.join().ok());
        let error = ended.and_then(Result::err);
        let error = error.map_or_else(|| "it ended early".into(), |error| error.to_string());
        Err(format!("core {core}: {error}"))
    }

    /// Starts the threads that share all TCP connections.
    fn streams(
        &mut self,
        config: &Config,
        listeners: Vec<TcpListener>,
        published: &mut Published<Snapshot>,
        told: &UnboundedSender<Told>,
    ) -> Result<(), String> {
        let places = Arc::new(Places::new(config.stream));
        let started = self.started;
        for number in 0..config.stream.threads {
            let answers = Arc::new(Counters::default());
            let counters = Arc::new(StreamCounters::default());
            let carried = Carried::Stream(Arc::clone(&counters));
            let name = if number == 0 { "tcp".to_string() } else { format!("tcp{number}") };
            let listeners: io::Result<_> = listeners.iter().map(TcpListener::try_clone).collect();
            let service = Service {
                listeners: listeners.map_err(|error| format!("cannot share listeners: {error}"))?,
                snapshot: published.reader(),
                core: self.answering(&answers),
                misses: self.misses.clone(),
                places: Arc::clone(&places),
                started,
                counters,
                told: told.clone(),
            };
            let thread = format!("ring53-{name}");
            self.reported.push(Reported { name, answers, carried });
            self.spawn(thread, move |stop| stream::run(service, stop))?;
        }
        Ok(())
    }

    /// Starts the thread that moves zones.
    fn transfers(&mut self, transfers: Transfers, answers: Arc<Counters>) -> Result<(), String> {
        let (name, carried) = ("transfers".into(), Carried::Nothing);
        self.reported.push(Reported { name, answers, carried });
        self.spawn("ring53-transfers".into(), move |stop| transfers::run(transfers, stop))
    }
}

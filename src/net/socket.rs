//! Binding: one socket per core and address, in a group that nobody else may join unnoticed.
//!
//! ```text
//!   probe (no SO_REUSEPORT) ── fails if anybody holds the port ── closed again
//!   socket of core 0, core 1, ... (SO_REUSEPORT)  <── CBPF: the core a datagram arrived on
//! ```
//!
//! SO_REUSEPORT hides a second instance, which would silently take half of the traffic: the probe
//! is there to refuse instead. Two that start in the same millisecond both pass the probe; the
//! TCP listener, which has no SO_REUSEPORT, stops the second.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

//----------- BindError ------------------------------------------------------

/// Why an address could not be taken.
#[derive(Debug)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What was tried.
    pub step: &'static str,
    /// What the system said.
    pub error: io::Error,
    /// Who holds the port, as `name (pid 1)`, if that can be known.
    pub holder: Option<String>,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.address, self.step, self.error)
    }
}

impl std::error::Error for BindError {}

/// What sockets are given.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Octets of the receive buffer: bursts wait here.
    pub receive_buffer: usize,
    /// Octets of the send buffer.
    pub send_buffer: usize,
}

/// How long a port may be taken by nobody: the kernel closes the sockets of a ring some time after
/// the process that had them was killed.
const CLOSING: Duration = Duration::from_secs(2);

/// Tries again while the address is taken but nobody can be found who has it.
fn until_closed<T>(mut bind: impl FnMut() -> Result<T, BindError>) -> Result<T, BindError> {
    let end = Instant::now() + CLOSING;
    loop {
        match bind() {
            Err(failed)
                if failed.error.raw_os_error() == Some(libc::EADDRINUSE)
                    && failed.holder.is_none()
                    && Instant::now() < end =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

//----------- UDP ------------------------------------------------------------

/// Opens the sockets of `cores` for `address`, in the same order.
pub fn bind_group(
    address: SocketAddr,
    cores: &[usize],
    options: &SocketOptions,
) -> Result<Vec<UdpSocket>, BindError> {
    let failed = |step, error: io::Error| {
        let taken = error.raw_os_error() == Some(libc::EADDRINUSE);
        let holder = if taken { holder_of(address, "udp") } else { None };
        BindError { address, step, error, holder }
    };
    let open = |address: SocketAddr, shared: bool| -> Result<Socket, BindError> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
            .map_err(|error| failed("open a UDP socket", error))?;
        let prepare = || -> io::Result<()> {
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_port(shared)?;
            socket.set_nonblocking(true)
        };
        prepare().map_err(|error| failed("prepare a UDP socket", error))?;
        socket.bind(&address.into()).map_err(|error| failed("bind UDP", error))?;
        Ok(socket)
    };
    let probe = until_closed(|| open(address, false))?;
    // Port 0 asks the system for a port: the whole group must get the same one.
    let address = probe
        .local_addr()
        .ok()
        .and_then(|local| local.as_socket())
        .filter(|_| address.port() == 0)
        .unwrap_or(address);
    drop(probe);
    let mut group = Vec::with_capacity(cores.len());
    for _ in cores {
        let socket = open(address, true)?;
        prepare(&socket, address, options).map_err(|(step, error)| failed(step, error))?;
        group.push(socket);
    }
    if let [first, _, ..] = &group[..] {
        // Without steering the kernel spreads by a hash of the addresses: slower, still right.
        let _ = sys::steer_by_core(first.as_fd(), cores);
    }
    Ok(group.into_iter().map(Into::into).collect())
}

/// Gives a bound UDP socket what every one needs.
fn prepare(
    socket: &Socket,
    address: SocketAddr,
    options: &SocketOptions,
) -> Result<(), (&'static str, io::Error)> {
    let fd = socket.as_fd();
    if sys::force_receive_buffer(fd, options.receive_buffer).is_err() {
        // Without the privilege the system's limit counts.
        let _ = socket.set_recv_buffer_size(options.receive_buffer);
    }
    if sys::force_send_buffer(fd, options.send_buffer).is_err() {
        let _ = socket.set_send_buffer_size(options.send_buffer);
    }
    sys::send_no_fragments(fd, address.is_ipv6()).map_err(|error| ("turn fragments off", error))?;
    if address.ip().is_unspecified() {
        sys::receive_packet_info(fd, address.is_ipv6())
            .map_err(|error| ("ask for destination addresses", error))?;
    }
    socket.set_nonblocking(true).map_err(|error| ("prepare a UDP socket", error))
}

//----------- Inherited ------------------------------------------------------

/// Sockets that systemd, or another, has bound for this process (sd_listen_fds(3)): it then needs
/// no privilege for port 53.
#[derive(Default)]
pub struct Inherited {
    sockets: Vec<(SocketAddr, bool, Socket)>,
}

impl Inherited {
    /// Takes over `descriptors`, which nobody else in this process owns.
    pub fn new(descriptors: impl Iterator<Item = RawFd>) -> Inherited {
        let sockets = descriptors.filter_map(|descriptor| {
            let socket = Socket::from(sys::adopt(descriptor)?);
            let address = socket.local_addr().ok()?.as_socket()?;
            let is_stream = socket.r#type().ok()? == Type::STREAM;
            Some((address, is_stream, socket))
        });
        Inherited { sockets: sockets.collect() }
    }

    fn take(&mut self, address: SocketAddr, is_stream: bool) -> Vec<Socket> {
        let all = std::mem::take(&mut self.sockets);
        let is_it = |it: &(SocketAddr, bool, Socket)| it.0 == address && it.1 == is_stream;
        let (taken, rest) = all.into_iter().partition(is_it);
        self.sockets = rest;
        taken.into_iter().map(|(_, _, socket)| socket).collect()
    }

    /// The sockets of `cores` for `address`, if any were handed over. Fewer than cores are shared:
    /// with `ReusePort=yes` systemd hands over as many as it is told to.
    pub fn group(
        &mut self,
        address: SocketAddr,
        cores: &[usize],
        options: &SocketOptions,
    ) -> Result<Option<Vec<UdpSocket>>, BindError> {
        let taken = self.take(address, false);
        if taken.is_empty() {
            return Ok(None);
        }
        let failed = |step, error| BindError { address, step, error, holder: None };
        let mut group = Vec::with_capacity(cores.len());
        for socket in taken.iter().cycle().take(cores.len()) {
            prepare(socket, address, options).map_err(|(step, error)| failed(step, error))?;
            let own = socket.try_clone().map_err(|error| failed("share a UDP socket", error))?;
            group.push(own.into());
        }
        if taken.len() == cores.len() && cores.len() > 1 {
            let _ = sys::steer_by_core(taken[0].as_fd(), cores);
        }
        Ok(Some(group))
    }

    /// The TCP listener for `address`, if one was handed over.
    pub fn listener(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let socket = self.take(address, true).into_iter().next()?;
        // It listens already, unless who bound it did not.
        let _ = socket.listen(BACKLOG);
        socket.set_nonblocking(true).ok()?;
        Some(socket.into())
    }

    /// What was handed over and not taken.
    pub fn left(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let kind = |is_stream: bool| if is_stream { "TCP" } else { "UDP" };
        self.sockets.iter().map(move |(address, is_stream, _)| (*address, kind(*is_stream)))
    }
}

//----------- TCP ------------------------------------------------------------

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Opens the TCP listener for `address`.
pub fn bind_stream(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    until_closed(|| {
        open().map_err(|error| {
            let taken = error.raw_os_error() == Some(libc::EADDRINUSE);
            let holder = if taken { holder_of(address, "tcp") } else { None };
            BindError { address, step: "bind TCP", error, holder }
        })
    })
}

//----------- Who holds the port ---------------------------------------------

/// Finds the process that has a socket on the port of `address`.
fn holder_of(address: SocketAddr, protocol: &str) -> Option<String> {
    let mut inodes = Vec::new();
    for table in [protocol.to_string(), format!("{protocol}6")] {
        let Ok(table) = fs::read_to_string(format!("/proc/net/{table}")) else { continue };
        inodes.extend(
            table
                .lines()
                .skip(1)
                .filter_map(|line| inode_of(line, address.port()))
                .map(str::to_string),
        );
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = open.flatten().any(|fd| {
            let link = fs::read_link(fd.path()).unwrap_or_default();
            link.to_str().is_some_and(|link| links.iter().any(|known| known == link))
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The inode of a line of `/proc/net/udp` or `tcp` that listens on `port`.
fn inode_of(line: &str, port: u16) -> Option<&str> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let remote = fields.next()?;
    let inode = fields.nth(6)?;
    let listens = remote.ends_with(":0000");
    let local_port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    (listens && local_port == port && inode != "0").then_some(inode)
}

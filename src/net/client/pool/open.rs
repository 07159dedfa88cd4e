//! Opens ports: drawn, bound, connected, empty.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::resource::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Draw, PoolOptions};

/// The first port that may be used: those below are the system's.
const PORT_FIRST: u16 = 1024;
/// Ports that may be used.
pub(super) const RANGE_COUNT: usize = u16::MAX as usize + 1 - PORT_FIRST as usize;
/// Ports tried in the part of the range that a port is to lie in,
const STRATUM_DRAWS_MAX: usize = 32;
/// and then in all of it.
const RANGE_DRAWS_MAX: usize = 64;
/// Datagrams of strangers that are thrown away: they came before the socket was connected.
const STALE_COUNT_MAX: usize = 4096;

/// An upstream, a stratum and the socket for it.
pub(super) type Opened = (u32, u32, UdpSocket);

/// Opens ports of all upstreams.
pub(super) struct Opener {
    upstreams: Vec<SocketAddr>,
    options: PoolOptions,
    /// The draws of all ports and queries.
    pub draw: Draw,
    avoid: Box<[bool]>,
}

impl Opener {
    pub fn new(upstreams: &[SocketAddr], options: PoolOptions, draw: Draw) -> Opener {
        let mut avoid = vec![false; usize::from(u16::MAX) + 1];
        for port in &options.avoid {
            avoid[usize::from(*port)] = true;
        }
        Opener { upstreams: upstreams.to_vec(), options, draw, avoid: avoid.into() }
    }

    /// Opens `wanted` ports of each upstream, or as many as the limit of open files leaves. Returns
    /// how many of each there are to be, and those that could be opened: an upstream without a
    /// route gets its ports later.
    pub fn open_all(&mut self, wanted: usize) -> io::Result<(usize, Vec<Opened>)> {
        if wanted == 0 {
            return Ok((0, Vec::new()));
        }
        let limit = getrlimit(Resource::RLIMIT_NOFILE)?.0;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        // Places for ports that leave are files as well.
        let left = limit.saturating_sub(self.options.descriptors_spared) / 5 * 4;
        let mut each = wanted.min(left / self.upstreams.len());
        while each > 0 {
            match self.open_some(each) {
                Ok(opened) => return Ok((each, opened)),
                Err(error) if is_file_limit(&error) => each = each / 4 * 3,
                Err(error) => return Err(error),
            }
        }
        let remedy = format!(
            "the limit of {limit} open files leaves no port for queries to {} upstreams: raise \
             LimitNOFILE= or ulimit -n",
            self.upstreams.len()
        );
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, remedy))
    }

    fn open_some(&mut self, each: usize) -> io::Result<Vec<Opened>> {
        let mut opened = Vec::with_capacity(each * self.upstreams.len());
        for upstream in 0..self.upstreams.len() {
            for stratum in 0..each {
                match self.open(upstream, stratum, each) {
                    Ok(socket) => opened.push((upstream as u32, stratum as u32, socket)),
                    Err(error) if is_file_limit(&error) => return Err(error),
                    // Without a route to it now, the next port has none either.
                    Err(_) => break,
                }
            }
        }
        Ok(opened)
    }

    /// How many queries a port opened now may carry, and until when: each its own, so that they do
    /// not all end together.
    pub fn lifetime(&mut self, now_ns: u64) -> (u32, u64) {
        let around = |draw: &mut Draw, mean: u32| (mean / 2 + draw.below(mean.max(1))).max(1);
        let queries = around(&mut self.draw, self.options.port_queries);
        let age_ms = u32::try_from(self.options.port_age.as_millis()).unwrap_or(u32::MAX / 2);
        let age_ms = around(&mut self.draw, age_ms);
        (queries, now_ns.saturating_add(u64::from(age_ms) * 1_000_000))
    }

    /// Opens a port of `upstream` in the given one of `strata` equal parts of the range.
    pub fn open(
        &mut self,
        upstream: usize,
        stratum: usize,
        strata: usize,
    ) -> io::Result<UdpSocket> {
        let start = |stratum: usize| stratum * RANGE_COUNT / strata;
        let (from, to) = (start(stratum), start(stratum + 1));
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for round in 0..STRATUM_DRAWS_MAX + RANGE_DRAWS_MAX {
            let (from, to) = if round < STRATUM_DRAWS_MAX { (from, to) } else { (0, RANGE_COUNT) };
            let port = PORT_FIRST + (from as u32 + self.draw.below((to - from) as u32)) as u16;
            if self.avoid[usize::from(port)] {
                continue;
            }
            match self.connect(self.upstreams[upstream], port) {
                Ok(socket) => return Ok(socket),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EADDRINUSE | libc::EACCES | libc::EPERM) => last = error,
                    _ => return Err(error),
                },
            }
        }
        Err(last)
    }

    fn connect(&self, upstream: SocketAddr, port: u16) -> io::Result<UdpSocket> {
        let unspecified = match upstream {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let sources = &mut self.options.sources.iter().copied();
        let source = sources.find(|source| source.is_ipv4() == upstream.is_ipv4());
        let socket = Socket::new(Domain::for_address(upstream), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if upstream.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SocketAddr::new(source.unwrap_or(unspecified), port).into())?;
        socket.connect(&upstream.into())?;
        let socket = UdpSocket::from(socket);
        // Until it was connected it took datagrams of anybody.
        for _ in 0..STALE_COUNT_MAX {
            if socket.recv(&mut [0]).is_err() {
                break;
            }
        }
        Ok(socket)
    }
}

fn is_file_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

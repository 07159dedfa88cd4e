//! Datagrams of one's own to other servers, and what comes back.
//!
//! ```text
//!   queue(port, octets) ──> flush ──> port 0, 1, 2, ... (connected sockets) ──> server
//!   receive(port, octets, when) <───────────────────────────────────────────────┘
//! ```
//!
//! The other side of [`super::PacketPath`]: there one socket has many peers, here one peer is asked
//! from many ports. [`UringClient`] is the main path, [`MmsgClient`] the one for machines that
//! forbid io_uring. Their ports stay; [`pool`] has ports that come and go, of many servers, and
//! knows which reply belongs to which query.

mod mmsg;
pub mod pool;
mod uring;
mod waker;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::socket::SocketOptions;
use super::sys;

pub use mmsg::MmsgClient;
pub use uring::UringClient;
pub use waker::Waker;

/// Octets of the longest datagram that can be queued.
pub const QUERY_LEN_MAX: usize = 2048;
/// Octets of the longest datagram that is taken from an upstream: more than it is told to send.
pub const REPLY_LEN_MAX: usize = 2048;
/// Datagrams that wait between two flushes.
pub const QUEUE_COUNT_MAX: usize = 64;

/// The seam between queries and the sockets they leave from. Owned by one thread.
pub trait ClientPath {
    /// How many ports there are.
    fn ports(&self) -> usize;

    /// Takes a datagram for [`ClientPath::flush`] to send from `port`; `false` if there is no room
    /// before that.
    fn queue(&mut self, port: usize, octets: &[u8]) -> bool;

    /// Sends what is queued without waiting.
    fn flush(&mut self) -> io::Result<()>;

    /// Hands out what has arrived, without waiting; returns how many datagrams that were.
    fn receive(&mut self, take: &mut dyn FnMut(Received<'_>)) -> io::Result<usize>;

    /// Waits until something may have arrived, or `timeout` has passed.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// Queued datagrams that the kernel did not take.
    fn unsent(&self) -> u64;

    /// Datagrams that the kernel dropped because a port's buffer was full.
    fn drops(&self) -> u64;
}

/// A datagram that has arrived.
pub struct Received<'a> {
    /// On which port.
    pub port: usize,
    /// Its octets.
    pub octets: &'a [u8],
    /// When the kernel had it, in nanoseconds as [`now_ns`] counts them.
    pub at_ns: Option<u64>,
}

/// Nanoseconds of the monotonic clock.
#[inline]
pub fn now_ns() -> u64 {
    sys::clock_ns(libc::CLOCK_MONOTONIC)
}

/// Has this thread's waits end when they are due, rather than 50 us later.
pub fn wake_on_time() {
    sys::wake_on_time();
}

/// Opens a port to `server`, from `source` if that matters. With `times` the kernel says when each
/// datagram arrived.
pub fn open_port(
    server: SocketAddr,
    source: Option<IpAddr>,
    options: &SocketOptions,
    times: bool,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if sys::force_receive_buffer(socket.as_fd(), options.receive_buffer).is_err() {
        let _ = socket.set_recv_buffer_size(options.receive_buffer);
    }
    if sys::force_send_buffer(socket.as_fd(), options.send_buffer).is_err() {
        let _ = socket.set_send_buffer_size(options.send_buffer);
    }
    if times {
        sys::receive_times(socket.as_fd())?;
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&server.into())?;
    Ok(socket.into())
}

//----------- Times ----------------------------------------------------------

/// Room for one control message with a time.
const TIME_CONTROL_LEN: usize = size_of::<libc::cmsghdr>() + size_of::<libc::timespec>();
const _: () = assert!(TIME_CONTROL_LEN == 32);

/// How far the monotonic clock is behind the real-time one, now. Between two readings this thread
/// may have been away: then it reads again.
fn real_time_ahead_ns() -> u64 {
    const AWAY_NS: u64 = 1000;
    let mut before = now_ns();
    for _ in 0..4 {
        let real = sys::clock_ns(libc::CLOCK_REALTIME);
        let after = now_ns();
        if after - before < AWAY_NS {
            return real.wrapping_sub(before);
        }
        before = after;
    }
    sys::clock_ns(libc::CLOCK_REALTIME).wrapping_sub(now_ns())
}

/// Whether an error says that the peer, or somebody on the way to it, does not want an earlier
/// datagram: an ICMP message, reported in the place of another datagram.
fn is_of_the_way(error: &io::Error) -> bool {
    let codes = [
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EACCES,
        libc::ENOPROTOOPT,
        libc::EPROTO,
        libc::EMSGSIZE,
    ];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// The time in a control message, on the monotonic clock.
#[inline]
fn time_of(control: &[u8], ahead_ns: u64) -> Option<u64> {
    let word = |at: usize| Some(i32::from_ne_bytes(control.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(control.get(at..at + 8)?.try_into().ok()?));
    let stamped = word(8)? == libc::SOL_SOCKET && word(12)? == libc::SCM_TIMESTAMPNS;
    let real = long(16)?.wrapping_mul(1_000_000_000).wrapping_add(long(24)?);
    stamped.then(|| real.wrapping_sub(ahead_ns))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever path: what is queued arrives, from its port, and what comes back says when.
    fn goes_round(path: &mut dyn ClientPath, server: &UdpSocket) {
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let began = now_ns();
        for round in 0..5u8 {
            for port in 0..path.ports() {
                assert!(path.queue(port, &[round, port as u8, 7]));
            }
            path.flush().unwrap();
            for _ in 0..path.ports() {
                let mut octets = [0; 64];
                let (len, from) = server.recv_from(&mut octets).unwrap();
                assert_eq!((len, octets[0], octets[2]), (3, round, 7));
                server.send_to(&octets[..len], from).unwrap();
            }
            let mut seen = vec![0; path.ports()];
            for _ in 0..500 {
                let got: usize = seen.iter().sum();
                if got == path.ports() {
                    break;
                }
                path.wait(Duration::from_millis(10)).unwrap();
                path.receive(&mut |received| {
                    assert_eq!(received.octets, [round, received.port as u8, 7]);
                    let at = received.at_ns.expect("the kernel was asked for times");
                    assert!(at >= began && at <= now_ns(), "{began} {at}");
                    seen[received.port] += 1;
                })
                .unwrap();
            }
            assert!(seen.iter().all(|&count| count == 1), "{seen:?}");
        }
        assert_eq!((path.unsent(), path.drops()), (0, 0));
        let wait_began = now_ns();
        path.wait(Duration::from_millis(20)).unwrap();
        assert!(now_ns() - wait_began >= 15_000_000, "nothing came: the wait ends when it is due");
    }

    fn ports(server: &UdpSocket, count: usize) -> Vec<UdpSocket> {
        let options = SocketOptions { receive_buffer: 1 << 20, send_buffer: 1 << 20 };
        let address = server.local_addr().unwrap();
        (0..count)
            .map(|i| open_port(address, (i % 2 == 0).then(|| address.ip()), &options, true))
            .collect::<io::Result<_>>()
            .unwrap()
    }

    #[test]
    fn what_is_asked_comes_back_to_its_port() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(address).unwrap();
            goes_round(&mut UringClient::new(ports(&server, 50)).unwrap(), &server);
            goes_round(&mut MmsgClient::new(ports(&server, 50)).unwrap(), &server);
        }
    }

    /// An ICMP error ends neither path, and the port goes on working.
    #[test]
    fn a_server_that_is_not_there_ends_nothing() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let mut uring = UringClient::new(ports(&server, 3)).unwrap();
        let mut mmsg = MmsgClient::new(ports(&server, 3)).unwrap();
        drop(server);
        for path in [&mut uring as &mut dyn ClientPath, &mut mmsg] {
            for _ in 0..3 {
                for port in 0..3 {
                    path.queue(port, b"anybody?");
                }
                path.flush().unwrap();
                path.wait(Duration::from_millis(2)).unwrap();
                assert_eq!(path.receive(&mut |_| ()).unwrap(), 0);
            }
        }
        let server = UdpSocket::bind(address).unwrap();
        for path in [&mut uring as &mut dyn ClientPath, &mut mmsg] {
            // The first one may be spent on reporting the error that is still pending.
            let mut octets = [0; 16];
            let from = loop {
                path.queue(1, b"again");
                path.flush().unwrap();
                server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                if let Ok((_, from)) = server.recv_from(&mut octets) {
                    break from;
                }
            };
            server.send_to(b"here", from).unwrap();
            let mut got = 0;
            for _ in 0..500 {
                path.wait(Duration::from_millis(10)).unwrap();
                got += path.receive(&mut |received| assert_eq!(received.port, 1)).unwrap();
                if got > 0 {
                    break;
                }
            }
            assert!(got > 0);
        }
    }

    /// Datagrams of one length on one port may leave as one; they arrive each by itself, in order.
    #[test]
    fn what_leaves_together_arrives_apart() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut uring = UringClient::new(ports(&server, 2)).unwrap();
        let mut mmsg = MmsgClient::new(ports(&server, 2)).unwrap();
        for path in [&mut uring as &mut dyn ClientPath, &mut mmsg] {
            let lengths = [5, 5, 5, 9, 5, 5, 1, 1, 0, 0, 1400, 1400, 1400];
            for (i, &len) in lengths.iter().enumerate() {
                assert!(path.queue(usize::from(i > 5), &vec![i as u8; len]));
            }
            path.flush().unwrap();
            for (i, &len) in lengths.iter().enumerate() {
                let mut octets = [0; 2048];
                let (got, _) = server.recv_from(&mut octets).unwrap();
                assert_eq!(octets[..got], vec![i as u8; len]);
            }
            path.receive(&mut |_| ()).unwrap();
            assert_eq!(path.unsent(), 0);
        }
    }

    #[test]
    fn a_full_queue_says_so() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut uring = UringClient::new(ports(&server, 2)).unwrap();
        let mut mmsg = MmsgClient::new(ports(&server, 2)).unwrap();
        for path in [&mut uring as &mut dyn ClientPath, &mut mmsg] {
            let taken = (0..200).take_while(|i| path.queue(i % 2, b"x")).count();
            assert_eq!(taken, QUEUE_COUNT_MAX);
            path.flush().unwrap();
            assert!(path.queue(0, b"x"));
        }
    }
}

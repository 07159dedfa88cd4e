//! Queries over UDP: ring53's client paths as a carrier.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ring53::net::client::{ClientPath, MmsgClient, UringClient, open_port};
use ring53::net::socket::SocketOptions;

use super::LoadOptions;
use super::carrier::{Arrival, Carrier};

/// Octets of each port's buffers: what the generator has not yet read is not lost.
const BUFFERS: SocketOptions = SocketOptions { receive_buffer: 4 << 20, send_buffer: 4 << 20 };

/// A carrier over a client path.
pub struct Datagrams {
    path: Box<dyn ClientPath>,
    unsent: u64,
}

/// Opens ports and a path over them, on the thread that will use them.
pub fn open(options: &LoadOptions, first: usize) -> io::Result<Datagrams> {
    let sockets = ports(options, first)?;
    let path: Box<dyn ClientPath> = match path_name(&options.path) {
        "mmsg" => Box::new(MmsgClient::new(sockets)?),
        _ => Box::new(UringClient::new(sockets)?),
    };
    Ok(Datagrams { path, unsent: 0 })
}

/// The path that `chosen` comes to on this machine.
pub fn path_name(chosen: &str) -> &'static str {
    match chosen {
        "mmsg" => "mmsg",
        "auto" if ring53::net::uring_available().is_err() => "mmsg",
        _ => "uring",
    }
}

fn ports(options: &LoadOptions, first: usize) -> io::Result<Vec<UdpSocket>> {
    let open = |index: usize| {
        let sources = &options.sources;
        let source = (!sources.is_empty()).then(|| sources[(first + index) % sources.len()]);
        open_port(options.server, source, &BUFFERS, true)
            .map_err(|error| port_error(options.server, error))
    };
    (0..options.ports.max(1)).map(open).collect()
}

fn port_error(server: SocketAddr, error: io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => {
            ": allow more open files (ulimit -n) or use fewer --ports"
        }
        Some(libc::EADDRNOTAVAIL) => ": the source address is not one of this machine",
        _ => "",
    };
    io::Error::new(error.kind(), format!("a port to {server}: {error}{remedy}"))
}

impl Carrier for Datagrams {
    fn lanes(&self) -> usize {
        self.path.ports()
    }

    fn queue(&mut self, lane: usize, message: &[u8]) -> bool {
        self.path.queue(lane, message)
    }

    fn flush(&mut self) -> io::Result<usize> {
        self.path.flush()?;
        let unsent = self.path.unsent();
        let new = unsent - self.unsent;
        self.unsent = unsent;
        Ok(new as usize)
    }

    fn receive(&mut self, take: &mut dyn FnMut(Arrival<'_>)) -> io::Result<usize> {
        self.path.receive(&mut |received| {
            take(Arrival { lane: received.port, message: received.octets, at_ns: received.at_ns });
        })
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.path.wait(timeout)
    }

    fn drops(&self) -> u64 {
        self.path.drops()
    }
}

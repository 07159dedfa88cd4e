//! An echo over ring53's own recvmmsg path: what the kernel alone costs per exchange.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ring53::net::socket::{SocketOptions, bind_group};
use ring53::net::{MmsgPath, PacketPath};

/// Pins this thread to `core`.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

/// Sends every datagram back, as a response so that generators count it, for `duration`.
pub fn run(listen: SocketAddr, core: usize, duration: Duration) -> io::Result<()> {
    pin(core)?;
    let options = SocketOptions { receive_buffer: 8 << 20, send_buffer: 8 << 20 };
    let sockets = bind_group(listen, &[core], &options).map_err(io::Error::other)?;
    let mut path = MmsgPath::new(sockets)?;
    let end = Instant::now() + duration;
    let mut lengths = Vec::with_capacity(64);
    while Instant::now() < end {
        let mut batch = path.receive()?;
        if batch.is_empty() {
            path.wait(Duration::from_millis(100))?;
            continue;
        }
        lengths.clear();
        for datagram in batch.datagrams_mut() {
            if let Some(flags) = datagram.buffer.get_mut(2) {
                *flags |= 0x80;
            }
            lengths.push(datagram.received_len);
        }
        for (index, &len) in lengths.iter().enumerate() {
            batch.settle(index, len);
        }
        path.send()?;
    }
    Ok(())
}

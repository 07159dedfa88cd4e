//! Where the server and the generator meet: loopback, or another pair of places.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// Where a server can be started and asked.
pub trait Place: Send + Sync {
    /// The server's address.
    fn server(&self) -> IpAddr;

    /// The address that it is asked from.
    fn client(&self) -> IpAddr;

    /// `command`, so that it runs where the server is to be.
    fn command(&self, command: Command) -> Command;

    /// Does `work` where the generator is to be.
    fn with_client(&self, work: &mut (dyn FnMut() -> io::Result<()> + Send)) -> io::Result<()>;

    /// Called before each load.
    fn prepare(&self) -> io::Result<()>;

    /// What a reader has to know of it.
    fn note(&self) -> String;
}

/// This machine's loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loopback;

impl Place for Loopback {
    fn server(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn client(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn command(&self, command: Command) -> Command {
        command
    }

    fn with_client(&self, work: &mut (dyn FnMut() -> io::Result<()> + Send)) -> io::Result<()> {
        work()
    }

    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn note(&self) -> String {
        "measured over loopback: the kernel receives queries on the generator's core and answers on \
         the server's, and no card or driver has a part; behind a network card the server's cores \
         have more to do"
            .into()
    }
}

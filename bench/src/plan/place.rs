//! Where the server and the generator meet: loopback, or two namespaces joined by a veth.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use crate::bed::namespaces::{Bed, CLIENT, SERVER};

/// Where a server can be started and asked.
pub trait Place: Send + Sync {
    /// The server's address.
    fn server(&self) -> IpAddr;

    /// The address that it is asked from.
    fn client(&self) -> IpAddr;

    /// `command`, so that it runs where the server is to be.
    fn command(&self, command: Command) -> Command;

    /// `command`, so that it runs where the generator is to be.
    fn client_command(&self, command: Command) -> Command;

    /// Does `work` where the generator is to be.
    fn with_client(&self, work: &mut (dyn FnMut() -> io::Result<()> + Send)) -> io::Result<()>;

    /// Called before each load.
    fn prepare(&self) -> io::Result<()>;

    /// What a reader has to know of it.
    fn note(&self) -> String;

    /// What makes a number of machines that follows from it a bound only.
    fn caveat(&self) -> Option<&'static str> {
        None
    }
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

    fn client_command(&self, command: Command) -> Command {
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

    fn caveat(&self) -> Option<&'static str> {
        Some("Measured over loopback: a lower bound of machines")
    }
}

/// Two namespaces, one core each.
#[derive(Debug)]
pub struct Namespaces(Bed);

impl Namespaces {
    /// The server's core receives for it, the generator's for the generator; needs root.
    pub fn new(server_core: usize, generator_core: usize) -> io::Result<Namespaces> {
        Ok(Namespaces(Bed::new(server_core, generator_core)?))
    }
}

impl Place for Namespaces {
    fn server(&self) -> IpAddr {
        SERVER.into()
    }

    fn client(&self) -> IpAddr {
        CLIENT.into()
    }

    fn command(&self, command: Command) -> Command {
        self.0.in_server(&command)
    }

    fn client_command(&self, command: Command) -> Command {
        self.0.in_client(&command)
    }

    fn with_client(&self, work: &mut (dyn FnMut() -> io::Result<()> + Send)) -> io::Result<()> {
        self.0.with_client(work)
    }

    fn prepare(&self) -> io::Result<()> {
        self.0.pin_polling()
    }

    fn note(&self) -> String {
        "measured over a veth, each end's receiving on its own core: no card or driver has a part; \
         behind a network card the server's cores have more to do"
            .into()
    }
}

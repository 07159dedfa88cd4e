//! `ring53-bench bed`: a bed for scripts.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Bed;
use super::namespaces::take_down;
use super::spin::Awake;

/// A bed for a script: it stands until it is taken down, or until its owner has ended and another
/// bed is made.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
    /// The process whose bed it is: `$$` of a script.
    #[arg(long, global = true)]
    owner: Option<u32>,
    /// The server's core.
    #[arg(long, global = true, default_value_t = 0)]
    server_core: usize,
    /// The generator's core.
    #[arg(long, global = true, default_value_t = 1)]
    client_core: usize,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Make it; print the names of its namespaces as assignments of a shell.
    Up {
        /// Addresses of the server beside 10.53.0.1.
        addresses: Vec<Ipv4Addr>,
    },
    /// Pin the threads that poll its veth: before each load.
    Pin,
    /// Keep the generator's core from halting until the owner has ended.
    Awake,
    /// Take it down, and end what runs in it.
    Down,
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<()> {
    let (server_core, client_core) = (options.server_core, options.client_core);
    let owner = options.owner.ok_or_else(|| {
        io::Error::other("whose bed? --owner says which process: --owner $$ in a script")
    })?;
    let bed = Bed::of_process(owner, server_core, client_core);
    match &options.action {
        Action::Up { addresses } => {
            let bed = Bed::for_process(owner, server_core, client_core)?;
            for &address in addresses {
                bed.add_address(address)?;
            }
            println!("SERVER_NS={}", bed.server_namespace());
            println!("CLIENT_NS={}", bed.client_namespace());
        }
        Action::Pin => bed.pin_polling()?,
        Action::Awake => {
            let _awake = Awake::new(&[client_core])?;
            while Path::new(&format!("/proc/{owner}")).exists() {
                thread::sleep(Duration::from_millis(200));
            }
        }
        Action::Down => take_down(bed.tag()),
    }
    Ok(())
}

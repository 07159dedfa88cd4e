//! The control thread: signals, reloads, the end.
//!
//! | signal | what happens |
//! | --- | --- |
//! | SIGHUP | configuration and zones are read again; what fails keeps its last good version |
//! | SIGUSR1 | counters are printed |
//! | SIGTERM, SIGINT | what was received is answered, counters are printed, exit 0 |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::memory::epoch::Published;
use crate::net::give_way;
use crate::snapshot::Snapshot;

use super::config::Config;
use super::cores;
use super::report::{self, Reported};
use super::startup::Thread;
use super::zones::ZoneSet;

/// A server that answers.
pub struct Running {
    pub config: Config,
    pub zones: ZoneSet,
    pub published: Published<Snapshot>,
    pub threads: Vec<Thread>,
    pub reported: Vec<Reported>,
    pub stop: Arc<AtomicBool>,
}

/// Follows signals until one ends the server.
pub fn run(mut server: Running, reread: &dyn Fn() -> Result<Config, String>) -> Result<(), String> {
    let mut signals = Signals::new([SIGHUP, SIGUSR1, SIGTERM, SIGINT])
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    for signal in signals.forever() {
        match signal {
            SIGHUP => server.reload(reread),
            SIGUSR1 => report::print(&server.reported),
            _ => break,
        }
    }
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    server.stop.store(true, Ordering::Relaxed);
    let mut failed = None;
    for thread in server.threads {
        let name = thread.thread().name().unwrap_or("a thread").to_string();
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed = Some(format!("{name}: {error}")),
            Err(_) => failed = Some(format!("{name} panicked")),
        }
    }
    report::print(&server.reported);
    failed.map_or(Ok(()), Err)
}

impl Running {
    fn reload(&mut self, reread: &dyn Fn() -> Result<Config, String>) {
        let next = match reread() {
            Ok(next) => next,
            Err(error) => {
                eprintln!("ring53: not reloaded, the running configuration stays: {error}");
                return;
            }
        };
        let fixed = |config: &Config| {
            let identity = (config.listen.clone(), config.cores.clone(), config.path);
            (identity, config.user.clone(), config.receive_buffer)
        };
        if fixed(&next) != fixed(&self.config) {
            eprintln!(
                "ring53: listen, cores, path, user and receive_buffer change only by a restart"
            );
        }
        self.config = next;
        // Loading takes only what the cores leave, and so does giving the old zones' memory back.
        let (zones, published, config) = (&mut self.zones, &mut self.published, &self.config);
        thread::scope(|scope| {
            let loader = scope.spawn(move || {
                let allowed = cores::allowed();
                cores::spread(&allowed);
                give_way();
                let snapshot = zones.load(config, allowed.len());
                let generation = snapshot.generation();
                drop(published.publish(snapshot));
                generation
            });
            match loader.join() {
                Ok(generation) => eprintln!("ring53: generation {generation} serves"),
                Err(_) => eprintln!("ring53: the reload failed; the last generation serves"),
            }
        });
    }
}

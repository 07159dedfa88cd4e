//! The control thread: signals, reloads, the end.
//!
//! | signal | what happens |
//! | --- | --- |
//! | SIGHUP | configuration and zones are read again; what fails keeps its last good version |
//! | SIGUSR1 | counters are printed |
//! | SIGTERM, SIGINT | what was received is answered, counters are printed, exit 0 |
//! | either once more | exit at once |
//!
//! ```text
//!   signals ──┐
//!   loader  ──┼──> events ──> control       nothing here waits for a reload, which may take
//!   cores   ──┘                             as long as the cores leave it nothing
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::net::give_way;

use super::config::Config;
use super::report::{self, Reported, say};
use super::startup::Thread;
use super::zones::candidate;
use super::zones::loader::{self, SharedLoader};

/// Reads the configuration again.
pub type Reread = dyn Fn() -> Result<Config, String> + Send + Sync;

//----------- Events ---------------------------------------------------------

/// What the control thread waits for.
pub enum Event {
    /// A signal.
    Signal(i32),
    /// A reload is over, however it went.
    Reloaded,
    /// A thread of the server has ended.
    Ended,
}

/// Says that something is over when it is dropped, so that a panic says it too.
pub struct Says(pub Sender<Event>, pub Option<Event>);

impl Drop for Says {
    fn drop(&mut self) {
        if let Some(event) = self.1.take() {
            // Nobody listens any more once the server stops.
            let _ = self.0.send(event);
        }
    }
}

/// Signals, caught from the first moment of the process.
pub struct Caught {
    /// For whoever has something to tell.
    pub events: Sender<Event>,
    received: Receiver<Event>,
    /// While set, SIGTERM and SIGINT end the process at once.
    ends_at_once: Arc<AtomicBool>,
}

impl Caught {
    /// From here on [`run`] ends the server, in order: cores answer, and may owe an answer.
    pub fn end_in_order(&self) {
        self.ends_at_once.store(false, Ordering::SeqCst);
    }
}

/// Catches signals. Until [`Caught::end_in_order`], SIGTERM ends the process at once; the others
/// wait for [`run`].
pub fn catch() -> Result<Caught, String> {
    let failed = |error: io::Error| format!("cannot listen for signals: {error}");
    let ends_at_once = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 0, Arc::clone(&ends_at_once))
            .map_err(failed)?;
    }
    let mut signals = Signals::new([SIGHUP, SIGUSR1, SIGTERM, SIGINT]).map_err(failed)?;
    let (events, received) = channel();
    let sender = events.clone();
    thread::Builder::new()
        .name("ring53-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if sender.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        })
        .map_err(failed)?;
    Ok(Caught { events, received, ends_at_once })
}

//----------- Running --------------------------------------------------------

/// A server that answers.
pub struct Running {
    /// What a reload works on.
    pub loader: SharedLoader,
    /// Cores and TCP.
    pub threads: Vec<Thread>,
    /// Their counters.
    pub reported: Vec<Reported>,
    /// Set to end them.
    pub stop: Arc<AtomicBool>,
}

/// How often the signatures of all zones are looked at, if nothing else happens.
const EXPIRIES_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// Follows signals until one ends the server.
pub fn run(server: Running, caught: Caught, reread: &Arc<Reread>) -> Result<(), String> {
    let loader = server.loader;
    let (mut reloading, mut again, mut failed) = (false, false, None);
    loop {
        let event = match caught.received.recv_timeout(EXPIRIES_INTERVAL) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => {
                // While zones are reloaded they are looked at anyway.
                if let Ok(loader) = loader.try_lock() {
                    loader.zones.say_expiries();
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match event {
            Event::Signal(SIGHUP) if reloading => again = true,
            Event::Signal(SIGHUP) => reloading = start_reload(&loader, &caught.events, reread),
            Event::Signal(SIGUSR1) => report::print(&server.reported),
            Event::Signal(_) => break,
            Event::Reloaded => {
                reloading =
                    std::mem::take(&mut again) && start_reload(&loader, &caught.events, reread);
            }
            // A core that is gone takes its share of the queries with it: better to end, and be
            // started again, than to lose them silently.
            Event::Ended => {
                failed = Some("a thread ended although nobody asked it to".to_string());
                break;
            }
        }
    }
    caught.ends_at_once.store(true, Ordering::SeqCst);
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    server.stop.store(true, Ordering::Relaxed);
    candidate::end_all();
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

//----------- Reloading -------------------------------------------------------

/// Reloads on a thread of its own, which takes only what the cores leave.
fn start_reload(loader: &SharedLoader, events: &Sender<Event>, reread: &Arc<Reread>) -> bool {
    let (loader, reread) = (Arc::clone(loader), Arc::clone(reread));
    let says = Says(events.clone(), Some(Event::Reloaded));
    let started = thread::Builder::new().name("ring53-loader".into()).spawn(move || {
        let _says = says;
        give_way();
        loader::lock(&loader).reload(&*reread);
    });
    if let Err(error) = &started {
        say!("not reloaded: cannot start a thread: {error}");
    }
    started.is_ok()
}

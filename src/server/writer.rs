//! The threads that keep zones on disk: what happened to a zone in the order in which it happened,
//! different zones at once.
//!
//! ```text
//!                  ┌─> queue ──> thread ─┐
//!   transfers ─────┼─> queue ──> thread ─┼─> files       a zone's name says which queue
//!                  └─> queue ──> thread ─┘
//! ```
//!
//! A zone is served before it is here. Each file is synced, so that it is whole after any end; the
//! file system does the syncs of several threads in one go, which is what makes a hundred thousand
//! small zones bearable. Lines about the members of a catalog come when everything before them is
//! done: what they say is gone is gone.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use crate::wire::Name;
use crate::zone::Zone;
use crate::zone::change::{Change, Journal};

use super::report::say;
use super::{members, state};

/// Threads, which mostly wait.
const THREADS: usize = 8;

/// What is to be done.
pub enum Write {
    /// Keep a zone to which these changes have led, the last of this journal; say when it is done.
    Keep(Arc<Zone>, Vec<Arc<Change>>, Arc<Journal>, Option<oneshot::Sender<Kept>>),
    /// The same, after a failure: how much of it is on disk is not known.
    Again(Arc<Zone>, Arc<Journal>, oneshot::Sender<Kept>),
    /// A primary has said at this time, in seconds since 1970, that the zone is current.
    Confirmed(Name, u64),
    /// Nothing is kept of the zone any more.
    Remove(Name),
    /// Lines about the members of a catalog.
    Members(Name, String),
}

/// Whether it has been done; if not, why.
pub type Kept = Result<(), String>;

enum Job {
    Write(Write),
    /// What was told before is done by all.
    Wait(Arc<Barrier>),
}

/// Who has something to keep. Not shared: the order in which it is told counts.
pub struct Writer {
    directory: PathBuf,
    /// None until there is something to do.
    queues: Vec<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writer {
    /// Writes into `directory`.
    pub fn new(directory: PathBuf) -> Writer {
        Writer { directory, queues: Vec::new(), threads: Vec::new() }
    }

    fn start(&mut self) -> io::Result<()> {
        for number in self.queues.len()..THREADS {
            let (queue, jobs) = channel();
            let directory = self.directory.clone();
            let thread = thread::Builder::new()
                .name(format!("ring53-writer{number}"))
                .spawn(move || run(&directory, &jobs))?;
            self.queues.push(queue);
            self.threads.push(thread);
        }
        Ok(())
    }

    /// Does it soon.
    pub fn tell(&mut self, write: Write) {
        if let Err(error) = self.start() {
            return say!("zones are not kept on disk: cannot start a thread: {error}");
        }
        let name = match &write {
            Write::Keep(zone, ..) | Write::Again(zone, ..) => zone.apex(),
            Write::Confirmed(name, _) | Write::Remove(name) => name,
            Write::Members(..) => {
                let barrier = Arc::new(Barrier::new(self.queues.len()));
                for queue in &self.queues {
                    send(queue, Job::Wait(Arc::clone(&barrier)));
                }
                return send(&self.queues[0], Job::Write(write));
            }
        };
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        send(&self.queues[hasher.finish() as usize % self.queues.len()], Job::Write(write));
    }

    /// Waits until all is done.
    pub fn finish(self) {
        drop(self.queues);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn send(queue: &Sender<Job>, job: Job) {
    // A thread that has panicked has ended the process.
    let _ = queue.send(job);
}

fn run(directory: &Path, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Wait(barrier) => drop(barrier.wait()),
            Job::Write(Write::Keep(zone, changes, journal, done)) => {
                let kept = state::keep(directory, &zone, &changes, &journal);
                if let Err(error) = &kept {
                    say!("zone {}: not kept on disk: {error}", zone.apex());
                }
                // Who waited may be gone.
                let _ = done.map(|done| done.send(kept));
            }
            Job::Write(Write::Again(zone, journal, done)) => {
                let _ = done.send(state::keep_again(directory, &zone, &journal));
            }
            Job::Write(Write::Confirmed(name, seconds)) => {
                if let Err(error) = state::save_confirmed(directory, &name, seconds) {
                    say!("zone {name}: {error}");
                }
            }
            Job::Write(Write::Remove(name)) => {
                if let Err(error) = state::remove(directory, &name) {
                    say!("zone {name}: {error}: remove it, or it comes back with the zone");
                }
            }
            Job::Write(Write::Members(catalog, lines)) => {
                if let Err(error) = members::append(directory, &catalog, &lines) {
                    say!("catalog {catalog}: {error}");
                }
            }
        }
    }
}

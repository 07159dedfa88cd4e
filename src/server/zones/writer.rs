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
//! done: what they say is gone is gone. If they cannot be written they come before the next ones.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::wire::Name;
use crate::zone::Zone;
use crate::zone::change::{Change, Journal};

use super::members;
use super::state;
use crate::server::report::say;

/// Threads, which mostly wait.
const THREADS: usize = 8;
/// How long what could not be written waits for its next try.
const RETRY_AFTER: Duration = Duration::from_secs(30);

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

//----------- Doing ----------------------------------------------------------

fn run(directory: &Path, jobs: &Receiver<Job>) {
    let (mut undone, mut next) = (Undone::default(), None);
    loop {
        let job = match next.take() {
            Some(job) => job,
            None if undone.is_empty() => match jobs.recv() {
                Ok(job) => job,
                Err(_) => return,
            },
            None => match jobs.recv_timeout(RETRY_AFTER) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    undone.retry(directory);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return undone.retry(directory),
            },
        };
        match job {
            Job::Wait(barrier) => drop(barrier.wait()),
            Job::Write(Write::Remove(name)) => next = remove(directory, name, jobs, &mut undone),
            Job::Write(write) => undone.write(directory, write),
        }
    }
}

/// Removes what is kept of a zone, and of those that are to go behind it: one sync is enough for
/// all. The next that is not such a job.
fn remove(directory: &Path, name: Name, jobs: &Receiver<Job>, undone: &mut Undone) -> Option<Job> {
    let mut names = vec![name];
    let next = loop {
        match jobs.try_recv() {
            Ok(Job::Write(Write::Remove(name))) => names.push(name),
            other => break other.ok(),
        }
    };
    names.iter().for_each(|name| drop(undone.zones.remove(name)));
    state::remove_all(directory, &names);
    next
}

/// What nobody else will try again.
#[derive(Default)]
struct Undone {
    /// Lines about the members of catalogs: without one a zone would begin anew at the next start.
    lines: HashMap<Name, String>,
    /// Catalogs that were made here.
    zones: HashMap<Name, (Arc<Zone>, Arc<Journal>)>,
}

impl Undone {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.zones.is_empty()
    }

    fn write(&mut self, directory: &Path, write: Write) {
        match write {
            Write::Keep(zone, changes, journal, done) => {
                let is_again = self.zones.remove(zone.apex()).is_some();
                let kept = if is_again {
                    state::keep_again(directory, &zone, &journal)
                } else {
                    state::keep(directory, &zone, &changes, &journal)
                };
                if let Err(error) = &kept {
                    say!("zone {}: not kept on disk: {error}", zone.apex());
                }
                match done {
                    // Who waited may be gone.
                    Some(done) => drop(done.send(kept)),
                    None if kept.is_err() => {
                        self.zones.insert(zone.apex().clone(), (zone, journal));
                    }
                    None => {}
                }
            }
            Write::Again(zone, journal, done) => {
                let _ = done.send(state::keep_again(directory, &zone, &journal));
            }
            Write::Confirmed(name, seconds) => {
                if let Err(error) = state::save_confirmed(directory, &name, seconds) {
                    say!("zone {name}: {error}");
                }
            }
            Write::Members(catalog, lines) => {
                let lines = self.lines.remove(&catalog).unwrap_or_default() + &lines;
                if let Err(error) = members::append(directory, &catalog, &lines) {
                    say!("catalog {catalog}: {error}: it is tried again");
                    self.lines.insert(catalog, lines);
                }
            }
            Write::Remove(_) => unreachable!("several at once"),
        }
    }

    /// Tries again; what fails still has been said.
    fn retry(&mut self, directory: &Path) {
        self.lines.retain(|catalog, lines| members::append(directory, catalog, lines).is_err());
        self.zones
            .retain(|_, (zone, journal)| state::keep_again(directory, zone, journal).is_err());
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_that_could_not_be_written_come_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let name = |text: &str| text.parse::<Name>().unwrap();
        let (catalog, state) = (name("c."), directory.path().join("state"));
        let there = |zone: &str| members::there(&name(zone), b"l", &[]);
        // No directory can be made where a file is.
        fs::write(&state, "").unwrap();
        let mut undone = Undone::default();
        undone.write(&state, Write::Members(catalog.clone(), there("a.")));
        undone.retry(&state);
        assert!(!undone.is_empty());
        undone.write(&state, Write::Members(catalog.clone(), there("b.") + &there("c.")));
        fs::remove_file(&state).unwrap();
        undone.write(&state, Write::Members(catalog.clone(), members::gone(&name("b."))));
        assert!(undone.is_empty());
        let all = members::read(&state, &catalog);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all.contains_key(&name("a.")) && all.contains_key(&name("c.")));
    }

    #[test]
    fn zones_go_in_one_go_and_in_turn() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<Name> = ["a.", "b.", "c."].map(|name| name.parse().unwrap()).into();
        for name in &names {
            state::save_confirmed(directory.path(), name, 1).unwrap();
        }
        let mut writer = Writer::new(directory.path().into());
        names.iter().for_each(|name| writer.tell(Write::Remove(name.clone())));
        writer.tell(Write::Confirmed(names[1].clone(), 2));
        writer.finish();
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        let left: Vec<_> = left.iter().map(fs::DirEntry::file_name).collect();
        assert_eq!(left, ["b.confirmed"]);
    }
}

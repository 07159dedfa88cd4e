//! A disk in memory that can stop: what was not synced may then be there, torn, or not at all.
//!
//! ```text
//!   file    durable octets | write, write, cut ...   since the last sync: each whole, in part,
//!                                                     as zeros, or not at all
//!   name    durable file   | file, none, file ...    since the last sync of its directory: any
//! ```
//!
//! Each change leaves a [`Moment`]; [`Moment::disk`] makes a disk that may be found after a stop
//! there. Every name is on its own: of a rename the new name may be there and the old one too.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, Disk, DiskFile, Doubts, parent_of};

const SECTOR_LEN: usize = 512;

//----------- What is there --------------------------------------------------

/// Something that changes a file.
#[derive(Clone)]
enum Edit {
    Write { at: usize, octets: Arc<Vec<u8>> },
    SetLen(usize),
}

/// How much is known of an edit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It waits for a sync.
    Waiting,
    /// A sync has failed: no other says what became of it.
    Doubtful,
    /// It is on disk.
    Synced,
}

#[derive(Clone, Default)]
struct Inode {
    now: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// Since `durable`, in order.
    edits: Vec<(Edit, Fate)>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    None,
    Directory,
    File(usize),
}

#[derive(Clone)]
struct Entry {
    now: Target,
    durable: Target,
    /// What it has stood for since `durable`, in order; the last is `now`.
    since: Vec<Target>,
    /// So many of them no sync settles any more: one has failed.
    doubtful: usize,
}

impl Entry {
    fn new(target: Target) -> Entry {
        Entry { now: target, durable: target, since: Vec::new(), doubtful: 0 }
    }
}

#[derive(Clone, Default)]
struct Contents {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, Entry>,
}

impl Contents {
    fn target(&self, path: &Path) -> Target {
        self.names.get(path).map_or(Target::None, |entry| entry.now)
    }

    fn set(&mut self, path: &Path, target: Target) {
        let entry = self.names.entry(path.to_path_buf()).or_insert(Entry::new(Target::None));
        entry.now = target;
        entry.since.push(target);
    }
}

fn apply(octets: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::Write { at, octets: written } => {
            octets.resize(octets.len().max(at + written.len()), 0);
            octets[*at..at + written.len()].copy_from_slice(written);
        }
        Edit::SetLen(len) => octets.resize(*len, 0),
    }
}

//----------- Stops ----------------------------------------------------------

/// Of an edit that was not synced, what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// All.
    All,
    /// The file has its length, with zeros.
    Zeros,
    /// So many octets of it.
    Front(usize),
    /// The sectors whose bit is set, the first one's lowest; the others are zeros or as before.
    Sectors(u64),
}

/// Who says what is found after a stop.
pub trait Chance {
    /// Of the next edit, of which `len` octets were written.
    fn edit(&mut self, len: usize) -> Kept;
    /// Of the next name, which has stood for `count` things since its directory was synced, the
    /// first is what it was then.
    fn name(&mut self, count: usize) -> usize;
}

/// A moment after a change, and what whoever made the change had promised by then.
#[derive(Clone)]
pub struct Moment<P> {
    contents: Contents,
    /// What was promised.
    pub promise: P,
}

impl<P> Moment<P> {
    /// A disk that may be found after a stop in this moment.
    pub fn disk<Q: Clone + Send>(&self, promise: Q, chance: &mut dyn Chance) -> Simulated<Q> {
        let mut found = Contents::default();
        for inode in &self.contents.inodes {
            let mut octets = inode.durable.to_vec();
            for (edit, fate) in &inode.edits {
                match fate {
                    Fate::Synced => apply(&mut octets, edit),
                    Fate::Waiting | Fate::Doubtful => torn(&mut octets, edit, chance),
                }
            }
            let durable = Arc::new(octets);
            found.inodes.push(Inode { now: Arc::clone(&durable), durable, edits: Vec::new() });
        }
        for (path, entry) in &self.contents.names {
            let durable = match chance.name(entry.since.len() + 1) {
                0 => entry.durable,
                at => entry.since[at - 1],
            };
            // Shorter paths come first: in a directory that is lost there is nothing.
            let is_there = path == Path::new("/")
                || found.names.get(parent_of(path)).is_some_and(|it| it.now == Target::Directory);
            if durable != Target::None && is_there {
                found.names.insert(path.clone(), Entry::new(durable));
            }
        }
        Simulated::new(found, promise)
    }
}

fn torn(octets: &mut Vec<u8>, edit: &Edit, chance: &mut dyn Chance) {
    let Edit::Write { at, octets: written } = edit else {
        if chance.edit(0) != Kept::Nothing {
            apply(octets, edit);
        }
        return;
    };
    let end = at + written.len();
    match chance.edit(written.len()) {
        Kept::Nothing => {}
        Kept::All => apply(octets, edit),
        Kept::Zeros => octets.resize(octets.len().max(end), 0),
        Kept::Front(len) => {
            let octets_kept = Arc::new(written[..len.min(written.len())].to_vec());
            apply(octets, &Edit::Write { at: *at, octets: octets_kept });
        }
        Kept::Sectors(sectors) => {
            octets.resize(octets.len().max(end), 0);
            for (number, start) in
                (at / SECTOR_LEN * SECTOR_LEN..end).step_by(SECTOR_LEN).enumerate()
            {
                if sectors >> (number % 64) & 1 == 1 {
                    let part = start.max(*at)..(start + SECTOR_LEN).min(end);
                    octets[part.clone()].copy_from_slice(&written[part.start - at..part.end - at]);
                }
            }
        }
    }
}

//----------- Simulated ------------------------------------------------------

/// What a change takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Room,
    Sync,
    Nothing,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The change with this number and all after it find no room, until [`Simulated::mend`].
    NoSpace(usize),
    /// The first sync from this number on fails.
    Sync(usize),
    /// All of them fail, until [`Simulated::mend`].
    Syncs(usize),
    /// The change with this number fails, and no other.
    Once(usize),
}

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub struct Simulated<P> {
    shared: Arc<Shared<P>>,
}

struct Shared<P> {
    state: Mutex<State<P>>,
    doubts: Doubts,
}

struct State<P> {
    contents: Contents,
    moments: Vec<Moment<P>>,
    promise: P,
    fault: Option<Fault>,
    count: usize,
}

impl<P: Clone + Send> Simulated<P> {
    fn new(contents: Contents, promise: P) -> Simulated<P> {
        let state = State { contents, moments: Vec::new(), promise, fault: None, count: 0 };
        Simulated { shared: Arc::new(Shared { state: Mutex::new(state), doubts: Doubts::new() }) }
    }

    /// A disk with nothing but its root.
    pub fn empty(promise: P) -> Simulated<P> {
        let names = BTreeMap::from([(PathBuf::from("/"), Entry::new(Target::Directory))]);
        Simulated::new(Contents { inodes: Vec::new(), names }, promise)
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on something else is promised.
    pub fn promise(&self, promise: P) {
        self.state().promise = promise;
    }

    /// What will go wrong.
    pub fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Nothing goes wrong any more; whether something still would have.
    pub fn mend(&self) -> bool {
        self.state().fault.take().is_some()
    }

    /// Changes so far.
    pub fn count(&self) -> usize {
        self.state().count
    }

    /// The moments after every change, and now.
    pub fn moments(&self) -> Vec<Moment<P>> {
        let state = self.state();
        let now = Moment { contents: state.contents.clone(), promise: state.promise.clone() };
        state.moments.iter().cloned().chain([now]).collect()
    }

    /// The octets of a file.
    pub fn octets(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        match state.contents.target(path) {
            Target::File(at) => Some(state.contents.inodes[at].now.to_vec()),
            _ => None,
        }
    }

    /// Puts other octets into a file.
    pub fn damage(&self, path: &Path, octets: Vec<u8>) {
        let mut state = self.state();
        let Target::File(at) = state.contents.target(path) else { panic!("{path:?}") };
        let octets = Arc::new(octets);
        state.contents.inodes[at] =
            Inode { now: Arc::clone(&octets), durable: octets, edits: Vec::new() };
    }

    /// The names of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let all = state.contents.names.iter();
        let files = all.filter(|(_, entry)| matches!(entry.now, Target::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// One change, and the moment after it. `change` is told whether it fails.
    fn change<T>(
        &self,
        takes: Takes,
        change: impl FnOnce(&mut Contents, bool) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        let number = state.count;
        state.count += 1;
        let (fails, kind) = match state.fault {
            Some(Fault::NoSpace(from)) => {
                (takes == Takes::Room && number >= from, io::ErrorKind::StorageFull)
            }
            Some(Fault::Once(at)) => (number == at, io::ErrorKind::Other),
            Some(Fault::Sync(from) | Fault::Syncs(from)) => {
                (takes == Takes::Sync && number >= from, io::ErrorKind::Other)
            }
            None => (false, io::ErrorKind::Other),
        };
        if fails && matches!(state.fault, Some(Fault::Sync(_) | Fault::Once(_))) {
            state.fault = None;
        }
        let changed = change(&mut state.contents, fails);
        let moment = Moment { contents: state.contents.clone(), promise: state.promise.clone() };
        state.moments.push(moment);
        if fails { Err(kind.into()) } else { changed }
    }
}

impl<P: Clone + Send + 'static> Disk for Simulated<P> {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if self.state().contents.target(path) == Target::Directory {
            return Ok(());
        }
        let parent = parent_of(path);
        self.create_directory(parent)?;
        self.change(Takes::Room, |contents, fails| {
            if !fails {
                contents.set(path, Target::Directory);
            }
            Ok(())
        })?;
        self.sync_directory(parent).inspect_err(|_| {
            self.state().contents.set(path, Target::None);
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let at = self.change(Takes::Room, |contents, fails| {
            if contents.target(parent_of(path)) != Target::Directory {
                return Err(io::ErrorKind::NotFound.into());
            }
            match contents.target(path) {
                Target::File(at) if !fails => {
                    edit(&mut contents.inodes[at], Edit::SetLen(0));
                    Ok(at)
                }
                _ if !fails => {
                    contents.inodes.push(Inode::default());
                    let at = contents.inodes.len() - 1;
                    contents.set(path, Target::File(at));
                    Ok(at)
                }
                _ => Ok(0),
            }
        })?;
        Ok(Box::new(Opened { disk: self.clone(), at }))
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
        match self.state().contents.target(path) {
            Target::File(at) => Ok(Box::new(Opened { disk: self.clone(), at })),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Takes::Room, |contents, fails| {
            let target = contents.target(from);
            if !fails {
                contents.set(to, target);
                contents.set(from, Target::None);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Takes::Nothing, |contents, fails| {
            if contents.target(path) == Target::None {
                return Err(io::ErrorKind::NotFound.into());
            }
            if !fails {
                contents.set(path, Target::None);
            }
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.change(Takes::Sync, |contents, fails| {
            let inside = |name: &Path| parent_of(name) == path && name != Path::new("/");
            for (_, entry) in contents.names.iter_mut().filter(|(name, _)| inside(name)) {
                if fails {
                    entry.doubtful = entry.since.len();
                } else if entry.since.len() > entry.doubtful {
                    *entry = Entry::new(entry.now);
                }
            }
            Ok(())
        })
    }

    fn doubts(&self) -> &Doubts {
        &self.shared.doubts
    }
}

fn edit(inode: &mut Inode, edit: Edit) {
    apply(Arc::make_mut(&mut inode.now), &edit);
    inode.edits.push((edit, Fate::Waiting));
}

struct Opened<P> {
    disk: Simulated<P>,
    at: usize,
}

impl<P: Clone + Send> DiskFile for Opened<P> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents.inodes[self.at].now.len() as u64)
    }

    fn read_at(&self, octets: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let from = state.contents.inodes[self.at].now.get(at as usize..).unwrap_or_default();
        let len = from.len().min(octets.len());
        octets[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&mut self, octets: &[u8], at: u64) -> io::Result<()> {
        self.disk.change(Takes::Room, |contents, fails| {
            // A disk gets full in the middle.
            let len = if fails { octets.len() / 2 } else { octets.len() };
            let octets = Arc::new(octets[..len].to_vec());
            edit(&mut contents.inodes[self.at], Edit::Write { at: at as usize, octets });
            Ok(())
        })
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.disk.change(Takes::Nothing, |contents, fails| {
            if !fails {
                edit(&mut contents.inodes[self.at], Edit::SetLen(len as usize));
            }
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.change(Takes::Sync, |contents, fails| {
            let inode = &mut contents.inodes[self.at];
            for (_, fate) in inode.edits.iter_mut().filter(|(_, fate)| *fate == Fate::Waiting) {
                *fate = if fails { Fate::Doubtful } else { Fate::Synced };
            }
            if inode.edits.iter().all(|(_, fate)| *fate == Fate::Synced) {
                inode.edits.clear();
                inode.durable = Arc::clone(&inode.now);
            }
            Ok(())
        })
    }
}

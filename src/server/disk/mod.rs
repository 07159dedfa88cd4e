//! The few things that are done to files which must outlive the process, and to what end.
//!
//! ```text
//!   state, journal ──> Place { directory, Disk } ──> Real        the file system
//!                                                └─> Simulated   in memory: stops anywhere (tests)
//! ```
//!
//! What was written is on disk once its file is synced, and what a file is called once its
//! directory is: without that a stop may lose either, tear a write, or do the one before the other.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::limits::JOURNAL_OCTETS_MIN;

#[cfg(test)]
mod damage;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod stops;

/// Octets that are read or written at once.
const BUFFER_LEN: usize = 1 << 16;

//----------- Disk -----------------------------------------------------------

/// Where files are.
pub trait Disk: Sync {
    /// Makes a directory, and those above it, unless they are there. What is new stays.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// A file for writing, empty, whatever was there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// A file that is there.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, which whoever had it before loses in the same moment.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes the name of a file away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory stay as they are now.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// The files of which nobody knows what is on disk.
    fn doubts(&self) -> &Doubts;
}

/// Files whose sync, or that of their directory, has failed, or which could not be replaced by what
/// does not follow from them. The kernel forgets what it could not
/// write, and says so once: such a file is not appended to, but written anew. The next process does
/// not know of them: it takes for kept what it reads.
#[derive(Default)]
pub struct Doubts(Mutex<Option<HashSet<PathBuf>>>);

impl Doubts {
    /// Nothing is in doubt.
    pub const fn new() -> Doubts {
        Doubts(Mutex::new(None))
    }

    /// From now on `path` is in doubt, or not.
    pub fn set(&self, path: &Path, is_in_doubt: bool) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_in_doubt {
            paths.get_or_insert_default().insert(path.to_path_buf());
        } else if let Some(paths) = paths.as_mut() {
            paths.remove(path);
        }
    }

    /// Whether `path` is in doubt.
    pub fn has(&self, path: &Path) -> bool {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.as_ref().is_some_and(|paths| paths.contains(path))
    }
}

/// What an open file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// An open file.
pub trait DiskFile: Send {
    /// Octets that it has.
    fn len(&self) -> io::Result<u64>;
    /// Reads from octet `at` on; 0 is the end.
    fn read_at(&self, octets: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `octets` from octet `at` on; if that fails, some of them may be there.
    fn write_at(&mut self, octets: &[u8], at: u64) -> io::Result<()>;
    /// Makes it longer or shorter.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// What it contains stays. After an error nobody knows what is on disk, and a second try does
    /// not find out.
    fn sync(&mut self) -> io::Result<()>;
}

//----------- Place ----------------------------------------------------------

/// A directory of a disk.
#[derive(Clone, Copy)]
pub struct Place<'p> {
    /// The directory.
    pub directory: &'p Path,
    /// The disk.
    pub disk: &'p dyn Disk,
    /// Octets that a journal may always have; past them it has to be worth it.
    pub journal_len_min: u64,
}

impl<'p> From<&'p Path> for Place<'p> {
    fn from(directory: &'p Path) -> Place<'p> {
        Place { directory, disk: &Real, journal_len_min: JOURNAL_OCTETS_MIN as u64 }
    }
}

impl<'p> From<&'p PathBuf> for Place<'p> {
    fn from(directory: &'p PathBuf) -> Place<'p> {
        Place::from(directory.as_path())
    }
}

impl Place<'_> {
    /// Writes a file whole or not at all. After an error it is what it was, or what it was to be.
    pub fn replace(
        &self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.disk.create_directory(self.directory)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = Path::new(&beside);
        let written = self.disk.create(beside).and_then(|file| {
            let mut out = BufWriter::with_capacity(BUFFER_LEN, Stream { file, at: 0 });
            write(&mut out)?;
            let mut stream = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            stream.file.sync()
        });
        if let Err(error) = written.and_then(|()| self.disk.rename(beside, path)) {
            // A disk that is full has no room for a piece of what nobody will read.
            let _ = self.disk.remove(beside);
            return Err(error);
        }
        let synced = self.disk.sync_directory(self.directory);
        self.disk.doubts().set(path, synced.is_err());
        synced
    }

    /// Reads a file from its start; `None` if there is none.
    pub fn reader(&self, path: &Path) -> io::Result<Option<impl Read + use<>>> {
        let file = self.open(path, Access::Read)?;
        Ok(file.map(|file| BufReader::with_capacity(BUFFER_LEN, Stream { file, at: 0 })))
    }

    /// A file that is there; `None` if there is none.
    pub fn open(&self, path: &Path, access: Access) -> io::Result<Option<Box<dyn DiskFile>>> {
        match self.disk.open(path, access) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Fills `octets` from octet `at` on.
pub fn read_exact_at(file: &dyn DiskFile, octets: &mut [u8], at: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < octets.len() {
        match file.read_at(&mut octets[filled..], at + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A file from one end to the other.
struct Stream {
    file: Box<dyn DiskFile>,
    at: u64,
}

impl Read for Stream {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(octets, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.file.write_at(octets, self.at)?;
        self.at += octets.len() as u64;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//----------- Real -----------------------------------------------------------

/// The file system.
pub struct Real;

impl Disk for Real {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = parent_of(path);
        self.create_directory(parent)?;
        match fs::create_dir(path) {
            Ok(()) => self.sync_directory(parent).inspect_err(|_| {
                // It must not be taken for one that stays.
                let _ = fs::remove_dir(path);
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::options().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let writes = access == Access::Write;
        Ok(Box::new(File::options().read(true).write(writes).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn doubts(&self) -> &Doubts {
        static DOUBTS: Doubts = Doubts::new();
        &DOUBTS
    }
}

/// The directory that `path` is in.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, octets: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, octets, at)
    }

    fn write_at(&mut self, octets: &[u8], at: u64) -> io::Result<()> {
        FileExt::write_all_at(self, octets, at)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

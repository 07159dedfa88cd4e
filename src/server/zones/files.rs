//! Zone text from the file system, and what tells one version of it from another.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::limits::ZONE_FILE_SIZE_MAX;
use crate::memory::Region;
use crate::zone::{Source, SourceText, Text};

/// Served when nothing is configured.
const SAMPLE: &[u8] = include_bytes!("sample.zone");

//----------- Files ----------------------------------------------------------

/// Zone text from the file system. Remembers what it read, so that a reload can tell whether any
/// of it has changed, files of `$INCLUDE` as well.
#[derive(Default)]
pub struct Files {
    read: Mutex<Vec<FileRead>>,
    /// Digests of what was read, if they are wanted.
    digests: Option<Mutex<Vec<Digest>>>,
}

/// Of the text of a zone.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

impl Files {
    /// Files of which a digest is wanted.
    pub fn digested() -> Files {
        Files { digests: Some(Mutex::default()), ..Files::default() }
    }

    /// What was read, and its digest if that was wanted.
    pub fn into_read(self) -> (Box<[FileRead]>, Option<Digest>) {
        let read = self.read.into_inner().unwrap_or_else(PoisonError::into_inner);
        let of_all = |digests: Mutex<Vec<Digest>>| {
            let mut digests = digests.into_inner().unwrap_or_else(PoisonError::into_inner);
            // Parts of a zone are read at once: which includes another file first is not known.
            digests.sort_unstable();
            let whole = digest(&SHA256, digests.as_flattened());
            whole.as_ref().try_into().expect("of this length")
        };
        (read.into(), self.digests.map(of_all))
    }
}

/// One file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRead {
    path: PathBuf,
    version: FileVersion,
}

impl FileRead {
    /// Whether it still is as it was.
    pub fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|now| FileVersion::of(&now) == self.version)
    }
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    /// Unlike the time of modification, nobody can set this one back.
    changed: (i64, i64),
}

impl FileVersion {
    fn of(metadata: &Metadata) -> FileVersion {
        FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Source for Files {
    fn read(&self, path: &str, included_from: Option<&str>) -> Result<SourceText, String> {
        let resolved = match included_from.and_then(|from| Path::new(from).parent()) {
            Some(directory) => directory.join(path),
            None => PathBuf::from(path),
        };
        let (text, version) = read_file(&resolved)?;
        let name = resolved.display().to_string();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.push(FileRead { path: resolved, version });
        if let Some(digests) = &self.digests {
            let digest = digest(&SHA256, &text);
            let mut digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
            digests.push(digest.as_ref().try_into().expect("of this length"));
        }
        Ok(SourceText { name, text })
    }
}

fn read_file(path: &Path) -> Result<(Text, FileVersion), String> {
    let shown = path.display();
    let failed = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => ": check the path",
            io::ErrorKind::PermissionDenied => {
                ": the user that ring53 runs as must be able to read it"
            }
            _ => "",
        };
        format!("a readable file, but {shown}: {error}{remedy}")
    };
    // Opening a FIFO would wait for somebody to write.
    let mut options = File::options();
    let mut file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a directory" } else { "no regular file" };
        return Err(format!("a regular file, but {shown} is {found}"));
    }
    let version = FileVersion::of(&metadata);
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if len > ZONE_FILE_SIZE_MAX {
        return Err(format!(
            "a file of at most {ZONE_FILE_SIZE_MAX} octets, but {shown} has {len}"
        ));
    }
    // Read, not mapped: a file that shrinks under a mapping kills the process.
    let mut region = Region::new(len).map_err(failed)?;
    let mut filled = 0;
    while filled < len {
        match file.read(&mut region[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let after = FileVersion::of(&file.metadata().map_err(failed)?);
    let written = (after.len, after.modified) != (version.len, version.modified);
    if filled < len || written {
        return Err(format!(
            "a file at rest, but {shown} changed while it was read: write a new file beside it, \
             rename it, then reload"
        ));
    }
    Ok((Text::Region(region, filled), version))
}

/// The sample zone.
pub struct Embedded;

impl Source for Embedded {
    fn read(&self, _path: &str, included_from: Option<&str>) -> Result<SourceText, String> {
        match included_from {
            None => Ok(SourceText { name: "sample.zone".into(), text: Text::Static(SAMPLE) }),
            Some(_) => Err("no $INCLUDE in the sample zone".into()),
        }
    }
}

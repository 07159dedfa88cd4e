//! Where zone text comes from: the caller supplies it, so that this layer opens no file.

use std::ops::Deref;

use crate::memory::Region;

/// Opens zone files and what they include.
pub trait Source: Sync {
    /// Reads `path`; a relative path is taken from the directory of `included_from` if given.
    /// The error is a sentence for people: what failed and the remedy.
    fn read(&self, path: &str, included_from: Option<&str>) -> Result<SourceText, String>;
}

/// One file's text and the name that diagnostics use for it.
pub struct SourceText {
    /// The resolved path.
    pub name: String,
    /// The octets of the file.
    pub text: Text,
}

/// The octets of a file, however they are held.
pub enum Text {
    /// Large files: read into a region, unmapped as soon as the zone is built.
    Region(Region, usize),
    /// Small files and tests.
    Bytes(Vec<u8>),
    /// Embedded in the binary.
    Static(&'static [u8]),
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Text::Region(region, len) => &region[..*len],
            Text::Bytes(bytes) => bytes,
            Text::Static(bytes) => bytes,
        }
    }
}

//----------- Given ----------------------------------------------------------

/// Zone text that a test has at hand.
#[cfg(test)]
pub struct Given<T>(pub T);

#[cfg(test)]
impl<T: AsRef<[u8]> + Sync> Source for Given<T> {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.as_ref().to_vec()) })
    }
}

//! The reader of zone text (RFC 1035, 5; RFC 2308, 4; RFC 3597, 5).

use crate::wire::Name;
use crate::zone::{Diagnostic, Source};

/// One record as read: names in `owner` and `rdata` are absolute, uncompressed, case as written.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The owner in wire form.
    pub owner: &'a [u8],
    /// The type's number.
    pub rtype: u16,
    /// The class's number.
    pub class: u16,
    /// Seconds.
    pub ttl: u32,
    /// RDATA in wire form.
    pub rdata: &'a [u8],
    /// The line the record starts on, from 1.
    pub line: u32,
    /// Index into [`Outcome::files`].
    pub file: u32,
}

/// Takes the records of one part of a zone, in the order of the text.
pub trait Sink: Send {
    /// Takes one record; its slices are valid during the call only.
    fn record(&mut self, record: Record<'_>);
}

/// What reading gave: the sinks in the order of the text, and everything that was wrong.
pub struct Outcome<S> {
    /// One sink per part, in the order of the text.
    pub parts: Vec<S>,
    /// All errors and warnings, in the order of the text, at most `DIAGNOSTICS_MAX` kept.
    pub diagnostics: Vec<Diagnostic>,
    /// The files read, the zone's own first.
    pub files: Vec<String>,
}

/// Reads the zone `apex` from `path` on up to `threads` threads.
pub fn read<S: Sink>(
    apex: &Name,
    path: &str,
    source: &dyn Source,
    threads: usize,
    make_sink: &(dyn Fn() -> S + Sync),
) -> Outcome<S> {
    let _ = (apex, path, source, threads, make_sink);
    unimplemented!()
}

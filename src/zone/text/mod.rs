//! The reader of zone text (RFC 1035, 5; RFC 2308, 4; RFC 3597, 5).
//!
//! ```text
//!   text ──split──> parts that start with a record ──one reader each──> records ──> sinks
//! ```
//!
//! `split` finds where a large text can be cut; `entry` reads one part; `lexer` knows words,
//! `rdata` the types. Every fault becomes a diagnostic with its place, and reading goes on with
//! the next entry.

mod entry;
mod generate;
mod lexer;
mod name;
mod rdata;
mod split;

use std::sync::Mutex;

use crate::limits::DIAGNOSTICS_MAX;
use crate::wire::Name;
use crate::zone::{Diagnostic, Severity, Source};

use entry::Reader;
use split::Start;

pub use rdata::{expand_rdata, rdata_fits, write_rdata};

//----------- Record ---------------------------------------------------------

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

//----------- Reading --------------------------------------------------------

/// Texts below this are read by one thread: it is done before a second has started.
const PART_LEN_MIN: usize = 1 << 20;

/// Reads the zone `apex` from `path` on up to `threads` threads.
pub fn read<S: Sink>(
    apex: &Name,
    path: &str,
    source: &dyn Source,
    threads: usize,
    make_sink: &(dyn Fn() -> S + Sync),
) -> Outcome<S> {
    read_in_parts(apex, path, source, threads, PART_LEN_MIN, make_sink)
}

/// As [`read`], cutting the text into parts of at least `part_len_min` octets.
#[doc(hidden)]
pub fn read_in_parts<S: Sink>(
    apex: &Name,
    path: &str,
    source: &dyn Source,
    parts_max: usize,
    part_len_min: usize,
    make_sink: &(dyn Fn() -> S + Sync),
) -> Outcome<S> {
    let opened = match source.read(path, None) {
        Ok(opened) => opened,
        Err(expected) => {
            let diagnostic = Diagnostic {
                severity: Severity::Error,
                file: path.into(),
                line: 0,
                column: 0,
                text: String::new(),
                expected,
            };
            return Outcome {
                parts: Vec::new(),
                diagnostics: vec![diagnostic],
                files: vec![path.into()],
            };
        }
    };
    let text: &[u8] = &opened.text;
    let files = Mutex::new(vec![opened.name.clone()]);
    let starts = split::split(text, apex.as_wire(), parts_max, part_len_min);
    let ends = starts.iter().skip(1).map(|start| start.at).chain([text.len()]);
    let read_part = |(start, end): (&Start, usize)| {
        let mut reader = Reader::new(&opened.name, text, source, &files, make_sink());
        reader.read(start, end);
        reader.finish()
    };
    let parts: Vec<_> = starts.iter().zip(ends).collect();
    let read: Vec<_> = if parts.len() == 1 {
        parts.into_iter().map(read_part).collect()
    } else {
        std::thread::scope(|scope| {
            let read_part = &read_part;
            let running: Vec<_> =
                parts.into_iter().map(|part| scope.spawn(move || read_part(part))).collect();
            running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    };
    join(files, read)
}

/// Puts the parts together.
fn join<S: Sink>(files: Mutex<Vec<String>>, read: Vec<entry::Part<S>>) -> Outcome<S> {
    let files = files.into_inner().expect("no reader panicked");
    let mut outcome = Outcome { parts: Vec::new(), diagnostics: Vec::new(), files };
    for part in read {
        outcome.diagnostics.extend(part.diagnostics);
        outcome.parts.push(part.sink);
    }
    outcome.diagnostics.truncate(DIAGNOSTICS_MAX);
    outcome
}

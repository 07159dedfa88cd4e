//! Entries: records and control lines, and what each leaves behind for the next.
//!
//! ```text
//!   owner? [TTL] [class] type RDATA      class and TTL in either order, both optional
//!   $ORIGIN name   $TTL time   $INCLUDE file [origin]   $GENERATE range owner ... RDATA
//! ```

use std::sync::Mutex;

use crate::limits::{DIAGNOSTICS_MAX, INCLUDE_COUNT_MAX, INCLUDE_DEPTH_MAX};
use crate::wire::rtype;
use crate::zone::{Diagnostic, Severity, Source};

use super::lexer::{Fault, Lexer, Read, Word};
use super::name::write_name;
use super::split::Start;
use super::{Record, Sink, generate, rdata};

const CLASS_IN: u16 = 1;

//----------- State ----------------------------------------------------------

/// What entries leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// `$ORIGIN`, wire form.
    pub origin: Vec<u8>,
    /// `$TTL`.
    pub default_ttl: Option<u32>,
    /// The owner of the last record, wire form; empty before the first.
    pub owner: Vec<u8>,
    /// The TTL of the last record.
    pub last_ttl: Option<u32>,
}

impl State {
    /// The state at the start of a zone named `origin`.
    pub fn new(origin: &[u8]) -> State {
        State { origin: origin.to_vec(), default_ttl: None, owner: Vec::new(), last_ttl: None }
    }

    /// Follows a control entry for [`super::split`]; `false` if it cannot be followed.
    pub fn follow_control(&mut self, entry: &[u8], lines: u32) -> bool {
        let mut lexer = Lexer::new(entry, 0, lines);
        let mut follow = || -> Read<bool> {
            let Some(word) = lexer.word()? else { return Ok(false) };
            let known = if word.is("$ORIGIN") {
                self.read_origin(&mut lexer)?;
                true
            } else if word.is("$TTL") {
                self.read_ttl(&mut lexer)?;
                true
            } else {
                word.is("$INCLUDE") || word.is("$GENERATE")
            };
            Ok(known)
        };
        follow().unwrap_or(false)
    }

    fn read_origin(&mut self, lexer: &mut Lexer<'_>) -> Read<()> {
        let word = lexer.need("a name after $ORIGIN")?;
        let mut origin = Vec::new();
        write_name(word, &self.origin, &mut origin)?;
        self.origin = origin;
        lexer.expect_end()
    }

    fn read_ttl(&mut self, lexer: &mut Lexer<'_>) -> Read<()> {
        let word = lexer.need("a time after $TTL")?;
        self.default_ttl = Some(rdata::ttl(word)?);
        lexer.expect_end()
    }
}

//----------- Stated ---------------------------------------------------------

/// What an entry says of its own TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// There is nothing but blanks and comments.
    NoRecord,
    /// A record that takes its TTL from elsewhere.
    NoTtl,
    /// A record with this TTL.
    Ttl(u32),
}

impl Stated {
    /// Reads `entry` up to its type.
    pub fn by(entry: &[u8]) -> Stated {
        let mut lexer = Lexer::new(entry, 0, 0);
        let blank_start = matches!(lexer.peek(), Some(b' ' | b'\t'));
        let Ok(Some(mut word)) = lexer.word() else { return Stated::NoRecord };
        if !blank_start && word.at == 0 {
            let Ok(Some(next)) = lexer.word() else { return Stated::NoTtl };
            word = next;
        }
        if parse_class(word.text).is_some() {
            let Ok(Some(next)) = lexer.word() else { return Stated::NoTtl };
            word = next;
        }
        match rdata::parse_ttl(word.text).filter(|_| !word.quoted) {
            Some(ttl) => Stated::Ttl(ttl),
            None => Stated::NoTtl,
        }
    }
}

//----------- Reader ---------------------------------------------------------

/// Reads one part of a zone's text.
pub struct Reader<'a, S> {
    text: &'a [u8],
    source: &'a dyn Source,
    sink: S,
    state: State,
    /// The files of the whole zone, shared by all readers.
    files: &'a Mutex<Vec<String>>,
    file: u32,
    file_name: String,
    /// The files that wait for the end of this one.
    open: Vec<String>,
    diagnostics: Vec<Diagnostic>,
    rdata: Vec<u8>,
    name: Vec<u8>,
}

/// What one part gave.
pub struct Part<S> {
    pub sink: S,
    pub diagnostics: Vec<Diagnostic>,
}

impl<'a, S: Sink> Reader<'a, S> {
    pub fn new(
        file: &str,
        text: &'a [u8],
        source: &'a dyn Source,
        files: &'a Mutex<Vec<String>>,
        sink: S,
    ) -> Reader<'a, S> {
        Reader {
            text,
            source,
            sink,
            state: State::new(&[0]),
            files,
            file: 0,
            file_name: file.into(),
            open: Vec::new(),
            diagnostics: Vec::new(),
            rdata: Vec::with_capacity(4096),
            name: Vec::with_capacity(256),
        }
    }

    /// What was read.
    pub fn finish(self) -> Part<S> {
        Part { sink: self.sink, diagnostics: self.diagnostics }
    }

    /// Reads from `start` up to `end`.
    pub fn read(&mut self, start: &Start, end: usize) {
        self.state = start.state.clone();
        let text = self.text;
        self.entries(&text[..end], start.at, start.lines);
    }

    fn entries(&mut self, text: &[u8], at: usize, lines: u32) {
        let mut lexer = Lexer::new(text, at, lines);
        while !lexer.is_at_end() {
            let line = (lexer.lines, lexer.line_at);
            match self.entry(&mut lexer) {
                Ok(()) => lexer.end_entry(),
                Err(fault) => {
                    self.report(text, line, Severity::Error, fault);
                    lexer.recover();
                }
            }
        }
    }

    /// Adds a diagnostic; `line` is one at or before the fault's.
    fn report(&mut self, text: &[u8], line: (u32, usize), severity: Severity, fault: Fault) {
        if self.diagnostics.len() >= DIAGNOSTICS_MAX {
            return;
        }
        let at = fault.at.min(text.len());
        let between = &text[line.1.min(at)..at];
        let more = between.iter().filter(|&&octet| octet == b'\n').count() as u32;
        let line_at = between
            .iter()
            .rposition(|&octet| octet == b'\n')
            .map_or(line.1, |last| line.1 + last + 1);
        let shown = &text[at..(at + fault.len.min(40)).min(text.len())];
        let shown = if shown.is_empty() { String::new() } else { shown.escape_ascii().to_string() };
        self.diagnostics.push(Diagnostic {
            severity,
            file: self.file_name.clone(),
            line: line.0 + more + 1,
            column: (at - line_at.min(at)) as u32 + 1,
            text: shown,
            expected: format!("expected {}", fault.expected),
        });
    }

    /// One entry, up to its line end.
    #[inline]
    fn entry(&mut self, lexer: &mut Lexer<'_>) -> Read<()> {
        let line = lexer.lines + 1;
        let blank_start = matches!(lexer.peek(), Some(b' ' | b'\t'));
        let Some(first) = lexer.word()? else { return Ok(()) };
        // A parenthesis before the first word counts as a blank: the owner was left out.
        let names_owner = !blank_start && first.at == lexer_line_start(lexer, first);
        if !names_owner {
            return self.record(lexer, first, line);
        }
        if first.text.first() == Some(&b'$') && !first.quoted && !first.escaped {
            return self.control(lexer, first);
        }
        self.name.clear();
        write_name(first, &self.state.origin, &mut self.name)?;
        std::mem::swap(&mut self.state.owner, &mut self.name);
        let next = lexer.need("a TTL, a class or a record type")?;
        self.record(lexer, next, line)
    }

    /// The rest of a record whose owner is known; `word` is its TTL, class or type.
    #[inline]
    fn record(&mut self, lexer: &mut Lexer<'_>, word: Word<'_>, line: u32) -> Read<()> {
        let (mut ttl, mut class, mut word) = (None, None, word);
        let rtype = loop {
            let expected = "a TTL, a class or a record type";
            if ttl.is_none()
                && let Some(seconds) = rdata::parse_ttl(word.text)
                && !word.quoted
            {
                ttl = Some(seconds);
            } else if class.is_none()
                && let Some(number) = parse_class(word.text)
            {
                class = Some(number);
            } else if let Some(rtype) = rtype::parse(word.text)
                && !word.quoted
            {
                break rtype;
            } else {
                return Err(Fault::of(
                    word,
                    if ttl.is_some() && class.is_some() { "a record type" } else { expected },
                ));
            }
            word = lexer.need(expected)?;
        };
        if rtype::is_meta(rtype) {
            return Err(Fault::of(word, "a type that records have: this one is for questions"));
        }
        if self.state.owner.is_empty() {
            return Err(Fault::of(word, "an owner before this: there is none to repeat"));
        }
        self.rdata.clear();
        let (owner, origin) = (&self.state.owner, &self.state.origin);
        rdata::read(lexer, rtype, origin, &mut self.rdata)?;
        //= RFC 2308, 4
        //# Where a server does not require RRs to include the TTL value explicitly, it should
        //# provide a mechanism, not being the value of the MINIMUM field of the SOA record
        let ttl = match ttl.or(self.state.default_ttl).or(self.state.last_ttl) {
            Some(ttl) => ttl,
            // RFC 1035, 3.3.13: a zone of the old kind, whose first record says it.
            None if rtype == rtype::SOA && self.rdata.len() >= 4 => {
                let minimum = self.rdata[self.rdata.len() - 4..].try_into().expect("four octets");
                u32::from_be_bytes(minimum)
            }
            None => {
                return Err(Fault::of(word, "a TTL: there is neither a $TTL nor a TTL before it"));
            }
        };
        self.state.last_ttl = Some(ttl);
        self.sink.record(Record {
            owner,
            rtype,
            class: class.unwrap_or(CLASS_IN),
            ttl,
            rdata: &self.rdata,
            line,
            file: self.file,
        });
        Ok(())
    }

    //------- Control entries

    fn control(&mut self, lexer: &mut Lexer<'_>, word: Word<'_>) -> Read<()> {
        if word.is("$ORIGIN") {
            self.state.read_origin(lexer)
        } else if word.is("$TTL") {
            self.state.read_ttl(lexer)
        } else if word.is("$INCLUDE") {
            self.include(lexer, word)
        } else if word.is("$GENERATE") {
            self.generate(lexer, word)
        } else {
            Err(Fault::of(word, "$ORIGIN, $TTL, $INCLUDE or $GENERATE"))
        }
    }

    fn include(&mut self, lexer: &mut Lexer<'_>, control: Word<'_>) -> Read<()> {
        let word = lexer.need("a file after $INCLUDE")?;
        let mut path = Vec::new();
        super::lexer::unescape(word, &mut path)?;
        let path = String::from_utf8(path).map_err(|_| Fault::of(word, "a file name in UTF-8"))?;
        let mut origin = self.state.origin.clone();
        if let Some(word) = lexer.word()? {
            origin.clear();
            write_name(word, &self.state.origin, &mut origin)?;
            lexer.expect_end()?;
        }
        if self.open.len() >= INCLUDE_DEPTH_MAX {
            let expected =
                format!("files that include each other at most {INCLUDE_DEPTH_MAX} deep");
            return Err(Fault::of(control, expected));
        }
        let opened = self
            .source
            .read(&path, Some(&self.file_name))
            .map_err(|error| Fault::of(word, error))?;
        if opened.name == self.file_name || self.open.contains(&opened.name) {
            return Err(Fault::of(word, "another file: this one would include itself"));
        }
        //= RFC 1035, 5.1
        //# Note that a $INCLUDE entry never changes the relative origin of the parent file,
        //# regardless of changes to the relative origin made within the included file.
        let file_number = {
            let mut files = self.files.lock().expect("no reader panicked");
            if files.len() > INCLUDE_COUNT_MAX {
                let expected = format!("at most {INCLUDE_COUNT_MAX} files in one zone");
                return Err(Fault::of(control, expected));
            }
            files.push(opened.name.clone());
            files.len() as u32 - 1
        };
        let origin_before = std::mem::replace(&mut self.state.origin, origin);
        let name_before = std::mem::replace(&mut self.file_name, opened.name.clone());
        let file_before = std::mem::replace(&mut self.file, file_number);
        let owner = self.state.owner.clone();
        let ttl = (self.state.default_ttl, self.state.last_ttl);
        self.open.push(name_before);
        self.entries(&opened.text, 0, 0);
        let name_before = self.open.pop().expect("just pushed");
        (self.file, self.file_name, self.state.origin) = (file_before, name_before, origin_before);
        (self.state.default_ttl, self.state.last_ttl) = ttl;
        self.state.owner = owner;
        Ok(())
    }

    fn generate(&mut self, lexer: &mut Lexer<'_>, control: Word<'_>) -> Read<()> {
        let line = (lexer.lines, lexer.line_at);
        let file_line = lexer.lines + 1;
        let template = generate::Template::read(lexer)?;
        let owner = std::mem::take(&mut self.state.owner);
        let mut text = Vec::new();
        for value in template.values() {
            text.clear();
            template.write(value, &mut text);
            let mut made = Lexer::new(&text, 0, file_line - 1);
            if let Err(fault) = self.entry(&mut made) {
                // The fault's place lies in text that nobody wrote: name the entry instead.
                let expected =
                    format!("{} in \"{}\", which this makes", fault.expected, text.escape_ascii());
                let whole = self.text;
                self.report(whole, line, Severity::Error, Fault::of(control, expected));
                break;
            }
        }
        self.state.owner = owner;
        Ok(())
    }
}

/// The start of the line that `word` is on, if nothing but it can stand there.
#[inline(always)]
fn lexer_line_start(lexer: &Lexer<'_>, word: Word<'_>) -> usize {
    if word.at == 0 || lexer.text()[word.at - 1] == b'\n' { word.at } else { usize::MAX }
}

/// A class by mnemonic or as `CLASS` and a number.
fn parse_class(text: &[u8]) -> Option<u16> {
    match text {
        b"IN" | b"in" | b"In" | b"iN" => Some(1),
        _ if text.eq_ignore_ascii_case(b"CH") => Some(3),
        _ if text.eq_ignore_ascii_case(b"HS") => Some(4),
        _ if text.eq_ignore_ascii_case(b"CS") => Some(2),
        _ => {
            let (prefix, number) = text.split_at_checked(5)?;
            let digits = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
            if !digits || !prefix.eq_ignore_ascii_case(b"CLASS") {
                return None;
            }
            std::str::from_utf8(number).ok()?.parse().ok()
        }
    }
}

//! Where a large text can be cut so that several threads may read it.
//!
//! ```text
//!   scan   lines outside parentheses and quotes ── $ORIGIN, $TTL, owners, last TTL ──> state
//!   cut    at the first entry past each target that names its own owner: the state travels along
//! ```
//!
//! A part needs what the entries before it left behind: origin, default TTL, last owner, last TTL
//! and class, and the line number. One scan over the text collects it without reading records:
//! only lines that start with `$` change the origin and the default, and the owner is the next
//! entry's own. Where no `$TTL` came before, a record may take its TTL from the one before it:
//! the cut is then made after a record that says its own. What a scan cannot know cheaply forbids
//! the cut instead. `$INCLUDE` leaves no trace.

use super::entry::{State, Stated};

/// Octets looked at in one step where nothing but plain lines stands.
const STEP_LEN: usize = 64 << 10;
/// Entries past its target that a cut is sought among.
const SOUGHT_MAX: usize = 10_000;

//----------- Start ----------------------------------------------------------

/// Where a part starts and what stands there.
#[derive(Clone, Debug)]
pub struct Start {
    /// Octet of the text: the start of an entry.
    pub at: usize,
    /// Line ends before it.
    pub lines: u32,
    /// What the entries before left behind.
    pub state: State,
}

/// The starts of at most `parts_max` parts of at least `part_len_min` octets.
pub fn split(text: &[u8], origin: &[u8], parts_max: usize, part_len_min: usize) -> Vec<Start> {
    let first = Start { at: 0, lines: 0, state: State::new(origin) };
    let parts = parts_max.min(text.len() / part_len_min.max(1)).max(1);
    if parts == 1 {
        return vec![first];
    }
    let mut starts = vec![first];
    let mut scan =
        Scan { text, at: 0, lines: 0, state: State::new(origin), marked_before: 0, last: None };
    for part in 1..parts {
        let target = text.len() / parts * part;
        match scan.cut(target) {
            Cut::At(start) => starts.push(start),
            Cut::Nowhere => break,
            Cut::Never => return starts.into_iter().take(1).collect(),
        }
    }
    starts
}

enum Cut {
    At(Start),
    /// The text ended.
    Nowhere,
    /// The text does something that a scan cannot follow.
    Never,
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    lines: u32,
    state: State,
    /// No step is worth trying before this octet.
    marked_before: usize,
    /// The last entry passed, if it was a record and no default TTL is known.
    last: Option<(usize, usize)>,
}

impl Scan<'_> {
    /// Goes to the first good place at or after `target`.
    fn cut(&mut self, target: usize) -> Cut {
        let mut sought = 0;
        while self.at < self.text.len() {
            self.pass_plain(target);
            let first = self.text[self.at];
            if first == b'$' {
                if !self.control() {
                    return Cut::Never;
                }
                continue;
            }
            let names_owner = !matches!(first, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')');
            if self.at >= target && names_owner {
                if let Some(state) = self.state_here() {
                    return Cut::At(Start { at: self.at, lines: self.lines, state });
                }
                sought += 1;
                if sought > SOUGHT_MAX {
                    return Cut::Never;
                }
            }
            let start = self.at;
            if !self.pass_entry() {
                return Cut::Never;
            }
            if self.state.default_ttl.is_none() {
                self.remember(start);
            }
        }
        Cut::Nowhere
    }

    /// Passes many lines at once, up to well before `target`, as long as they are plain ones.
    fn pass_plain(&mut self, target: usize) {
        while self.at >= self.marked_before && self.at + 2 * STEP_LEN < target {
            let step = &self.text[self.at..self.at + STEP_LEN];
            let marks = |octet: u8| matches!(octet, b'(' | b')' | b'"' | b'\\' | b'$');
            // Without an early end: this way it is done on many octets at once.
            let marked = step.iter().fold(false, |marked, &octet| marked | marks(octet));
            let end = step.iter().rposition(|&octet| octet == b'\n');
            let Some(end) = end.filter(|_| !marked) else {
                self.marked_before = self.at + STEP_LEN;
                return;
            };
            let step = &step[..=end];
            self.lines += step.iter().filter(|&&octet| octet == b'\n').count() as u32;
            self.at += step.len();
            self.last = None;
        }
    }

    /// What the entries before this place left behind, if it is known.
    fn state_here(&self) -> Option<State> {
        let mut state = self.state.clone();
        if state.default_ttl.is_none() {
            let (start, end) = self.last?;
            let Stated::Ttl(ttl) = Stated::by(&self.text[start..end]) else { return None };
            state.last_ttl = Some(ttl);
        }
        Some(state)
    }

    /// Keeps where the last record stands, from `start` to here, if it is one.
    fn remember(&mut self, start: usize) {
        match Stated::by(&self.text[start..self.at]) {
            Stated::NoRecord => {}
            Stated::Ttl(_) | Stated::NoTtl => self.last = Some((start, self.at)),
        }
    }

    /// Follows a control entry. `false` if it is one that the scan cannot follow.
    fn control(&mut self) -> bool {
        let start = self.at;
        let lines = self.lines;
        if !self.pass_entry() {
            return false;
        }
        let entry = &self.text[start..self.at];
        // $GENERATE makes records: the last of them is not at hand. $INCLUDE leaves no trace.
        if entry.get(..9).is_some_and(|word| word.eq_ignore_ascii_case(b"$GENERATE")) {
            self.last = None;
        }
        self.state.follow_control(entry, lines)
    }

    /// Passes one entry: to the line end outside parentheses and quotes.
    fn pass_entry(&mut self) -> bool {
        // Nearly all entries are one line without any mark.
        let rest = &self.text[self.at..];
        let Some(end) = rest.iter().position(|&octet| octet == b'\n') else {
            self.at = self.text.len();
            return true;
        };
        let marked = |octet: &u8| matches!(octet, b'(' | b'"' | b'\\' | b')');
        if !rest[..end].iter().any(marked) {
            self.at += end + 1;
            self.lines += 1;
            return true;
        }
        let mut lexer = super::lexer::Lexer::new(self.text, self.at, self.lines);
        loop {
            match lexer.word() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // The readers will say what is wrong; they agree on places only in sound text.
                Err(_) => return false,
            }
        }
        lexer.end_entry();
        (self.at, self.lines) = (lexer.at, lexer.lines);
        true
    }
}

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
//! entry's own. What a scan cannot know cheaply forbids the cut instead: after `$INCLUDE` nothing
//! need be known, for it leaves no trace but the last TTL; and where TTLs are left out without a
//! `$TTL` before, the text is read as one part.

use super::entry::State;

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
    let mut scan = Scan { text, at: 0, lines: 0, state: State::new(origin) };
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
}

impl Scan<'_> {
    /// Goes to the first good place at or after `target`.
    fn cut(&mut self, target: usize) -> Cut {
        while self.at < self.text.len() {
            let first = self.text[self.at];
            if first == b'$' {
                if !self.control() {
                    return Cut::Never;
                }
                continue;
            }
            let names_owner = !matches!(first, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')');
            if self.at >= target && names_owner {
                // Without a default, a record may take its TTL from the one before it.
                if self.state.default_ttl.is_none() {
                    return Cut::Never;
                }
                return Cut::At(Start {
                    at: self.at,
                    lines: self.lines,
                    state: self.state.clone(),
                });
            }
            if !self.pass_entry() {
                return Cut::Never;
            }
        }
        Cut::Nowhere
    }

    /// Follows a control entry. `false` if it is one that the scan cannot follow.
    fn control(&mut self) -> bool {
        let start = self.at;
        let lines = self.lines;
        if !self.pass_entry() {
            return false;
        }
        let entry = &self.text[start..self.at];
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

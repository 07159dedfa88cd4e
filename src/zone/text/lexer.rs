//! Zone text as words: where they start, where an entry ends.
//!
//! ```text
//!   host  3600  IN  TXT  ( "two words"   ; a comment
//!                          \"quoted\" )
//!   word  word  word word   quoted         word         end of entry
//! ```
//!
//! An entry ends with its line, unless the line's end stands inside parentheses or quotes. A word
//! is a slice of the text; its escapes are resolved by whoever needs the octets.

use std::borrow::Cow;

//----------- Fault ----------------------------------------------------------

/// What is wrong, and where.
#[derive(Debug)]
pub struct Fault {
    /// Octet of the text.
    pub at: usize,
    /// Octets at fault.
    pub len: usize,
    /// What was expected: a phrase.
    pub expected: Cow<'static, str>,
}

impl Fault {
    /// A fault of a word.
    pub fn of(word: Word<'_>, expected: impl Into<Cow<'static, str>>) -> Fault {
        Fault { at: word.at, len: word.text.len(), expected: expected.into() }
    }
}

/// What a reading step gives.
pub type Read<T> = Result<T, Fault>;

//----------- Word -----------------------------------------------------------

/// A word of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a> {
    /// Without quotes, escapes as written.
    pub text: &'a [u8],
    /// Octet of the text it starts at.
    pub at: usize,
    /// It stood in quotes.
    pub quoted: bool,
    /// It holds a backslash.
    pub escaped: bool,
}

impl Word<'_> {
    /// Whether it is `expected`, without regard to case; never if quoted.
    pub fn is(self, expected: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(expected.as_bytes())
    }
}

//----------- Classes of octets ----------------------------------------------

const WORD: u8 = 0;
const BLANK: u8 = 1;
const END: u8 = 2;
const MARK: u8 = 3;
const ESCAPE: u8 = 4;

/// The class of each octet.
const CLASSES: [u8; 256] = {
    let mut classes = [WORD; 256];
    classes[b' ' as usize] = BLANK;
    classes[b'\t' as usize] = BLANK;
    classes[b'\r' as usize] = BLANK;
    classes[b'\n' as usize] = END;
    classes[b';' as usize] = MARK;
    classes[b'(' as usize] = MARK;
    classes[b')' as usize] = MARK;
    classes[b'"' as usize] = MARK;
    classes[b'\\' as usize] = ESCAPE;
    classes[0] = MARK;
    classes
};

//----------- Lexer ----------------------------------------------------------

/// A position in zone text.
pub struct Lexer<'a> {
    text: &'a [u8],
    /// The next octet.
    pub at: usize,
    /// Lines that ended before `at`.
    pub lines: u32,
    /// Octet that the current line starts at.
    pub line_at: usize,
    depth: u32,
    open_at: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at `at`, which lies `lines` line ends into the text.
    pub fn new(text: &'a [u8], at: usize, lines: u32) -> Lexer<'a> {
        Lexer { text, at, lines, line_at: at, depth: 0, open_at: 0 }
    }

    /// Whether the text is used up.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// The octet at the position.
    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The whole text.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The next word of the entry, or `None` at its end, which is not passed.
    #[inline]
    pub fn word(&mut self) -> Read<Option<Word<'a>>> {
        loop {
            let Some(&octet) = self.text.get(self.at) else { return self.end_of_text() };
            match CLASSES[octet as usize] {
                BLANK => self.at += 1,
                WORD | ESCAPE => return self.plain().map(Some),
                END if self.depth == 0 => return Ok(None),
                END => self.pass_line_end(),
                _ => {
                    if let Some(word) = self.mark(octet)? {
                        return Ok(Some(word));
                    }
                }
            }
        }
    }

    #[inline]
    fn plain(&mut self) -> Read<Word<'a>> {
        let start = self.at;
        let mut escaped = false;
        while let Some(&octet) = self.text.get(self.at) {
            match CLASSES[octet as usize] {
                WORD => self.at += 1,
                ESCAPE => {
                    escaped = true;
                    self.pass_escape()?;
                }
                _ => break,
            }
        }
        Ok(Word { text: &self.text[start..self.at], at: start, quoted: false, escaped })
    }

    fn pass_escape(&mut self) -> Read<()> {
        match self.text.get(self.at + 1) {
            None | Some(b'\n') => {
                Err(Fault { at: self.at, len: 1, expected: "a character after \\".into() })
            }
            Some(_) => {
                self.at += 2;
                Ok(())
            }
        }
    }

    /// A comment, a parenthesis or a quoted word.
    fn mark(&mut self, octet: u8) -> Read<Option<Word<'a>>> {
        let fault = |at, expected: &'static str| Fault { at, len: 1, expected: expected.into() };
        match octet {
            b';' => self.pass_comment(),
            b'(' => {
                self.open_at = self.at;
                self.depth += 1;
                self.at += 1;
            }
            b')' if self.depth == 0 => {
                return Err(fault(self.at, "a ( before this )"));
            }
            b')' => {
                self.depth -= 1;
                self.at += 1;
            }
            b'"' => return self.quoted().map(Some),
            _ => return Err(fault(self.at, "text, where there is an octet of zero")),
        }
        Ok(None)
    }

    fn quoted(&mut self) -> Read<Word<'a>> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            match self.text.get(self.at) {
                None => {
                    self.at = start + 1;
                    self.skip_line();
                    let expected = "a closing \" before the end of the file".into();
                    return Err(Fault { at: start, len: 1, expected });
                }
                Some(b'"') => {
                    let text = &self.text[start + 1..self.at];
                    self.at += 1;
                    return Ok(Word { text, at: start, quoted: true, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    if self.peek() == Some(b'\n') {
                        self.pass_line_end();
                    } else if !self.is_at_end() {
                        self.at += 1;
                    }
                }
                Some(b'\n') => self.pass_line_end(),
                Some(_) => self.at += 1,
            }
        }
    }

    fn end_of_text(&mut self) -> Read<Option<Word<'a>>> {
        if self.depth > 0 {
            self.depth = 0;
            let expected = "a closing ) before the end of the file".into();
            return Err(Fault { at: self.open_at, len: 1, expected });
        }
        Ok(None)
    }

    fn pass_comment(&mut self) {
        while self.peek().is_some_and(|octet| octet != b'\n') {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        self.pass_comment();
    }

    #[inline]
    fn pass_line_end(&mut self) {
        self.at += 1;
        self.lines += 1;
        self.line_at = self.at;
    }

    /// Passes the end of the line after a complete entry.
    #[inline]
    pub fn end_entry(&mut self) {
        if self.peek() == Some(b'\n') {
            self.pass_line_end();
        }
    }

    /// After a fault: goes to the start of the next entry.
    pub fn recover(&mut self) {
        loop {
            match self.word() {
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.depth = 0;
                    return self.end_entry();
                }
                Err(_) if self.is_at_end() => return,
                Err(_) => self.at += 1,
            }
        }
    }

    /// Rejects anything more in the entry.
    #[inline]
    pub fn expect_end(&mut self) -> Read<()> {
        match self.word()? {
            None => Ok(()),
            Some(word) => Err(Fault::of(word, "the end of the record")),
        }
    }

    /// The next word, which must be there.
    #[inline]
    pub fn need(&mut self, expected: &'static str) -> Read<Word<'a>> {
        match self.word()? {
            Some(word) => Ok(word),
            None => Err(Fault { at: self.at, len: 0, expected: expected.into() }),
        }
    }
}

//----------- Escapes --------------------------------------------------------

/// Appends the octets of `word`, its escapes resolved.
pub fn unescape(word: Word<'_>, out: &mut Vec<u8>) -> Read<()> {
    if !word.escaped {
        out.extend_from_slice(word.text);
        return Ok(());
    }
    let mut rest = word.text;
    while let Some((&octet, after)) = rest.split_first() {
        if octet == b'\\' {
            let (octet, after) = escape(after).ok_or_else(|| {
                Fault::of(word, "\\ followed by a character or by three digits up to 255")
            })?;
            out.push(octet);
            rest = after;
        } else {
            out.push(octet);
            rest = after;
        }
    }
    Ok(())
}

/// The octet that the text after a backslash means, and what follows it.
pub fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] => {
            let digit = |octet: &u8| u16::from(octet - b'0');
            let value = digit(a) * 100 + digit(b) * 10 + digit(c);
            Some((u8::try_from(value).ok()?, rest))
        }
        [b'0'..=b'9', ..] | [] => None,
        [octet, rest @ ..] => Some((*octet, rest)),
    }
}

//! `$GENERATE start-stop[/step] owner [TTL] [class] type RDATA`, as BIND made it and Knot reads it.
//!
//! ```text
//!   $GENERATE 1-3 host$ A 192.0.2.${100,3,d}   ──>   host1 A 192.0.2.101   host2 A 192.0.2.102 ...
//!
//!   $                      the value
//!   ${offset,width,base}   value + offset, padded to width; base d o x X, or n N for nibbles
//!   $$ or \$               a dollar sign
//! ```

use crate::limits::GENERATE_COUNT_MAX;

use super::lexer::{Fault, Lexer, Read, Word};

//----------- Template -------------------------------------------------------

/// A `$GENERATE` entry: a range, and text with places for the value.
pub struct Template {
    start: u64,
    stop: u64,
    step: u64,
    pieces: Vec<Piece>,
}

enum Piece {
    Text(Vec<u8>),
    Value { offset: i64, width: usize, base: u8 },
}

impl Template {
    /// Reads the rest of the entry.
    pub fn read(lexer: &mut Lexer<'_>) -> Read<Template> {
        let word = lexer.need("a range such as 1-10 or 0-100/2")?;
        let (start, stop, step) =
            range(word).ok_or_else(|| Fault::of(word, "a range such as 1-10 or 0-100/2"))?;
        if (stop - start) / step >= GENERATE_COUNT_MAX {
            let expected = format!("a range of at most {GENERATE_COUNT_MAX} values");
            return Err(Fault::of(word, expected));
        }
        let mut pieces = Vec::new();
        let mut words = 0;
        while let Some(word) = lexer.word()? {
            if words > 0 {
                push(&mut pieces, b" ");
            }
            let quote: &[u8] = if word.quoted { b"\"" } else { b"" };
            push(&mut pieces, quote);
            split_word(word, &mut pieces)?;
            push(&mut pieces, quote);
            words += 1;
        }
        if words < 3 {
            let expected = "an owner, a type and RDATA after the range";
            return Err(Fault::of(word, expected));
        }
        Ok(Template { start, stop, step, pieces })
    }

    /// The values of the range.
    pub fn values(&self) -> impl Iterator<Item = u64> + use<> {
        (self.start..=self.stop).step_by(self.step as usize)
    }

    /// Appends the entry for `value`.
    pub fn write(&self, value: u64, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Value { offset, width, base } => {
                    let value = (value as i64).wrapping_add(*offset);
                    let width = *width;
                    let text = match base {
                        b'o' => format!("{value:0width$o}"),
                        b'x' => format!("{value:0width$x}"),
                        b'X' => format!("{value:0width$X}"),
                        b'n' | b'N' => nibbles(value as u64, width, *base == b'N'),
                        _ => format!("{value:0width$}"),
                    };
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
    }
}

/// Hexadecimal digits from the lowest, with dots between them; `width` counts both.
fn nibbles(mut value: u64, width: usize, upper: bool) -> String {
    let mut text = String::new();
    loop {
        let digit = char::from_digit((value & 0xF) as u32, 16).expect("below 16");
        text.push(if upper { digit.to_ascii_uppercase() } else { digit });
        value >>= 4;
        if value == 0 && text.len() >= width {
            return text;
        }
        text.push('.');
        if value == 0 && text.len() >= width {
            return text;
        }
    }
}

fn range(word: Word<'_>) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(word.text).ok()?;
    let (range, step) = text.split_once('/').unwrap_or((text, "1"));
    let (start, stop) = range.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        if digits { text.parse::<u32>().ok().map(u64::from) } else { None }
    };
    let (start, stop, step) = (number(start)?, number(stop)?, number(step)?);
    (start <= stop && step > 0).then_some((start, stop, step))
}

fn push(pieces: &mut Vec<Piece>, text: &[u8]) {
    match pieces.last_mut() {
        Some(Piece::Text(last)) => last.extend_from_slice(text),
        _ => pieces.push(Piece::Text(text.to_vec())),
    }
}

fn split_word(word: Word<'_>, pieces: &mut Vec<Piece>) -> Read<()> {
    let mut rest = word.text;
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        match (octet, after) {
            (b'\\', [b'$', tail @ ..]) | (b'$', [b'$', tail @ ..]) => {
                push(pieces, b"\\$");
                rest = tail;
            }
            (b'\\', [escaped, tail @ ..]) => {
                push(pieces, &[b'\\', *escaped]);
                rest = tail;
            }
            (b'$', [b'{', tail @ ..]) => {
                let end = tail.iter().position(|&octet| octet == b'}');
                let (piece, tail) = end
                    .and_then(|end| Some((modifier(&tail[..end])?, &tail[end + 1..])))
                    .ok_or_else(|| Fault::of(word, "${offset,width,base} with base d o x X n N"))?;
                pieces.push(piece);
                rest = tail;
            }
            (b'$', _) => pieces.push(Piece::Value { offset: 0, width: 0, base: b'd' }),
            (octet, _) => push(pieces, &[octet]),
        }
    }
    Ok(())
}

fn modifier(text: &[u8]) -> Option<Piece> {
    let mut parts = std::str::from_utf8(text).ok()?.split(',');
    let offset = parts.next()?.parse().ok()?;
    let width = parts.next().map_or(Some(0), |width| width.parse().ok())?;
    let base = match parts.next().unwrap_or("d").as_bytes() {
        [base @ (b'd' | b'o' | b'x' | b'X' | b'n' | b'N')] => *base,
        _ => return None,
    };
    (width <= 255 && parts.next().is_none()).then_some(Piece::Value { offset, width, base })
}

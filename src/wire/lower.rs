//! A name made ready for looking up: lower case, its labels found.
//!
//! ```text
//!   octets    3 w w w 7 e x a m p l e 3 o r g 0 · · · · · · · ·   (padded: 8 octets may be read
//!   label_at  0       4               12      16                   from any label's start)
//!   depth     3       2               1       0
//! ```
//!
//! The *depth* of a suffix is its number of labels: the root has depth 0.

use crate::limits::{NAME_LABELS_MAX, NAME_LEN_MAX};

/// Octets copied and lower-cased at a time.
const STEP: usize = 16;
/// Room for a whole name and for eight octets read from its last position.
pub const LOWER_BUFFER_LEN: usize = 272;
const _: () =
    assert!(LOWER_BUFFER_LEN.is_multiple_of(STEP) && LOWER_BUFFER_LEN >= NAME_LEN_MAX + 8);

//----------- LowerName ------------------------------------------------------

/// A lower-cased name in wire form with the positions of its labels. Reused, never allocated.
#[derive(Clone)]
pub struct LowerName {
    octets: [u8; LOWER_BUFFER_LEN],
    label_at: [u8; NAME_LABELS_MAX + 1],
    labels: u8,
}

impl Default for LowerName {
    fn default() -> LowerName {
        LowerName::new()
    }
}

impl LowerName {
    /// The root.
    pub const fn new() -> LowerName {
        LowerName { octets: [0; LOWER_BUFFER_LEN], label_at: [0; NAME_LABELS_MAX + 1], labels: 0 }
    }

    /// Reads the uncompressed name at the start of `octets`. Returns its length, or `None` when
    /// it is cut short, too long, or has a label type other than 00: `self` is then meaningless.
    #[inline]
    pub fn read(&mut self, octets: &[u8]) -> Option<usize> {
        let mut at = 0;
        let mut labels = 0;
        loop {
            let len = *octets.get(at)? as usize;
            if len == 0 {
                break;
            }
            //= RFC 1035, 2.3.4
            //# names           255 octets or less
            if len > 63 || at + 1 + len >= NAME_LEN_MAX {
                return None;
            }
            self.label_at[labels] = at as u8;
            labels += 1;
            at += 1 + len;
        }
        self.label_at[labels] = at as u8;
        self.labels = labels as u8;
        let len = at + 1;
        if octets.len() >= LOWER_BUFFER_LEN {
            for start in (0..len).step_by(STEP) {
                let step: &mut [u8; STEP] =
                    (&mut self.octets[start..start + STEP]).try_into().expect("one step");
                step.copy_from_slice(&octets[start..start + STEP]);
                lower_step(step);
            }
        } else {
            self.octets[..len].copy_from_slice(&octets[..len]);
            self.octets[..len].make_ascii_lowercase();
        }
        Some(len)
    }

    /// Becomes `relative`, whole labels in lower case, followed by `apex`, a whole name in lower
    /// case. `None` as for [`LowerName::read`].
    pub fn join(&mut self, relative: &[u8], apex: &[u8]) -> Option<()> {
        let len = relative.len() + apex.len();
        if len > NAME_LEN_MAX {
            return None;
        }
        let (mut at, mut labels) = (0, 0);
        while at < relative.len() {
            self.label_at[labels] = at as u8;
            labels += 1;
            at += 1 + relative[at] as usize;
        }
        if at != relative.len() {
            return None;
        }
        self.octets[..at].copy_from_slice(relative);
        self.octets[at..len].copy_from_slice(apex);
        while at < len {
            *self.label_at.get_mut(labels)? = at as u8;
            labels += 1;
            at += 1 + self.octets[at] as usize;
        }
        self.labels = (labels - 1) as u8;
        (at == len).then_some(())
    }

    /// Reads a possibly compressed name at `at` of `message`. Pointers must point backwards.
    pub fn read_compressed(&mut self, message: &[u8], mut at: usize) -> Option<usize> {
        let mut flat = [0; NAME_LEN_MAX + 1];
        let mut len = 0;
        let mut floor = at;
        loop {
            let label_len = *message.get(at)? as usize;
            match label_len {
                0 => break,
                1..=63 => {
                    let label = message.get(at..at + 1 + label_len)?;
                    if len + label.len() >= NAME_LEN_MAX {
                        return None;
                    }
                    flat[len..len + label.len()].copy_from_slice(label);
                    len += label.len();
                    at += label.len();
                }
                0xC0.. => {
                    let target = (label_len & 0x3F) << 8 | *message.get(at + 1)? as usize;
                    if target >= floor {
                        return None;
                    }
                    floor = target;
                    at = target;
                }
                _ => return None,
            }
        }
        self.read(&flat[..=len])
    }

    /// Labels, the root not counted: the depth of the whole name.
    #[inline(always)]
    pub fn depth(&self) -> usize {
        self.labels as usize
    }

    /// Octets of the wire form, the root's included.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.label_at[self.labels as usize] as usize + 1
    }

    /// Whether this is the root.
    pub fn is_empty(&self) -> bool {
        self.labels == 0
    }

    /// The wire form.
    #[inline(always)]
    pub fn as_wire(&self) -> &[u8] {
        &self.octets[..self.len()]
    }

    /// Where the suffix of `depth` labels starts.
    #[inline(always)]
    pub fn suffix_at(&self, depth: usize) -> usize {
        self.label_at[self.labels as usize - depth] as usize
    }

    /// The wire form of the last `depth` labels.
    #[inline(always)]
    pub fn suffix(&self, depth: usize) -> &[u8] {
        &self.octets[self.suffix_at(depth)..self.len()]
    }

    /// Octets of the suffix of `depth` labels.
    #[inline(always)]
    pub fn suffix_len(&self, depth: usize) -> usize {
        self.len() - self.suffix_at(depth)
    }

    /// The buffer, for reading eight octets at any label.
    #[inline(always)]
    pub fn padded(&self) -> &[u8; LOWER_BUFFER_LEN] {
        &self.octets
    }
}

/// Lower-cases sixteen octets without a branch. Length octets are below `A` and stay.
#[inline(always)]
fn lower_step(step: &mut [u8; STEP]) {
    for octet in step {
        *octet |= u8::from(octet.wrapping_sub(b'A') < 26) << 5;
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_suffixes() {
        let mut name = LowerName::new();
        let mut octets = b"\x03wWw\x07EXAMPLE\x03org\0tail".to_vec();
        for padding in [0, 300] {
            octets.resize(21 + padding, b'X');
            assert_eq!(name.read(&octets), Some(17));
            assert_eq!(name.as_wire(), b"\x03www\x07example\x03org\0");
            assert_eq!(name.depth(), 3);
            assert_eq!(name.suffix(1), b"\x03org\0");
            assert_eq!(name.suffix(0), b"\0");
        }
    }

    #[test]
    fn joined_as_if_read_whole() {
        let (mut apex, mut joined, mut whole) =
            (LowerName::new(), LowerName::new(), LowerName::new());
        apex.read(b"\x07example\x03org\0").unwrap();
        for relative in [&b""[..], b"\x03www", b"\x01a\x01*\x02bc"] {
            joined.join(relative, apex.as_wire()).unwrap();
            whole.read(&[relative, apex.as_wire()].concat()).unwrap();
            assert_eq!(joined.as_wire(), whole.as_wire());
            let suffixes = |name: &LowerName| {
                (0..=name.depth()).map(|depth| name.suffix_at(depth)).collect::<Vec<_>>()
            };
            assert_eq!(suffixes(&joined), suffixes(&whole));
        }
        assert!(joined.join(b"\x03ab", apex.as_wire()).is_none());
        assert!(joined.join(&b"\x01a".repeat(122), apex.as_wire()).is_none());
        assert!(joined.join(&b"\x01a".repeat(121), apex.as_wire()).is_some());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let mut name = LowerName::new();
        for octets in [&b""[..], b"\x03ab", b"\x40", b"\xC0\x0C"] {
            assert_eq!(name.read(octets), None);
        }
        let mut longest = b"\x01a".repeat(127);
        longest.push(0);
        assert_eq!(name.read(&longest), Some(255));
        assert_eq!(name.depth(), 127);
        longest.splice(0..1, [2, b'b']);
        assert_eq!(name.read(&longest), None);
    }

    #[test]
    fn pointers_go_backwards_only() {
        let mut name = LowerName::new();
        let message = b"\x03org\0\x01A\xC0\x00\xC0\x0B\xC0\x09\xC0\x05";
        assert_eq!(name.read_compressed(message, 5), Some(7));
        assert_eq!(name.as_wire(), b"\x01a\x03org\0");
        assert_eq!(name.read_compressed(message, 13), Some(7));
        assert_eq!(name.read_compressed(message, 9), None);
        assert_eq!(name.read_compressed(message, 11), None);
    }
}

//! What one connection has to send and has received: messages behind two octets of length
//! (RFC 1035, 4.2.2), cut where the stream cuts them.
//!
//! ```text
//!   Outgoing   | sent | sent, in | part      | whole | whole |      Incoming   | part of a reply |
//!                     head ──────┘ written ──┘                  + what a read brings ──> replies
//! ```

use std::io::{self, ErrorKind, Read, Write};

use ring53::limits::HEADER_LEN;

/// Octets that wait for a peer that does not read: beyond, its lane takes no more queries.
pub(crate) const OUTGOING_OCTETS_MAX: usize = 256 << 10;
/// Octets of one read, and of what is left over from the read before.
pub(crate) const SCRATCH_OCTETS: usize = 192 << 10;

// What is left over is less than one message: a read always has room.
const _: () = assert!(SCRATCH_OCTETS > 2 * (2 + u16::MAX as usize));

//----------- Outgoing -------------------------------------------------------

/// Queries on their way into a connection.
#[derive(Default)]
pub(crate) struct Outgoing {
    octets: Vec<u8>,
    /// Where the first message starts that has not been written whole.
    head: usize,
    /// What has been written.
    written: usize,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing is left.
    All,
    /// The connection takes no more for now.
    Blocked,
}

impl Outgoing {
    /// Takes a message; `false` if too much waits already.
    pub(crate) fn push(&mut self, message: &[u8]) -> bool {
        let Ok(len) = u16::try_from(message.len()) else { return false };
        if self.octets.len() + 2 + message.len() > OUTGOING_OCTETS_MAX {
            if self.head == 0 {
                return false;
            }
            self.octets.drain(..self.head);
            self.written -= self.head;
            self.head = 0;
            if self.octets.len() + 2 + message.len() > OUTGOING_OCTETS_MAX {
                return false;
            }
        }
        self.octets.extend(len.to_be_bytes());
        self.octets.extend(message);
        true
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.octets.len()
    }

    /// Writes as far as it goes without waiting; `sent` is told each message that went out whole.
    pub(crate) fn write_to(
        &mut self,
        stream: &mut impl Write,
        mut sent: impl FnMut(&[u8]),
    ) -> io::Result<Written> {
        while self.written < self.octets.len() {
            match stream.write(&self.octets[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            while let Some(message) = first(&self.octets[self.head..self.written]) {
                sent(message);
                self.head += 2 + message.len();
            }
        }
        if self.written < self.octets.len() {
            return Ok(Written::Blocked);
        }
        self.clear(OUTGOING_OCTETS_MAX);
        Ok(Written::All)
    }

    /// The messages that were not written whole.
    pub(crate) fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        messages(&self.octets[self.head..])
    }

    /// Forgets everything, and all memory beyond `kept_octets`.
    pub(crate) fn clear(&mut self, kept_octets: usize) {
        self.octets.clear();
        self.octets.shrink_to(kept_octets);
        self.head = 0;
        self.written = 0;
    }
}

//----------- Incoming -------------------------------------------------------

/// The part of a reply that has arrived.
#[derive(Default)]
pub(crate) struct Incoming {
    part: Vec<u8>,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The connection goes on.
    Open,
    /// The peer has closed it.
    Closed,
    /// A length that no message has: what follows cannot be read.
    Garbage,
}

impl Incoming {
    /// Reads once and hands out the messages that are whole, one that is no message included.
    pub(crate) fn read_from(
        &mut self,
        stream: &mut impl Read,
        scratch: &mut [u8],
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<Received> {
        let kept = self.part.len();
        scratch[..kept].copy_from_slice(&self.part);
        let len = match stream.read(&mut scratch[kept..]) {
            Ok(0) => return Ok(Received::Closed),
            Ok(len) => len,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(Received::Open);
            }
            Err(error) => return Err(error),
        };
        let octets = &scratch[..kept + len];
        let mut at = 0;
        self.part.clear();
        while let Some(message) = first(&octets[at..]) {
            take(message);
            if message.len() < HEADER_LEN {
                return Ok(Received::Garbage);
            }
            at += 2 + message.len();
        }
        self.part.extend(&octets[at..]);
        Ok(Received::Open)
    }

    /// Forgets everything, and all memory beyond `kept_octets`.
    pub(crate) fn clear(&mut self, kept_octets: usize) {
        self.part.clear();
        self.part.shrink_to(kept_octets);
    }
}

/// The first message of `octets`, if it is whole.
fn first(octets: &[u8]) -> Option<&[u8]> {
    let (len, rest) = octets.split_first_chunk::<2>()?;
    rest.get(..u16::from_be_bytes(*len) as usize)
}

/// The whole messages of `octets`.
fn messages(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let message = first(rest)?;
        rest = &rest[2 + message.len()..];
        Some(message)
    })
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A stream that takes and gives in pieces of set lengths; 0 would block.
    struct Pieces {
        lens: VecDeque<usize>,
        octets: Vec<u8>,
    }

    impl Pieces {
        fn next(&mut self, len_max: usize) -> io::Result<usize> {
            match self.lens.pop_front() {
                Some(0) => Err(ErrorKind::WouldBlock.into()),
                Some(len) => Ok(len.min(len_max)),
                None => Ok(len_max),
            }
        }
    }

    impl Write for Pieces {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let len = self.next(octets.len())?;
            self.octets.extend(&octets[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Pieces {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let len = self.next(room.len().min(self.octets.len()))?;
            room[..len].copy_from_slice(&self.octets[..len]);
            self.octets.drain(..len);
            Ok(len)
        }
    }

    fn pieces(lens: &[usize]) -> Pieces {
        Pieces { lens: lens.iter().copied().collect(), octets: Vec::new() }
    }

    fn message(number: u8) -> Vec<u8> {
        vec![number; 12 + number as usize * 7]
    }

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let mut outgoing = Outgoing::default();
        for number in 0..3 {
            assert!(outgoing.push(&message(number)));
        }
        // One octet, then all of message 0 and one octet of message 1, then nothing.
        let mut stream = pieces(&[1, 14, 0]);
        let mut sent = Vec::new();
        let written = outgoing.write_to(&mut stream, |message| sent.push(message.to_vec()));
        assert_eq!(written.unwrap(), Written::Blocked);
        assert_eq!(sent, [message(0)]);
        // What was written in part counts as unsent: another connection needs all of it.
        assert_eq!(outgoing.unsent().count(), 2);
        assert_eq!(outgoing.unsent().next().unwrap(), message(1));
        let written = outgoing.write_to(&mut stream, |message| sent.push(message.to_vec()));
        assert_eq!(written.unwrap(), Written::All);
        assert_eq!(sent, [message(0), message(1), message(2)]);
        assert!(outgoing.is_empty());
        assert_eq!(messages(&stream.octets).collect::<Vec<_>>(), sent);
    }

    #[test]
    fn what_waits_is_bounded_and_room_comes_back() {
        let mut outgoing = Outgoing::default();
        let big = vec![7; 30_000];
        let mut count = 0;
        while outgoing.push(&big) {
            count += 1;
            assert!(count < 100);
        }
        assert_eq!(count, OUTGOING_OCTETS_MAX / 30_002);
        let mut stream = pieces(&[30_002 + 5, 0]);
        outgoing.write_to(&mut stream, |_| {}).unwrap();
        assert!(outgoing.push(&big));
        assert!(!outgoing.push(&big));
        outgoing.write_to(&mut stream, |_| {}).unwrap();
        assert_eq!(messages(&stream.octets).filter(|message| *message == big).count(), count + 1);
    }

    #[test]
    fn replies_come_in_any_pieces() {
        let mut octets = Vec::new();
        for number in 0..4u8 {
            octets.extend((message(number).len() as u16).to_be_bytes());
            octets.extend(message(number));
        }
        for piece in 1..octets.len() {
            let mut stream = pieces(&vec![piece; octets.len()]);
            stream.octets = octets.clone();
            let (mut incoming, mut found) = (Incoming::default(), Vec::new());
            let mut scratch = vec![0; SCRATCH_OCTETS];
            let take = &mut |message: &[u8]| found.push(message.to_vec());
            while incoming.read_from(&mut stream, &mut scratch, &mut *take).unwrap()
                == Received::Open
            {}
            assert_eq!(found, [message(0), message(1), message(2), message(3)], "{piece}");
        }
    }

    #[test]
    fn a_length_that_no_message_has_ends_it() {
        for octets in [&[0, 0][..], &[0, 3, 1, 2, 3], &[0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let mut stream = pieces(&[]);
            stream.octets = [octets, &[0, 12], &message(0)].concat();
            let (mut incoming, mut count) = (Incoming::default(), 0);
            let mut scratch = vec![0; SCRATCH_OCTETS];
            let read = incoming.read_from(&mut stream, &mut scratch, |_| count += 1);
            assert_eq!((read.unwrap(), count), (Received::Garbage, 1));
        }
    }
}

//! Queries, ready to send.
//!
//! ```text
//!   octets   | message 0 (ID 0) | message 1 | ...          entries   where each is, what it needs
//!   order    7 0 7 3 ...  which is asked when; read from one end to the other, again and again
//! ```

use ring53::limits::HEADER_LEN;

use crate::zones::queries::Random;

//----------- Entry ----------------------------------------------------------

/// One query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    start: u64,
    len: u16,
    /// Octets of its question section.
    pub question_len: u16,
    /// Octets of the first label that are drawn anew each time; 0 for none.
    pub fresh: u8,
    /// Whether the case of each letter is drawn anew each time.
    pub mixed_case: bool,
    /// Whether it is asked over a stream.
    pub stream: bool,
    /// What the answer has to be.
    pub expected: Option<Expected>,
}

impl Entry {
    /// Octets of the message.
    pub fn message_len(&self) -> usize {
        self.len as usize
    }
}

/// What an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The header's rcode.
    pub rcode: u8,
    /// Of the records, see the verifier; `None`: only the rcode counts.
    pub digest: Option<u64>,
    /// Whether the authority section has to prove with signed NSEC or NSEC3 records what is not
    /// there (RFC 4035, 3.1.3).
    pub proof: bool,
}

//----------- Questions ------------------------------------------------------

/// Queries and their order. Shared by all threads of a generator.
#[derive(Debug, Default)]
pub struct Questions {
    octets: Vec<u8>,
    entries: Vec<Entry>,
    order: Vec<u32>,
    text: String,
}

impl Questions {
    /// Different queries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The mix in words.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Which query is asked at `position`.
    #[inline]
    pub fn index_at(&self, position: u64) -> u32 {
        self.order[(position % self.order.len() as u64) as usize]
    }

    /// Positions before the order begins anew.
    pub fn order_len(&self) -> usize {
        self.order.len()
    }

    /// Query `index`.
    #[inline]
    pub fn entry(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    /// All queries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The message of `entry`, its ID zero, nothing drawn.
    pub fn message(&self, entry: &Entry) -> &[u8] {
        &self.octets[entry.start as usize..][..entry.len as usize]
    }

    /// Writes the message of `entry` to `out`, drawing what it has drawn; returns its length.
    #[inline]
    pub fn write(&self, entry: &Entry, random: &mut Random, out: &mut [u8]) -> usize {
        let len = entry.len as usize;
        out[..len].copy_from_slice(self.message(entry));
        if entry.fresh > 0 {
            const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
            let mut bits = 0;
            for (at, octet) in out[HEADER_LEN + 1..][..entry.fresh as usize].iter_mut().enumerate()
            {
                if at % 12 == 0 {
                    bits = random.below(1 << 60);
                }
                *octet = LETTERS[(bits & 31) as usize];
                bits >>= 5;
            }
        }
        if entry.mixed_case {
            // The last four octets of a question are its type and class.
            let name = &mut out[HEADER_LEN..][..entry.question_len as usize - 4];
            let mut bits = 0;
            for (at, octet) in name.iter_mut().enumerate() {
                if at % 60 == 0 {
                    bits = random.below(1 << 60);
                }
                if octet.is_ascii_alphabetic() {
                    *octet ^= (bits as u8 & 1) << 5;
                }
                bits >>= 1;
            }
        }
        len
    }

    /// Mean octets of a query, in the order they are asked.
    pub fn query_octets(&self) -> f64 {
        let sum: u64 = self.order.iter().map(|&index| u64::from(self.entry(index).len)).sum();
        sum as f64 / self.order.len().max(1) as f64
    }

    /// Those over UDP, in their order; `None` if there are none.
    pub fn datagrams(&self) -> Option<Questions> {
        let is_datagram = |index: &u32| !self.entry(*index).stream;
        let order: Vec<u32> = self.order.iter().copied().filter(is_datagram).collect();
        // Entries that are not asked cost nothing: the messages stay where they are.
        let mut entries = self.entries.clone();
        entries.iter_mut().for_each(|entry| entry.stream = false);
        (!order.is_empty()).then(|| Questions {
            octets: self.octets.clone(),
            entries,
            order,
            text: self.text.clone(),
        })
    }

    /// Says what each answer has to be.
    pub fn expect(&mut self, mut expected: impl FnMut(&[u8], &Entry) -> Option<Expected>) {
        for at in 0..self.entries.len() {
            let entry = self.entries[at];
            self.entries[at].expected = expected(self.message(&entry), &entry);
        }
    }
}

//----------- QuestionsBuilder -----------------------------------------------

/// Collects queries.
#[derive(Debug, Default)]
pub struct QuestionsBuilder {
    questions: Questions,
}

/// What a query has besides its octets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits {
    /// Octets of the first label that are drawn anew each time.
    pub fresh: u8,
    /// Whether the case of each letter is drawn.
    pub mixed_case: bool,
    /// Whether it is asked over a stream.
    pub stream: bool,
}

impl QuestionsBuilder {
    /// Adds a message with one question, which ends `question_len` octets behind the header;
    /// returns its index. It is asked once [`QuestionsBuilder::ask`] says so.
    pub fn add(&mut self, message: &[u8], question_len: usize, traits: Traits) -> u32 {
        let questions = &mut self.questions;
        let index = questions.entries.len() as u32;
        questions.entries.push(Entry {
            start: questions.octets.len() as u64,
            len: message.len() as u16,
            question_len: question_len as u16,
            fresh: traits.fresh,
            mixed_case: traits.mixed_case,
            stream: traits.stream,
            expected: None,
        });
        questions.octets.extend(message);
        index
    }

    /// Says what the answer to query `index` has to be.
    pub fn expect(&mut self, index: u32, expected: Expected) {
        self.questions.entries[index as usize].expected = Some(expected);
    }

    /// Asks query `index` next.
    pub fn ask(&mut self, index: u32) {
        self.questions.order.push(index);
    }

    /// All of them, described by `text`; each once if no order was said.
    pub fn build(mut self, text: String) -> Questions {
        if self.questions.order.is_empty() {
            self.questions.order = (0..self.questions.entries.len() as u32).collect();
        }
        self.questions.text = text;
        self.questions
    }
}

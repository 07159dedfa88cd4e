//! Datagrams answered in one turn of the loop.

use std::net::SocketAddr;

/// One received datagram and the buffer its reply is written into.
pub struct Datagram<'a> {
    /// The whole buffer: the received octets first, then room for the reply.
    pub buffer: &'a mut [u8],
    /// Octets received.
    pub received_len: usize,
    /// Who sent it.
    pub peer: SocketAddr,
}

/// Up to `BATCH_COUNT_MAX` datagrams of one path.
#[derive(Default)]
pub struct Batch {}

impl Batch {
    /// Datagrams in the batch.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All datagrams, each with its own buffer, in order.
    pub fn datagrams_mut(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        std::iter::empty()
    }

    /// Says that datagram `index` is answered by the first `reply_len` octets of its buffer, or,
    /// with 0, not at all.
    pub fn settle(&mut self, index: usize, reply_len: usize) {
        let _ = (index, reply_len);
    }
}

//! A transfer taken as fast as the server gives it, and counted.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ring53::transfer::incoming::request;
use ring53::wire::message::Message;
use ring53::wire::{Name, rtype};

/// A zone that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Octets, length fields included.
    pub octets: u64,
    /// Messages.
    pub messages: u64,
    /// Records, the SOA twice.
    pub records: u64,
}

/// Takes `zone` whole from `server` and prints how long it took.
pub fn run(server: SocketAddr, zone: &Name) -> io::Result<()> {
    let started = Instant::now();
    let Taken { octets, messages, records } = take(server, zone)?;
    let ms = started.elapsed().as_millis();
    println!("{ms} ms, {octets} octets, {messages} messages, {records} records");
    Ok(())
}

/// Takes `zone` whole from `server`.
pub fn take(server: SocketAddr, zone: &Name) -> io::Result<Taken> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no transfer came");
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let query = request(1, zone, None);
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend(query);
    stream.write_all(&framed)?;
    let mut buffered = BufReader::with_capacity(1 << 17, stream);
    let (mut message, mut taken, mut soas) = (Vec::new(), Taken::default(), 0);
    while soas < 2 {
        let mut len = [0; 2];
        buffered.read_exact(&mut len)?;
        message.resize(usize::from(u16::from_be_bytes(len)), 0);
        buffered.read_exact(&mut message)?;
        let read = Message::new(&message).filter(|message| message.rcode() == 0);
        for record in read.and_then(|read| read.records().ok()).ok_or_else(bad)? {
            let record = record.map_err(|_| bad())?;
            taken.records += 1;
            soas += usize::from(record.rtype == rtype::SOA);
        }
        taken.octets += message.len() as u64 + 2;
        taken.messages += 1;
    }
    Ok(taken)
}

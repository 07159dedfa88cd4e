//! A transfer taken as fast as the server gives it, and counted.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ring53::transfer::incoming::request;
use ring53::wire::message::Message;
use ring53::wire::{Name, rtype};

/// Takes `zone` whole from `server` and prints how long it took.
pub fn run(server: SocketAddr, zone: &Name) -> io::Result<()> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no transfer came");
    let started = Instant::now();
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let query = request(1, zone, None);
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend(query);
    stream.write_all(&framed)?;
    let mut buffered = BufReader::with_capacity(1 << 17, stream);
    let (mut message, mut octets, mut messages, mut records, mut soas) = (Vec::new(), 0, 0, 0, 0);
    while soas < 2 {
        let mut len = [0; 2];
        buffered.read_exact(&mut len)?;
        message.resize(usize::from(u16::from_be_bytes(len)), 0);
        buffered.read_exact(&mut message)?;
        let read = Message::new(&message).filter(|message| message.rcode() == 0);
        for record in read.and_then(|read| read.records().ok()).ok_or_else(bad)? {
            let record = record.map_err(|_| bad())?;
            records += 1;
            soas += usize::from(record.rtype == rtype::SOA);
        }
        octets += message.len() + 2;
        messages += 1;
    }
    let ms = started.elapsed().as_millis();
    println!("{ms} ms, {octets} octets, {messages} messages, {records} records");
    Ok(())
}

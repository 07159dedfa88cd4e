//! Asks at an even rate and checks every answer: loss, content, latency.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use ring53::wire::Name;

use crate::zones::queries::Random;

/// How long an answer may take before it counts as lost.
const LATE: Duration = Duration::from_millis(200);

/// Asks for the address of `count` hosts, one at a time, at most `rate` a second.
///
/// Its port is `port`: beside kxdpgun, which takes every reply to a port from 2000 on, a lower one.
pub fn run(server: SocketAddr, port: u16, names: u64, count: u64, rate: u64) -> io::Result<()> {
    let any = if server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, port))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LATE))?;
    let mut random = Random::new(1);
    let mut histogram: Histogram<u64> = Histogram::new(3).map_err(io::Error::other)?;
    let (mut lost, mut wrong) = (0, 0);
    let start = Instant::now();
    for id in 0..count {
        let due = start + Duration::from_nanos(1_000_000_000 / rate * id);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let host = random.below(names);
        let query = question(id as u16, host);
        let asked = Instant::now();
        socket.send(&query)?;
        let mut reply = [0; 512];
        let received = loop {
            let received = socket.recv(&mut reply);
            // A reply that was given up for lost is not the answer to this query.
            if received.is_err() || reply[..2] == query[..2] {
                break received;
            }
        };
        match received {
            Err(_) => {
                lost += 1;
                histogram.record(LATE.as_nanos() as u64).map_err(io::Error::other)?;
            }
            Ok(len) => {
                histogram.record(asked.elapsed().as_nanos() as u64).map_err(io::Error::other)?;
                let [_, b, c, d] = (host as u32).to_be_bytes();
                let good = reply[3] & 0xF == 0
                    && reply[6..8] == [0, 1]
                    && len == query.len() + 16
                    && reply[len - 4..len] == [10, b, c, d];
                wrong += u64::from(!good);
            }
        }
    }
    let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "asked {count} lost {lost} wrong {wrong} p50_us {:.1} p99_us {:.1} p999_us {:.1}",
        us(0.5),
        us(0.99),
        us(0.999),
    );
    Ok(())
}

/// Asks `name type` once; an error unless the answer has a record or a referral.
pub fn first(server: SocketAddr, text: &str) -> io::Result<()> {
    let (name, rtype) = text.split_once(' ').ok_or(io::ErrorKind::InvalidInput)?;
    let name: Name = name.parse().map_err(io::Error::other)?;
    let rtype: u16 = if rtype == "PTR" { 12 } else { 1 };
    // RD: a cache asks others.
    let mut query = vec![0, 53, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(name.as_wire());
    query.extend(rtype.to_be_bytes());
    query.extend([0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.send(&query)?;
    let mut reply = [0; 512];
    let len = socket.recv(&mut reply)?;
    let records =
        u16::from_be_bytes([reply[6], reply[7]]) + u16::from_be_bytes([reply[8], reply[9]]);
    if len > 12 && reply[3] & 0xF == 0 && records > 0 {
        return Ok(());
    }
    Err(io::Error::other("no answer yet"))
}

/// A query for the address of `h<host>.example.`.
fn question(id: u16, host: u64) -> Vec<u8> {
    let label = format!("h{host}");
    let mut query = id.to_be_bytes().to_vec();
    query.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.len() as u8]);
    query.extend(label.as_bytes());
    query.extend(b"\x07example\0\0\x01\0\x01");
    query
}

//! Sends what no client should: random octets, mutated and truncated queries, compression loops,
//! names too long, counts that do not hold.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::zones::queries::Random;

/// Datagrams between two looks at the clock.
const STEP: u64 = 64;
const LEN_MAX: u64 = 600;

/// Sends `count` malformed datagrams to `server`, at most `rate` a second.
pub fn run(server: SocketAddr, count: u64, rate: u64, seed: u64) -> io::Result<()> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    let mut random = Random::new(seed);
    let (mut octets, mut replies, mut reply) = (Vec::new(), 0u64, [0; 4096]);
    let start = Instant::now();
    for number in 0..count {
        if number % STEP == 0 {
            let due = start + Duration::from_secs(1) / rate as u32 * number as u32;
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            while socket.recv(&mut reply).is_ok() {
                replies += 1;
            }
        }
        octets.clear();
        malformed(&mut random, &mut octets);
        // A full send buffer only means that this one is not sent.
        let _ = socket.send(&octets);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("seed {seed}: sent {count} in {seconds:.1} s, {replies} replies");
    Ok(())
}

/// One datagram of one of the kinds.
fn malformed(random: &mut Random, octets: &mut Vec<u8>) {
    let kind = random.below(7);
    if kind == 0 {
        let len = random.below(LEN_MAX);
        octets.extend((0..len).map(|_| random.below(256) as u8));
        return;
    }
    octets.extend([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    match kind {
        // A compression loop, or a pointer anywhere.
        1 => octets.extend([0xC0, random.below(64) as u8]),
        // A name too long, of labels of any length.
        2 => {
            let label_len = 1 + random.below(63) as u8;
            for _ in 0..256 / usize::from(label_len) + 1 {
                octets.push(label_len);
                octets.extend((0..label_len).map(|_| b'a' + random.below(26) as u8));
            }
            octets.push(0);
        }
        _ => {
            octets.push(7);
            octets.extend((0..7).map(|_| b'a' + random.below(26) as u8));
            octets.extend(b"\x07example\0");
        }
    }
    octets.extend([0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    match kind {
        // Counts that do not hold.
        3 => octets[4 + random.below(8) as usize] = random.below(256) as u8,
        4 => octets.truncate(random.below(octets.len() as u64) as usize),
        5 => {
            for _ in 0..1 + random.below(6) {
                let at = random.below(octets.len() as u64) as usize;
                octets[at] ^= 1 << random.below(8);
            }
        }
        6 => octets.extend((0..random.below(100)).map(|_| random.below(256) as u8)),
        _ => {}
    }
}

//! Many small zones: written as files, and waited for at a server.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use ring53::wire::message::{CLASS_IN, Message, Writer};
use ring53::wire::{Name, rtype};

/// Questions on their way at once.
const WINDOW: usize = 64;
/// How long the answers to a window may take.
const PATIENCE: Duration = Duration::from_millis(100);

/// Writes `z<n>.fleet.test.zone` for `count` zones, with `serial`.
pub fn write(count: u64, serial: u32, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    for zone in 0..count {
        let path = out.join(format!("z{zone}.fleet.test.zone"));
        let mut file = BufWriter::new(File::create(path)?);
        let [_, b, c, d] = (zone as u32).to_be_bytes();
        write!(
            file,
            "$TTL 3600\n$ORIGIN z{zone}.fleet.test.\n\
             @ SOA ns1.example.net. hostmaster.example.net. {serial} 3600 900 604800 300\n\
             @ NS ns1.example.net.\n@ NS ns2.example.net.\n@ MX 10 mail\n@ A 10.{b}.{c}.{d}\n\
             www A 10.{b}.{c}.{d}\nmail A 192.0.2.25\n@ TXT \"serial {serial}\"\n"
        )?;
        file.flush()?;
    }
    Ok(())
}

/// Waits until `server` has `serial` of each of `count` zones; prints how long that took.
pub fn wait(server: SocketAddr, count: u64, serial: u32, seconds: u64) -> io::Result<()> {
    let started = Instant::now();
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut missing: Vec<u64> = (0..count).collect();
    while !missing.is_empty() {
        if started.elapsed() > Duration::from_secs(seconds) {
            let error = format!("{} of {count} zones never come", missing.len());
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        // The last that are missing first: what comes in order is then not asked for in vain.
        let window = missing.split_off(missing.len().saturating_sub(WINDOW));
        let there = ask(&socket, &window, serial)?;
        let left = window.iter().zip(&there).filter(|(_, there)| !**there);
        let left: Vec<u64> = left.map(|(zone, _)| *zone).collect();
        if left.len() == window.len() {
            std::thread::sleep(Duration::from_millis(20));
        }
        missing.splice(0..0, left);
    }
    println!("{}", started.elapsed().as_millis());
    Ok(())
}

/// Which of `zones` have `serial`.
fn ask(socket: &UdpSocket, zones: &[u64], serial: u32) -> io::Result<Vec<bool>> {
    let mut there = vec![false; zones.len()];
    for (id, zone) in zones.iter().enumerate() {
        let name: Name = format!("z{zone}.fleet.test.").parse().map_err(io::Error::other)?;
        let mut query = Writer::new(id as u16, 0);
        query.question(name.as_wire(), rtype::SOA, CLASS_IN);
        // Nobody listens yet, perhaps.
        let _ = socket.send(&query.into_octets());
    }
    let mut reply = [0; 1232];
    for _ in zones {
        let Ok(len) = socket.recv(&mut reply) else {
            std::thread::sleep(Duration::from_millis(5));
            break;
        };
        let Some(message) = Message::new(&reply[..len]).filter(|message| message.rcode() == 0)
        else {
            continue;
        };
        let records = message.records().into_iter().flatten().map_while(Result::ok);
        let soa = records.into_iter().find(|record| record.rtype == rtype::SOA);
        let numbers = soa.and_then(|soa| reply[soa.rdata].last_chunk::<20>().copied());
        let found = numbers
            .map(|numbers| u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]));
        if let Some(slot) = there.get_mut(usize::from(message.id())) {
            *slot |= found == Some(serial);
        }
    }
    Ok(there)
}

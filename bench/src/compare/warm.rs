//! Filling a cache: every name is asked for once, a few hundred at a time, and what is lost again.
//!
//! ```text
//!   names 0 .. n ──> window ──> socket ──> cache ──> upstream
//!            ^           │ not answered in half a second
//!            └───────────┘                          answered ──> next
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ring53::wire::message::{CLASS_IN, Writer, header};
use ring53::wire::{Name, rtype};

/// Questions on their way: a cache is asked at its own pace.
const WINDOW: usize = 256;
const _: () = assert!(WINDOW == 1 << 8, "an ID has eight bits for the place");
/// When a question is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a name is asked for before that is given up.
const ATTEMPTS_MAX: u32 = 20;

/// A question on its way. Its ID is its place in the window, and above that how often the place was
/// taken: a second answer to an earlier question is none to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    id: u16,
    name: u64,
    at: Instant,
    attempts: u32,
}

/// What was asked for and what is to come.
struct Window {
    slots: Vec<Option<Asked>>,
    /// IDs for the next questions, one of each place.
    free: VecDeque<u16>,
    next: u64,
    names: u64,
    answered: u64,
    again: u64,
}

impl Window {
    fn new(names: u64) -> Window {
        let free = (0..WINDOW as u16).collect();
        Window { slots: vec![None; WINDOW], free, next: 0, names, answered: 0, again: 0 }
    }

    /// A name to ask for now, and the ID to ask with.
    fn begin(&mut self, now: Instant) -> Option<(u16, u64)> {
        if self.next == self.names {
            return None;
        }
        let id = self.free.pop_front()?;
        let name = self.next;
        self.next += 1;
        self.slots[place(id)] = Some(Asked { id, name, at: now, attempts: 1 });
        Some((id, name))
    }

    /// Takes an answer: whether it was waited for.
    fn answer(&mut self, id: u16) -> bool {
        let was_asked = self.slots[place(id)].take_if(|asked| asked.id == id).is_some();
        if was_asked {
            self.free.push_back(id.wrapping_add(WINDOW as u16));
            self.answered += 1;
        }
        was_asked
    }

    /// The questions that are asked again; an error if one was asked too often.
    fn late(&mut self, now: Instant) -> io::Result<Vec<(u16, u64)>> {
        let mut late = Vec::new();
        let waiting = self.slots.iter_mut().flatten();
        for asked in waiting.filter(|asked| now - asked.at >= AGAIN) {
            if asked.attempts == ATTEMPTS_MAX {
                let name = asked.name;
                let message = format!("h{name} is not answered, asked {ATTEMPTS_MAX} times");
                return Err(io::Error::other(message));
            }
            (asked.at, asked.attempts) = (now, asked.attempts + 1);
            late.push((asked.id, asked.name));
        }
        self.again += late.len() as u64;
        Ok(late)
    }

    fn is_done(&self) -> bool {
        self.answered == self.names
    }
}

fn place(id: u16) -> usize {
    usize::from(id) % WINDOW
}

/// Asks `server` for the addresses of the first `names` hosts below `apex`; returns the seconds it
/// took and how many were asked again.
pub fn fill(server: SocketAddr, apex: &str, names: u64) -> io::Result<(f64, u64)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    let begun = Instant::now();
    let mut window = Window::new(names);
    let mut looked = begun;
    let mut reply = [0; 1232];
    while !window.is_done() {
        let now = Instant::now();
        while let Some((id, name)) = window.begin(now) {
            socket.send(&question(id, name, apex)?)?;
        }
        if now - looked > AGAIN / 10 {
            looked = now;
            for (id, name) in window.late(now)? {
                socket.send(&question(id, name, apex)?)?;
            }
        }
        // A full socket is read to its end before more is asked.
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(AGAIN / 10))?;
        let mut received = socket.recv(&mut reply);
        socket.set_nonblocking(true)?;
        while let Ok(len) = received {
            if let Some(id) = answered(&reply[..len]) {
                window.answer(id);
            }
            received = socket.recv(&mut reply);
        }
    }
    Ok((begun.elapsed().as_secs_f64(), window.again))
}

/// The ID of a reply with a record; of no other: what fails is asked again.
fn answered(reply: &[u8]) -> Option<u16> {
    let header = reply.first_chunk::<12>()?;
    let is_good = header[2] & 0x80 != 0 && header[3] & 0xF == 0 && header[6..8] != [0, 0];
    is_good.then(|| u16::from_be_bytes([header[0], header[1]]))
}

fn question(id: u16, name: u64, apex: &str) -> io::Result<Vec<u8>> {
    let name: Name = format!("h{name}.{apex}").parse().map_err(io::Error::other)?;
    let mut query = Writer::new(id, header::RD);
    query.question(name.as_wire(), rtype::A, CLASS_IN);
    Ok(query.into_octets())
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    /// Each name once; what is late again, under the same ID; nothing that was answered.
    #[test]
    fn every_name_is_asked_for_until_it_is_answered() {
        let begun = Instant::now();
        let mut window = Window::new(WINDOW as u64 + 1);
        let asked: Vec<_> = std::iter::from_fn(|| window.begin(begun)).collect();
        assert_eq!(asked.len(), WINDOW);
        assert!((1..WINDOW as u16).all(|id| window.answer(id)));
        assert!(!window.answer(1) && !window.answer(u16::MAX), "nobody waits for it");
        let last = window.begin(begun).unwrap();
        assert_eq!(last, (WINDOW as u16 + 1, WINDOW as u64));
        assert!(!window.answer(1), "a second answer to who had the place before");
        assert_eq!(window.late(begun + AGAIN / 2).unwrap(), []);
        assert_eq!(window.late(begun + AGAIN).unwrap(), [(0, 0), last]);
        assert!(window.answer(0) && window.answer(last.0) && window.is_done());
        assert_eq!(window.again, 2);
        assert_eq!(window.begin(begun), None);
    }

    #[test]
    fn who_never_answers_is_given_up() {
        let begun = Instant::now();
        let mut window = Window::new(1);
        window.begin(begun);
        for time in 1..ATTEMPTS_MAX {
            assert_eq!(window.late(begun + AGAIN * time).unwrap(), [(0, 0)]);
        }
        let error = window.late(begun + AGAIN * ATTEMPTS_MAX).unwrap_err().to_string();
        assert!(error.contains("h0 is not answered"), "{error}");
    }

    #[test]
    fn a_failure_is_no_answer() {
        let mut reply = question(7, 3, "example.").unwrap();
        assert_eq!(answered(&reply), None, "a question");
        reply[2] |= 0x80;
        assert_eq!(answered(&reply), None, "no record");
        reply[7] = 1;
        assert_eq!(answered(&reply), Some(7));
        reply[3] |= 2;
        assert_eq!(answered(&reply), None, "SERVFAIL");
    }

    /// Against a server that drops every third question, and says SERVFAIL to every fifth.
    #[test]
    fn a_server_that_loses_is_filled_all_the_same() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = server.local_addr().unwrap();
        let names = 40;
        let serve = std::thread::spawn(move || {
            let (mut told, mut count) = (std::collections::BTreeSet::new(), 0);
            while told.len() < names {
                let mut query = [0; 512];
                let Ok((len, from)) = server.recv_from(&mut query) else { break };
                count += 1;
                if count % 3 == 0 {
                    continue;
                }
                query[2] |= 0x80;
                query[3] |= if count % 5 == 0 { 2 } else { 0 };
                query[7] = 1;
                if count % 5 != 0 {
                    told.insert(query[12..len].to_vec());
                }
                server.send_to(&query[..len], from).unwrap();
            }
            told.len()
        });
        let (_, again) = fill(address, "example.", names as u64).unwrap();
        assert!(again > 0);
        assert_eq!(serve.join().unwrap(), names);
    }
}

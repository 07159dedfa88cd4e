//! Filling a cache: every question is asked once, a few hundred at a time, and what is lost again.
//!
//! ```text
//!   questions 0 .. n ──> window ──> socket ──> cache ──> upstream
//!            ^             │ not answered in half a second
//!            └─────────────┘                        answered ──> next
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ring53::wire::message::{CLASS_IN, Message, Writer, header};
use ring53::wire::{Name, rtype};

/// Questions on their way: a cache is asked at its own pace.
const WINDOW: usize = 256;
const _: () = assert!(WINDOW == 1 << 8, "an ID has eight bits for the place");
/// When a question is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a question is asked before that is given up.
const ATTEMPTS_MAX: u32 = 20;

//----------- Window ---------------------------------------------------------

/// A question on its way. Its ID is its place in the window, and above that how often the place was
/// taken: a second answer to an earlier question is none to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    id: u16,
    number: u64,
    at: Instant,
    attempts: u32,
}

/// What was asked and what is to come.
struct Window {
    slots: Vec<Option<Asked>>,
    /// IDs for the next questions, one of each place.
    free: VecDeque<u16>,
    next: u64,
    /// Of each question that was ended: the rcode of its answer; `None`: it was given up.
    rcodes: Vec<Option<u8>>,
    ended: u64,
    again: u64,
    /// The first that was given up, and how many.
    given_up: Option<(u64, u64)>,
}

impl Window {
    fn new(count: u64) -> Window {
        Window {
            slots: vec![None; WINDOW],
            free: (0..WINDOW as u16).collect(),
            next: 0,
            rcodes: vec![None; count as usize],
            ended: 0,
            again: 0,
            given_up: None,
        }
    }

    /// A question to ask now, and the ID to ask with.
    fn begin(&mut self, now: Instant) -> Option<(u16, u64)> {
        if self.next == self.rcodes.len() as u64 {
            return None;
        }
        let id = self.free.pop_front()?;
        let number = self.next;
        self.next += 1;
        self.slots[place(id)] = Some(Asked { id, number, at: now, attempts: 1 });
        Some((id, number))
    }

    /// Takes an answer: whether it was waited for.
    fn answer(&mut self, id: u16, rcode: u8) -> bool {
        let Some(asked) = self.slots[place(id)].take_if(|asked| asked.id == id) else {
            return false;
        };
        self.rcodes[asked.number as usize] = Some(rcode);
        self.end(id);
        true
    }

    fn end(&mut self, id: u16) {
        self.free.push_back(id.wrapping_add(WINDOW as u16));
        self.ended += 1;
    }

    /// The questions that are asked again; those that were asked too often are given up.
    fn late(&mut self, now: Instant) -> Vec<(u16, u64)> {
        let mut late = Vec::new();
        for place in 0..WINDOW {
            let Some(asked) = self.slots[place].filter(|asked| now - asked.at >= AGAIN) else {
                continue;
            };
            if asked.attempts == ATTEMPTS_MAX {
                self.slots[place] = None;
                self.end(asked.id);
                let (first, count) = self.given_up.unwrap_or((asked.number, 0));
                self.given_up = Some((first, count + 1));
                continue;
            }
            self.slots[place] = Some(Asked { at: now, attempts: asked.attempts + 1, ..asked });
            late.push((asked.id, asked.number));
        }
        self.again += late.len() as u64;
        late
    }

    fn is_done(&self) -> bool {
        self.ended == self.rcodes.len() as u64
    }
}

fn place(id: u16) -> usize {
    usize::from(id) % WINDOW
}

//----------- Fill -----------------------------------------------------------

/// What a cache is asked.
pub struct Fill<'a> {
    /// How many questions.
    pub count: u64,
    /// The message of each; its ID is written over.
    pub query: &'a (dyn Fn(u64) -> io::Result<Vec<u8>> + Sync),
    /// Which replies are answers; what others are to is asked again.
    pub is_answer: fn(&[u8]) -> bool,
    /// More questions without an answer than this are an error.
    pub unanswered_max: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filled {
    /// Seconds it took.
    pub seconds: f64,
    /// How often something was asked again.
    pub again: u64,
    /// By question: the rcode of its answer; `None`: it had none.
    pub rcodes: Vec<Option<u8>>,
}

impl Fill<'_> {
    /// Asks `server` all of it.
    pub fn ask(&self, server: SocketAddr) -> io::Result<Filled> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        let begun = Instant::now();
        let mut window = Window::new(self.count);
        let mut looked = begun;
        let mut reply = [0; 4096];
        while !window.is_done() {
            let now = Instant::now();
            while let Some((id, number)) = window.begin(now) {
                self.send(&socket, id, number)?;
            }
            if now - looked > AGAIN / 10 {
                looked = now;
                for (id, number) in window.late(now) {
                    self.send(&socket, id, number)?;
                }
                self.check(&window, server)?;
            }
            // A full socket is read to its end before more is asked.
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(AGAIN / 10))?;
            let mut received = socket.recv(&mut reply);
            socket.set_nonblocking(true)?;
            while let Ok(len) = received {
                if (self.is_answer)(&reply[..len]) {
                    window.answer(u16::from_be_bytes([reply[0], reply[1]]), reply[3] & 0xF);
                }
                received = socket.recv(&mut reply);
            }
        }
        let (seconds, again) = (begun.elapsed().as_secs_f64(), window.again);
        Ok(Filled { seconds, again, rcodes: window.rcodes })
    }

    fn send(&self, socket: &UdpSocket, id: u16, number: u64) -> io::Result<()> {
        let mut query = (self.query)(number)?;
        query[..2].copy_from_slice(&id.to_be_bytes());
        socket.send(&query).map(|_| ())
    }

    /// An error if more was given up than may be.
    fn check(&self, window: &Window, server: SocketAddr) -> io::Result<()> {
        let Some((first, count)) =
            window.given_up.filter(|(_, count)| *count > self.unanswered_max)
        else {
            return Ok(());
        };
        let first = words(&(self.query)(first)?);
        Err(io::Error::other(format!(
            "{first} is not answered by {server}, asked {ATTEMPTS_MAX} times ({count} of {} are not)",
            window.next
        )))
    }
}

/// The question of a message in words: its name and type.
pub fn words(query: &[u8]) -> String {
    let question = Message::new(query).and_then(|message| message.question().ok()?);
    let name = |wire: &[u8]| Name::from_wire(wire).map(|name| name.to_string());
    question.map_or("a message without a question".into(), |question| {
        let name = name(&question.name).unwrap_or_default();
        format!("{name} {}", rtype::name(question.qtype))
    })
}

/// A reply that says something: no failure.
pub fn is_answer(reply: &[u8]) -> bool {
    let flags = |header: &[u8; 12]| header[2] & 0x80 != 0 && [0, 3].contains(&(header[3] & 0xF));
    reply.first_chunk::<12>().is_some_and(flags)
}

/// An answer with a record.
pub fn has_record(reply: &[u8]) -> bool {
    is_answer(reply) && reply[3] & 0xF == 0 && reply[6..8] != [0, 0]
}

/// Asks `server` for the addresses of the first `names` hosts below `apex`, all of which have one.
pub fn hosts(server: SocketAddr, apex: &str, names: u64) -> io::Result<Filled> {
    let query = |number| question(number, apex);
    Fill { count: names, query: &query, is_answer: has_record, unanswered_max: 0 }.ask(server)
}

fn question(number: u64, apex: &str) -> io::Result<Vec<u8>> {
    let name: Name = format!("h{number}.{apex}").parse().map_err(io::Error::other)?;
    let mut query = Writer::new(0, header::RD);
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
        assert!((1..WINDOW as u16).all(|id| window.answer(id, 0)));
        assert!(!window.answer(1, 0) && !window.answer(u16::MAX, 0), "nobody waits for it");
        let last = window.begin(begun).unwrap();
        assert_eq!(last, (WINDOW as u16 + 1, WINDOW as u64));
        assert!(!window.answer(1, 0), "a second answer to who had the place before");
        assert_eq!(window.late(begun + AGAIN / 2), []);
        assert_eq!(window.late(begun + AGAIN), [(0, 0), last]);
        assert!(window.answer(0, 3) && window.answer(last.0, 0) && window.is_done());
        assert_eq!((window.again, window.given_up), (2, None));
        assert_eq!(window.rcodes[..2], [Some(3), Some(0)]);
        assert_eq!(window.begin(begun), None);
    }

    #[test]
    fn who_never_answers_is_given_up() {
        let begun = Instant::now();
        let mut window = Window::new(1);
        window.begin(begun);
        for time in 1..ATTEMPTS_MAX {
            assert_eq!(window.late(begun + AGAIN * time), [(0, 0)]);
        }
        assert!(!window.is_done());
        assert_eq!(window.late(begun + AGAIN * ATTEMPTS_MAX), []);
        assert!(window.is_done() && !window.answer(0, 0), "nobody waits for it any more");
        assert_eq!((window.given_up, &window.rcodes[..]), (Some((0, 1)), &[None][..]));
        let query = |number| question(number, "example.");
        let server = "127.0.0.1:53".parse().unwrap();
        let mut fill = Fill { count: 1, query: &query, is_answer, unanswered_max: 1 };
        assert!(fill.check(&window, server).is_ok());
        fill.unanswered_max = 0;
        let error = fill.check(&window, server).unwrap_err().to_string();
        assert!(error.starts_with("h0.example. A is not answered"), "{error}");
    }

    #[test]
    fn a_failure_is_no_answer() {
        let mut reply = question(3, "example.").unwrap();
        assert!(!is_answer(&reply) && !is_answer(&reply[..5]), "a question");
        assert_eq!(words(&reply), "h3.example. A");
        reply[2] |= 0x80;
        assert!(is_answer(&reply) && !has_record(&reply), "no record");
        reply[7] = 1;
        assert!(has_record(&reply));
        reply[3] |= 3;
        assert!(is_answer(&reply) && !has_record(&reply), "NXDOMAIN");
        reply[3] = 2;
        assert!(!is_answer(&reply), "SERVFAIL");
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
        let filled = hosts(address, "example.", names as u64).unwrap();
        assert!(filled.again > 0);
        assert_eq!(filled.rcodes, [Some(0); 40]);
        assert_eq!(serve.join().unwrap(), names);
    }
}

//! Which class a query of real traffic is of.
//!
//! ```text
//!   authority: each question is asked once, and the reply says its class
//!   cache:     the first time a question comes is a miss, each later time a hit: none is asked
//! ```

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ring53::limits::HEADER_LEN;
use ring53::wire::Name;
use ring53::wire::message::{Message, Section, header};
use ring53::wire::rtype;

use crate::mix::{Entry, Questions, Traits};
use crate::zones::queries::Random;

use super::classes::{Asked, Kind, Pool, Shares};
use super::server::ask;

//----------- Replies --------------------------------------------------------

/// The class of a query by the reply to it; `None` if no class fits: an error, a malformed reply.
pub fn class_of(query: &[u8], reply: &[u8], stream: bool) -> Option<Kind> {
    let message = Message::new(reply).filter(Message::is_response)?;
    let mut signed = false;
    let mut delegated = false;
    for record in message.records().ok()? {
        let record = record.ok()?;
        signed |= record.rtype == rtype::RRSIG;
        delegated |= record.rtype == rtype::NS && record.section == Section::Authority;
    }
    // A reply that did not fit says so over UDP; its size says nothing about its class.
    signed |= message.flags() & header::TC != 0 && wants_signatures(query);
    let authority = message.flags() & header::AA != 0;
    let nxdomain = message.rcode() == 3;
    match message.rcode() {
        0 | 3 if stream => Some(Kind::Tcp),
        0 if !authority && delegated && message.count(1) == 0 => Some(Kind::Referral),
        0 | 3 if authority => Some(match (nxdomain, signed) {
            (false, false) => Kind::Hit,
            (false, true) => Kind::Signed,
            (true, false) => Kind::Nxdomain,
            (true, true) => Kind::SignedNxdomain,
        }),
        _ => None,
    }
}

/// Whether a query has the DO bit.
fn wants_signatures(query: &[u8]) -> bool {
    let records = Message::new(query).and_then(|message| message.records().ok());
    let mut records = records.into_iter().flatten().flatten();
    records.any(|record| record.rtype == 41 && record.ttl & 0x8000 != 0)
}

/// What a server says to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// An answer of a class.
    Class(Kind),
    /// An answer of none.
    NoClass,
    /// Nothing in time, twice.
    Nothing,
}

/// The class of a query by asking.
pub(super) fn classify(server: SocketAddr, asked: &Asked) -> io::Result<Said> {
    let class = |query: &[u8], reply: &[u8]| class_of(query, reply, asked.traits.stream);
    said(server, asked, class)
}

/// Whether a cache answers, with a record unless real traffic may be for names that have none.
/// A hit and a miss look alike: it is of class `kind` then.
pub(super) fn said_by_cache(
    server: SocketAddr,
    asked: &Asked,
    kind: Kind,
    real: bool,
) -> io::Result<Said> {
    let class = |_: &[u8], reply: &[u8]| {
        let records = Message::new(reply)?.count(1);
        (is_of_cache(reply, asked.rcode) && (real || records > 0)).then_some(kind)
    };
    said(server, asked, class)
}

/// Whether a reply is a cache's: RA, and no AA, which authorities have.
fn is_of_cache(reply: &[u8], rcode: Option<u8>) -> bool {
    const RA: u16 = 0x0080;
    Message::new(reply).filter(Message::is_response).is_some_and(|message| {
        let flags = message.flags();
        let expected = u16::from(rcode.unwrap_or_default());
        flags & RA != 0 && flags & header::AA == 0 && message.rcode() == expected
    })
}

fn said(
    server: SocketAddr,
    asked: &Asked,
    class: impl Fn(&[u8], &[u8]) -> Option<Kind>,
) -> io::Result<Said> {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let mut query = asked.message.clone();
    // A random label is one of many: any will do.
    query[1] = 53;
    match ask(server, &query, TIMEOUT).or_else(|_| ask(server, &query, TIMEOUT)) {
        Ok(reply) => Ok(class(&query, &reply).map_or(Said::NoClass, Said::Class)),
        Err(error)
            if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) =>
        {
            Ok(Said::Nothing)
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("{server}: {error}"))),
    }
}

//----------- Authority ------------------------------------------------------

/// A query of a mix.
fn asked_of(questions: &Questions, entry: &Entry) -> Asked {
    let traits = Traits { fresh: entry.fresh, mixed_case: entry.mixed_case, stream: entry.stream };
    Asked {
        message: questions.message(entry).to_vec(),
        question_len: usize::from(entry.question_len),
        traits,
        rcode: None,
    }
}

/// Adds a query to the pool of its class; which pool, and where in it.
fn place_of(pools: &mut Vec<Pool>, kind: Kind, asked: Asked) -> (usize, u32) {
    let at = pools.iter().position(|pool| pool.kind == kind).unwrap_or_else(|| {
        pools.push(Pool { kind, asked: Vec::new(), order: Vec::new(), filled: false });
        pools.len() - 1
    });
    pools[at].asked.push(asked);
    (at, pools[at].asked.len() as u32 - 1)
}

/// Different queries that are asked at most to sort a mix.
const ASKED_MAX: usize = 20_000;
/// So many queries in a row without an answer: the server is gone.
const SILENT_MAX: u32 = 20;

/// Positions of an order of `len`: all, or `most` spread over it, one drawn from each part.
fn positions(len: usize, most: usize, seed: u64) -> Vec<u64> {
    if len <= most {
        return (0..len as u64).collect();
    }
    let mut random = Random::new(seed);
    let bound = |part: usize| (part as u128 * len as u128 / most as u128) as u64;
    let draw = |part: usize| bound(part) + random.below(bound(part + 1) - bound(part));
    (0..most).map(draw).collect()
}

/// Sorts the queries of a mix into classes by asking each once; `per_query`: whether those over TCP
/// have a connection each.
///
/// If there are more than 20,000 different ones, so many positions of the order stand for all: what
/// is asked often counts often.
pub fn sort(
    questions: &Questions,
    server: SocketAddr,
    per_query: bool,
) -> io::Result<(Shares, Vec<Pool>)> {
    sort_by(questions, ASKED_MAX, &mut |asked| {
        Ok(match classify(server, asked)? {
            Said::Class(Kind::Tcp) if per_query => Said::Class(Kind::TcpQuery),
            said => said,
        })
    })
}

/// Sorts by what `classify` says, asking at most `asked_max` different queries.
fn sort_by(
    questions: &Questions,
    asked_max: usize,
    classify: &mut dyn FnMut(&Asked) -> io::Result<Said>,
) -> io::Result<(Shares, Vec<Pool>)> {
    let most = if questions.len() > asked_max { asked_max } else { usize::MAX };
    let mut pools: Vec<Pool> = Vec::new();
    // Of each query that was asked: its pool, its place in there.
    let mut places: HashMap<u32, Option<(usize, u32)>> = HashMap::new();
    let (mut unsorted, mut sorted, mut silent) = (0u64, 0u64, 0);
    for position in positions(questions.order_len(), most, 53) {
        let index = questions.index_at(position);
        let place = match places.get(&index) {
            Some(place) => *place,
            None => {
                let asked = asked_of(questions, questions.entry(index));
                let said = classify(&asked)?;
                silent = if said == Said::Nothing { silent + 1 } else { 0 };
                if silent == SILENT_MAX {
                    return Err(io::Error::other(format!(
                        "{SILENT_MAX} queries in a row had no answer, each asked twice: does the \
                         server still run?"
                    )));
                }
                let place = match said {
                    Said::Class(kind) => Some(place_of(&mut pools, kind, asked)),
                    Said::NoClass | Said::Nothing => None,
                };
                places.insert(index, place);
                place
            }
        };
        match place {
            Some((pool, at)) => {
                pools[pool].order.push(at);
                sorted += 1;
            }
            None => unsorted += 1,
        }
    }
    if unsorted * 100 > sorted {
        return Err(io::Error::other(format!(
            "{unsorted} of {} queries have answers of no class (REFUSED, SERVFAIL) or none: are \
             these the server's zones?",
            unsorted + sorted
        )));
    }
    pools.sort_by_key(|pool| pool.kind);
    let weights: Vec<(Kind, f64)> =
        pools.iter().map(|pool| (pool.kind, pool.order.len() as f64)).collect();
    Ok((Shares::of(&weights).map_err(io::Error::other)?, pools))
}

//----------- Cache ----------------------------------------------------------

/// A mix as a cache sees it.
#[derive(Clone, Debug)]
pub struct Cached {
    /// Questions that came before, in their order; and any that never did.
    pub pools: Vec<Pool>,
    /// Queries that were the first of their question.
    pub first: u64,
    /// All queries.
    pub queries: u64,
}

impl Cached {
    /// The shares of the classes, those of nothing left out.
    pub fn shares(&mut self) -> io::Result<Shares> {
        let first = self.first as f64;
        let weight = |pool: &Pool| match pool.kind {
            Kind::CacheMiss => first,
            _ => pool.order.len() as f64,
        };
        self.pools.retain(|pool| weight(pool) > 0.0);
        let weights: Vec<(Kind, f64)> =
            self.pools.iter().map(|pool| (pool.kind, weight(pool))).collect();
        Shares::of(&weights).map_err(io::Error::other)
    }
}

/// Sorts the queries of a mix as a cache does that was empty when they began and forgets nothing:
/// the first time a question comes it misses, later it hits. Misses become fresh names of the
/// upstream's `zone`, over UDP; hits over TCP have a connection each if `per_query` says so.
///
/// A question is a name, whose case does not count, a type and a class.
pub fn sort_cached(questions: &Questions, zone: &Name, per_query: bool) -> Cached {
    // Of each query that was seen: the number of its question, later its pool and place in there.
    let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut number_of: Vec<Option<usize>> = vec![None; questions.len()];
    let mut places: Vec<Option<(usize, u32)>> = vec![None; questions.len()];
    let mut came: Vec<bool> = Vec::new();
    let mut pools = vec![Pool::of_upstream(Kind::CacheMiss, zone, 0)];
    let mut first = 0;
    for position in 0..questions.order_len() as u64 {
        let index = questions.index_at(position);
        let entry = questions.entry(index);
        let number = *number_of[index as usize].get_or_insert_with(|| {
            let question = &questions.message(entry)[HEADER_LEN..][..entry.question_len.into()];
            // Its last four octets are type and class.
            let (name, rest) = question.split_at(question.len() - 4);
            let next = numbers.len();
            *numbers.entry([&name.to_ascii_lowercase(), rest].concat()).or_insert(next)
        });
        came.resize(numbers.len(), false);
        if entry.fresh > 0 || !std::mem::replace(&mut came[number], true) {
            first += 1;
            continue;
        }
        let (pool, at) = *places[index as usize].get_or_insert_with(|| {
            let kind = match (entry.stream, per_query) {
                (false, _) => Kind::CacheHit,
                (true, false) => Kind::Tcp,
                (true, true) => Kind::TcpQuery,
            };
            place_of(&mut pools, kind, asked_of(questions, entry).of_cache(None))
        });
        pools[pool].filled = true;
        pools[pool].order.push(at);
    }
    pools.sort_by_key(|pool| pool.kind);
    Cached { pools, first, queries: questions.order_len() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::QuestionsBuilder;

    #[test]
    fn replies_say_the_class() {
        let query = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let reply = |flags: [u8; 2], counts: [u8; 2], rtype: u8| {
            let mut reply = query.to_vec();
            reply[2..4].copy_from_slice(&flags);
            reply[7] = counts[0];
            reply[9] = counts[1];
            for _ in 0..counts[0] + counts[1] {
                reply.extend([0, 0, rtype, 0, 1, 0, 0, 0, 0, 0, 0]);
            }
            reply
        };
        let of = |flags, counts, rtype| class_of(&query, &reply(flags, counts, rtype), false);
        assert_eq!(of([0x84, 0], [1, 0], 1), Some(Kind::Hit));
        assert_eq!(of([0x84, 0], [0, 0], 1), Some(Kind::Hit));
        assert_eq!(of([0x84, 3], [0, 1], 6), Some(Kind::Nxdomain));
        assert_eq!(of([0x84, 0], [1, 0], 46), Some(Kind::Signed));
        assert_eq!(of([0x84, 3], [0, 1], 46), Some(Kind::SignedNxdomain));
        assert_eq!(of([0x80, 0], [0, 1], 2), Some(Kind::Referral));
        assert_eq!(of([0x80, 5], [0, 0], 1), None);
        assert_eq!(of([0x04, 0], [1, 0], 1), None);
        assert_eq!(class_of(&query, &reply([0x84, 0], [1, 0], 1), true), Some(Kind::Tcp));
        assert_eq!(class_of(&query, &[0; 5], false), None);
    }

    /// `count` different queries; `order` says which is asked when.
    fn real(count: u32, order: &[u32]) -> Questions {
        let mut builder = QuestionsBuilder::default();
        for at in 0..count {
            let name: Name = format!("n{at}.example.").parse().unwrap();
            let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            message.extend(name.as_wire());
            message.extend([0, 1, 0, 1]);
            builder.add(&message, message.len() - HEADER_LEN, Traits::default());
        }
        order.iter().for_each(|&index| builder.ask(index));
        builder.build(String::new())
    }

    #[test]
    fn what_is_asked_often_counts_often_however_many_there_are() {
        // 5000 names: three of five queries are for one that does not exist, the rest for others.
        let order: Vec<u32> =
            (0..25_000).map(|at| if at % 5 < 3 { 1 } else { at / 5 % 5000 }).collect();
        let questions = real(5000, &order);
        let head = questions.message(questions.entry(1)).to_vec();
        let asked_count = std::cell::Cell::new(0);
        let mut classify = |asked: &Asked| {
            asked_count.set(asked_count.get() + 1);
            Ok(Said::Class(if asked.message == head { Kind::Nxdomain } else { Kind::Hit }))
        };
        let (shares, pools) = sort_by(&questions, 2000, &mut classify).unwrap();
        assert_eq!(shares.classes.len(), 2);
        assert!((shares.classes[1].1 - 0.6).abs() < 0.04, "{shares:?}");
        assert!(asked_count.get() <= 2000 && pools[0].asked.len() > 500, "{asked_count:?}");
        let (all, _) = sort_by(&questions, 5000, &mut classify).unwrap();
        assert!((all.classes[1].1 - 0.6).abs() < 0.001, "{all:?}");
        for (len, most) in [(10, 20), (10, 10), (10, 7), (1 << 20, 1000)] {
            let found = positions(len, most, 1);
            assert_eq!(found.len(), len.min(most));
            assert!(found.is_sorted() && found.iter().all(|&at| at < len as u64));
        }
    }

    #[test]
    fn a_query_without_an_answer_ends_nothing_and_a_dead_server_does() {
        let order: Vec<u32> = (0..500).collect();
        let questions = real(500, &order);
        let mut count = 0;
        let (shares, pools) = sort_by(&questions, 1000, &mut |_| {
            count += 1;
            Ok(if count == 7 { Said::Nothing } else { Said::Class(Kind::Hit) })
        })
        .unwrap();
        assert_eq!((shares.classes[0].1, pools[0].order.len()), (1.0, 499));
        let error = sort_by(&questions, 1000, &mut |_| Ok(Said::Nothing)).unwrap_err().to_string();
        assert!(error.contains("in a row"), "{error}");
        let mut count = 0;
        let often = sort_by(&questions, 1000, &mut |_| {
            count += 1;
            Ok(if count % 10 == 0 { Said::NoClass } else { Said::Class(Kind::Hit) })
        });
        assert!(often.unwrap_err().to_string().contains("50 of 500"));
        // Somebody listens and says nothing.
        let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = Pool::of_upstream(Kind::CacheHit, &"example.".parse().unwrap(), 1);
        let said = classify(mute.local_addr().unwrap(), &asked.asked[0]).unwrap();
        assert_eq!(said, Said::Nothing);
    }

    #[test]
    fn a_cache_says_that_it_is_one() {
        let zone = "example.".parse().unwrap();
        let query = Pool::of_upstream(Kind::CacheHit, &zone, 1).asked[0].message.clone();
        let reply = |flags: [u8; 2]| [&query[..2], &flags, &query[4..]].concat();
        assert!(is_of_cache(&reply([0x81, 0x80]), Some(0)));
        assert!(is_of_cache(&reply([0x81, 0x83]), Some(3)));
        assert!(!is_of_cache(&reply([0x81, 0x80]), Some(3)), "another rcode");
        assert!(!is_of_cache(&reply([0x85, 0x80]), Some(0)), "an authority");
        assert!(!is_of_cache(&reply([0x81, 0x00]), Some(0)), "it asks nobody");
        assert!(!is_of_cache(&query, Some(0)), "a query");
    }

    #[test]
    fn the_first_of_a_question_misses_and_later_ones_hit() {
        let zone: Name = "plan-upstream.net.".parse().unwrap();
        let mut builder = QuestionsBuilder::default();
        let mut add = |name: &str, rtype: u8, edns: bool, traits: Traits| {
            let name: Name = name.parse().unwrap();
            let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
            message.extend(name.as_wire());
            message.extend([0, rtype, 0, 1]);
            let question_len = message.len() - HEADER_LEN;
            message.extend(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0][..if edns { 11 } else { 0 }]);
            builder.add(&message, question_len, traits)
        };
        let plain = Traits::default();
        // Types 65 and 97 are "A" and "a".
        let a = add("a.example.", 65, false, plain);
        let same = add("A.example.", 65, true, plain);
        let other = add("a.example.", 97, false, plain);
        let stream = add("b.example.", 1, false, Traits { stream: true, ..plain });
        let fresh = add("xxx.example.", 1, false, Traits { fresh: 3, ..plain });
        for index in [a, same, other, fresh, stream, same, a, fresh, stream, other] {
            builder.ask(index);
        }
        let questions = builder.build(String::new());
        let mut cached = sort_cached(&questions, &zone, false);
        // a, other, stream, and twice the fresh one.
        assert_eq!((cached.first, cached.queries), (5, 10));
        let shares = cached.shares().unwrap();
        let expected = [(Kind::Tcp, 0.1), (Kind::CacheHit, 0.4), (Kind::CacheMiss, 0.5)];
        assert_eq!(shares.classes, expected);
        let filled: Vec<bool> = cached.pools.iter().map(|pool| pool.filled).collect();
        assert_eq!(filled, [true, true, false]);
        // In the order in which they came, each message once, with RD.
        let hits = &cached.pools[1];
        assert_eq!(hits.order, [0, 0, 1, 2]);
        assert!(hits.messages().all(|message| message[2] == 1));
        assert!(hits.is_real() && !cached.pools[2].is_real());
        // Each over a connection of its own; without its question it has no share.
        let mut each = sort_cached(&questions, &zone, true);
        assert_eq!(each.pools[0].kind, Kind::TcpQuery);
        each.pools[0].learn(&[None]);
        assert_eq!(each.shares().unwrap().classes.len(), 2);
        assert_eq!(each.pools.len(), 2);
    }

    #[test]
    fn what_has_no_answer_is_asked_no_more() {
        let questions = real(3, &[0, 1, 2, 0, 1, 2, 2]);
        let mut pool = sort_cached(&questions, &"test.".parse().unwrap(), false).pools.remove(0);
        assert_eq!(pool.order, [0, 1, 2, 2]);
        pool.learn(&[Some(0), None, Some(3)]);
        assert_eq!(pool.order, [0, 1, 1]);
        let rcodes: Vec<Option<u8>> = pool.asked.iter().map(|asked| asked.rcode).collect();
        assert_eq!(rcodes, [Some(0), Some(3)]);
        // What is known is not learned anew: a later failure is one.
        pool.learn(&[Some(3), Some(3)]);
        assert_eq!(pool.asked[0].rcode, Some(0));
    }
}

//! Questions in flight, and who waits for each.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::mem::take;
use std::net::IpAddr;
use std::time::Duration;

use crate::answer::Wanted;
use crate::cache::Key;
use crate::resolver::{Keyed, Slab};
use crate::wire::Name;

use crate::server::forwarding::misses::Miss;

/// After how long a question is asked again that was answered with what is stale.
const STALE_RECHECK: Duration = Duration::from_secs(4);
/// Questions of which that is remembered.
const STALE_REMEMBERED_MAX: usize = 1 << 16;
/// Clients whose questions are counted are forgotten when they have none; room for so many more.
const CLIENTS_SPARE: usize = 1024;
/// Bits of a question's number that are its place; those above count all there have been.
const PLACE_BITS: u32 = 24;

/// Who waits.
pub struct Waiter {
    /// The query.
    pub miss: Miss,
    /// Who asks.
    pub client: IpAddr,
    /// Questions that the query has led to.
    pub rounds: u8,
}

/// A question in flight.
pub struct Flight {
    /// Its number, which no other has had.
    pub id: u64,
    /// What it asks for, in lower case.
    pub name: Name,
    name_hash: u64,
    /// QTYPE.
    pub qtype: u16,
    /// DO and CD.
    pub flags: u8,
    /// Who waited has been answered with what is stale; so is whoever comes.
    pub is_late: bool,
    /// On whose account it is.
    client: Option<IpAddr>,
    /// Mostly one waits.
    first: Option<Waiter>,
    more: Vec<Waiter>,
}

impl Flight {
    /// For `wanted`, on the account of who waits first; `None` if that is no name.
    pub fn new(wanted: &Wanted, first: Option<Waiter>) -> Option<Flight> {
        Some(Flight {
            id: 0,
            name: Name::from_wire(wanted.name.as_wire()).ok()?,
            name_hash: wanted.name_hash,
            qtype: wanted.qtype,
            flags: wanted.flags,
            is_late: false,
            client: first.as_ref().map(|waiter| waiter.client),
            first,
            more: Vec::new(),
        })
    }

    /// As the cache finds it.
    pub fn key(&self) -> Key<'_> {
        let Flight { name, name_hash, qtype, flags, .. } = self;
        Key { name_hash: *name_hash, name: name.as_wire(), qtype: *qtype, flags: *flags }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }
}

/// What a client has at once.
#[derive(Clone, Copy, Default)]
struct Account {
    /// Questions.
    asked: u32,
    /// Queries that wait, also for questions of others.
    waiting: u32,
}

/// Questions in flight, by number and by what they ask.
pub struct Flights {
    all: Slab<Flight>,
    by_hash: HashMap<u64, u32, Keyed>,
    count: u64,
    /// Queries that wait, of all of them.
    waiting: usize,
    clients: HashMap<IpAddr, Account, Keyed>,
    /// When waiters get what is stale, the earliest first: all wait equally long.
    impatient: VecDeque<(Duration, u64)>,
    /// Questions that have failed and have a stale answer, and until when they are not asked again;
    /// the earliest first.
    failed: HashMap<u64, Duration, Keyed>,
    failed_in_order: VecDeque<(Duration, u64)>,
}

impl Flights {
    /// None.
    pub fn new() -> Flights {
        let keyed = || Keyed(RandomState::new().hash_one(0));
        Flights {
            all: Slab::new(),
            by_hash: HashMap::with_hasher(keyed()),
            count: 0,
            waiting: 0,
            clients: HashMap::with_hasher(keyed()),
            impatient: VecDeque::new(),
            failed: HashMap::with_hasher(keyed()),
            failed_in_order: VecDeque::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.all.iter()
    }

    /// The one of this number, if it is in flight still.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut Flight> {
        self.all.get_mut((id & ((1 << PLACE_BITS) - 1)) as u32).filter(|flight| flight.id == id)
    }

    /// The one that asks for `key`.
    pub fn asking(&self, key: &Key<'_>) -> Option<&Flight> {
        let place = *self.by_hash.get(&key.hash())?;
        self.all.get(place).filter(|flight| flight.key() == *key)
    }

    /// How many are on this account.
    pub fn of_client(&self, client: IpAddr) -> usize {
        self.clients.get(&client).map_or(0, |account| account.asked as usize)
    }

    /// Queries that wait, of all clients and of this one.
    pub fn waiting(&self, client: IpAddr) -> (usize, usize) {
        let of_client = self.clients.get(&client).map_or(0, |account| account.waiting as usize);
        (self.waiting, of_client)
    }

    /// When those who wait for the earliest question in flight become impatient.
    pub fn next_impatient(&mut self) -> Option<Duration> {
        // Most questions have ended long before that: their memory is for the next ones.
        while let Some(&(at, id)) = self.impatient.front() {
            if self.get_mut(id).is_some() {
                return Some(at);
            }
            self.impatient.pop_front();
        }
        None
    }

    /// The number of the next question whose waiters have become impatient by `now`.
    pub fn pop_impatient(&mut self, now: Duration) -> Option<u64> {
        self.next_impatient().filter(|at| *at <= now)?;
        self.impatient.pop_front().map(|(_, id)| id)
    }

    /// One more waits for a question.
    pub fn join(&mut self, id: u64, waiter: Waiter) {
        self.waiting += 1;
        self.clients.entry(waiter.client).or_default().waiting += 1;
        if let Some(flight) = self.get_mut(id) {
            flight.more.push(waiter);
        }
    }

    /// Nobody waits for a question any more: all who did.
    pub fn take_waiters(&mut self, id: u64) -> impl Iterator<Item = Waiter> + use<> {
        let taken = self.get_mut(id).map(|flight| (flight.first.take(), take(&mut flight.more)));
        let (first, more) = taken.unwrap_or_default();
        for waiter in first.iter().chain(&more) {
            self.waiting -= 1;
            self.settle(waiter.client, |account| &mut account.waiting);
        }
        first.into_iter().chain(more)
    }

    /// One less is on this account.
    fn settle(&mut self, client: IpAddr, of: impl Fn(&mut Account) -> &mut u32) {
        let Some(account) = self.clients.get_mut(&client) else { return };
        let count = of(account);
        *count = count.saturating_sub(1);
        let is_empty = account.asked == 0 && account.waiting == 0;
        if is_empty && self.clients.len() > CLIENTS_SPARE {
            self.clients.remove(&client);
        }
    }

    /// Takes off, with waiters that become impatient at `impatient`; its number.
    pub fn begin(&mut self, mut flight: Flight, impatient: Duration) -> u64 {
        let place = self.all.next();
        self.count += 1;
        let id = self.count << PLACE_BITS | u64::from(place);
        flight.id = id;
        if let Some(client) = flight.client {
            let waiting = flight.waiting();
            self.waiting += waiting;
            let account = self.clients.entry(client).or_default();
            account.asked += 1;
            account.waiting += waiting as u32;
        }
        // Nobody may wait yet, and somebody may join.
        self.impatient.push_back((impatient, id));
        self.by_hash.insert(flight.key().hash(), place);
        self.all.insert(flight);
        id
    }

    /// The one of this number has ended; nobody waits for it any more.
    pub fn end(&mut self, id: u64) -> Option<Flight> {
        self.get_mut(id)?;
        let place = (id & ((1 << PLACE_BITS) - 1)) as u32;
        let flight = self.all.remove(place)?;
        let hash = flight.key().hash();
        // Another with the same hash may have taken its place.
        if self.by_hash.get(&hash) == Some(&place) {
            self.by_hash.remove(&hash);
        }
        if let Some(client) = flight.client {
            self.settle(client, |account| &mut account.asked);
        }
        Some(flight)
    }

    /// Those who have failed may be asked again: it is others who answer now.
    pub fn forget_failures(&mut self) {
        self.failed.clear();
        self.failed_in_order.clear();
    }

    /// Until when the question of this hash is answered with what is stale.
    pub fn spared_until(&self, hash: u64, now: Duration) -> Option<Duration> {
        self.failed.get(&hash).copied().filter(|until| *until > now)
    }

    /// This question has failed, and its stale answer will do for a while.
    pub fn remember(&mut self, hash: u64, now: Duration) {
        while let Some(&(until, first)) = self.failed_in_order.front()
            && (until <= now || self.failed_in_order.len() >= STALE_REMEMBERED_MAX)
        {
            self.failed_in_order.pop_front();
            // A later one may have taken its place.
            if self.failed.get(&first) == Some(&until) {
                self.failed.remove(&first);
            }
        }
        self.failed.insert(hash, now + STALE_RECHECK);
        self.failed_in_order.push_back((now + STALE_RECHECK, hash));
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::forwarding::misses::Back;

    fn waiter(client: u8) -> Waiter {
        let miss = Miss::new(&[0; 40], Back::Nobody).unwrap();
        Waiter { miss, client: [192, 0, 2, client].into(), rounds: 1 }
    }

    fn wanted(number: u8) -> Wanted {
        let mut wanted = Wanted { name_hash: number.into(), qtype: 1, ..Wanted::default() };
        wanted.name.read(&[1, b'a' + number, 0]).unwrap();
        wanted
    }

    /// Each is on the account of who asks, also those who join what another has asked.
    #[test]
    fn accounts_are_settled() {
        let (mut flights, at) = (Flights::new(), Duration::ZERO);
        let [first, other] = [1, 2].map(|client| IpAddr::from([192, 0, 2, client]));
        let id = flights.begin(Flight::new(&wanted(0), Some(waiter(1))).unwrap(), at);
        let silent = flights.begin(Flight::new(&wanted(1), None).unwrap(), at);
        (0..3).for_each(|_| flights.join(id, waiter(2)));
        flights.join(silent, waiter(2));
        assert_eq!((flights.waiting(first), flights.waiting(other)), ((5, 1), (5, 4)));
        assert_eq!((flights.of_client(first), flights.of_client(other)), (1, 0));
        assert_eq!(flights.asking(&wanted(0).key()).unwrap().waiting(), 4);
        assert_eq!(flights.take_waiters(id).count(), 4);
        assert_eq!(flights.take_waiters(id).count(), 0);
        assert_eq!((flights.waiting(first), flights.waiting(other)), ((1, 0), (1, 1)));
        assert_eq!(flights.end(id).unwrap().id, id);
        assert!(flights.end(id).is_none() && flights.get_mut(id).is_none());
        assert_eq!((flights.of_client(first), flights.len()), (0, 1));
        // The number of one that has ended is that of no other, in the same place.
        let next = flights.begin(Flight::new(&wanted(0), Some(waiter(1))).unwrap(), at);
        assert_ne!(next, id);
        flights.take_waiters(silent).for_each(drop);
        flights.take_waiters(next).for_each(drop);
        assert!(flights.end(next).is_some() && flights.end(silent).is_some());
        assert_eq!((flights.waiting(other), flights.len()), ((0, 0), 0));
        assert!(flights.asking(&wanted(0).key()).is_none());
    }

    /// One after the other, and none that has ended; those are not remembered either.
    #[test]
    fn waiters_become_impatient_in_turn() {
        let (mut flights, second) = (Flights::new(), Duration::from_secs(1));
        let begin = |flights: &mut Flights, number: u8| {
            let flight = Flight::new(&wanted(number), Some(waiter(1))).unwrap();
            flights.begin(flight, second * u32::from(number))
        };
        let ids: Vec<u64> = (1..=20).map(|number| begin(&mut flights, number)).collect();
        ids[..9].iter().for_each(|id| assert!(flights.end(*id).is_some()));
        assert_eq!(flights.next_impatient(), Some(second * 10));
        assert_eq!(flights.impatient.len(), 11);
        assert_eq!(flights.pop_impatient(second * 9), None);
        flights.end(ids[10]);
        let popped: Vec<_> = std::iter::from_fn(|| flights.pop_impatient(second * 13)).collect();
        assert_eq!(popped, [ids[9], ids[11], ids[12]]);
        assert_eq!(flights.next_impatient(), Some(second * 14));
    }
}

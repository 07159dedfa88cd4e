//! Questions in flight, and who waits for each.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::answer::Wanted;
use crate::cache::Key;
use crate::resolver::{Keyed, Slab};
use crate::wire::Name;

use super::super::misses::Miss;

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

    /// One more waits.
    pub fn join(&mut self, waiter: Waiter) {
        self.more.push(waiter);
    }

    /// Nobody waits any more: all who did.
    pub fn take_waiters(&mut self) -> impl Iterator<Item = Waiter> + use<> {
        self.first.take().into_iter().chain(std::mem::take(&mut self.more))
    }
}

/// Questions in flight, by number and by what they ask.
pub struct Flights {
    all: Slab<Flight>,
    by_hash: HashMap<u64, u32, Keyed>,
    count: u64,
    /// Queries that wait, of all of them.
    pub waiting: usize,
    clients: HashMap<IpAddr, u32, Keyed>,
    /// When waiters get what is stale, the earliest first: all wait equally long.
    pub impatient: VecDeque<(Duration, u64)>,
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

    /// As [`Flights::asking`].
    pub fn asking_mut(&mut self, key: &Key<'_>) -> Option<&mut Flight> {
        let place = *self.by_hash.get(&key.hash())?;
        self.all.get_mut(place).filter(|flight| flight.key() == *key)
    }

    /// How many are on this account.
    pub fn of_client(&self, client: IpAddr) -> usize {
        self.clients.get(&client).copied().unwrap_or(0) as usize
    }

    /// Takes off, with waiters that become impatient at `impatient`; its number.
    pub fn begin(&mut self, mut flight: Flight, impatient: Duration) -> u64 {
        let place = self.all.next();
        self.count += 1;
        let id = self.count << PLACE_BITS | u64::from(place);
        flight.id = id;
        self.waiting += flight.waiting();
        if let Some(client) = flight.client {
            *self.clients.entry(client).or_default() += 1;
        }
        // Nobody may wait yet, and somebody may join.
        self.impatient.push_back((impatient, id));
        self.by_hash.insert(flight.key().hash(), place);
        self.all.insert(flight);
        id
    }

    /// The one of this number has ended.
    pub fn end(&mut self, id: u64) -> Option<Flight> {
        self.get_mut(id)?;
        let place = (id & ((1 << PLACE_BITS) - 1)) as u32;
        let flight = self.all.remove(place)?;
        let hash = flight.key().hash();
        // Another with the same hash may have taken its place.
        if self.by_hash.get(&hash) == Some(&place) {
            self.by_hash.remove(&hash);
        }
        self.waiting -= flight.waiting();
        if let Some(client) = flight.client
            && let Some(count) = self.clients.get_mut(&client)
        {
            *count = count.saturating_sub(1);
            if *count == 0 && self.clients.len() > CLIENTS_SPARE {
                self.clients.remove(&client);
            }
        }
        Some(flight)
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

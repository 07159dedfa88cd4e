//! The cache as it is kept over a restart.
//!
//! ```text
//!   | "ring53 cache 2\n" | when 8 | entry | entry | ... | end: 0 4 | digest 32 |
//!   entry   | len 4 | age 4 | octets ... |
//! ```
//!
//! `when` is the time of writing in seconds since 1970, `age` how long the entry had been held. The
//! SHA-256 of all that stands before it ends the whole; a file without its end is not used.

use std::time::Duration;

use crate::memory::store::{ENTRY_LEN_MAX, Keep};

use super::entry::Entry;
use super::{Cache, Key, Prepared, second};

/// How a file begins.
pub const MAGIC: &[u8] = b"ring53 cache 2\n";
const HEAD_LEN: usize = 8;
/// Octets of the digest, which the caller makes: SHA-256.
pub const DIGEST_LEN: usize = 32;

/// What stands before the entries; `wall` is the time in seconds since 1970.
pub fn begin(wall: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&wall.to_le_bytes());
}

/// How many steps [`write()`] takes.
pub fn steps(cache: &Cache) -> usize {
    cache.store.write().steps()
}

/// Appends the entries of one step of the table, failures and what is past all use left out.
pub fn write(cache: &Cache, step: usize, now: Duration, stale: u32, out: &mut Vec<u8>) {
    let now = second(now);
    cache.store.write().for_each_of(step, |octets| {
        if let Some(entry) = Entry::new(octets)
            && entry.is_served(now, stale)
        {
            out.extend_from_slice(&(octets.len() as u32).to_le_bytes());
            out.extend_from_slice(&entry.age(now).to_le_bytes());
            out.extend_from_slice(octets);
        }
        Keep::Yes
    });
}

/// What stands behind the entries, before the digest.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
}

/// A file that is none, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWhole;

/// The octets that the digest at the end of `file` is of, and the digest.
pub fn parts(file: &[u8]) -> Result<(&[u8], &[u8; DIGEST_LEN]), NotWhole> {
    let (body, digest) = file.split_last_chunk().ok_or(NotWhole)?;
    if body.starts_with(MAGIC) { Ok((body, digest)) } else { Err(NotWhole) }
}

/// Keeps the entries of `body`, whose digest has been checked, as old as they are by now; returns
/// how many. `hash_of` hashes names.
pub fn read(
    cache: &Cache,
    body: &[u8],
    wall: u64,
    now: Duration,
    stale: u32,
    mut hash_of: impl FnMut(&[u8]) -> Option<u64>,
) -> Result<u64, NotWhole> {
    let rest = body.strip_prefix(MAGIC).ok_or(NotWhole)?;
    let (when, mut rest) = rest.split_first_chunk::<HEAD_LEN>().ok_or(NotWhole)?;
    let since = wall.saturating_sub(u64::from_le_bytes(*when)).try_into().unwrap_or(u32::MAX);
    let (mut count, mut prepared) = (0, Prepared::default());
    loop {
        let (len, after) = rest.split_first_chunk::<4>().ok_or(NotWhole)?;
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 {
            return if after.is_empty() { Ok(count) } else { Err(NotWhole) };
        }
        let (age, after) = after.split_first_chunk::<4>().ok_or(NotWhole)?;
        let (octets, after) = after.split_at_checked(len).ok_or(NotWhole)?;
        rest = after;
        let Some(entry) = Entry::new(octets).filter(|_| Entry::is_whole(octets)) else {
            return Err(NotWhole);
        };
        let age = u32::from_le_bytes(*age).saturating_add(since);
        if len > ENTRY_LEN_MAX || age >= entry.ttl().saturating_add(stale) {
            continue;
        }
        let Some(name_hash) = hash_of(entry.name()) else { continue };
        let name = entry.name();
        let key = Key { name_hash, name, qtype: entry.qtype(), flags: entry.flags() };
        prepared.copy(entry);
        prepared.hold(second(now).saturating_sub(age), None);
        count += u64::from(cache.keep(&key, &prepared, now, stale));
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Aside, TtlBounds};
    use crate::wire::message::{CLASS_IN, Section, Writer, header};
    use crate::wire::rtype;

    fn hash_of(name: &[u8]) -> Option<u64> {
        Some(name.iter().fold(3, |hash: u64, &octet| hash.rotate_left(7) ^ u64::from(octet)))
    }

    fn filled(count: u32) -> Cache {
        let cache = Cache::new(4 << 20, 1).unwrap();
        for number in 0..count {
            let label = format!("n{number}");
            let name = [&[label.len() as u8], label.as_bytes(), b"\0"].concat();
            let name_hash = hash_of(&name).unwrap();
            let key = Key { name_hash, name: &name, qtype: rtype::A, flags: 0 };
            let mut writer = Writer::new(1, header::QR);
            writer.question(&name, rtype::A, CLASS_IN);
            writer.record(Section::Answer, &name, rtype::A, 100 + number, &[192, 0, 2, 1]);
            let mut prepared = Prepared::default();
            let now = Duration::from_secs(50);
            let (message, bounds) = (writer.into_octets(), TtlBounds::default());
            prepared.response(&key, &message, now, &bounds, Aside::default()).unwrap();
            assert!(cache.keep(&key, &prepared, now, 1000));
        }
        cache
    }

    fn dumped(cache: &Cache, stale: u32) -> Vec<u8> {
        let mut file = Vec::new();
        begin(1_000_000, &mut file);
        (0..steps(cache))
            .for_each(|step| write(cache, step, Duration::from_secs(60), stale, &mut file));
        end(&mut file);
        file
    }

    #[test]
    fn what_was_kept_comes_back_older() {
        let file = dumped(&filled(500), 0);
        let again = Cache::new(4 << 20, 1).unwrap();
        // 10 seconds had passed, and 200 more: those with a TTL of more than 210 are left.
        let read = read(&again, &file, 1_000_200, Duration::ZERO, 0, hash_of).unwrap();
        assert_eq!((read, again.counts().entries), (389, 389));
        let mut ages = Vec::new();
        again.flush(|entry| {
            ages.push(entry.age(second(Duration::from_secs(5))));
            false
        });
        assert!(ages.iter().all(|&age| age == 215));
    }

    #[test]
    fn what_is_not_whole_is_not_used() {
        let file = dumped(&filled(20), 0);
        let empty = || Cache::new(4 << 20, 1).unwrap();
        for len in 0..file.len() {
            let cut = read(&empty(), &file[..len], 1_000_000, Duration::ZERO, 0, hash_of);
            assert_eq!(cut, Err(NotWhole), "{len}");
        }
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut other = file.clone();
                other[at] ^= 1 << bit;
                // Any octets may come: it is the digest that tells.
                let _ = read(&empty(), &other, 1_000_000, Duration::ZERO, 0, hash_of);
            }
        }
        assert_eq!(parts(&file[..10]), Err(NotWhole));
    }
}

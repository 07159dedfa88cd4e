//! Files that somebody else has changed, and journals whose serials fit by chance.

use std::path::Path;
use std::sync::Arc;

use super::simulated::{Fault, Kept, Simulated};
use super::stops::{
    DIRECTORY, Plan, Promise, Random, Server, go_on, name, options, place, records, steps, version,
};
use crate::server::report;
use crate::server::stream::deferred::wall_clock;
use crate::server::zones::journal::{self, Base};
use crate::server::zones::state;
use crate::zone::Zone;
use crate::zone::change::{Change, Journal, diff};

/// Damaged files, each read once.
const DAMAGES: usize = 6000;

/// Changes some octets, or the length.
fn damaged(mut octets: Vec<u8>, random: &mut Random) -> (Vec<u8>, String) {
    let at = random.below(octets.len().max(1));
    let what = match random.below(8) {
        0 => {
            octets.truncate(at);
            format!("cut at {at}")
        }
        1 => {
            let more = random.below(600);
            octets.resize(octets.len() + more, [0, 0xFF][random.below(2)]);
            format!("{more} octets more")
        }
        2 => {
            let end = (at + random.below(600)).min(octets.len());
            octets[at..end].fill(0);
            format!("zeros from {at} to {end}")
        }
        3 => {
            // A piece of the file where it does not belong.
            let from = random.below(octets.len().max(1));
            let len = random.below(300).min(octets.len() - at).min(octets.len() - from);
            octets.copy_within(from..from + len, at);
            format!("{len} octets of {from} at {at}")
        }
        _ => {
            let count = 1 + random.below(3);
            for _ in 0..count.min(octets.len()) {
                let at = random.below(octets.len());
                octets[at] ^= 1 << random.below(8);
            }
            format!("{count} bits")
        }
    };
    (octets, what)
}

#[test]
fn what_is_damaged_is_said_and_never_served() {
    let mut random = Random::new("damage");
    let mut server = Server::new(Simulated::empty(Promise::default()));
    let all = steps();
    let (mut served, mut older, mut broken) = (0, 0, 0);
    for step in &all {
        server.run(*step).unwrap();
        let moment = server.disk.moments().pop().unwrap();
        for _ in 0..DAMAGES / all.len() {
            let disk = moment.disk(moment.promise.clone(), &mut Plan::default());
            let files = disk.files();
            let file = &files[random.below(files.len())];
            let before = disk.octets(file).unwrap();
            let (octets, what) = damaged(before.clone(), &mut random);
            let is_same = octets == before;
            disk.damage(file, octets);
            let what = || format!("{}: {what}", file.display());
            report::said();
            // Whoever only looks changes nothing.
            let seen = state::restore(place(&disk), &name(), &options(), false);
            assert_eq!(disk.count(), 0, "{}", what());
            let found = state::restore(place(&disk), &name(), &options(), true);
            let seen = seen.as_ref().map(|seen| seen.as_ref().map(|(zone, _)| zone.serial()));
            let again = found.as_ref().map(|found| found.as_ref().map(|(zone, _)| zone.serial()));
            assert_eq!(seen, again, "{}", what());
            let said = report::said().join("\n");
            let names_it = said.contains(&file.display().to_string());
            match found {
                Ok(Some((zone, journal))) => {
                    let confirmed = state::restore_confirmed(place(&disk), &name());
                    let latest = server.promise.confirmed.1.max(wall_clock());
                    assert!(confirmed <= latest, "{}", what());
                    let versions = server.history.known.get(&records(&zone));
                    let versions = versions.unwrap_or_else(|| panic!("a mixture: {}", what()));
                    let version = *versions.last().unwrap();
                    server.history.assert_journal(version, &journal, &what);
                    let is_older = version < server.promise.kept.unwrap();
                    assert!(names_it || !is_older, "nothing said of {}: {said}", what());
                    older += usize::from(is_older);
                    served += usize::from(!is_older);
                    go_on(&disk, &server.history, version, &what);
                }
                Ok(None) => panic!("nothing is there: {}", what()),
                Err(error) => {
                    assert!(!is_same && error.contains(&file.display().to_string()), "{error}");
                    broken += 1;
                    // The zone comes again, whole.
                    let zone = version("again", 1, 100);
                    state::keep(place(&disk), &zone, &[], &Journal::default()).unwrap();
                    let found = state::restore(place(&disk), &name(), &options(), true);
                    assert_eq!(records(&found.unwrap().unwrap().0), records(&zone), "{}", what());
                }
            }
        }
    }
    println!("{served} served the same, {older} an older version, {broken} none");
    assert!(served > DAMAGES / 20 && older > DAMAGES / 100 && broken > DAMAGES / 20);
}

/// Keeps two versions of one line, and one of another that follows the second by its serial.
#[test]
fn serials_that_fit_by_chance() {
    let disk = Simulated::empty(());
    let [first, second] = [1, 2].map(|serial| version("a", serial, 100));
    let [other, another] = [2, 3].map(|serial| version("b", serial, 100));
    let step = |from, to| Arc::new(diff(from, to, options().key));
    let kept = [step(&first, &second)];
    let journal = Journal::default().after(&kept, 1 << 20);
    state::keep(place(&disk), &first, &[], &Journal::default()).unwrap();
    state::keep(place(&disk), &second, &kept, &journal).unwrap();
    let found = || state::restore(place(&disk), &name(), &options(), true).unwrap().unwrap().0;
    assert_eq!(records(&found()), records(&second));
    // The zone gets a file, and its changes a journal, and then its primaries back.
    let changes = [step(&other, &another)];
    let journal = Journal::default().after(&changes, 1 << 20);
    assert_eq!(journal::read(place(&disk), &name(), true), Ok(Vec::new()));
    state::record(place(&disk), &name(), &changes, &journal).unwrap();
    let read = journal::read(place(&disk), &name(), true).unwrap();
    assert_eq!(read, [Change::clone(&changes[0])]);
    assert_eq!(records(&found()), records(&first), "what was kept before is still there");
    // The journal of the file is of no use to the zone that was kept, nor the other way round.
    let base = Base { digest: [1; 32], serial: 3 };
    assert_eq!(journal::read_from(&place(&disk), &name(), true, &base), Ok(None));
    let refused = journal::append_to(&place(&disk), &name(), &Base::FILE, &[&changes[0]], 1);
    assert_eq!(refused, Ok(None));
}

/// Two changes that could not be written, and one in their place, as long as the first of them.
#[test]
fn what_could_not_be_written_never_comes_back_behind_what_could() {
    let disk = Simulated::empty(());
    let record = |line: &str, serials: &[u32], journal: &Journal| {
        let zones: Vec<_> = serials.iter().map(|serial| version(line, *serial, 100)).collect();
        let step = |pair: &[Arc<Zone>]| Arc::new(diff(&pair[0], &pair[1], options().key));
        let changes: Vec<_> = zones.windows(2).map(step).collect();
        let journal = journal.after(&changes, 1 << 20);
        state::record(place(&disk), &name(), &changes, &journal).map(|()| journal)
    };
    let first = record("a", &[1, 2], &Journal::default()).unwrap();
    disk.fail(Fault::Syncs(0));
    assert!(record("b", &[2, 3, 4], &first).is_err());
    assert!(disk.mend());
    let second = record("c", &[2, 3], &first).unwrap();
    // The first piece was written, and that it was cut off again was not.
    for all in [false, true] {
        for at in 0..4 {
            for kept in [Kept::All, Kept::Nothing] {
                let other_edit = Some((at, kept));
                let mut plan = Plan { all, other_edit, ..Plan::default() };
                let found = disk.moments().pop().unwrap().disk((), &mut plan);
                let read = journal::read(place(&found), &name(), true).unwrap();
                let expected = second.changes().iter().map(|change| &**change);
                assert!(read.iter().eq(expected), "{plan:?}");
            }
        }
    }
}

/// A journal of a zone that has a file, on a disk that is full for a while.
#[test]
fn a_journal_catches_up_once_there_is_room() {
    let disk = Simulated::empty(());
    let zones: Vec<_> = (1..8).map(|serial| version("a", serial, 100)).collect();
    let mut journal = Journal::default();
    let mut all: Vec<Arc<Change>> = Vec::new();
    for (at, pair) in zones.windows(2).enumerate() {
        let change = Arc::new(diff(&pair[0], &pair[1], options().key));
        journal = journal.after(&[Arc::clone(&change)], 1 << 20);
        all.push(Arc::clone(&change));
        if at == 2 {
            disk.fail(Fault::NoSpace(0));
        }
        let recorded = state::record(place(&disk), &name(), &[change], &journal);
        if (2..4).contains(&at) {
            let error = recorded.unwrap_err();
            assert!(error.contains("/t.journal: no storage space"), "{error}");
            assert_eq!(journal::read(place(&disk), &name(), true).unwrap().len(), 2);
        } else {
            recorded.unwrap();
            let read = journal::read(place(&disk), &name(), true).unwrap();
            assert!(read.iter().eq(all.iter().map(|change| &**change)), "{at}");
        }
        if at == 3 {
            assert!(disk.mend());
        }
    }
    assert_eq!(disk.files(), [Path::new(DIRECTORY).join("t.journal")]);
}

/// However long the journal is that is kept for others, a change costs the change.
#[test]
fn the_zone_is_written_again_only_once_in_a_while() {
    let disk = Simulated::empty(());
    let mut zone = version("a", 1, 100);
    let mut journal = Journal::default();
    state::keep(place(&disk), &zone, &[], &journal).unwrap();
    let base = || disk.octets(&Path::new(DIRECTORY).join("t.zone")).unwrap();
    let (mut before, mut written) = (base(), 0);
    for serial in 2..62 {
        let next = version("a", serial, 100);
        let change = Arc::new(diff(&zone, &next, options().key));
        journal = journal.after(&[Arc::clone(&change)], 1 << 20);
        state::keep(place(&disk), &next, &[change], &journal).unwrap();
        zone = next;
        let now = base();
        written += usize::from(now != before);
        before = now;
    }
    assert_eq!(journal.changes().len(), 60);
    assert!((5..=20).contains(&written), "written {written} times");
}

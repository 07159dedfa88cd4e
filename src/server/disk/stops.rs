//! Zones and journals on a disk that stops at every change, and on one that fails or lies.
//!
//! ```text
//!   a run ──> moments, one after each change, with what was promised by then
//!   moment ──> disks that may be found ──> restore ──> the version promised, or a later one, whole
//!                                             └─> the next version is kept, and found again
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Place;
use super::simulated::{Chance, Fault, Kept, Moment, Simulated};
use crate::server::report;
use crate::server::stream::deferred::wall_clock;
use crate::server::zones::state;
use crate::wire::Name;
use crate::zone::change::{Change, Journal, diff};
use crate::zone::{Given, HashKey, LoadOptions, Zone, load};

pub(super) const DIRECTORY: &str = "/var/state";
/// A journal longer than its zone and this is written anew.
const JOURNAL_LEN_MIN: u64 = 5000;
/// Disks that are drawn for each moment, beside those that are thought out.
const DRAWN: usize = 16;

//----------- Chances --------------------------------------------------------

pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(place: &str) -> Random {
        let seed = std::env::var("RING53_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(53);
        println!("{place}: seed {seed} (RING53_SEED)");
        Random(seed)
    }

    pub(super) fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(word) * below as u128) >> 64) as usize
    }
}

impl Chance for Random {
    fn edit(&mut self, len: usize) -> Kept {
        match self.below(6) {
            0 | 1 => Kept::Nothing,
            2 => Kept::All,
            3 => Kept::Zeros,
            4 => Kept::Front(self.below(len + 1)),
            _ => Kept::Sectors((self.below(1 << 32) as u64) << 32 | self.below(1 << 32) as u64),
        }
    }

    fn name(&mut self, count: usize) -> usize {
        self.below(count)
    }
}

/// All edits and names alike, but for one. Counts what it is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) all: bool,
    pub(super) other_edit: Option<(usize, Kept)>,
    pub(super) other_name: Option<(usize, usize)>,
    pub(super) edits: Vec<usize>,
    pub(super) names: Vec<usize>,
}

impl Chance for Plan {
    fn edit(&mut self, len: usize) -> Kept {
        self.edits.push(len);
        match self.other_edit {
            Some((at, kept)) if at + 1 == self.edits.len() => kept,
            _ if self.all => Kept::All,
            _ => Kept::Nothing,
        }
    }

    fn name(&mut self, count: usize) -> usize {
        self.names.push(count);
        match self.other_name {
            Some((at, chosen)) if at + 1 == self.names.len() => chosen,
            _ if self.all => count - 1,
            _ => 0,
        }
    }
}

/// Disks that may be found after a stop.
fn disks(moment: &Moment<Promise>, random: &mut Random, drawn: usize) -> Vec<Simulated<Promise>> {
    let mut found = Vec::new();
    let mut draw =
        |chance: &mut dyn Chance| found.push(moment.disk(moment.promise.clone(), chance));
    for all in [false, true] {
        let mut plan = Plan { all, ..Plan::default() };
        draw(&mut plan);
        for (at, &len) in plan.edits.iter().enumerate() {
            let sectors = Kept::Sectors(random.below(1 << 32) as u64);
            let mut other = vec![Kept::All, Kept::Nothing, Kept::Zeros, sectors];
            let cuts = [1, 511, 512, 1024, len / 2, len.saturating_sub(1), random.below(len + 1)];
            other.extend(cuts.into_iter().filter(|cut| *cut < len).map(Kept::Front));
            for kept in other {
                draw(&mut Plan { all, other_edit: Some((at, kept)), ..Plan::default() });
            }
        }
        for (at, &count) in plan.names.iter().enumerate().filter(|(_, count)| **count > 1) {
            for chosen in 0..count {
                draw(&mut Plan { all, other_name: Some((at, chosen)), ..Plan::default() });
            }
        }
        if plan.edits.is_empty() && plan.names.iter().all(|count| *count == 1) {
            return found;
        }
    }
    for _ in 0..drawn {
        draw(random);
    }
    found
}

//----------- Versions -------------------------------------------------------

pub(super) fn options() -> LoadOptions {
    LoadOptions::new(HashKey::new(*b"a secret of test"), 1)
}

pub(super) fn name() -> Name {
    "t.".parse().unwrap()
}

/// A version: many of its records tell its line and its serial.
pub(super) fn version(line: &str, serial: u32, len: usize) -> Arc<Zone> {
    let mut text = format!("$TTL 60\n@ SOA ns h {serial} 2 3 400 5\n@ NS ns\nns A 192.0.2.1\n");
    for number in 0..8 {
        text += &format!("r{number} TXT \"{line} {serial} {}\"\n", "x".repeat(len.min(200)));
    }
    for number in 0..len / 200 {
        text += &format!("same{number} TXT \"{line}\" \"{}\"\n", "y".repeat(200));
    }
    Arc::new(load(&name(), "t", &Given(text), &options()).zone.unwrap())
}

pub(super) fn records(zone: &Zone) -> Vec<String> {
    let told = |rrset: crate::zone::records::Owned<'_>| {
        format!("{:?} {} {:?}", rrset.owner.as_wire(), rrset.rtype, rrset.records)
    };
    let mut all: Vec<String> = zone.rrsets().map(told).collect();
    all.sort();
    all
}

/// What must be found after a stop.
#[derive(Clone, Default, Debug)]
pub(super) struct Promise {
    /// The version that was last kept.
    pub(super) kept: Option<usize>,
    /// The version that was last to be kept.
    pub(super) tried: usize,
    /// When it was last confirmed, as kept, and as it was to be.
    pub(super) confirmed: (u64, u64),
}

/// All versions of a run, in the order in which they were to be kept.
#[derive(Default)]
pub(super) struct History {
    zones: Vec<Arc<Zone>>,
    /// All that led to each.
    changes: Vec<Vec<Arc<Change>>>,
    /// By their records; one that was found again after a start has a new number.
    pub(super) known: BTreeMap<Vec<String>, Vec<usize>>,
}

impl History {
    /// A version that `changes` lead to from the version `before`.
    fn push(&mut self, zone: &Arc<Zone>, before: Option<usize>, changes: &[Arc<Change>]) -> usize {
        let mut all = before.map_or(Vec::new(), |before| self.changes[before].clone());
        all.extend_from_slice(changes);
        self.known.entry(records(zone)).or_default().push(self.zones.len());
        self.zones.push(Arc::clone(zone));
        self.changes.push(all);
        self.zones.len() - 1
    }

    pub(super) fn assert_journal(
        &self,
        version: usize,
        journal: &Journal,
        told: &dyn Fn() -> String,
    ) {
        let led: Vec<&Change> = self.changes[version].iter().map(|change| &**change).collect();
        let kept: Vec<&Change> = journal.changes().iter().map(|change| &**change).collect();
        assert!(led.ends_with(&kept), "changes that never led to {version}: {}", told());
    }
}

//----------- A server -------------------------------------------------------

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The next serial, by so many changes.
    Next(usize),
    /// A zone of another size, as a whole.
    Whole(usize),
    /// A primary says that it is current.
    Confirm,
    /// An end in order, and a new start.
    Restart,
    /// What was kept has expired; the primary has begun again, with a serial that was there before.
    Anew,
}

/// As the server does it, with what it has promised.
pub(super) struct Server {
    pub(super) disk: Simulated<Promise>,
    pub(super) history: History,
    pub(super) promise: Promise,
    zone: Option<Arc<Zone>>,
    journal: Journal,
    is_kept: bool,
    line: u32,
    len: usize,
}

impl Server {
    pub(super) fn new(disk: Simulated<Promise>) -> Server {
        Server {
            disk,
            history: History::default(),
            promise: Promise::default(),
            zone: None,
            journal: Journal::default(),
            is_kept: false,
            line: 0,
            len: 100,
        }
    }

    pub(super) fn run(&mut self, step: Step) -> Result<(), String> {
        let serial = self.zone.as_ref().map_or(1, |zone| zone.serial());
        match step {
            Step::Next(count) => {
                let mut changes = Vec::new();
                for more in 1..=count as u32 {
                    let next = version(&self.line.to_string(), serial + more, self.len);
                    if let Some(before) = self.zone.replace(Arc::clone(&next)) {
                        changes.push(Arc::new(diff(&before, &next, options().key)));
                    }
                }
                self.take(&changes)
            }
            Step::Whole(len) => {
                self.len = len;
                self.run(Step::Next(1))
            }
            Step::Confirm => {
                if !self.is_kept
                    && let Some(zone) = self.zone.clone()
                {
                    state::keep_again(place(&self.disk), &zone, &self.journal)?;
                    self.kept();
                }
                let seconds = self.promise.confirmed.1.max(wall_clock()) + 1000;
                self.promise.confirmed.1 = seconds;
                self.disk.promise(self.promise.clone());
                state::save_confirmed(place(&self.disk), &name(), seconds)?;
                self.promise.confirmed.0 = seconds;
                self.disk.promise(self.promise.clone());
                Ok(())
            }
            Step::Restart => {
                let restored = state::restore(place(&self.disk), &name(), &options(), true)?;
                if let Some((zone, journal)) = restored {
                    let version = *self.history.known[&records(&zone)].last().unwrap();
                    assert!(Some(version) >= self.promise.kept);
                    self.history.assert_journal(version, &journal, &|| "no stop at all".into());
                    let zone = Arc::new(zone);
                    if version != self.promise.tried {
                        self.promise.tried = self.history.push(&zone, Some(version), &[]);
                    }
                    (self.zone, self.journal) = (Some(zone), journal);
                    // What was found after an error need not be found after a stop.
                    self.is_kept = self.promise.kept == Some(version);
                    if self.is_kept {
                        self.kept();
                    }
                }
                Ok(())
            }
            Step::Anew => {
                (self.line, self.journal) = (self.line + 1, Journal::default());
                let serial = serial.saturating_sub(2).max(1);
                self.zone = Some(version(&self.line.to_string(), serial, self.len));
                self.take(&[])
            }
        }
    }

    fn take(&mut self, changes: &[Arc<Change>]) -> Result<(), String> {
        let zone = self.zone.clone().unwrap();
        self.journal = self.journal.after(changes, zone.memory_len());
        let before = Some(self.promise.tried).filter(|_| !changes.is_empty());
        self.promise.tried = self.history.push(&zone, before, changes);
        self.disk.promise(self.promise.clone());
        self.is_kept = false;
        state::keep(place(&self.disk), &zone, changes, &self.journal)?;
        self.kept();
        Ok(())
    }

    fn kept(&mut self) {
        self.is_kept = true;
        self.promise.kept = Some(self.promise.tried);
        self.disk.promise(self.promise.clone());
    }
}

pub(super) fn place<P: Clone + Send + 'static>(disk: &Simulated<P>) -> Place<'_> {
    Place { directory: Path::new(DIRECTORY), disk, journal_len_min: JOURNAL_LEN_MIN }
}

/// Everything that is done to a zone.
pub(super) fn steps() -> Vec<Step> {
    use Step::{Anew, Confirm, Next, Restart, Whole};
    let mut steps = vec![Next(1), Confirm, Next(1), Next(3), Confirm, Restart, Next(1)];
    // The journal gets too long, more than once.
    steps.extend([Next(2); 6]);
    steps.extend([Confirm, Anew, Confirm, Next(1), Next(1), Restart, Next(1), Anew, Anew, Restart]);
    steps.extend([Whole(4000), Next(1), Confirm, Restart, Next(2), Whole(100), Next(1), Next(1)]);
    steps.extend([Restart, Restart, Next(1), Anew, Next(2), Confirm]);
    steps
}

//----------- What is found --------------------------------------------------

/// Starts from `disk`: what is found is what was promised, or later, and what comes then is kept.
fn start(disk: &Simulated<Promise>, history: &History, told: &dyn Fn() -> String) -> Option<usize> {
    let promise = disk.moments().pop().unwrap().promise;
    let restored = state::restore(place(disk), &name(), &options(), true);
    let restored = restored.unwrap_or_else(|error| panic!("{error}: {}", told()));
    let confirmed = state::restore_confirmed(place(disk), &name());
    assert!(confirmed >= promise.confirmed.0, "confirmed {confirmed}: {}", told());
    assert!(confirmed <= promise.confirmed.1.max(wall_clock()), "{confirmed}: {}", told());
    let Some((zone, journal)) = restored else {
        assert_eq!(promise.kept, None, "nothing found: {}", told());
        return None;
    };
    let versions = history.known.get(&records(&zone));
    let versions = versions.unwrap_or_else(|| panic!("a mixture: {}", told()));
    let expected = promise.kept.unwrap_or(0)..=promise.tried;
    let version = versions.iter().copied().find(|version| expected.contains(version));
    let version =
        version.unwrap_or_else(|| panic!("{versions:?}, not of {expected:?}: {}", told()));
    history.assert_journal(version, &journal, told);
    Some(version)
}

/// Goes on from `disk`, on which `version` was found: the next one is kept.
pub(super) fn go_on(
    disk: &Simulated<Promise>,
    history: &History,
    version: usize,
    told: &dyn Fn() -> String,
) {
    let before = &history.zones[version];
    let next = self::version("next", before.serial() + 1, 100);
    let change = Arc::new(diff(before, &next, options().key));
    let restored = state::restore(place(disk), &name(), &options(), true).unwrap().unwrap();
    let journal = restored.1.after(&[Arc::clone(&change)], next.memory_len());
    let kept = state::keep(place(disk), &next, &[change], &journal);
    kept.unwrap_or_else(|error| panic!("{error}: {}", told()));
    let none = &mut Plan::default();
    let after = disk.moments().pop().unwrap().disk(Promise::default(), none);
    let (found, _) = state::restore(place(&after), &name(), &options(), true).unwrap().unwrap();
    assert_eq!(records(&found), records(&next), "what came after the stop: {}", told());
}

/// What was promised, which files there are, and what was said.
fn listed(disk: &Simulated<Promise>, moment: &Moment<Promise>) -> String {
    let files = disk.files().into_iter().map(|file| {
        let len = disk.octets(&file).map_or(0, |octets| octets.len());
        format!("\n  {} {len}", file.display())
    });
    let files: String = files.collect();
    format!("{:?}:{files}\n{}", moment.promise, report::said().join("\n"))
}

/// Starts from every disk that may be found after a stop in each of `moments`.
fn check(server: &Server, from: usize, drawn: usize, random: &mut Random) -> usize {
    let (mut starts, mut later) = (0, [0; 2]);
    for (at, moment) in server.disk.moments().iter().enumerate().skip(from) {
        for (number, disk) in disks(moment, random, drawn).iter().enumerate() {
            let told = || format!("moment {at}, disk {number}, {}", listed(disk, moment));
            let copy =
                disk.moments().pop().unwrap().disk(moment.promise.clone(), &mut Plan::default());
            report::said();
            let found = start(disk, &server.history, &told);
            later[usize::from(found > moment.promise.kept)] += 1;
            starts += 1;
            // What a start does may be stopped too.
            for moment in disk.moments() {
                let again = moment.disk(moment.promise.clone(), random);
                assert_eq!(start(&again, &server.history, &told), found, "{}", told());
            }
            if let Some(version) = found {
                go_on(disk, &server.history, version, &told);
                // And without that first start.
                go_on(&copy, &server.history, version, &told);
            }
        }
    }
    let [same, later] = later;
    println!("{starts} starts: {same} with what was promised, {later} with more");
    starts
}

#[test]
fn a_stop_at_every_change() {
    let mut random = Random::new("a stop at every change");
    let mut server = Server::new(Simulated::empty(Promise::default()));
    for step in steps() {
        server.run(step).unwrap_or_else(|error| panic!("{step:?}: {error}"));
        assert_eq!(server.promise.kept, Some(server.promise.tried));
    }
    println!("{} changes", server.disk.count());
    assert!(check(&server, 0, DRAWN, &mut random) > 4000);
}

#[test]
fn a_disk_that_fails() {
    let mut random = Random::new("a disk that fails");
    let changes = {
        let mut server = Server::new(Simulated::empty(Promise::default()));
        steps().into_iter().for_each(|step| drop(server.run(step)));
        server.disk.count()
    };
    let (mut failures, mut starts) = (0, 0);
    // A third of them: other seeds have others.
    for number in (0..changes).filter(|_| random.below(3) == 0).collect::<Vec<_>>() {
        let faults = [Fault::NoSpace, Fault::Sync, Fault::Syncs, Fault::Once];
        for fault in faults.map(|fault| fault(number)) {
            let mut server = Server::new(Simulated::empty(Promise::default()));
            server.disk.fail(fault);
            let (mut first, mut left) = (None, 2 + random.below(3));
            for step in steps() {
                if let Err(error) = server.run(step) {
                    assert!(error.contains(DIRECTORY), "{error}");
                    failures += 1;
                    first.get_or_insert(number);
                }
                if first.is_some() {
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                }
            }
            server.disk.mend();
            for step in [Step::Next(1), Step::Next(1), Step::Confirm] {
                server.run(step).unwrap_or_else(|error| panic!("{fault:?}, then room: {error}"));
            }
            assert_eq!(server.promise.kept, Some(server.promise.tried), "{fault:?}");
            // Some moments, and what is left in the end.
            let moments = server.disk.moments();
            for (at, moment) in moments.iter().enumerate().skip(number) {
                if at + 1 < moments.len() && random.below(6) > 0 {
                    continue;
                }
                let plans = [false, true].map(|all| Plan { all, ..Plan::default() });
                let mut found =
                    plans.map(|mut plan| moment.disk(moment.promise.clone(), &mut plan)).to_vec();
                found.push(moment.disk(moment.promise.clone(), &mut random));
                found.push(moment.disk(moment.promise.clone(), &mut random));
                for disk in found {
                    let told = || format!("{fault:?}, moment {at}, {}", listed(&disk, moment));
                    report::said();
                    starts += 1;
                    if let Some(version) = start(&disk, &server.history, &told) {
                        go_on(&disk, &server.history, version, &told);
                    }
                }
            }
        }
    }
    println!("{failures} failures, {starts} starts");
    assert!(failures > changes && starts > 20 * changes);
}

/// The disks that may be found after each change of `run`.
fn found_after(run: impl FnOnce(&Place<'_>)) -> Vec<Vec<Simulated<Promise>>> {
    let mut random = Random::new("what is removed");
    let disk = Simulated::empty(Promise::default());
    let directory = Path::new(DIRECTORY);
    run(&Place { directory, disk: &disk, journal_len_min: JOURNAL_LEN_MIN });
    disk.moments().iter().map(|moment| disks(moment, &mut random, DRAWN)).collect()
}

#[test]
fn what_is_removed_stays_removed() {
    let (zone, names) = (version("updates", 2, 10), [name()]);
    let found = found_after(|place| {
        state::keep_updated(*place, &zone, &Journal::default(), &[7; 32]).unwrap();
        state::save_confirmed(*place, &name(), 1).unwrap();
        state::remove_all(*place, &names);
    });
    let (last, before) = found.split_last().unwrap();
    assert!(before.iter().flatten().any(|disk| disk.files().len() == 3));
    assert!(last.iter().all(|disk| disk.files().is_empty()));
}

#[test]
fn updates_never_begin_with_a_zone_from_before() {
    let (before, zone) = (version("before", 9, 10), version("updates", 2, 10));
    let found = found_after(|place| {
        state::keep(*place, &before, &[], &Journal::default()).unwrap();
        state::keep_updated(*place, &zone, &Journal::default(), &[7; 32]).unwrap();
    });
    let mut count = 0;
    for disk in found.iter().flatten() {
        let place = Place { directory: Path::new(DIRECTORY), disk, journal_len_min: 0 };
        if matches!(state::restore_source(place, &name()), Ok(Some(_))) {
            count += 1;
            let there = state::restore(place, &name(), &options(), false);
            let there = there.ok().flatten().map(|(zone, _)| records(&zone));
            assert!(there.is_none_or(|there| there == records(&zone)));
        }
    }
    assert!(count > 0);
}

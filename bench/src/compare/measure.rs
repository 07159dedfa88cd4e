//! The steps of a comparison: what is asked of one server at a time, and what is read off it.
//!
//! ```text
//!   alone      load time, memory, memory while reloading
//!   offer      replies a second of an offered rate: sustained? the peak?
//!   cost       core time of an answer: a spinner of the lowest class takes what is left
//!   latency    a verified prober beside the rate
//!   half       the same in slices, at half the peak of a cache's hits
//!   overload   good answers a second when several times the peak is offered
//!   filled     memory of a cache that was asked for every name
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::contenders::Role;
use super::kxdpgun::{self, LEAD, Replies, Shot};
use super::mixes::Mix;
use super::prober::{self, Rate};
use super::server::{Server, replaced};
use super::settings::Settings;
use super::shapes::Zones;
use super::slices;
use super::upstream::Carrier;
use crate::bed::echo::pin;
use crate::bed::spin::Awake;
use crate::bed::{Bed, spin};
use crate::mix::{Entry, Questions};
use crate::probe::fill::{self, Filled};
use crate::report::model::Run;
use crate::zones::queries;

/// Figures of one measurement.
pub type Values = BTreeMap<String, f64>;
/// Queries that a prober or a load of this program has to choose from.
const QUESTIONS: u64 = 200_000;
const NXDOMAIN: u8 = 3;
/// Questions upstream for an answer from which on answers are no hits ...
const UPSTREAM_OF_HITS_MAX: f64 = 0.01;
/// ... and below which they are no misses.
const UPSTREAM_OF_MISSES_MIN: f64 = 0.9;
/// The share of a prober's queries that it may send late: a percentile is not its own then.
const LATE_MAX: f64 = 0.005;
/// Replies from which on the shares of their rcodes say something.
const REPLIES_MIN: u64 = 1000;

/// What measurements of one mix need.
pub struct Measure<'a> {
    /// Where.
    pub bed: &'a Bed,
    /// How much.
    pub settings: &'a Settings,
    /// Of what.
    pub zones: &'a Zones,
    /// With which questions.
    pub mix: Mix,
    /// A directory for queries.
    work: &'a Path,
    plain: Arc<Questions>,
    verified: Arc<Questions>,
    /// The share of questions whose answer is NXDOMAIN.
    nxdomain: f64,
}

/// Files of random names are written anew for each load, with another seed: names that a cache has
/// seen are not random to it.
static SEED: AtomicU64 = AtomicU64::new(53);

pub fn values<const N: usize>(all: [(&str, f64); N]) -> Values {
    all.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

impl<'a> Measure<'a> {
    /// Draws the questions.
    pub fn new(
        bed: &'a Bed,
        settings: &'a Settings,
        zones: &'a Zones,
        mix: Mix,
        work: &'a Path,
    ) -> io::Result<Measure<'a>> {
        let (shape, names) = (zones.shape, settings.names);
        let mut answers = zones.answers()?;
        let mut draw = |verify: bool| {
            let answers = verify.then_some(&mut answers);
            mix.questions(shape, names, QUESTIONS, 54, answers).map(Arc::new)
        };
        let (plain, verified) = (draw(false)?, draw(true)?);
        let is_absent = |entry: &&Entry| entry.expected.is_some_and(|it| it.rcode == NXDOMAIN);
        let absent = verified.entries().iter().filter(is_absent).count();
        let nxdomain = absent as f64 / verified.len().max(1) as f64;
        let measure = Measure { bed, settings, zones, mix, work, plain, verified, nxdomain };
        measure.write_queries(kxdpgun::LINES_MAX)?;
        Ok(measure)
    }

    fn write_queries(&self, count: u64) -> io::Result<()> {
        let path = kxdpgun::queries_file(self.work);
        let fresh = if self.mix.is_fresh() { SEED.fetch_add(1, Ordering::Relaxed) } else { 53 };
        let (shape, names) = (self.zones.shape, self.settings.names);
        self.mix.write(shape, names, count, fresh, &path)
    }

    fn fire(&self, server: &Server, rate: u64, seconds: f64) -> io::Result<Replies> {
        if self.mix.is_fresh() {
            self.write_queries(kxdpgun::lines(rate, seconds))?;
        }
        kxdpgun::fire(self.bed, &self.shot(server, rate, seconds))
    }

    fn shot(&self, server: &Server, rate: u64, seconds: f64) -> Shot {
        Shot {
            address: server.address,
            queries: kxdpgun::queries_file(self.work),
            rate,
            seconds,
            spoofed: self.mix.spoofed,
        }
    }

    /// Verified, unless the server is an echo.
    fn questions(&self, server: &Server) -> &Arc<Questions> {
        if server.contender.role == Role::Echo { &self.plain } else { &self.verified }
    }

    /// Does `work` while the zone is replaced, if the mix says so.
    fn meanwhile(
        &self,
        server: &Server,
        work: impl FnOnce() -> io::Result<Values>,
    ) -> io::Result<Values> {
        if !self.mix.replaced || server.contender.role == Role::Echo {
            return work();
        }
        let (mut values, versions) = replaced(self.bed, server, self.zones, work)?;
        values.insert("versions".into(), versions);
        Ok(values)
    }

    /// Offers `rate`.
    pub fn offer(&self, server: &Server, rate: u64) -> io::Result<Values> {
        let before = self.bed.server_udp()?;
        let _awake = Awake::new(&[self.bed.server_core()])?;
        let mut values = self.meanwhile(server, || {
            let replies = self.fire(server, rate, self.settings.seconds)?;
            Ok(self.of_replies(server, &replies))
        })?;
        let after = self.bed.server_udp()?;
        for (name, now, then) in [
            ("receive_drops", after.receive_drops, before.receive_drops),
            ("send_drops", after.send_drops, before.send_drops),
        ] {
            values.insert(name.into(), now.saturating_sub(then) as f64);
        }
        Ok(values)
    }

    /// Core time of an answer at `rate`.
    pub fn cost(&self, server: &Server, rate: u64) -> io::Result<Values> {
        let seconds = self.settings.seconds;
        let core = self.bed.server_core();
        let spin = |after: Duration| {
            thread::sleep(after);
            spin::busy(core, Duration::from_secs_f64(seconds))
        };
        // The load is there before the spinner and after it.
        let whole = seconds + 1.5;
        let result = self.meanwhile(server, || {
            if self.mix.tcp {
                let questions = self.questions(server);
                let (run, busy) = beside(
                    || {
                        prober::ask(
                            self.bed,
                            server.socket(),
                            questions,
                            Rate::new(rate as f64, whole),
                            false,
                        )
                    },
                    || spin(Duration::from_millis(700)),
                )?;
                let mut values = of_run(&run);
                values.insert("busy".into(), busy);
                values.insert("core_us".into(), busy * 1e6 / run.goodput().max(1.0));
                return Ok(values);
            }
            if self.mix.is_fresh() {
                self.write_queries(kxdpgun::lines(rate, whole))?;
            }
            let shot = self.shot(server, rate, whole);
            let before = self.bed.server_udp()?;
            let (replies, busy) = beside(|| kxdpgun::fire(self.bed, &shot), || spin(LEAD))?;
            let after = self.bed.server_udp()?;
            let drops = after.receive_drops.saturating_sub(before.receive_drops);
            // To sources that nobody has no answer comes back: queries that were taken count.
            let count = if self.mix.spoofed { taken(&replies, drops) } else { replies.rate };
            let mut values = self.of_replies(server, &replies);
            values.insert("receive_drops".into(), drops as f64);
            values.insert("busy".into(), busy);
            values.insert("core_us".into(), busy * 1e6 / count.max(1.0));
            Ok(values)
        });
        self.forget()?;
        result
    }

    /// What a verified prober sees beside `rate`. One that was late itself asks again: of several
    /// times the one with the least of that counts.
    pub fn latency(&self, server: &Server, rate: u64) -> io::Result<Values> {
        const TIMES_MAX: usize = 4;
        let mut best = self.latency_once(server, rate)?;
        for _ in 1..TIMES_MAX {
            if !was_late(&best) {
                break;
            }
            let again = self.latency_once(server, rate)?;
            if late_share(&again) < late_share(&best) {
                best = again;
            }
        }
        Ok(best)
    }

    fn latency_once(&self, server: &Server, rate: u64) -> io::Result<Values> {
        let seconds = self.settings.seconds;
        let questions = self.questions(server);
        let _awake = Awake::new(&[self.bed.server_core()])?;
        let result = self.meanwhile(server, || {
            if self.mix.tcp {
                let rate = Rate::new(rate as f64, seconds);
                let run = prober::ask(self.bed, server.socket(), questions, rate, false)?;
                return Ok(of_run(&run));
            }
            if self.mix.is_fresh() {
                self.write_queries(kxdpgun::lines(rate, seconds + 1.5))?;
            }
            let shot = self.shot(server, rate, seconds + 1.5);
            let probe = || {
                thread::sleep(LEAD);
                let rate = Rate::new(prober::RATE, seconds);
                prober::ask(self.bed, server.socket(), questions, rate, true)
            };
            let (replies, run) = beside(|| kxdpgun::fire(self.bed, &shot), probe)?;
            let mut values = of_run(&run);
            values.insert("offered".into(), replies.sent_rate);
            values.insert("late_max".into(), LATE_MAX);
            Ok(values)
        });
        self.forget()?;
        result
    }

    /// What a verified prober sees beside `rate`, in slices: of each percentile the median. Where
    /// the machine stood still for so long that packets reached no socket, it asks again.
    pub fn sliced(&self, server: &Server, rate: u64) -> io::Result<Values> {
        const TIMES_MAX: usize = 4;
        let mut best = self.sliced_once(server, rate)?;
        for _ in 1..TIMES_MAX {
            if slices::trouble(&best) == 0.0 {
                break;
            }
            let again = self.sliced_once(server, rate)?;
            if slices::trouble(&again) < slices::trouble(&best) {
                best = again;
            }
        }
        Ok(best)
    }

    fn sliced_once(&self, server: &Server, rate: u64) -> io::Result<Values> {
        let questions = self.questions(server);
        let whole = slices::load_seconds(self.settings.seconds, rate);
        if self.mix.is_fresh() {
            self.write_queries(kxdpgun::lines(rate, whole))?;
        }
        let _awake = Awake::new(&[self.bed.server_core()])?;
        let shot = self.shot(server, rate, whole);
        let rates = slices::of(self.settings.seconds);
        let probe = || {
            thread::sleep(LEAD);
            prober::ask_each(self.bed, server.socket(), questions, &rates, true)
        };
        let before = (self.bed.received()?, self.bed.server_udp()?);
        let (replies, runs) = beside(|| kxdpgun::fire(self.bed, &shot), probe)?;
        let after = (self.bed.received()?, self.bed.server_udp()?);
        let mut values = slices::of_runs(&runs);
        for (name, count) in [
            ("refused", after.0.since(before.0).refused),
            ("receive_drops", after.1.receive_drops.saturating_sub(before.1.receive_drops)),
            ("send_drops", after.1.send_drops.saturating_sub(before.1.send_drops)),
        ] {
            values.insert(name.into(), count as f64);
        }
        values.insert("offered".into(), replies.sent_rate);
        Ok(values)
    }

    /// Of an authority also which share of NXDOMAIN the mix has: a server that answers with other
    /// rcodes answers other questions, or none.
    fn of_replies(&self, server: &Server, replies: &Replies) -> Values {
        let mut values = of_replies(replies);
        if server.contender.role != Role::Echo && replies.received >= REPLIES_MIN {
            values.insert("nxdomain_expected".into(), self.nxdomain);
        }
        let is_counted = self.zones.shape.carrier() == Some(Carrier::Udp);
        if is_counted && server.contender.role == Role::Cache && replies.received > 0 {
            // Questions upstream for each answer: none for hits, one for each miss.
            let asked = replies.upstream as f64 / replies.received as f64;
            values.insert("upstream".into(), asked);
            if self.mix.is_random() {
                values.insert("upstream_min".into(), UPSTREAM_OF_MISSES_MIN);
            } else if !self.mix.misses {
                values.insert("upstream_max".into(), UPSTREAM_OF_HITS_MAX);
            }
        }
        values
    }

    fn forget(&self) -> io::Result<()> {
        if !self.mix.spoofed {
            return Ok(());
        }
        self.bed.forget_neighbours()?;
        // What waits for them is given up a second later.
        thread::sleep(Duration::from_secs(1));
        Ok(())
    }
}

/// Does both at once: the first in a thread of its own.
fn beside<A: Send, B>(
    first: impl FnOnce() -> io::Result<A> + Send,
    second: impl FnOnce() -> io::Result<B>,
) -> io::Result<(A, B)> {
    thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        let first = first.join().map_err(|_| io::Error::other("a load has ended early"))?;
        Ok((first?, second?))
    })
}

/// Answers count if they are what an authority says of its names.
fn of_replies(replies: &Replies) -> Values {
    let of = |rcode: &str| replies.rcodes.get(rcode).copied().unwrap_or(0) as f64;
    let received = replies.received.max(1) as f64;
    let share = (of("NOERROR") + of("NXDOMAIN")) / received;
    values([
        ("offered", replies.sent_rate),
        ("answers", replies.rate),
        ("good", replies.rate * share),
        ("loss", replies.loss()),
        ("octets", replies.octets),
        ("nxdomain", of("NXDOMAIN") / received),
    ])
}

/// Queries a second that a server took of those sent, if its sockets dropped so many.
fn taken(replies: &Replies, drops: u64) -> f64 {
    let share = replies.sent.saturating_sub(drops) as f64 / replies.sent.max(1) as f64;
    replies.sent_rate * share
}

/// The share of a prober's queries that it sent late, which says something of its core and nothing
/// of the server.
pub fn late_share(values: &Values) -> f64 {
    let value = |key: &str| values.get(key).copied().unwrap_or(0.0);
    value("late") / value("probes").max(1.0)
}

/// Whether that is more than there may be.
pub fn was_late(values: &Values) -> bool {
    values.get("late_max").is_some_and(|&most| late_share(values) > most)
}

fn of_run(run: &Run) -> Values {
    values([
        ("offered", run.counts.sent as f64 / run.seconds.max(1e-9)),
        ("good", run.goodput()),
        ("loss", run.loss()),
        ("probes", run.counts.scheduled as f64),
        ("lost", run.counts.lost as f64),
        ("wrong", run.counts.wrong as f64),
        ("late", run.counts.late as f64),
        ("p50", run.latency.p50),
        ("p99", run.latency.p99),
        ("p99_9", run.latency.p99_9),
    ])
}

//----------- Alone ----------------------------------------------------------

/// Starts `contender` by itself: its load time and memory.
pub fn alone(
    bed: &Bed,
    zones: &Zones,
    contender: &'static super::contenders::Contender,
    work: &Path,
) -> io::Result<Values> {
    let last = queries::last(zones.shape.of_zones(), zones.names);
    let mut server = Server::start(bed, contender, zones, work, &last)?;
    // It tidies up after itself.
    thread::sleep(Duration::from_secs(1));
    let memory = server.memory_mib();
    let (reload_memory, reload_ms) = server.reload_memory(bed, zones)?;
    Ok(values([
        ("load_ms", server.load_ms),
        ("memory_mib", memory),
        ("reload_memory_mib", reload_memory),
        ("reload_ms", reload_ms),
    ]))
}

//----------- Caches ---------------------------------------------------------

/// Asks `server` for every name of `zones`, and what of memory that took.
pub fn filled(bed: &Bed, zones: &Zones, server: &Server) -> io::Result<Values> {
    let before = server.memory_mib();
    let apex = zones.files.first().map_or("", |(name, _)| name);
    let core = bed.client_core();
    let Filled { seconds, again, .. } = bed.with_client(|| {
        pin(core)?;
        fill::hosts(server.socket(), apex, zones.names)
    })?;
    // It tidies up after itself.
    thread::sleep(Duration::from_secs(1));
    let after = server.memory_mib();
    Ok(values([
        ("seconds", seconds),
        ("asked_again", again as f64),
        ("memory_before_mib", before),
        ("memory_mib", after),
        ("answer_octets", (after - before) * f64::from(1 << 20) / zones.names as f64),
    ]))
}

//----------- Ceiling --------------------------------------------------------

/// The most that kxdpgun sends and receives, against a reflector in the driver.
pub fn ceiling(bed: &Bed, settings: &Settings, work: &Path) -> io::Result<Values> {
    const RATES: [u64; 3] = [400_000, 800_000, 1_600_000];
    let path = kxdpgun::queries_file(work);
    let shape = super::shapes::Shape::Hosts;
    Mix::of(super::mixes::Base::Uniform).write(shape, 100_000, 100_000, 53, &path)?;
    let seconds = settings.seconds;
    let whole = (seconds + 2.0) * RATES.len() as f64 + 4.0;
    let interface = bed.server_interface();
    let mut reflect = super::contenders::command("ring53-bench")?;
    reflect.args(["reflect", "--interface", &interface, "--seconds", &format!("{whole:.0}")]);
    let mut reflect = bed.in_server(&reflect);
    bed.poll_server(true)?;
    let mut reflector = reflect.spawn()?;
    thread::sleep(Duration::from_secs(1));
    let mut best = Replies::default();
    let mut failed = None;
    for rate in RATES {
        let shot = Shot {
            address: crate::bed::namespaces::SERVER,
            queries: path.clone(),
            rate,
            seconds,
            spoofed: false,
        };
        match kxdpgun::fire(bed, &shot) {
            Ok(replies) if replies.rate > best.rate => best = replies,
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    reflector.kill()?;
    reflector.wait()?;
    bed.poll_server(false)?;
    fs::remove_file(&path)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(values([("sent", best.sent_rate), ("replies", best.rate)])),
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_no_good_answers() {
        let rcodes = [("NOERROR", 60), ("NXDOMAIN", 20), ("REFUSED", 20)];
        let replies = Replies {
            sent: 200,
            sent_rate: 200.0,
            received: 100,
            rate: 100.0,
            octets: 60.0,
            rcodes: rcodes.map(|(rcode, count)| (rcode.to_string(), count)).into(),
            upstream: 0,
        };
        let values = of_replies(&replies);
        assert_eq!((values["good"], values["loss"], values["nxdomain"]), (80.0, 0.5, 0.2));
        assert_eq!(of_replies(&Replies::default())["good"], 0.0);
        // Nothing comes back from spoofed sources: what was dropped was not answered either.
        assert_eq!(
            [taken(&replies, 0), taken(&replies, 50), taken(&replies, 300)],
            [200.0, 150.0, 0.0]
        );
    }

    #[test]
    fn both_are_done_at_once() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let wait = || receiver.recv_timeout(Duration::from_secs(10)).map_err(io::Error::other);
        let tell = move || sender.send(7).map_err(io::Error::other);
        assert_eq!(beside(tell, wait).unwrap().1, 7);
        let failing = beside(|| Err::<(), _>(io::Error::other("no load")), || Ok(()));
        assert_eq!(failing.unwrap_err().to_string(), "no load");
    }
}

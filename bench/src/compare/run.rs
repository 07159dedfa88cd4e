//! The order of a comparison: shapes, mixes, rounds.

use std::io;
use std::path::Path;

use super::contenders::{Contender, Role};
use super::measure::{self, Measure, Values};
use super::mixes::Mix;
use super::order::of_round;
use super::peaks::{Of, median};
use super::raw::{Line, Raw};
use super::server::Server;
use super::settings::Settings;
use super::shapes::{Shape, Zones};
use super::table::{FACTORS, thousands};
use super::upstream::{MISS_ZONE, Upstreams};
use crate::bed::Bed;
use crate::bed::counters::memory_available_mib;
use crate::bed::namespaces::interrupted;
use crate::load::LoadOptions;
use crate::load::kernel::Kernel;
use crate::zones::queries;

/// Misses are offered at one part in so many of the rates that hits are offered at.
const MISSES_PART: u64 = 4;

/// Measures what `raw` does not have yet.
pub fn all(
    bed: &Bed,
    settings: &Settings,
    raw: &mut Raw,
    contenders: &[&'static Contender],
    quiet: bool,
) -> io::Result<()> {
    let work = bed.directory()?;
    let mut run = Run { bed, settings, raw, contenders, work: &work, quiet, upstreams: None };
    let ceiling = Line { step: "ceiling".into(), ..Line::default() };
    if !run.raw.has(&ceiling) {
        let values = measure::ceiling(bed, settings, run.work)?;
        run.say(&ceiling, &values);
        run.raw.keep(Line { values, ..ceiling })?;
    }
    for shape in settings.shapes()? {
        run.shape(shape)?;
    }
    Ok(())
}

struct Run<'a> {
    bed: &'a Bed,
    settings: &'a Settings,
    raw: &'a mut Raw,
    contenders: &'a [&'static Contender],
    work: &'a Path,
    quiet: bool,
    /// Whom caches ask.
    upstreams: Option<Upstreams>,
}

/// Servers in the order of the table; `None`: out of this shape.
type Servers = Vec<Option<Server>>;

impl Run<'_> {
    fn shape(&mut self, shape: Shape) -> io::Result<()> {
        let done = Line { shape: shape.name().into(), step: "done".into(), ..Line::default() };
        if self.raw.has(&done) {
            return Ok(());
        }
        let directory = self.work.join(shape.name());
        let zones = Zones::write(shape, self.settings.names, &directory)?;
        let before = self.bed.received()?;
        let mut out = Vec::new();
        match shape.carrier() {
            Some(carrier) => self.upstreams = Some(Upstreams::start(self.bed, &zones, carrier)?),
            None => out = self.alone(&zones)?,
        }
        let mut servers = self.start_all(&zones, &out)?;
        if shape == Shape::Cached {
            self.fill(&zones, &mut servers)?;
        }
        for mix in self.settings.mixes(shape)? {
            match mix.refusal(shape) {
                Some(reason) => self.note(&line(&zones, Some(mix), "note", ""), reason)?,
                None if mix.misses => self.beside_misses(&zones, &mut servers, mix)?,
                None => self.mix(&zones, &mut servers, mix)?,
            }
            // Who has no upstream fails, whatever else is good about it.
            self.upstreams.as_mut().map_or(Ok(()), Upstreams::check)?;
        }
        drop((servers, self.upstreams.take()));
        let received = self.bed.received()?.since(before);
        let figures = [("mine", received.mine), ("others", received.others)];
        let values = figures.map(|(name, count)| (name.to_string(), count as f64)).into();
        let step = Line { step: "received".into(), ..done.clone() };
        self.raw.keep(Line { values, ..step })?;
        self.raw.keep(done)?;
        std::fs::remove_dir_all(&directory)
    }

    /// Each by itself, in turn. Who fails is out of this shape.
    fn alone(&mut self, zones: &Zones) -> io::Result<Vec<&'static str>> {
        let mut out = Vec::new();
        for round in 0..self.settings.rounds {
            for index in of_round(self.contenders.len(), round) {
                let contender = self.contenders[index];
                let key = Line { round, ..line(zones, None, "alone", contender.name) };
                if contender.role == Role::Echo
                    || !contender.takes_part(zones.shape)
                    || out.contains(&contender.name)
                    || self.raw.has(&key)
                {
                    continue;
                }
                match measure::alone(self.bed, zones, contender, self.work) {
                    Ok(values) => {
                        self.say(&key, &values);
                        self.raw.keep(Line { values, ..key })?;
                    }
                    Err(error) => {
                        self.failed(&key, &error.to_string())?;
                        out.push(contender.name);
                    }
                }
            }
        }
        Ok(out)
    }

    /// Starts all but those that are out, as far as there is memory for them.
    fn start_all(&mut self, zones: &Zones, out: &[&str]) -> io::Result<Servers> {
        let last = match zones.shape.carrier() {
            Some(_) => format!("up.{MISS_ZONE} A"),
            None => queries::last(zones.shape.of_zones(), zones.names),
        };
        let mut servers = Vec::new();
        for &contender in self.contenders {
            let key = line(zones, None, "start", contender.name);
            if out.contains(&contender.name) || !contender.takes_part(zones.shape) {
                servers.push(None);
                continue;
            }
            let needs = {
                let of = Of { lines: self.raw.lines(), shape: zones.shape.name(), mix: "" };
                median(&of.each("alone", 0, contender.name, "reload_memory_mib"))
            };
            let free = memory_available_mib().unwrap_or(u64::MAX);
            if needs * 1.1 > free as f64 {
                let reason = format!(
                    "not measured beside the others: it takes {needs:.0} MiB, {free} MiB are \
                     free: fewer --names or fewer --contenders"
                );
                self.note(&key, &reason)?;
                servers.push(None);
                continue;
            }
            match Server::start(self.bed, contender, zones, self.work, &last) {
                Ok(server) => {
                    self.buffer(zones, contender)?;
                    servers.push(Some(server));
                }
                Err(error) => {
                    self.failed(&key, &error.to_string())?;
                    servers.push(None);
                }
            }
        }
        Ok(servers)
    }

    /// Notes which receive buffer a server that was started has got.
    fn buffer(&mut self, zones: &Zones, contender: &Contender) -> io::Result<()> {
        let key = line(zones, None, "buffer", contender.name);
        if self.raw.has(&key) {
            return Ok(());
        }
        match self.bed.receive_buffer(contender.address())? {
            Some(octets) => {
                let values = Values::from([("receive_octets".into(), octets as f64)]);
                self.raw.keep(Line { values, ..key })
            }
            None => self.note(&key, "ss does not say what its receive buffer is"),
        }
    }

    fn mix(&mut self, zones: &Zones, servers: &mut Servers, mix: Mix) -> io::Result<()> {
        let measure = Measure::new(self.bed, self.settings, zones, mix, self.work)?;
        if mix.overloads() {
            self.offers(&measure, servers)?;
        }
        let is_of_caches = zones.shape.carrier().is_some();
        if is_of_caches && mix.is_random() {
            // Of misses the peak is what counts.
            return Ok(());
        }
        // What was offered says who sustains a rate: of these names, if nothing was offered.
        let plain = if mix.overloads() { mix } else { Mix::of(mix.base) }.to_string();
        let agreed = self.settings.rate;
        let common = self.common_rate(zones, &plain).filter(|&rate| rate < agreed);
        for round in 0..self.settings.rounds {
            for index in of_round(servers.len(), round) {
                let Some(server) = &servers[index] else { continue };
                let name = server.contender.name;
                let of = self.of(zones, &plain);
                let agrees = of.sustains(name, agreed) || of.rates("offer").is_empty();
                for rate in agrees.then_some(agreed).into_iter().chain(common) {
                    for step in ["cost", "latency"] {
                        let key = Line { rate, round, ..line(zones, Some(mix), step, name) };
                        self.step(&mut servers[index], key, |server| match step {
                            "cost" => measure.cost(server, rate),
                            _ => measure.latency(server, rate),
                        })?;
                    }
                }
            }
        }
        if mix.overloads() && !is_of_caches {
            self.overload(&measure, servers)?;
        }
        Ok(())
    }

    /// Asks every cache for every name. One that cannot be filled is out.
    fn fill(&mut self, zones: &Zones, servers: &mut Servers) -> io::Result<()> {
        for slot in servers {
            let Some(server) = slot.as_ref().filter(|one| one.contender.role == Role::Cache) else {
                continue;
            };
            let key = line(zones, None, "filled", server.contender.name);
            match measure::filled(self.bed, zones, server) {
                Ok(values) if !self.raw.has(&key) => {
                    self.say(&key, &values);
                    self.raw.keep(Line { values, ..key })?;
                }
                // One of a comparison that goes on.
                Ok(_) => {}
                Err(error) => {
                    *slot = None;
                    self.failed(&key, &format!("not filled: {error}; out from here on"))?;
                }
            }
        }
        Ok(())
    }

    /// What hits see at half the peak of hits, with and without misses beside them.
    fn beside_misses(&mut self, zones: &Zones, servers: &mut Servers, mix: Mix) -> io::Result<()> {
        let hits = Mix { misses: false, ..mix };
        for mix in [hits, mix] {
            let measure = Measure::new(self.bed, self.settings, zones, mix, self.work)?;
            for round in 0..self.settings.rounds {
                for index in of_round(servers.len(), round) {
                    let Some(server) = &servers[index] else { continue };
                    let name = server.contender.name;
                    if server.contender.role != Role::Cache {
                        continue;
                    }
                    let peak = self.of(zones, &hits.to_string()).peak(name).median;
                    let rate = (peak / 2000.0).floor() as u64 * 1000;
                    let key = Line { rate, round, ..line(zones, Some(mix), "half", name) };
                    if rate == 0 {
                        self.note(&key, "its peak of hits is not known: --mixes has to have them")?;
                        continue;
                    }
                    self.step(&mut servers[index], key, |server| measure.sliced(server, rate))?;
                }
            }
        }
        Ok(())
    }

    /// Rising rates, until all are past their peak.
    fn offers(&mut self, measure: &Measure, servers: &mut Servers) -> io::Result<()> {
        let (zones, mix) = (measure.zones, measure.mix);
        // Of caches lower rates than are answered say nothing, and a miss costs several hits.
        let is_of_caches = zones.shape.carrier().is_some();
        let part = if is_of_caches && mix.is_random() { MISSES_PART } else { 1 };
        // The agreed rate first: it says where a peak may be.
        let mut rates = vec![self.settings.rate];
        rates.extend(self.settings.rates.iter().filter(|&&rate| rate != self.settings.rate));
        rates.iter_mut().for_each(|rate| *rate = (*rate / part).max(1));
        for round in 0..self.settings.rounds {
            for &rate in &rates {
                for index in of_round(servers.len(), round) {
                    let Some(server) = &servers[index] else { continue };
                    let name = server.contender.name;
                    if is_of_caches && mix.is_random() && server.contender.role != Role::Cache {
                        continue;
                    }
                    let key = Line { rate, round, ..line(zones, Some(mix), "offer", name) };
                    let words = mix.to_string();
                    let of = self.of(zones, &words);
                    let is_worth = match is_of_caches {
                        true => of.may_be_peak(name, rate, round),
                        false => of.is_worth(name, rate, round),
                    };
                    if is_worth {
                        self.step(&mut servers[index], key, |server| measure.offer(server, rate))?;
                    }
                }
            }
        }
        // A rate that looks better than the peak in some rounds is offered in the others too.
        for _ in &rates {
            for round in 0..self.settings.rounds {
                for index in of_round(servers.len(), round) {
                    let Some(server) = &servers[index] else { continue };
                    let name = server.contender.name;
                    let promising = self.of(zones, &mix.to_string()).promising(name);
                    let Some(rate) = promising else { continue };
                    let key = Line { rate, round, ..line(zones, Some(mix), "offer", name) };
                    self.step(&mut servers[index], key, |server| measure.offer(server, rate))?;
                }
            }
        }
        Ok(())
    }

    /// Several times each peak.
    fn overload(&mut self, measure: &Measure, servers: &mut Servers) -> io::Result<()> {
        let (zones, mix) = (measure.zones, measure.mix);
        for round in 0..self.settings.rounds {
            for index in of_round(servers.len(), round) {
                for factor in FACTORS {
                    let Some(server) = &servers[index] else { continue };
                    let name = server.contender.name;
                    let peak = self.of(zones, &mix.to_string()).peak(name).median;
                    let rate = (peak * f64::from(factor)) as u64;
                    let step = format!("overload {factor}");
                    let key = Line { rate, round, ..line(zones, Some(mix), &step, name) };
                    if rate > 0 {
                        self.step(&mut servers[index], key, |server| measure.offer(server, rate))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One measurement of one server, unless it was made. A server that has ended is out; what
    /// fails otherwise is noted.
    fn step(
        &mut self,
        slot: &mut Option<Server>,
        key: Line,
        measure: impl FnOnce(&Server) -> io::Result<Values>,
    ) -> io::Result<()> {
        let Some(server) = slot.as_mut().filter(|_| !self.raw.has(&key)) else { return Ok(()) };
        if let Some(upstreams) = &self.upstreams {
            upstreams.rest();
        }
        let cores = LoadOptions {
            cores: vec![self.bed.client_core()],
            server_core: Some(self.bed.server_core()),
            ..LoadOptions::to(server.socket())
        };
        let taken =
            |upstreams: &Option<Upstreams>| upstreams.as_ref().map_or(0.0, Upstreams::core_seconds);
        let (before, taken_before) = (Kernel::read(&cores), taken(&self.upstreams));
        let mut measured = measure(server);
        if let Ok(values) = &mut measured {
            values.insert("stolen".into(), Kernel::read(&cores).stolen_since(&before));
            if self.upstreams.is_some() && key.step == "offer" {
                let share = (taken(&self.upstreams) - taken_before) / self.settings.seconds;
                values.insert("upstream_busy".into(), share);
            }
        }
        if let Err(error) = server.check() {
            *slot = None;
            return self.failed(&key, &format!("{}: {error}; out from here on", key.step));
        }
        match measured {
            Ok(values) => {
                self.say(&key, &values);
                self.raw.keep(Line { values, ..key })
            }
            Err(error) => self.failed(&key, &format!("{}: {error}", key.step)),
        }
    }

    /// The measurements of `zones` and `mix` so far.
    fn of<'b>(&'b self, zones: &Zones, mix: &'b str) -> Of<'b> {
        Of { lines: self.raw.lines(), shape: zones.shape.name(), mix }
    }

    /// A rate that all who answer sustain, as far as is known of these names.
    fn common_rate(&self, zones: &Zones, mix: &str) -> Option<u64> {
        let all = self.contenders.iter().filter(|contender| contender.role != Role::Echo);
        self.of(zones, mix).common_rate(all.map(|contender| contender.name))
    }

    /// A server has failed, unless all are being stopped.
    fn failed(&mut self, key: &Line, reason: &str) -> io::Result<()> {
        if interrupted() {
            return Err(io::Error::other("interrupted: --resume goes on"));
        }
        self.note(key, reason)
    }

    fn note(&mut self, key: &Line, reason: &str) -> io::Result<()> {
        let line = Line { step: "note".into(), note: reason.into(), ..key.clone() };
        eprintln!("{} {} {}: {reason}", key.shape, key.mix, key.contender);
        self.raw.keep(line)
    }

    fn say(&self, line: &Line, values: &Values) {
        if self.quiet {
            return;
        }
        let shown = [
            "replies",
            "good",
            "octets",
            "core_us",
            "p50",
            "p99",
            "lost",
            "upstream",
            "load_ms",
            "memory_mib",
            "answer_octets",
            "seconds",
        ];
        let figures = shown.iter().filter_map(|&name| {
            let value = *values.get(name)?;
            let text = if value < 1000.0 { format!("{value:.1}") } else { thousands(value) };
            Some(format!("{name} {text}"))
        });
        let figures: Vec<_> = figures.collect();
        let place = [line.shape.as_str(), &line.mix, &line.step, &line.contender];
        let place: Vec<_> = place.into_iter().filter(|word| !word.is_empty()).collect();
        let rate = if line.rate > 0 {
            format!(" at {}/s", thousands(line.rate as f64))
        } else {
            String::new()
        };
        eprintln!("{}{rate}: {}", place.join(" "), figures.join(", "));
    }
}

fn line(zones: &Zones, mix: Option<Mix>, step: &str, contender: &str) -> Line {
    Line {
        shape: zones.shape.name().into(),
        mix: mix.map_or(String::new(), |mix| mix.to_string()),
        step: step.into(),
        contender: contender.into(),
        ..Line::default()
    }
}

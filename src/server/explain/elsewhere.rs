//! What becomes of a question that the zones here do not answer: which forward takes it and why,
//! and what a running server knows of it.
//!
//! ```text
//!   configuration ──> forward, clients, upstreams
//!   running server ──> cache, flight, upstreams as they are, attempts
//! ```

use std::net::Ipv6Addr;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::answer::Step;
use crate::policy::{Prefix, Prefixes};
use crate::snapshot::{Recursion, Snapshot};
use crate::wire::{Name, rtype};

use super::super::commands::{self, Command};
use super::super::config::{Allow, Config, Forward};
use super::super::interfaces;
use super::super::report::tell;
use super::{Question, steps_json, tell_steps};
use crate::server::forwarding::inspection::{self, Query};
use crate::server::forwarding::special;

/// The snapshot as it is for clients that may ask for names of others.
pub fn for_everybody(snapshot: Snapshot, recursion: Option<Arc<Recursion>>) -> Snapshot {
    let recursion = recursion.map(|mut recursion| {
        let all = Prefixes::new([Prefix::around(Ipv6Addr::UNSPECIFIED.into(), 0)]);
        Arc::get_mut(&mut recursion).expect("it has just been made").clients = all;
        recursion
    });
    snapshot.with_recursion(recursion)
}

/// Says of a special-use name that it is one.
pub fn correct_special(steps: &mut [Step], config: &Config, snapshot: &Snapshot) {
    let Some(last) = steps.last_mut().filter(|last| last.what == "end") else { return };
    let Ok(name) = last.name.parse::<Name>() else { return };
    let (Some(special), Some(_)) = (special::covering(config, &name), snapshot.recursion()) else {
        return;
    };
    last.what = "special";
    last.words = format!(
        "{} is a special-use name ({}), answered here for clients that may ask for names of others",
        special.name, special.rfc
    );
}

//----------- Elsewhere ------------------------------------------------------

/// A question to others.
pub struct Elsewhere<'a> {
    /// The name that they are asked for: behind aliases of zones here.
    name: Name,
    forward: &'a Forward,
    /// The zone here that it is in, if that has nothing to say.
    zone: Option<Name>,
    query: Query,
}

impl<'a> Elsewhere<'a> {
    /// Of a name that some forward of `config` takes.
    pub fn new(
        config: &'a Config,
        snapshot: &Snapshot,
        name: Name,
        question: &Question,
    ) -> Elsewhere<'a> {
        let lower = name.to_lowercase();
        // The DS of a zone lies in its parent.
        let above = question.rtype == rtype::DS;
        let covers = |forward: &&Forward| {
            let zone = forward.zone.to_lowercase();
            crate::cache::is_at_or_below(lower.as_wire(), zone.as_wire())
                && !(above && zone == lower)
        };
        let forwards = config.forwards.iter().filter(covers);
        let forward = forwards.max_by_key(|forward| forward.zone.label_count());
        let forward = forward.expect("a question is deferred for a forward only");
        let zone = snapshot.zone_above(lower.as_wire()).map(|(index, _)| snapshot.name(index));
        let query = Query {
            name: lower,
            qtype: question.rtype,
            dnssec: question.dnssec,
            asks: question.asks,
        };
        Elsewhere { name, forward, zone, query }
    }

    /// Takes out of the steps what is so only for clients that may not ask.
    pub fn correct(&self, steps: &mut Vec<Step>) {
        let name = self.name.to_lowercase();
        let of_it =
            |step: &Step| step.name.parse::<Name>().is_ok_and(|it| it.to_lowercase() == name);
        let is_longer = self.zone.as_ref().is_none_or(|zone| !self.is_cut(zone));
        steps.retain(|step| !of_it(step) || !(is_longer || step.what == "end"));
        steps.push(Step { what: "forward", name: self.name.to_string(), words: self.reason() });
    }

    /// Whether the name is of the zone, and lies below a cut of it.
    fn is_cut(&self, zone: &Name) -> bool {
        zone.label_count() >= self.forward.zone.label_count()
    }

    fn reason(&self) -> String {
        let forward = &self.forward.zone;
        match &self.zone {
            None => format!(
                "{forward} is the longest forward that it is in; no zone and no special-use name \
                 here is longer"
            ),
            Some(zone) if self.is_cut(zone) => format!(
                "it lies below a cut of the zone {zone}; {forward} is the longest forward that it \
                 is in"
            ),
            Some(zone) => format!(
                "{forward} is the longest forward that it is in, and longer than the zone {zone}"
            ),
        }
    }

    /// Tells all there is to know.
    pub fn tell(
        &self,
        config: &Config,
        question: &Question,
        steps: &[Step],
        as_json: bool,
    ) -> Result<ExitCode, String> {
        let clients = clients(config);
        let configured = self.forward.to.iter().map(inspection::configured);
        let configured: Value = configured.collect::<Vec<_>>().into();
        let running = commands::ask(&config.state, &Command::Explain(self.query.clone()));
        let running = running.and_then(|told| match told["error"].as_str() {
            Some(error) => Err(error.to_string()),
            None => Ok(told),
        });
        let status = match (&running, question.asks) {
            (Err(_), true) => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        };
        if as_json {
            let (running, reason) = match running {
                Ok(told) => (told, Value::Null),
                Err(reason) => (Value::Null, reason.into()),
            };
            tell!(
                "{}",
                json!({
                    "name": question.name.to_string(),
                    "type": rtype::name(question.rtype),
                    "dnssec": question.dnssec,
                    "steps": steps_json(steps),
                    "resolved": {
                        "name": self.name.to_string(),
                        "forward": self.forward.zone.to_string(),
                        "clients": clients,
                        "upstreams": configured,
                    },
                    "running": running,
                    "not_running": reason,
                })
            );
            return Ok(status);
        }
        tell_steps(steps);
        tell!("clients   {}; others get REFUSED", clients.join(", "));
        match running {
            Ok(told) => {
                let other =
                    told["forward"].as_str().filter(|it| *it != self.forward.zone.to_string());
                if let Some(other) = other {
                    tell!("          the running server forwards it as {other}: reload it");
                }
                inspection::lines(&told).iter().for_each(|line| tell!("{line}"));
            }
            Err(reason) => {
                tell!("server    {reason}");
                tell!("          what follows is what the configuration alone tells");
                for line in inspection::upstream_lines(&configured) {
                    tell!("upstream  {line}");
                }
            }
        }
        Ok(status)
    }
}

/// Who may ask for names of others, in words.
fn clients(config: &Config) -> Vec<String> {
    match &config.recursion.allow {
        Allow::Listed(prefixes) => prefixes.iter().map(ToString::to_string).collect(),
        Allow::Attached => {
            let attached = interfaces::attached().into_iter().filter(|prefix| prefix.is_local());
            let loopback = ["127.0.0.0/8".to_string(), "::1/128".to_string()];
            let mut all: Vec<String> = loopback.into_iter().collect();
            for prefix in attached.map(|prefix| prefix.to_string()) {
                if !all.contains(&prefix) {
                    all.push(prefix);
                }
            }
            all
        }
    }
}

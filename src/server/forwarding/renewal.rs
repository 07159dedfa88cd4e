//! What a reload changes for names of others.
//!
//! ```text
//!   configuration ──> the thread that resolves, which says when it goes by it ──> cache: what is
//!                     no longer true is forgotten ──> the next snapshot (`zones/loader.rs`)
//! ```
//!
//! The thread is first: a name whose forward is new must not be asked for where it was before.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::wire::Name;

use super::cache_control::CacheControl;
use super::misses::Misses;
use super::resolving::orders::{Order, Told};
use super::{Kept, Plan};
use crate::server::config::{Config, Forward, PathChoice};
use crate::server::report::say;

/// How long the thread may take to open its ports.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that resolves.
pub struct Resolver {
    /// Its cache.
    pub kept: Arc<Kept>,
    /// Where its thread takes orders.
    pub misses: Arc<Misses>,
    /// How its datagrams are carried.
    pub path: PathChoice,
}

impl Resolver {
    /// Goes by `next` instead of `running`; if that cannot be, nothing has changed.
    pub fn renew(&self, running: &Config, next: &Config) -> Result<(), String> {
        let plans = Plan::new(running, self.path).zip(Plan::new(next, self.path));
        let Some((before, plan)) = plans else { return Ok(()) };
        let asks_otherwise = plan.asks_otherwise(&before);
        // Whoever is first: the thread that begins, or this one that does not wait any longer.
        let is_decided = Arc::new(AtomicBool::new(false));
        let decided = Arc::clone(&is_decided);
        let renew = move |resolving: &mut super::resolving::Resolving| {
            if decided.swap(true, Ordering::AcqRel) {
                return Err(io::Error::other("too late"));
            }
            let waker = resolving.pool.waker();
            let carriers = asks_otherwise.then(|| plan.carriers(Some(waker))).transpose()?;
            plan.take_over(resolving, carriers);
            Ok(asks_otherwise)
        };
        match self.misses.orders.give(Order::Renew(Box::new(renew)), PATIENCE) {
            Some(Told::Renewed(Ok(()))) => {}
            Some(Told::Renewed(Err(error))) => return Err(format!("forwarding: {error}")),
            // It has begun, and takes long.
            _ if is_decided.swap(true, Ordering::AcqRel) => {}
            _ => return Err("the thread that resolves is busy: send SIGHUP again".into()),
        }
        self.kept.renew(next);
        self.forget(running, next);
        Ok(())
    }

    /// Forgets what may be otherwise now.
    fn forget(&self, running: &Config, next: &Config) {
        let guards = |config: &Config| {
            let recursion = &config.recursion;
            (recursion.rebind_protection, recursion.rebind_allow.clone())
        };
        if guards(running) != guards(next) {
            let count = self.kept.flush_all();
            return say!(
                "rebind_protection or rebind_allow has changed: {count} answers forgotten"
            );
        }
        for zone in changed(&running.forwards, &next.forwards) {
            let count = self.kept.flush_below(&zone);
            say!("forward {zone} has changed: {count} answers at or below it are forgotten");
        }
    }
}

/// The zones whose names may have other answers now. Those who are asked for everything say the
/// same, whoever they are: the root counts only where their word does.
fn changed(running: &[Forward], next: &[Forward]) -> Vec<Name> {
    let of = |all: &[Forward], zone: &Name| all.iter().find(|it| it.zone == *zone).cloned();
    let zones = running.iter().chain(next.iter().filter(|it| of(running, &it.zone).is_none()));
    let is_otherwise = |zone: &&Name| match (of(running, zone), of(next, zone)) {
        (Some(before), Some(now)) => {
            before.trust_ad != now.trust_ad || (before.to != now.to && zone.label_count() > 0)
        }
        _ => zone.label_count() > 0,
    };
    zones.map(|forward| &forward.zone).filter(is_otherwise).cloned().collect()
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn forwards(tables: &[(&str, &str)]) -> Vec<Forward> {
        let table =
            |(zone, rest): &(&str, &str)| format!("[[forward]]\nzone = \"{zone}\"\n{rest}\n");
        let tables: String = tables.iter().map(table).collect();
        let text = format!("version = 1\n{tables}");
        Config::parse("ring53.toml", &text, Path::new("")).unwrap().forwards
    }

    #[test]
    fn what_may_be_otherwise_is_forgotten() {
        const ONE: &str = "to = [\"192.0.2.1\"]";
        const TWO: &str = "to = [\"192.0.2.2\"]";
        let before = forwards(&[(".", ONE), ("a.", ONE), ("b.", ONE), ("c.", ONE)]);
        let names = |next: &[(&str, &str)]| {
            let changed = changed(&before, &forwards(next));
            changed.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&[(".", ONE), ("c.", ONE), ("b.", ONE), ("a.", ONE)]), [""; 0]);
        let next = [(".", TWO), ("a.", ONE), ("b.", TWO), ("d.", ONE)];
        assert_eq!(names(&next), ["b.", "c.", "d."]);
        let trusting = format!("{ONE}\ntrust_ad = true");
        let next = [(".", trusting.as_str()), ("a.", ONE), ("b.", ONE), ("c.", ONE)];
        assert_eq!(names(&next), ["."]);
    }
}

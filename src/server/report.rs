//! What the server says to people: facts as they happen, counters on SIGUSR1 and at the end.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crate::answer::Counters;
use crate::net::PathCounters;

/// Says one fact on stderr. A log that nobody reads any more must not end the server, so that a
/// failed write is no failure; `eprintln!` would panic.
pub fn write_fact(fact: fmt::Arguments<'_>) {
    #[cfg(test)]
    SAID.with_borrow_mut(|said| said.push(fact.to_string()));
    #[cfg(not(test))]
    let _ = writeln!(io::stderr().lock(), "ring53: {fact}");
}

#[cfg(test)]
thread_local! {
    static SAID: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// What this thread has said since it was last asked.
#[cfg(test)]
pub fn said() -> Vec<String> {
    SAID.take()
}

/// `say!("{count} zones")`
macro_rules! say {
    ($($fact:tt)*) => { $crate::server::report::write_fact(format_args!($($fact)*)) };
}
pub(super) use say;

/// Says one line on stdout. Whoever pipes it into `head` has seen enough: a failed write is no
/// failure.
pub fn write_line(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// `tell!("{count} zones")`: what a command was run for.
macro_rules! tell {
    ($($line:tt)*) => { $crate::server::report::write_line(format_args!($($line)*)) };
}
pub(super) use tell;

//----------- Counters -------------------------------------------------------

/// The counters of one thread.
pub struct Reported {
    /// `core 0`, `tcp`.
    pub name: String,
    /// Verdicts.
    pub answers: Arc<Counters>,
    /// What carried them.
    pub carried: Carried,
}

/// The counters below the verdicts.
pub enum Carried {
    /// Datagrams of one core.
    Path(Arc<PathCounters>),
    /// Connections.
    Stream(Arc<super::stream::StreamCounters>),
    /// Questions to upstreams.
    Resolving(Arc<super::forwarding::resolving::ResolveCounters>),
    /// Neither.
    Nothing,
}

/// One line per thread, and one for the whole server. What is zero is left out.
pub fn print(threads: &[Reported]) {
    let mut total: Vec<(String, u64)> = Vec::new();
    for thread in threads {
        let mut counts: Vec<(String, u64)> = thread
            .answers
            .iter()
            .map(|(kind, name, count)| (format!("{kind}.{name}"), count))
            .collect();
        match &thread.carried {
            Carried::Path(path) => {
                counts.extend(path.iter().map(|(name, count)| (format!("path.{name}"), count)));
            }
            Carried::Resolving(counters) => {
                let of = |(name, count)| (format!("resolve.{name}"), count);
                counts.extend(counters.iter().map(of));
            }
            Carried::Nothing => {}
            Carried::Stream(stream) => {
                counts.extend(stream.iter().map(|(name, count)| (format!("tcp.{name}"), count)));
            }
        }
        line(&thread.name, &counts);
        for (name, count) in counts {
            match total.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += count,
                None => total.push((name, count)),
            }
        }
    }
    line("total", &total);
}

fn line(name: &str, counts: &[(String, u64)]) {
    let counts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    say!("counters {name}: {}", counts.join(" "));
}

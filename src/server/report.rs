//! Counters for people: on SIGUSR1 and at the end.

use std::sync::Arc;

use crate::answer::Counters;
use crate::net::PathCounters;

/// The counters of one thread.
pub struct Reported {
    /// `core 0`, `tcp`.
    pub name: String,
    /// Verdicts.
    pub answers: Arc<Counters>,
    /// The path, if the thread has one.
    pub path: Option<Arc<PathCounters>>,
}

/// One line per thread, and one for the whole server.
pub fn print(threads: &[Reported]) {
    let mut total: Vec<(String, u64)> = Vec::new();
    for thread in threads {
        let mut counts: Vec<(String, u64)> = thread
            .answers
            .iter()
            .map(|(kind, name, count)| (format!("{kind}.{name}"), count))
            .collect();
        if let Some(path) = &thread.path {
            counts.extend(path.iter().map(|(name, count)| (format!("path.{name}"), count)));
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
    eprintln!("ring53: counters {name}: {}", counts.join(" "));
}

//! Cores: which there are, and pinning a thread to one.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// The cores this process may run on, in ascending order.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}

/// The cores to work on: those of the configuration, or all that are allowed.
pub fn settle(configured: &[usize]) -> Result<Vec<usize>, String> {
    let allowed = allowed();
    if configured.is_empty() {
        return Ok(allowed);
    }
    for (i, core) in configured.iter().enumerate() {
        if !allowed.contains(core) {
            return Err(format!(
                "core {core} is not one this process may run on: it may use {allowed:?}"
            ));
        }
        if configured[..i].contains(core) {
            return Err(format!("core {core} is named twice: one thread per core"));
        }
    }
    Ok(configured.to_vec())
}

/// Pins this thread to `core`.
pub fn pin(core: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(io::Error::other(format!("cannot pin a thread to core {core}")))
    }
}

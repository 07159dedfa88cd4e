//! How busy the server's cores are: spinners of the lowest class run on what is left, and the
//! kernel's account of each task says whose the rest was.
//!
//! ```text
//!   core's time = spinner's loop + kernel's receiving inside of it + server's tasks + neighbours'
//!                 `--------- spinner's account ----------------'
//! ```

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ring53::net::give_way;

use crate::bed::counters::family;
use crate::bed::echo::pin;

/// A gap longer than this between two readings of the clock was somebody else's.
const GAP: Duration = Duration::from_nanos(300);

//----------- Tasks ----------------------------------------------------------

/// Core time of a task's account in nanoseconds: the first number of its `schedstat`.
fn account(path: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Core time that a process and its descendants have had, in nanoseconds.
pub fn family_ns(pid: u32) -> u64 {
    let tasks = family(pid).into_iter().flat_map(|process| {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        tasks.map(|task| account(&format!("{}/schedstat", task.path().display())))
    });
    tasks.sum()
}

/// Core time of the kernel's threads that receive on `cores` when there is too much for interrupts.
fn softirq_ns(cores: &[usize]) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let core = name.trim().strip_prefix("ksoftirqd/").and_then(|core| core.parse().ok());
        if core.is_some_and(|core: usize| cores.contains(&core)) {
            sum += account(&format!("{}/schedstat", entry.path().display()));
        }
    }
    sum
}

/// Whether the kernel leaves interrupts out of the accounts of tasks; `None` if it does not say how
/// it was built.
fn interrupts_apart() -> Option<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let text =
        fs::read_to_string(format!("/boot/config-{}", release.trim())).ok().or_else(|| {
            let unpacked =
                std::process::Command::new("zcat").arg("/proc/config.gz").output().ok()?;
            unpacked
                .status
                .success()
                .then(|| String::from_utf8_lossy(&unpacked.stdout).into_owned())
        })?;
    Some(text.contains("CONFIG_IRQ_TIME_ACCOUNTING=y"))
}

//----------- Meter ----------------------------------------------------------

/// What a spinner has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The interval, times the cores.
    wall_ns: u64,
    /// What it had according to its own clock.
    own_ns: u64,
    /// What it had according to the kernel.
    account_ns: u64,
}

fn spin(core: usize, stop: &AtomicBool) -> io::Result<Seen> {
    pin(core)?;
    give_way();
    // The account of a running task is brought up to date when it yields.
    let account_now = || {
        thread::yield_now();
        account("/proc/thread-self/schedstat")
    };
    let account_before = account_now();
    let start = Instant::now();
    let (mut last, mut gaps) = (start, Duration::ZERO);
    // Checked often enough, and rarely enough not to be what is measured.
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..256 {
            let now = Instant::now();
            if now - last > GAP {
                gaps += now - last;
            }
            last = now;
        }
    }
    let wall = last - start;
    Ok(Seen {
        wall_ns: 0,
        own_ns: (wall - gaps).as_nanos() as u64,
        account_ns: account_now() - account_before,
    })
}

/// What the server's cores did in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CoreTime {
    /// Share of the cores' time that the server used, the kernel's work for it included.
    pub busy: f64,
    /// Share that neighbours used.
    pub neighbours: f64,
    /// How long the interval was.
    pub seconds: f64,
}

/// Spinners on the server's cores, and what the server had when they began.
pub struct Meter {
    stop: Arc<AtomicBool>,
    spinners: Vec<JoinHandle<io::Result<Seen>>>,
    server: Option<u32>,
    cores: Vec<usize>,
    server_before_ns: u64,
    began: Instant,
}

impl Meter {
    /// Begins on `cores`; `server` is the process whose work is told from that of neighbours.
    pub fn start(cores: &[usize], server: Option<u32>) -> io::Result<Meter> {
        let stop = Arc::new(AtomicBool::new(false));
        let (spinners, began) = (Vec::new(), Instant::now());
        let cores_of = cores.to_vec();
        let mut meter =
            Meter { stop, spinners, server, cores: cores_of, server_before_ns: 0, began };
        for &core in cores {
            let stop = meter.stop.clone();
            let name = format!("spinner-{core}");
            let spinner = thread::Builder::new().name(name).spawn(move || spin(core, &stop))?;
            meter.spinners.push(spinner);
        }
        meter.server_before_ns = server.map_or(0, |pid| family_ns(pid) + softirq_ns(cores));
        // Where neighbours leave nothing a spinner begins late; the interval does not.
        meter.began = Instant::now();
        Ok(meter)
    }

    /// Ends, and says what was.
    pub fn stop(mut self) -> io::Result<CoreTime> {
        let now = |pid| family_ns(pid) + softirq_ns(&self.cores);
        let server_ns = self.server.map(|pid| now(pid).saturating_sub(self.server_before_ns));
        let wall = self.began.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        let cores = self.spinners.len();
        let wall_ns = wall.as_nanos() as u64 * cores as u64;
        let mut all = Seen { wall_ns, ..Seen::default() };
        for spinner in self.spinners.drain(..) {
            let ended =
                spinner.join().map_err(|_| io::Error::other("a spinner has ended early"))?;
            let seen = ended?;
            all.own_ns += seen.own_ns;
            all.account_ns += seen.account_ns;
        }
        let told_apart = interrupts_apart() == Some(false);
        Ok(core_time(all, server_ns.filter(|_| told_apart), cores))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Without the server's account all that the spinners did not get counts as the server's.
fn core_time(seen: Seen, server_ns: Option<u64>, cores: usize) -> CoreTime {
    let wall = seen.wall_ns.max(1) as f64;
    let seconds = seen.wall_ns as f64 / 1e9 / cores.max(1) as f64;
    let others = (seen.wall_ns.saturating_sub(seen.own_ns)) as f64;
    let Some(server_ns) = server_ns else {
        return CoreTime { busy: (others / wall).min(1.0), neighbours: 0.0, seconds };
    };
    let inside = seen.account_ns.saturating_sub(seen.own_ns) as f64;
    let busy = (server_ns as f64 + inside).min(others);
    CoreTime { busy: busy / wall, neighbours: (others - busy) / wall, seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cores_time_is_divided() {
        // Of 100: 40 spun, 5 interrupts while spinning, 45 the server, 10 neighbours.
        let seen = Seen { wall_ns: 100, own_ns: 40, account_ns: 45 };
        let told = core_time(seen, Some(45), 1);
        assert!((told.busy - 0.5).abs() < 1e-9 && (told.neighbours - 0.1).abs() < 1e-9);
        let whole = core_time(seen, None, 2);
        assert!((whole.busy - 0.6).abs() < 1e-9 && whole.neighbours == 0.0);
        // Accounts that lag never make more than there was.
        let lagging = core_time(seen, Some(500), 1);
        assert!((lagging.busy - 0.6).abs() < 1e-9 && lagging.neighbours == 0.0);
        assert_eq!(core_time(Seen::default(), Some(0), 1), CoreTime::default());
        assert_eq!((told.seconds, whole.seconds), (1e-7, 5e-8));
    }

    #[test]
    fn a_meter_sees_this_process() {
        assert!(family(std::process::id()).contains(&std::process::id()));
        assert!(family_ns(std::process::id()) > 0);
        let meter = Meter::start(&[0], Some(std::process::id())).unwrap();
        thread::sleep(Duration::from_millis(30));
        let time = meter.stop().unwrap();
        assert!((0.0..=1.0).contains(&time.busy), "{time:?}");
        assert!(Meter::start(&[4000], None).unwrap().stop().is_err());
    }
}

//! What the generator itself can do at most.
//!
//! ```text
//!   root     two namespaces, a veth, an XDP program at the far end that turns queries round
//!   others   an echo over sockets on another core: a lower bound
//! ```

use std::io;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::bed::namespaces::Bed;
use crate::bed::reflect::{Program, attach};
use crate::bed::{self, echo};
use crate::load::{self, Load, LoadOptions, Schedule};
use crate::mix::Questions;
use crate::ports::free_port;
use crate::report::model::Ceiling;

/// Seconds of each measurement.
const SECONDS: f64 = 1.0;
/// The rate to begin with; it is doubled until no more comes back.
const RATE: f64 = 100_000.0;
/// Rates tried at most.
const STEPS_MAX: u32 = 10;

/// How the ceiling is found.
#[derive(Clone, Debug, PartialEq)]
pub enum CeilingOption {
    /// Measured before anything else.
    Auto,
    /// Known.
    Known(f64),
    /// Not at all.
    None,
}

impl FromStr for CeilingOption {
    type Err = String;

    fn from_str(text: &str) -> Result<CeilingOption, String> {
        match text {
            "auto" => Ok(CeilingOption::Auto),
            "none" => Ok(CeilingOption::None),
            _ => match text.parse() {
                Ok(rate) if rate > 0.0 => Ok(CeilingOption::Known(rate)),
                _ => Err(format!("{text:?} is no ceiling: auto, none, or queries a second")),
            },
        }
    }
}

/// Finds the ceiling of a generator with these options and queries.
pub fn measure(
    option: &CeilingOption,
    options: &LoadOptions,
    questions: &Arc<Questions>,
) -> io::Result<Option<Ceiling>> {
    match option {
        CeilingOption::None => Ok(None),
        CeilingOption::Known(rate) => {
            Ok(Some(Ceiling { rate: *rate, against: "what was said (--ceiling)".into() }))
        }
        CeilingOption::Auto => {
            let Some(datagrams) = questions.datagrams() else {
                let message = "the ceiling over TCP alone cannot be measured: --ceiling none, or the \
                               queries a second that are known";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            };
            let ceiling = if nix::unistd::geteuid().is_root() {
                against_reflector(options, &Arc::new(datagrams))?
            } else {
                against_echo(options, &Arc::new(datagrams))?
            };
            if ceiling.rate <= 0.0 {
                let message =
                    format!("nothing came back from the {}: --ceiling none", ceiling.against);
                return Err(io::Error::other(message));
            }
            Ok(Some(ceiling))
        }
    }
}

/// A core that this process may use and the generator does not, or the first.
fn other_core(options: &LoadOptions) -> usize {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    let may = |core: &usize| set.as_ref().is_ok_and(|set| set.is_set(*core).unwrap_or(false));
    let mut all = (0..nix::sched::CpuSet::count()).filter(may);
    all.find(|core| !options.cores.contains(core)).unwrap_or(0)
}

fn against_reflector(options: &LoadOptions, questions: &Arc<Questions>) -> io::Result<Ceiling> {
    let far = other_core(options);
    let near = options.cores.first().copied().unwrap_or(usize::from(far == 0));
    let bed = Bed::new(far, near)?;
    bed.poll_server(true)?;
    let reflects = || {
        bed.enter_server()?;
        attach(&bed.server_interface(), Program::Reflect)
    };
    let _reflector = thread::scope(|scope| scope.spawn(reflects).join()).expect("no panic")?;
    let options = LoadOptions {
        server: (bed::namespaces::SERVER, 53).into(),
        sources: Vec::new(),
        server_pid: None,
        server_core: None,
        ..options.clone()
    };
    let rate = bed.with_client(|| {
        let _other_end = attach(&bed.client_interface(), Program::Pass)?;
        bed.pin_polling()?;
        highest(&options, questions)
    })?;
    Ok(Ceiling { rate, against: "xdp".into() })
}

fn against_echo(options: &LoadOptions, questions: &Arc<Questions>) -> io::Result<Ceiling> {
    let listen = free_port(Ipv4Addr::LOCALHOST.into())?;
    let core = other_core(options);
    let length = Duration::from_secs_f64(f64::from(STEPS_MAX) * (SECONDS + 2.0));
    thread::spawn(move || echo::run(listen, core, length));
    thread::sleep(Duration::from_millis(100));
    let options = LoadOptions {
        server: listen,
        sources: Vec::new(),
        server_pid: None,
        server_core: None,
        ..options.clone()
    };
    Ok(Ceiling { rate: highest(&options, questions)?, against: "echo".into() })
}

/// The most that comes back of any rate.
pub fn highest(options: &LoadOptions, questions: &Arc<Questions>) -> io::Result<f64> {
    let options = LoadOptions { timeout: Duration::from_millis(200), ..options.clone() };
    let mut best: f64 = 0.0;
    let mut rate = RATE;
    for step in 0..STEPS_MAX {
        let load = Load {
            label: format!("ceiling {}", step + 1),
            schedule: Schedule::Poisson,
            rate,
            seconds: SECONDS,
            seed: u64::from(step),
        };
        let run = load::run(&options, questions, &load, &mut |_| ())?;
        // A reflector answers with whatever it was asked: matched is what counts.
        let answered = run.counts.answered as f64 / run.seconds;
        let grew = answered > best * 1.05;
        best = best.max(answered);
        if !grew || answered < rate * 0.8 {
            break;
        }
        rate *= 1.5;
    }
    Ok(best)
}

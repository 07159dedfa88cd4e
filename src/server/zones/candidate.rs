//! A command that decides whether a zone may be served.
//!
//! ```text
//!   transfer, or file read again ──> NAME.candidate, as text ──> command {file}, also its stdin
//!                                              exit status 0 ──> served
//!                                  another, or not in time ──> the version that was goes on
//! ```
//!
//! The environment is that of NSD's verifiers: `VERIFY_ZONE`, and `VERIFY_ZONE_ON_STDIN=yes`. There
//! is no shell. It runs where zones are built, never on a core or the thread that moves zones.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::wire::Name;
use crate::zone::Zone;

use super::state;
use crate::server::disk::{Disk, Real};
use crate::server::export;
use crate::server::report::say;

/// How long a command may take unless configured.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Octets of what a command says that are kept.
const SAID_LEN_MAX: usize = 4096;
/// Lines of them that go to the log.
const LOGGED_MAX: usize = 20;
/// Lines of them that are the reason.
const REASON_LINES_MAX: usize = 3;
/// How often it is looked whether a command has ended, at the least.
const LOOK_MAX: Duration = Duration::from_millis(50);
/// How long what a command has said may take to arrive after its end.
const WORDS_MAX: Duration = Duration::from_secs(1);

//----------- Check ----------------------------------------------------------

/// The command of a zone, or of all zones of a pattern, and what it last had to say of each.
#[derive(Debug)]
pub struct Check {
    /// The program and its arguments.
    command: Vec<String>,
    timeout: Duration,
    /// Why the last candidates of zones were refused.
    refused: Mutex<HashMap<Name, String>>,
}

impl PartialEq for Check {
    fn eq(&self, other: &Check) -> bool {
        (&self.command, self.timeout) == (&other.command, other.timeout)
    }
}

impl Eq for Check {}

impl Check {
    /// `command` has at least the program; in its arguments `{file}`, `{zone}` and `{serial}` stand
    /// for those of the candidate.
    pub fn new(command: Vec<String>, timeout: Duration) -> Check {
        Check { command, timeout, refused: Mutex::default() }
    }

    /// Why the last candidate of the zone `name` was refused, if it was.
    pub fn refused(&self, name: &Name) -> Option<String> {
        self.reasons().get(name).cloned()
    }

    fn reasons(&self) -> MutexGuard<'_, HashMap<Name, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether `zone` may be served; the error is the reason why not. Takes as long as the
    /// command may.
    pub fn ask(&self, directory: &Path, zone: &Zone) -> Result<(), String> {
        let answer = self.run(directory, zone);
        match &answer {
            Ok(()) => self.reasons().remove(zone.apex()),
            Err(reason) => self.reasons().insert(zone.apex().clone(), reason.clone()),
        };
        answer
    }

    fn run(&self, directory: &Path, zone: &Zone) -> Result<(), String> {
        let program = &self.command[0];
        let cannot = |error: io::Error| format!("check_command {program} cannot be run: {error}");
        let name = zone.apex().to_string();
        let name = if name == "." { &name } else { name.trim_end_matches('.') };
        // A catalog may name its members as it likes.
        if name.starts_with('-') && self.command.iter().any(|it| it.starts_with("{zone}")) {
            return Err(format!("{program} would take its name for an option: not run"));
        }
        let candidate = Candidate::write(directory, zone)?;
        let file = candidate.0.to_string_lossy();
        let serial = zone.serial().to_string();
        let filled = |argument: &String| {
            argument.replace("{zone}", name).replace("{serial}", &serial).replace("{file}", &file)
        };
        let (out, into) = io::pipe().map_err(cannot)?;
        let mut command = Command::new(program);
        command
            .args(self.command[1..].iter().map(filled))
            .env("VERIFY_ZONE", name)
            .env("VERIFY_ZONE_ON_STDIN", "yes")
            .stdin(File::open(&candidate.0).map_err(cannot)?)
            .stdout(into.try_clone().map_err(cannot)?)
            .stderr(into)
            .process_group(0);
        for ours in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(ours);
        }
        let child = Running::spawn(&mut command).map_err(cannot)?;
        // It holds the end of the pipe that the child writes to.
        drop(command);
        let words = Words::of(out);
        let ended = child.wait(self.timeout).map_err(cannot)?;
        let lines = words.take();
        for line in lines.iter().take(LOGGED_MAX) {
            say!("zone {}: {program}: {line}", zone.apex());
        }
        let Some(status) = ended else {
            return Err(format!("{program} took longer than {} s", self.timeout.as_secs_f32()));
        };
        if status.success() {
            return Ok(());
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with status {code}"),
            (None, signal) => format!("was ended by signal {}", signal.unwrap_or(0)),
        };
        let first = lines.into_iter().take(REASON_LINES_MAX).collect::<Vec<_>>().join("; ");
        let colon = if first.is_empty() { "" } else { ": " };
        Err(format!("{program} {how}{colon}{first}"))
    }
}

/// The zone as text in a file, as long as this lives.
struct Candidate(PathBuf);

impl Candidate {
    fn write(directory: &Path, zone: &Zone) -> Result<Candidate, String> {
        let candidate = Candidate(state::path(directory, zone.apex(), "candidate"));
        let path = &candidate.0;
        let mut options = OpenOptions::new();
        let written = Real
            .create_directory(directory)
            .and_then(|()| options.write(true).create(true).truncate(true).mode(0o600).open(path))
            .and_then(|mut file| export::write(zone, &mut file));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(candidate)
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

//----------- Running --------------------------------------------------------

/// The process groups that run.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all commands: the server ends, and nobody waits for their verdicts.
pub fn end_all() {
    for group in groups().iter() {
        let _ = killpg(*group, Signal::SIGKILL);
    }
}

/// A command in a process group of its own, with whom it has started.
struct Running {
    child: Child,
    group: Pid,
}

impl Running {
    fn spawn(command: &mut Command) -> io::Result<Running> {
        let mut groups = groups();
        let child = command.spawn()?;
        let group = Pid::from_raw(child.id() as i32);
        groups.push(group);
        Ok(Running { child, group })
    }

    /// Waits for its end; `None` if it does not come in time.
    fn wait(mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let (started, mut pause) = (Instant::now(), Duration::from_millis(1));
        // Its number stays its own until it is reaped.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let in_time = loop {
            match waitid(Id::Pid(self.group), flags) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(_) => break true,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                break false;
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LOOK_MAX);
        };
        let status = self.end()?;
        Ok(Some(status).filter(|_| in_time))
    }

    /// Ends the whole group.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let mut groups = groups();
        let _ = killpg(self.group, Signal::SIGKILL);
        groups.retain(|group| *group != self.group);
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if groups().contains(&self.group) {
            let _ = self.end();
        }
    }
}

/// What a command says, read by a thread of its own so that it never waits to be heard.
struct Words {
    said: Arc<Mutex<Vec<u8>>>,
    over: std::sync::mpsc::Receiver<()>,
}

impl Words {
    fn of(mut out: impl Read + Send + 'static) -> Words {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (ends, over) = channel();
        let into = Arc::clone(&said);
        thread::spawn(move || {
            let mut octets = [0; 1024];
            while let Ok(count @ 1..) = out.read(&mut octets) {
                let mut said = into.lock().unwrap_or_else(PoisonError::into_inner);
                let room = SAID_LEN_MAX - said.len();
                said.extend_from_slice(&octets[..count.min(room)]);
            }
            let _ = ends.send(());
        });
        Words { said, over }
    }

    /// The lines that have arrived.
    fn take(self) -> Vec<String> {
        // Somebody who has left the group may keep the pipe open.
        let _ = self.over.recv_timeout(WORDS_MAX);
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&said);
        let shown = |line: &str| {
            line.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
        };
        text.lines().filter(|line| !line.trim().is_empty()).map(shown).collect()
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Given, HashKey, LoadOptions, load};

    const TEXT: &str = "$TTL 0\n@ SOA a. b. 1 2 3 4 5\n@ NS a.\n";

    #[test]
    fn a_name_is_never_an_option() {
        let directory = tempfile::tempdir().unwrap();
        let options = LoadOptions::new(HashKey::new(*b"a secret of test"), 1);
        let ask = |argument: &str, name: &str| {
            let command = ["true", argument].map(String::from).into();
            let zone = load(&name.parse().unwrap(), "text", &Given(TEXT), &options).zone.unwrap();
            Check::new(command, TIMEOUT_DEFAULT).ask(directory.path(), &zone)
        };
        let refused = Err("true would take its name for an option: not run".to_string());
        assert_eq!(ask("{zone}", "-v."), refused);
        assert_eq!(ask("{zone}.", "-v.example."), refused);
        assert_eq!(ask("zone={zone}", "-v."), Ok(()));
        assert_eq!(ask("{file}", "-v."), Ok(()));
        assert_eq!(ask("{zone}", "v-."), Ok(()));
    }
}

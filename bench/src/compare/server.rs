//! A contender that runs: started, pinned, asked, measured, stopped.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ring53::wire::message::{CLASS_IN, Message, Writer};
use ring53::wire::{Name, rtype};

use super::contenders::{Contender, Place, Role};
use super::shapes::Zones;
use crate::bed::Bed;
use crate::bed::counters::{family, memory_mib, pin_family};
use crate::probe::verify;

/// The longest that a server may take to load its zones.
const LOAD_MAX: Duration = Duration::from_secs(900);
/// The longest that a cache, which has none, may take to its first answer.
const CACHE_START_MAX: Duration = Duration::from_secs(60);
/// The longest that it may take to load them again.
const RELOAD_MAX: Duration = Duration::from_secs(300);
/// How long it has to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

//----------- Server ---------------------------------------------------------

/// A contender that runs; stopped when dropped.
pub struct Server {
    /// Who it is.
    pub contender: &'static Contender,
    /// Its address.
    pub address: Ipv4Addr,
    /// From exec to the answer for the last name.
    pub load_ms: f64,
    directory: PathBuf,
    child: Child,
}

impl Server {
    /// Starts it, which it may do on all cores, waits for the answer to `last`, and pins it to the
    /// server's core. An echo has no zone to wait for.
    pub fn start(
        bed: &Bed,
        contender: &'static Contender,
        zones: &Zones,
        directory: &Path,
        last: &str,
    ) -> io::Result<Server> {
        let directory = directory.join(contender.name);
        // What it kept of an earlier run would be loaded instead of the zones.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        let address = contender.address();
        let place = Place { directory: &directory, address, core: bed.server_core(), zones };
        let mut command = bed.in_server(&(contender.prepare)(&place)?);
        let log = File::create(directory.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let begun = Instant::now();
        let child = command.spawn()?;
        let mut server = Server { contender, address, load_ms: 0.0, directory, child };
        server.wait_for(bed, last, begun)?;
        server.load_ms = begun.elapsed().as_secs_f64() * 1000.0;
        pin_family(server.process(), bed.server_core())?;
        Ok(server)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Its address and port.
    pub fn socket(&self) -> SocketAddr {
        (self.address, 53).into()
    }

    /// An error, with the last of what it said, if it has ended.
    pub fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failed(&format!("it has ended: {status}"))),
        }
    }

    fn failed(&self, what: &str) -> io::Error {
        let said = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<_> = said.lines().rev().take(3).collect();
        let last: Vec<_> = lines.into_iter().rev().collect();
        let name = self.contender.name;
        io::Error::other(format!("{name}: {what}: {}", last.join(" / ")))
    }

    fn wait_for(&mut self, bed: &Bed, last: &str, begun: Instant) -> io::Result<()> {
        let server = self.socket();
        let is_echo = self.contender.role == Role::Echo;
        let patience = if self.contender.role == Role::Cache { CACHE_START_MAX } else { LOAD_MAX };
        loop {
            self.check()?;
            let answered = bed.with_client(|| match is_echo {
                true => is_there(server),
                false => verify::first(server, last),
            });
            match answered {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > patience => {
                    return Err(self.failed(&format!("no answer in {patience:?}: {error}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Resident memory in MiB.
    pub fn memory_mib(&self) -> f64 {
        memory_mib(self.process())
    }

    /// Has it take the next version of its zones, which are on disk already.
    pub fn reload(&self, bed: &Bed, zones: &Zones) -> io::Result<()> {
        let (directory, address) = (&self.directory, self.address);
        let place = Place { directory, address, core: bed.server_core(), zones };
        (self.contender.reload)(&place, self.process())
    }

    /// The most memory while it takes a new version of all its zones, and how long until the last
    /// of them is served.
    pub fn reload_memory(&mut self, bed: &Bed, zones: &Zones) -> io::Result<(f64, f64)> {
        let serial = zones.renew()?;
        let begun = Instant::now();
        let last_zone = zones.files.last().map_or("", |(name, _)| name);
        let (mut most, mut served) = (0f64, None);
        thread::scope(|scope| {
            // PowerDNS reads the zones before its command returns.
            let asked = scope.spawn(|| self.reload(bed, zones));
            let mut after = 0;
            while after < 20 && begun.elapsed() < RELOAD_MAX {
                most = most.max(self.memory_mib());
                if served.is_none()
                    && bed.with_client(|| serial_of(self.socket(), last_zone)).ok() == Some(serial)
                {
                    served = Some(begun.elapsed().as_secs_f64() * 1000.0);
                }
                // What was served before goes only after what is served now has come.
                after += u32::from(served.is_some());
                thread::sleep(Duration::from_millis(20));
            }
            asked.join().map_err(|_| io::Error::other("the reload has ended early"))?
        })?;
        self.check()?;
        let served = served.ok_or_else(|| self.failed(&format!("no reload in {RELOAD_MAX:?}")))?;
        Ok((most, served))
    }

    /// Waits, for a while, until it serves the version on disk.
    pub fn settle(&self, bed: &Bed, zones: &Zones) {
        let begun = Instant::now();
        let zone = zones.files.first().map_or("", |(name, _)| name);
        while begun.elapsed() < Duration::from_secs(20)
            && bed.with_client(|| serial_of(self.socket(), zone)).ok() != Some(zones.serial())
        {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let all = family(self.process());
        let _ = kill(Pid::from_raw(self.process() as i32), Signal::SIGTERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > PATIENCE {
                for process in all {
                    let _ = kill(Pid::from_raw(process as i32), Signal::SIGKILL);
                }
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

//----------- Questions ------------------------------------------------------

fn ask(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.send(query)?;
    let mut reply = vec![0; 1232];
    let len = socket.recv(&mut reply)?;
    reply.truncate(len);
    Ok(reply)
}

fn is_there(server: SocketAddr) -> io::Result<()> {
    ask(server, &[0; 12]).map(drop)
}

/// The serial of the zone `name` at `server`.
pub fn serial_of(server: SocketAddr, name: &str) -> io::Result<u32> {
    let name: Name = name.parse().map_err(io::Error::other)?;
    let mut query = Writer::new(53, 0);
    query.question(name.as_wire(), rtype::SOA, CLASS_IN);
    let reply = ask(server, &query.into_octets())?;
    let message = Message::new(&reply).filter(|message| message.rcode() == 0);
    let mut records = message.iter().flat_map(Message::records).flatten().map_while(Result::ok);
    let soa = records.find(|record| record.rtype == rtype::SOA);
    let numbers = soa.and_then(|soa| reply[soa.rdata].last_chunk::<20>().copied());
    let serial = numbers.map(|numbers| [numbers[0], numbers[1], numbers[2], numbers[3]]);
    serial.map(u32::from_be_bytes).ok_or_else(|| io::Error::other("no SOA"))
}

//----------- Replaced -------------------------------------------------------

/// The zone is replaced every second for as long as `work` takes; returns also how many versions a
/// second were seen to be served.
pub fn replaced<T: Send>(
    bed: &Bed,
    server: &Server,
    zones: &Zones,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<(T, f64)> {
    /// How often the server is asked for its serial.
    const LOOK: Duration = Duration::from_millis(50);
    let done = std::sync::atomic::AtomicBool::new(false);
    let is_done = || done.load(std::sync::atomic::Ordering::Relaxed);
    let begun = Instant::now();
    let zone = zones.files.first().map_or("", |(name, _)| name);
    thread::scope(|scope| {
        let replace = scope.spawn(|| {
            crate::bed::echo::pin(bed.client_core())?;
            let mut due = Instant::now();
            while !is_done() {
                if Instant::now() >= due {
                    zones.renew()?;
                    server.reload(bed, zones)?;
                    // Who takes longer than a second over one is not asked for two at once.
                    due = (due + Duration::from_secs(1)).max(Instant::now());
                }
                thread::sleep(Duration::from_millis(10));
            }
            io::Result::Ok(())
        });
        let watch = scope.spawn(|| {
            bed.enter_client()?;
            let (mut seen, mut versions) = (None, 0u32);
            while !is_done() {
                if let Ok(serial) = serial_of(server.socket(), zone) {
                    versions += u32::from(seen.is_some_and(|seen| seen != serial));
                    seen = Some(serial);
                }
                thread::sleep(LOOK);
            }
            io::Result::Ok(versions)
        });
        let result = work();
        let seconds = begun.elapsed().as_secs_f64();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let ended = || io::Error::other("a thread beside the load has ended early");
        replace.join().map_err(|_| ended())??;
        let versions = watch.join().map_err(|_| ended())??;
        server.settle(bed, zones);
        Ok((result?, f64::from(versions) / seconds))
    })
}

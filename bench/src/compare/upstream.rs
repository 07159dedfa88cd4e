//! Whom caches ask: servers on the generator's side, on its core.
//!
//! ```text
//!   a cache ──"."────────────> near  10.53.0.2   UDP: ring53 with the zone
//!                                                TLS, HTTPS: Unbound, any name below miss.example.
//!           ──far.example.──> far   10.53.0.3    every answer after 50 ms
//! ```
//!
//! Near answers cost the generator's core less than a miss costs a cache: an address from a zone,
//! or from Unbound's own configuration behind TLS. The certificate is one of this comparison.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::contenders::pinned;
use super::shapes::Zones;
use crate::bed::Bed;
use crate::bed::counters::core_seconds;
use crate::bed::namespaces::CLIENT;
use crate::probe::verify;

/// Whom caches ask for everything.
pub const NEAR: Ipv4Addr = CLIENT;
/// Whom they ask for names of [`FAR_ZONE`].
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 3);
/// Every name below it has an address.
pub const MISS_ZONE: &str = "miss.example.";
/// The same, and it takes [`FAR_DELAY`] to learn it.
pub const FAR_ZONE: &str = "far.example.";
/// The name in the certificate.
pub const SERVER_NAME: &str = "upstream.example";
/// How late answers from afar are, as `ring53-bench truth` reads it.
const FAR_DELAY: &str = "50ms";
/// The longest that an upstream may take to answer.
const START_MAX: Duration = Duration::from_secs(60);
/// How long one has to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest rest between two loads.
const REST_MAX: Duration = Duration::from_secs(10);

//----------- Carrier --------------------------------------------------------

/// How a cache asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Over UDP.
    Udp,
    /// Over TLS (RFC 7858).
    Tls,
    /// Over HTTPS (RFC 8484), HTTP/2.
    Https,
}

//----------- Upstreams ------------------------------------------------------

/// Upstreams that run; ended when dropped.
pub struct Upstreams {
    children: Vec<Child>,
}

impl Upstreams {
    /// Starts those that caches ask by `carrier` for what `zones` have, and waits for answers.
    pub fn start(bed: &Bed, zones: &Zones, carrier: Carrier) -> io::Result<Upstreams> {
        bed.add_client_address(FAR)?;
        let directory = zones.directory().join("upstream");
        fs::create_dir_all(&directory)?;
        let core = bed.client_core();
        let near = match carrier {
            Carrier::Udp => zone(&directory, zones, core)?,
            Carrier::Tls | Carrier::Https => {
                certify(zones.directory())?;
                encrypted(&directory, zones.directory(), core)?
            }
        };
        let mut upstreams = Upstreams { children: Vec::new() };
        upstreams.add(bed, near, &directory.join("near.log"))?;
        upstreams.wait_for(bed, NEAR, &format!("up.{MISS_ZONE} A"))?;
        if carrier == Carrier::Udp {
            upstreams.add(bed, far(&directory, core)?, &directory.join("far.log"))?;
            // It answers later than a first question waits: that it listens is enough.
            thread::sleep(Duration::from_millis(200));
            upstreams.check()?;
        }
        Ok(upstreams)
    }

    fn add(&mut self, bed: &Bed, command: Command, log: &Path) -> io::Result<()> {
        let mut command = bed.in_client(&command);
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn()?);
        Ok(())
    }

    /// An error if one of them has ended.
    pub fn check(&mut self) -> io::Result<()> {
        for (child, which) in self.children.iter_mut().zip(["near", "far"]) {
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("the {which} upstream has ended: {status}")));
            }
        }
        Ok(())
    }

    /// Seconds of a core that they have taken.
    pub fn core_seconds(&self) -> f64 {
        let each = self.children.iter().map(|child| core_seconds(child.id()));
        each.sum()
    }

    /// Waits until they have done what an earlier load left them to do, as long as that is
    /// [`REST_MAX`]: of connections that a server was too slow for, each is answered all the same.
    pub fn rest(&self) {
        const TURN: Duration = Duration::from_millis(200);
        const USED_MAX: f64 = 0.02;
        let begun = Instant::now();
        while begun.elapsed() < REST_MAX {
            let before = self.core_seconds();
            thread::sleep(TURN);
            if self.core_seconds() - before <= USED_MAX * TURN.as_secs_f64() {
                return;
            }
        }
    }

    fn wait_for(&mut self, bed: &Bed, address: Ipv4Addr, question: &str) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            self.check()?;
            match bed.with_client(|| verify::first((address, 53).into(), question)) {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > START_MAX => {
                    let message = format!("no upstream at {address} in {START_MAX:?}: {error}");
                    return Err(io::Error::other(message));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        for child in &self.children {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
        let begun = Instant::now();
        for child in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//----------- Servers --------------------------------------------------------

/// ring53 with the zones.
fn zone(directory: &Path, zones: &Zones, core: usize) -> io::Result<Command> {
    let mut text = format!("version = 1\n[server]\nlisten = [\"{NEAR}:53\"]\ncores = [{core}]\n");
    for (name, file) in &zones.files {
        text.push_str(&format!("[[zone]]\nname = \"{name}\"\nfile = \"{}\"\n", file.display()));
    }
    let file = directory.join("ring53.toml");
    fs::write(&file, text)?;
    let mut command = pinned("ring53", core)?;
    command.args(["serve", "--config"]).arg(file);
    Ok(command)
}

/// Unbound, which answers for itself; over UDP too, so that whoever waits for it can ask.
fn encrypted(directory: &Path, keys: &Path, core: usize) -> io::Result<Command> {
    let (work, keys) = (directory.display(), keys.display());
    let zone = MISS_ZONE;
    let text = format!(
        "server:\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{work}\"\n  \
         pidfile: \"\"\n  use-syslog: no\n  logfile: \"{work}/unbound.log\"\n  verbosity: 0\n  \
         module-config: \"iterator\"\n  num-threads: 1\n  access-control: 10.53.0.0/16 allow\n  \
         interface: {NEAR}@53\n  interface: {NEAR}@853\n  interface: {NEAR}@443\n  \
         tls-service-key: \"{keys}/upstream.key\"\n  tls-service-pem: \"{keys}/upstream.pem\"\n  \
         tls-port: 853\n  https-port: 443\n  incoming-num-tcp: 1000\n  tcp-idle-timeout: 60000\n  \
         http-max-streams: 1000\n  http-query-buffer-size: 64m\n  \
         http-response-buffer-size: 64m\n  \
         stream-wait-size: 64m\n  local-zone: \"{zone}\" redirect\n  \
         local-data: \"{zone} 86400 IN A 192.0.2.53\"\n\
         remote-control:\n  control-enable: no\n"
    );
    let file = directory.join("unbound.conf");
    fs::write(&file, text)?;
    let mut command = pinned("unbound", core)?;
    command.args(["-d", "-c"]).arg(file);
    Ok(command)
}

/// The server of known delays.
fn far(directory: &Path, core: usize) -> io::Result<Command> {
    let mut command = pinned("ring53-bench", core)?;
    command.args(["truth", "--listen", &format!("{FAR}:53"), "--core", &core.to_string()]);
    command.args(["--script", &format!("delay fixed {FAR_DELAY}"), "--log"]);
    command.arg(directory.join("far"));
    Ok(command)
}

//----------- Certificates ---------------------------------------------------

/// Where the certificate of who has signed the upstream's is.
pub fn authority(zones: &Zones) -> PathBuf {
    zones.directory().join("ca.pem")
}

/// Makes an authority, and a certificate for [`SERVER_NAME`] and its key.
fn certify(directory: &Path) -> io::Result<()> {
    let failed = |error: rcgen::Error| io::Error::other(format!("no certificate: {error}"));
    let authority_key = KeyPair::generate().map_err(failed)?;
    let mut authority = CertificateParams::new(Vec::new()).map_err(failed)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Of two certificates with the same name one would seem to have signed itself.
    authority.distinguished_name.push(DnType::CommonName, "authority of a comparison");
    let own = authority.self_signed(&authority_key).map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(vec![SERVER_NAME.into()]).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
    let issuer = Issuer::new(authority, authority_key);
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    fs::write(directory.join("ca.pem"), own.pem())?;
    fs::write(directory.join("upstream.pem"), certificate.pem())?;
    fs::write(directory.join("upstream.key"), key.serialize_pem())
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_load_has_left_is_done_first() {
        let mut command = Command::new("timeout");
        command.args(["1", "sh", "-c", "while :; do :; done"]);
        let mut upstreams = Upstreams { children: vec![command.spawn().unwrap()] };
        while upstreams.core_seconds() == 0.0 {
            assert!(upstreams.check().is_ok(), "it has ended before it was busy");
            thread::sleep(Duration::from_millis(1));
        }
        upstreams.rest();
        assert!(upstreams.check().is_err(), "it is busy until it ends");
    }

    #[test]
    fn a_certificate_is_signed_by_the_authority() {
        let directory = tempfile::tempdir().unwrap();
        let zones = Zones::for_test(directory.path());
        certify(zones.directory()).unwrap();
        let text = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(fs::read_to_string(authority(&zones)).unwrap().contains("BEGIN CERTIFICATE"));
        assert!(text("upstream.pem").contains("BEGIN CERTIFICATE"));
        assert!(text("upstream.key").contains("PRIVATE KEY"));
        assert_ne!(text("ca.pem"), text("upstream.pem"));
    }
}

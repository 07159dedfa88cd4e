//! Peers that give zones to others or take them, each with its own way to say so.

use std::fmt::Write;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::free_address;

/// The key that all sides share, and its secret.
pub const KEY: &str = "xfr.example.";
pub const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IQ==";

/// Which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nsd,
    Knot,
    Bind,
    PowerDns,
}

pub const KINDS: [Kind; 4] = [Kind::Nsd, Kind::Knot, Kind::Bind, Kind::PowerDns];

/// What a peer is to do with one zone.
#[derive(Clone)]
pub struct Role {
    pub zone: String,
    /// Where its own copy is, or is to be.
    pub file: PathBuf,
    /// The server it takes the zone from; `None`: it has it.
    pub primary: Option<SocketAddr>,
    /// Who is told of changes.
    pub notify: Option<SocketAddr>,
    /// Whether transfers are signed.
    pub signed: bool,
}

/// A peer, ended when it is dropped.
pub struct Peer {
    child: Child,
    pub kind: Kind,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Peer {
    /// Ends it.
    pub fn stop(&mut self) {
        // The children of NSD end with it only if it ends by itself.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        for _ in 0..200 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts `kind` in `directory`, listening on a free port of `ip`.
    pub fn start(kind: Kind, directory: &Path, ip: IpAddr, role: &Role) -> Peer {
        let address = free_address(ip);
        fs::create_dir_all(directory).unwrap();
        let command = match kind {
            Kind::Nsd => nsd(directory, address, role),
            Kind::Knot => knot(directory, address, role),
            Kind::Bind => bind(directory, address, role),
            Kind::PowerDns => powerdns(directory, address, role),
        };
        Peer::run(kind, directory, address, command)
    }

    /// Starts `command`, which is a `kind` that listens on `address`.
    pub fn run(kind: Kind, directory: &Path, address: SocketAddr, mut command: Command) -> Peer {
        let log = directory.join("log");
        let out = File::create(&log).unwrap();
        let child = command.stdout(out.try_clone().unwrap()).stderr(out).stdin(Stdio::null());
        let child = child.spawn().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        Peer { child, kind, address, log }
    }

    /// Tells it that its file has changed.
    pub fn reload(&self) {
        // PowerDNS looks every second by itself.
        if self.kind != Kind::PowerDns {
            kill(Pid::from_raw(self.child.id() as i32), Signal::SIGHUP).unwrap();
        }
    }

    /// What it said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn nsd(directory: &Path, address: SocketAddr, role: &Role) -> Command {
    let (work, ip, port) = (directory.display(), address.ip(), address.port());
    let key = if role.signed { KEY } else { "NOKEY" };
    let mut config = format!(
        "server:\n server-count: 1\n ip-address: {ip}@{port}\n username: \"\"\n \
         zonesdir: \"{work}\"\n database: \"\"\n pidfile: \"{work}/nsd.pid\"\n \
         xfrdfile: \"{work}/xfrd.state\"\n zonelistfile: \"{work}/zone.list\"\n \
         rrl-ratelimit: 0\n xfrd-reload-timeout: 0\n verbosity: 2\n\
         remote-control:\n control-enable: no\n\
         key:\n name: {KEY}\n algorithm: hmac-sha256\n secret: \"{SECRET}\"\n\
         zone:\n name: \"{}\"\n zonefile: \"{}\"\n provide-xfr: 127.0.0.1 {key}\n \
         provide-xfr: ::1 {key}\n store-ixfr: yes\n create-ixfr: yes\n",
        role.zone,
        role.file.display()
    );
    if let Some(primary) = role.primary {
        let (ip, port) = (primary.ip(), primary.port());
        let _ = write!(
            config,
            " request-xfr: {ip}@{port} {key}\n allow-notify: 127.0.0.1 {key}\n \
             allow-notify: ::1 {key}\n min-retry-time: 1\n max-retry-time: 1\n"
        );
    }
    if let Some(notify) = role.notify {
        let _ = writeln!(config, " notify: {}@{} {key}", notify.ip(), notify.port());
    }
    let file = directory.join("nsd.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("nsd");
    command.arg("-d").arg("-c").arg(file);
    command
}

fn knot(directory: &Path, address: SocketAddr, role: &Role) -> Command {
    let (work, ip, port) = (directory.display(), address.ip(), address.port());
    let key = if role.signed { format!("    key: {KEY}\n") } else { String::new() };
    let mut config = format!(
        "server:\n  rundir: \"{work}\"\n  listen: {ip}@{port}\n  udp-workers: 1\n  \
         tcp-workers: 1\n  background-workers: 1\nlog:\n  - target: stdout\n    any: info\n\
         database:\n  storage: \"{work}\"\n\
         key:\n  - id: {KEY}\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         acl:\n  - id: all\n    address: [127.0.0.1, ::1]\n{key}    action: [transfer, notify]\n"
    );
    let mut remotes = String::new();
    let mut zone = format!(
        "zone:\n  - domain: \"{}\"\n    file: \"{}\"\n    acl: all\n    zonefile-sync: -1\n",
        role.zone,
        role.file.display()
    );
    if let Some(primary) = role.primary {
        let (ip, port) = (primary.ip(), primary.port());
        let _ = write!(remotes, "  - id: primary\n    address: {ip}@{port}\n{key}");
        zone += "    master: primary\n    retry-min-interval: 1\n    retry-max-interval: 1\n";
    } else {
        zone += "    zonefile-load: difference\n    journal-content: changes\n";
    }
    if let Some(notify) = role.notify {
        let (ip, port) = (notify.ip(), notify.port());
        let _ = write!(remotes, "  - id: secondary\n    address: {ip}@{port}\n{key}");
        zone += "    notify: secondary\n";
    }
    if !remotes.is_empty() {
        config += &format!("remote:\n{remotes}");
    }
    config += &zone;
    let file = directory.join("knot.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("knotd");
    command.arg("-c").arg(file);
    command
}

fn bind(directory: &Path, address: SocketAddr, role: &Role) -> Command {
    let (work, ip, port) = (directory.display(), address.ip(), address.port());
    let who = if role.signed { format!("key \"{KEY}\";") } else { "any;".into() };
    let key = if role.signed { format!("key \"{KEY}\"") } else { String::new() };
    let (v4, v6) = match ip {
        IpAddr::V4(ip) => (ip.to_string(), "none".into()),
        IpAddr::V6(ip) => ("none".into(), ip.to_string()),
    };
    let kind = match role.primary {
        None => "type primary; ixfr-from-differences yes; check-names ignore;".to_string(),
        Some(primary) => format!(
            "type secondary; primaries {{ {} port {} {key}; }}; request-ixfr yes; \
             allow-notify {{ {who} }}; min-retry-time 1; max-retry-time 1; \
             masterfile-format text;",
            primary.ip(),
            primary.port()
        ),
    };
    let notify = match role.notify {
        None => "notify no;".to_string(),
        Some(to) => {
            format!("notify explicit; also-notify {{ {} port {} {key}; }};", to.ip(), to.port())
        }
    };
    let config = format!(
        "options {{\n directory \"{work}\"; pid-file none; session-keyfile none;\n \
         managed-keys-directory \"{work}\"; lock-file none;\n \
         listen-on port {port} {{ {v4}; }}; listen-on-v6 port {port} {{ {v6}; }};\n \
         recursion no; allow-query {{ any; }}; allow-transfer {{ {who} }};\n \
         dnssec-validation no; notify-delay 0; max-records-per-type 0;\n \
         serial-query-rate 1000; check-integrity no;\n\
         }};\nkey \"{KEY}\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\ncontrols {{ }};\n\
         zone \"{}\" {{ {kind} file \"{}\"; {notify} }};\n",
        role.zone,
        role.file.display()
    );
    let file = directory.join("named.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("named");
    command.args(["-g", "-n", "1", "-c"]).arg(file);
    command
}

fn powerdns(directory: &Path, address: SocketAddr, role: &Role) -> Command {
    let (work, ip, port) = (directory.display(), address.ip(), address.port());
    let zone = role.zone.trim_end_matches('.');
    let kind = match role.primary {
        None => "type master;".to_string(),
        Some(primary) => {
            let ip = match primary.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            format!("type slave; masters {{ {ip}:{}; }};", primary.port())
        }
    };
    let file = role.file.display();
    let line = format!("zone \"{zone}\" {{ {kind} file \"{file}\"; }};\n");
    fs::write(directory.join("named.conf"), line).unwrap();
    let mut config = format!(
        "launch=bind\nbind-config={work}/named.conf\nbind-dnssec-db={work}/dnssec.db\n\
         bind-check-interval=1\nlocal-address={ip}\nlocal-port={port}\nsocket-dir={work}\n\
         daemon=no\nguardian=no\ncache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\n\
         zone-cache-refresh-interval=0\nprimary=yes\nsecondary=yes\nxfr-cycle-interval=1\n\
         allow-axfr-ips=127.0.0.0/8,::1\nallow-notify-from=127.0.0.0/8,::1\n\
         only-notify=\ndname-processing=yes\n"
    );
    if let Some(notify) = role.notify {
        let _ = writeln!(config, "also-notify={notify}");
    }
    fs::write(directory.join("pdns.conf"), config).unwrap();
    let configured = format!("--config-dir={work}");
    let tool = |arguments: &[&str]| {
        let output = Command::new("pdnsutil").arg(&configured).args(arguments).output();
        let output = output.expect("pdnsutil");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    tool(&["create-bind-db", &format!("{work}/dnssec.db")]);
    if role.signed {
        let key = KEY.trim_end_matches('.');
        tool(&["import-tsig-key", key, "hmac-sha256", SECRET]);
        // The first for who takes the zone from it, the second for where it comes from.
        tool(&["activate-tsig-key", zone, key, "primary"]);
        if role.primary.is_some() {
            tool(&["activate-tsig-key", zone, key, "secondary"]);
        }
    }
    let mut command = Command::new("pdns_server");
    command.arg(&configured);
    command
}

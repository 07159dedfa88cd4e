//! What the tests share: servers on loopback, questions, a deterministic choice.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod essence;
pub mod fleet;
#[path = "../../bench/src/ports.rs"]
mod ports;
pub mod random_zone;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// xorshift64*: the same seed, the same test.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(word) * u128::from(below)) >> 64) as u64
    }
}

/// The seed of this run, printed so that it can be repeated.
pub fn seed() -> u64 {
    let seed = std::env::var("RING53_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(53);
    println!("seed {seed} (RING53_SEED)");
    seed
}

/// A port of 127.0.0.1 that was free a moment ago, for UDP and TCP.
pub fn free_port() -> u16 {
    free_address(Ipv4Addr::LOCALHOST.into()).port()
}

/// The same of any address.
pub fn free_address(ip: IpAddr) -> SocketAddr {
    ports::free_port(ip).unwrap()
}

/// A server process, ended when it is dropped.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    pub name: &'static str,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(name: &'static str, command: &mut Command, port: u16, probe: &[u8]) -> Server {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {error}: run scripts/test"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Server { child, address, name };
        let end = Instant::now() + Duration::from_secs(30);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        while Instant::now() < end {
            let mut reply = [0; 4096];
            if socket.send(probe).is_ok()
                && socket.recv(&mut reply).is_ok_and(|len| len > 12 && reply[3] & 0xF == 0)
            {
                return server;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} does not answer");
    }

    /// ring53 with `zones` of `(name, file)`.
    pub fn ring53(zones: &[(&str, &Path)], probe: &[u8], more: &[&str]) -> Server {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ring53"));
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]).args(more);
        for (name, file) in zones {
            command.args(["--zone", &format!("{name}={}", file.display())]);
        }
        Server::start("ring53", &mut command, port, probe)
    }

    /// NSD with the same.
    pub fn nsd(directory: &Path, zones: &[(&str, &Path)], probe: &[u8]) -> Server {
        let port = free_port();
        let work = directory.display();
        let mut config = format!(
            "server:\n server-count: 1\n ip-address: 127.0.0.1@{port}\n username: \"\"\n \
             zonesdir: \"{work}\"\n database: \"\"\n pidfile: \"{work}/nsd.pid\"\n \
             xfrdfile: \"{work}/xfrd.state\"\n zonelistfile: \"{work}/zone.list\"\n \
             rrl-ratelimit: 0\n minimal-responses: yes\nremote-control:\n control-enable: no\n"
        );
        for (name, file) in zones {
            config += &format!("zone:\n name: \"{name}\"\n zonefile: \"{}\"\n", file.display());
        }
        let file = directory.join("nsd.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("nsd");
        command.arg("-d").arg("-c").arg(&file);
        Server::start("nsd", &mut command, port, probe)
    }

    /// Knot with the same.
    pub fn knot(directory: &Path, zones: &[(&str, &Path)], probe: &[u8]) -> Server {
        let port = free_port();
        let work = directory.display();
        let mut config = format!(
            "server:\n  rundir: \"{work}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  \
             tcp-workers: 1\n  background-workers: 1\ndatabase:\n  storage: \"{work}\"\n\
             template:\n  - id: default\n    zonefile-sync: -1\n    zonefile-load: whole\n    \
             journal-content: none\nzone:\n"
        );
        for (name, file) in zones {
            config += &format!("  - domain: \"{name}\"\n    file: \"{}\"\n", file.display());
        }
        let file = directory.join("knot.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("knotd");
        command.arg("-c").arg(&file);
        Server::start("knot", &mut command, port, probe)
    }
}

impl Server {
    /// BIND with the same.
    pub fn bind(directory: &Path, zones: &[(&str, &Path)], probe: &[u8]) -> Server {
        let port = free_port();
        let work = directory.display();
        let mut config = format!(
            "options {{\n directory \"{work}\"; pid-file none; session-keyfile none;\n \
             managed-keys-directory \"{work}\"; lock-file none; querylog no;\n \
             listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n \
             recursion no; allow-query {{ any; }}; notify no; zero-no-soa-ttl no;\n \
             minimal-responses yes; dnssec-validation no; check-integrity no;\n \
             check-names primary ignore;\n \
             check-mx ignore; check-srv-cname ignore; check-mx-cname ignore; check-wildcard no;\n\
             }};\ncontrols {{ }};\nlogging {{ category default {{ null; }}; }};\n"
        );
        for (name, file) in zones {
            let file = file.display();
            config += &format!("zone \"{name}\" {{ type primary; file \"{file}\"; }};\n");
        }
        let file = directory.join("named.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("named");
        command.args(["-f", "-n", "1", "-c"]).arg(&file);
        Server::start("bind", &mut command, port, probe)
    }

    /// PowerDNS with the same, and whether each is signed beforehand.
    pub fn powerdns(directory: &Path, zones: &[(&str, &Path)], probe: &[u8]) -> Server {
        let port = free_port();
        let work = directory.display();
        let zone_list: String = zones
            .iter()
            .map(|(name, file)| {
                let (name, file) = (name.trim_end_matches('.'), file.display());
                format!("zone \"{name}\" {{ type native; file \"{file}\"; }};\n")
            })
            .collect();
        fs::write(directory.join("named.conf"), zone_list).unwrap();
        let config = format!(
            "launch=bind\nbind-config={work}/named.conf\nbind-dnssec-db={work}/dnssec.db\n\
             local-address=127.0.0.1\nlocal-port={port}\nsocket-dir={work}\ndaemon=no\n\
             guardian=no\ncache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\n\
             zone-cache-refresh-interval=0\nmax-nsec3-iterations=500\n\
             dname-processing=yes\n"
        );
        fs::write(directory.join("pdns.conf"), config).unwrap();
        let configured = format!("--config-dir={work}");
        let tool = |arguments: &[&str]| {
            let mut command = Command::new("pdnsutil");
            let output = command.arg(&configured).args(arguments).output().expect("pdnsutil");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        tool(&["create-bind-db", &format!("{work}/dnssec.db")]);
        for (name, file) in zones {
            let text = fs::read_to_string(file).unwrap();
            let words: Vec<&str> = text.split_whitespace().collect();
            let of_type = |rtype| {
                words
                    .iter()
                    .position(|word| *word == rtype)
                    .map(|at| words[at + 1..at + 5].join(" "))
            };
            if let Some(params) = of_type("NSEC3PARAM").filter(|params| params.starts_with("1 ")) {
                tool(&["set-nsec3", name, &params]);
            }
            if text.contains("RRSIG") {
                tool(&["set-presigned", name]);
            }
        }
        let mut command = Command::new("pdns_server");
        command.arg(&configured);
        Server::start("powerdns", &mut command, port, probe)
    }

    /// Unbound, which validates what `server` says of `zones`; each comes with a file of its DS.
    pub fn unbound(
        directory: &Path,
        zones: &[(&str, &Path)],
        server: &Server,
        probe: &[u8],
    ) -> Server {
        let port = free_port();
        let work = directory.display();
        let mut config = format!(
            "server:\n interface: 127.0.0.1@{port}\n username: \"\"\n chroot: \"\"\n \
             directory: \"{work}\"\n pidfile: \"{work}/unbound.pid\"\n use-syslog: no\n \
             logfile: \"{work}/unbound.log\"\n do-daemonize: no\n num-threads: 1\n \
             do-not-query-localhost: no\n module-config: \"validator iterator\"\n \
             local-zone: \"test.\" nodefault\n qname-minimisation: no\n \
             aggressive-nsec: no\n harden-below-nxdomain: no\n val-log-level: 2\n \
             edns-buffer-size: 4096\n outgoing-range: 512\n"
        );
        for (_, anchor) in zones {
            config += &format!(" trust-anchor-file: \"{}\"\n", anchor.display());
        }
        config += "remote-control:\n control-enable: no\n";
        for (name, _) in zones {
            config += &format!(
                "stub-zone:\n name: \"{name}\"\n stub-addr: 127.0.0.1@{}\n stub-prime: no\n",
                server.address.port()
            );
        }
        let file = directory.join("unbound.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("unbound");
        command.arg("-d").arg("-c").arg(&file);
        Server::start("unbound", &mut command, port, probe)
    }
}

/// A query; `edns` adds OPT with this size, and DO if its flag is set.
pub fn query(id: u16, name: &[u8], rtype: u16, edns: Option<(u16, bool)>) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
    octets.extend(name);
    octets.extend(rtype.to_be_bytes());
    octets.extend([0, 1]);
    if let Some((size, dnssec_ok)) = edns {
        octets.extend([0, 0, 41]);
        octets.extend(size.to_be_bytes());
        octets.extend([0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    }
    octets
}

/// Asks all `queries` with a window of some dozens; the reply to each.
pub fn ask_all(server: &Server, queries: &[Vec<u8>]) -> Vec<Vec<u8>> {
    // So many of the largest replies fit into a socket buffer of Linux's default size.
    const WINDOW: usize = 48;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut replies = vec![Vec::new(); queries.len()];
    for (start, window) in queries.chunks(WINDOW).enumerate().map(|(i, w)| (i * WINDOW, w)) {
        let mut missing: Vec<usize> = (0..window.len()).collect();
        for _attempt in 0..3 {
            for &i in &missing {
                let mut octets = window[i].clone();
                octets[..2].copy_from_slice(&(i as u16).to_be_bytes());
                socket.send(&octets).unwrap();
            }
            while !missing.is_empty() {
                let mut reply = [0; 65536];
                let Ok(len) = socket.recv(&mut reply) else { break };
                let i = u16::from_be_bytes([reply[0], reply[1]]) as usize;
                if missing.contains(&i) {
                    missing.retain(|&other| other != i);
                    replies[start + i] = reply[..len].to_vec();
                }
            }
        }
        assert!(missing.is_empty(), "{}: no reply to {:?}", server.name, &window[missing[0]]);
    }
    replies
}

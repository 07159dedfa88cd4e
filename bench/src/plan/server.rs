//! The server under test: started on so many cores, asked until it answers, stopped by its number.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ring53::wire::Name;
use ring53::wire::message::Message;

use super::place::Place;

//----------- Template -------------------------------------------------------

/// How a server is started: a command, and its configuration file.
///
/// Both are filled in: `{cores}` (`0,1`), `{count}` of them, `{listen}` (address and port),
/// `{address}`, `{port}`, `{client}` (who asks and takes transfers), `{apex}`, `{zone}` (its file),
/// `{directory}` (for what it writes), `{config}` (its configuration file), `{program}`; for a
/// cache `{upstream}` and `{upstream_port}` (whom it asks), `{cache_mib}` (memory for answers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Words, divided by spaces.
    pub command: String,
    /// The text of the configuration file; empty: none.
    pub config: String,
}

const RING53: &str = r#"version = 1
[server]
listen = ["{listen}"]
cores = [{cores}]
receive_buffer = "8MiB"
state = "{directory}/state"
tcp = { connections = 4096, connections_per_client = 4096 }
"#;

const RING53_ZONE: &str = r#"[[zone]]
name = "{apex}"
file = "{zone}"
allow_transfer = ["{client}"]
"#;

/// All questions come from one address here, and are those of many clients.
const RING53_CACHE: &str = r#"[recursion]
allow = ["{client}"]
outstanding_max = 65536
outstanding_per_client_max = 65536
[cache]
memory = "{cache_mib}MiB"
[[forward]]
zone = "."
to = ["{upstream}:{upstream_port}"]
"#;

/// A forward of its own: then a zone may be below a special-use name, or have private addresses.
const RING53_FORWARD: &str = r#"[[forward]]
zone = "{apex}"
to = ["{upstream}:{upstream_port}"]
"#;

const NSD: &str = r#"server:
  server-count: {count}
  ip-address: {address}
  port: {port}
  username: ""
  zonesdir: "{directory}"
  database: ""
  pidfile: "{directory}/nsd.pid"
  xfrdfile: "{directory}/xfrd.state"
  zonelistfile: "{directory}/zone.list"
  logfile: "{directory}/nsd.log"
  reuseport: yes
  tcp-count: 4096
  rrl-ratelimit: 0
  minimal-responses: yes
  receive-buffer-size: 8388608
  send-buffer-size: 8388608
remote-control:
  control-enable: no
zone:
  name: {apex}
  zonefile: {zone}
  provide-xfr: {client} NOKEY
"#;

const KNOT: &str = r#"server:
  rundir: "{directory}"
  listen: {address}@{port}
  udp-workers: {count}
  tcp-workers: {count}
database:
  storage: "{directory}"
log:
  - target: "{directory}/knot.log"
    any: error
acl:
  - id: generator
    address: {client}
    action: transfer
template:
  - id: default
    storage: "{directory}"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
zone:
  - domain: {apex}
    file: {zone}
    acl: generator
"#;

impl Template {
    /// An authoritative server that is known here: `ring53`, `nsd` or `knot`.
    pub fn of(name: &str) -> Option<Template> {
        let (command, config) = match name {
            "ring53" => return Some(Template::ring53(true, false, false)),
            "nsd" => ("nsd -d -c {config}", NSD),
            "knot" => ("knotd -c {config}", KNOT),
            _ => return None,
        };
        Some(Template { command: command.into(), config: config.into() })
    }

    /// ring53 that serves the zone, is a cache, or both; `asks`: it asks its upstream for the zone.
    pub fn ring53(serves: bool, caches: bool, asks: bool) -> Template {
        let parts = [(serves, RING53_ZONE), (caches, RING53_CACHE), (asks, RING53_FORWARD)];
        let parts = parts.into_iter().filter(|(is_there, _)| *is_there).map(|(_, part)| part);
        let config = std::iter::once(RING53).chain(parts).collect();
        Template { command: "{program} serve --config {config}".into(), config }
    }

    /// Whether it says whom to ask.
    pub fn names_upstream(&self) -> bool {
        [&self.command, &self.config].iter().any(|text| text.contains("{upstream}"))
    }
}

/// Replaces `{key}` by its value; what is in braces and no key stays.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut text = template.to_string();
    for (key, value) in values {
        text = text.replace(&format!("{{{key}}}"), value);
    }
    text
}

//----------- Launch ---------------------------------------------------------

/// At which end a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where the server under test is.
    Server,
    /// Where the generator is.
    Generator,
}

/// What a server keeps of what others say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Whom it asks.
    pub upstream: SocketAddr,
    /// A zone that the upstream has.
    pub zone: Name,
    /// Memory for the answers, in MiB.
    pub memory_mib: u64,
    /// Whether it serves the plan's zone beside.
    pub serves: bool,
}

/// All that is needed to start a server.
#[derive(Clone, Debug)]
pub struct Launch {
    /// How.
    pub template: Template,
    /// The ring53 that `{program}` stands for.
    pub program: PathBuf,
    /// The zone's name.
    pub apex: Name,
    /// The zone's file.
    pub zone: PathBuf,
    /// For what the server writes.
    pub directory: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who asks it.
    pub client: IpAddr,
    /// Where it runs.
    pub side: Side,
    /// What it is as a cache.
    pub cache: Option<Cache>,
}

impl Launch {
    fn values(&self, cores: &[usize]) -> Vec<(&'static str, String)> {
        let list: Vec<String> = cores.iter().map(|core| core.to_string()).collect();
        let path = |path: &Path| path.display().to_string();
        let of_cache = self.cache.iter().flat_map(|cache| {
            [
                ("upstream", cache.upstream.ip().to_string()),
                ("upstream_port", cache.upstream.port().to_string()),
                ("cache_mib", cache.memory_mib.to_string()),
            ]
        });
        let mut values = vec![
            ("cores", list.join(",")),
            ("count", cores.len().to_string()),
            ("listen", self.listen.to_string()),
            ("address", self.listen.ip().to_string()),
            ("port", self.listen.port().to_string()),
            ("client", self.client.to_string()),
            ("apex", self.apex.to_string()),
            ("zone", path(&self.zone)),
            ("directory", path(&self.directory)),
            ("config", path(&self.directory.join("server.conf"))),
            ("program", path(&self.program)),
        ];
        values.extend(of_cache);
        values
    }

    /// Whether it serves the zone.
    pub fn serves(&self) -> bool {
        self.cache.as_ref().is_none_or(|cache| cache.serves)
    }

    /// The zone whose SOA it answers with once it is ready.
    fn awaited(&self) -> &Name {
        match &self.cache {
            Some(cache) if !cache.serves => &cache.zone,
            _ => &self.apex,
        }
    }

    /// The command on these cores; writes the configuration file.
    fn command(&self, cores: &[usize]) -> io::Result<Command> {
        fs::create_dir_all(&self.directory)?;
        let values = self.values(cores);
        let config = fill(&self.template.config, &values);
        fs::write(self.directory.join("server.conf"), config)?;
        let mut words = self.template.command.split_whitespace().map(|word| fill(word, &values));
        let program = words
            .next()
            .ok_or_else(|| io::Error::other("--server-command is empty: say what to start"))?;
        // Whoever ends this process ends the server too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program).args(words);
        Ok(command)
    }
}

//----------- Server ---------------------------------------------------------

/// A server that runs; ended when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its cores.
    pub cores: Vec<usize>,
    log: PathBuf,
}

impl Server {
    /// Starts a server on `cores` and waits until it answers for its zone.
    ///
    /// It inherits the cores, and all its threads and processes with it: none of it runs elsewhere.
    pub fn start(place: &dyn Place, launch: &Launch, cores: &[usize]) -> io::Result<Server> {
        let command = launch.command(cores)?;
        let mut command = match launch.side {
            Side::Server => place.command(command),
            Side::Generator => place.client_command(command),
        };
        let log = launch.directory.join("server.log");
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut set = CpuSet::new();
        cores.iter().try_for_each(|&core| set.set(core))?;
        let own = sched_getaffinity(Pid::from_raw(0))?;
        sched_setaffinity(Pid::from_raw(0), &set).map_err(|error| {
            io::Error::other(format!("cores {cores:?} cannot be used: {error}"))
        })?;
        let child = command.spawn();
        sched_setaffinity(Pid::from_raw(0), &own)?;
        let child = child.map_err(|error| {
            let program = command.get_program().display();
            io::Error::other(format!("{program}: {error}: setpriv starts the server"))
        })?;
        let mut server = Server { child, cores: cores.to_vec(), log };
        let wait = &mut || server.wait(launch);
        place.with_client(wait)?;
        Ok(server)
    }

    fn wait(&mut self, launch: &Launch) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let began = Instant::now();
        let query = soa_query(launch.awaited());
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                let said = self.said();
                return Err(io::Error::other(format!("the server has ended ({status}): {said}")));
            }
            if let Ok(reply) = ask(launch.listen, &query, Duration::from_millis(50))
                && let Some(message) = Message::new(&reply)
                && message.rcode() == 0
                && message.count(1) > 0
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let said = self.said();
        Err(io::Error::other(format!(
            "the server does not answer for {} at {} within {} s: {said}",
            launch.awaited(),
            launch.listen,
            PATIENCE.as_secs()
        )))
    }

    /// The end of what it has said.
    fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it read its zones again: SIGHUP.
    pub fn reload(&self) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.pid() as i32), Signal::SIGHUP)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let began = Instant::now();
        let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM);
        while began.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//----------- Asking ---------------------------------------------------------

/// A query for the SOA of a zone, with RD: a cache asks others for it.
pub fn soa_query(apex: &Name) -> Vec<u8> {
    let mut query = vec![0, 53, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(apex.as_wire());
    query.extend([0, 6, 0, 1]);
    query
}

/// Asks once over UDP.
pub fn ask(server: SocketAddr, query: &[u8], timeout: Duration) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(query)?;
    let mut reply = vec![0; 4096];
    loop {
        let len = socket.recv(&mut reply)?;
        if reply[..len].get(..2) == query.get(..2) {
            reply.truncate(len);
            return Ok(reply);
        }
    }
}

/// The serial in the answer to a query for the SOA.
pub fn serial(reply: &[u8]) -> Option<u32> {
    let message = Message::new(reply)?;
    let record = message.records().ok()?.flatten().find(|record| record.rtype == 6)?;
    // Behind two names, which may be compressed: serial, refresh, retry, expire, minimum.
    let rdata = &message.octets()[record.rdata];
    let at = rdata.len().checked_sub(20)?;
    Some(u32::from_be_bytes(rdata[at..at + 4].try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(template: Template) -> Launch {
        Launch {
            template,
            program: "ring53".into(),
            apex: "example.".parse().unwrap(),
            zone: "a/zone".into(),
            directory: std::env::temp_dir()
                .join(format!("ring53-plan-test-{}", std::process::id())),
            listen: "127.0.0.1:5399".parse().unwrap(),
            client: "127.0.0.1".parse().unwrap(),
            side: Side::Server,
            cache: None,
        }
    }

    #[test]
    fn templates_are_filled_in() {
        for name in ["ring53", "nsd", "knot"] {
            let mut launch = launch(Template::of(name).unwrap());
            launch.directory.set_extension(name);
            let command = launch.command(&[2, 3]).unwrap();
            let config = fs::read_to_string(launch.directory.join("server.conf")).unwrap();
            assert!(config.contains("a/zone") && config.contains("example."), "{config}");
            assert!(config.contains("5399"), "{config}");
            let left = config.replace("{ connections", "").contains('{');
            assert!(!left, "{config}");
            assert!(command.get_args().any(|word| word.to_string_lossy().contains("server.conf")));
            fs::remove_dir_all(&launch.directory).unwrap();
        }
        assert_eq!(Template::of("bind"), None);
    }

    #[test]
    fn a_cache_says_whom_it_asks() {
        let config = |template: Template, serves| {
            let cache = Cache {
                upstream: "127.0.0.1:5353".parse().unwrap(),
                zone: "plan-upstream.net.".parse().unwrap(),
                memory_mib: 96,
                serves,
            };
            let launch = Launch { cache: Some(cache), ..launch(template) };
            assert_eq!(launch.awaited().to_string() == "example.", serves);
            fill(&launch.template.config, &launch.values(&[0]))
        };
        let both = config(Template::ring53(true, true, false), true);
        assert!(both.contains("[[zone]]") && both.contains("memory = \"96MiB\""), "{both}");
        assert!(both.contains("zone = \".\"\nto = [\"127.0.0.1:5353\"]"), "{both}");
        let alone = config(Template::ring53(false, true, true), false);
        assert!(!alone.contains("[[zone]]") && alone.contains("zone = \"example.\""), "{alone}");
        let other = Template { command: "u".into(), config: "{upstream}@{upstream_port}".into() };
        assert!(other.names_upstream() && !Template::of("nsd").unwrap().names_upstream());
        assert_eq!(config(other, false), "127.0.0.1@5353");
    }

    #[test]
    fn a_server_that_does_not_start_says_why() {
        use super::super::place::Loopback;
        let template = |command: &str| Template { command: command.into(), config: String::new() };
        let cores = [0];
        let error = |command: &str| {
            let mut launch = launch(template(command));
            launch.directory.push(command.len().to_string());
            let error = Server::start(&Loopback, &launch, &cores).unwrap_err().to_string();
            let _ = fs::remove_dir_all(&launch.directory);
            error
        };
        assert!(error("there-is-no-such-program").contains("there-is-no-such-program"));
        assert!(error("").contains("--server-command"));
        let ended = error("ls there-is-no-such-file");
        assert!(ended.contains("has ended") && ended.contains("no-such-file"), "{ended}");
    }

    #[test]
    fn a_serial_is_read() {
        let mut reply = soa_query(&"example.".parse().unwrap());
        reply[7] = 1;
        reply.extend(b"\xC0\x0C\0\x06\0\x01\0\0\0\0\0\x1A\x01a\xC0\x0C\xC0\x0C");
        reply.extend([0, 0, 1, 2]);
        reply.extend([0; 16]);
        assert_eq!(serial(&reply), Some(258));
        assert_eq!(serial(&reply[..20]), None);
    }
}

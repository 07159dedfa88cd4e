//! The configuration file: strict TOML, every error with its place and the nearest valid spelling.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::{
    ANSWER_SIZE_DEFAULT, ANSWER_SIZE_MAX, ANSWER_SIZE_MIN, CORES_MAX, IDENTITY_LEN_MAX,
    STREAM_CONNECTIONS_DEFAULT, STREAM_CONNECTIONS_PER_CLIENT_DEFAULT, STREAM_IDLE_DEFAULT,
    STREAM_PROGRESS_DEFAULT, STREAM_QUERIES_DEFAULT, STREAM_QUEUED_DEFAULT, STREAM_THREADS_DEFAULT,
    STREAM_THREADS_MAX,
};
use crate::snapshot::Identity;
use crate::tsig::Keys;
use crate::wire::Name;

use super::keys::{Errors, Table};
use crate::server::stream::places::StreamLimits;

mod cache;
mod forward;
mod recursion;
mod secret;
mod upstream;
mod zone;

use forward::Around;
use zone::{Patterns, Place};

pub use cache::Caching;
pub use forward::Forward;
pub use recursion::{Allow, Recursion, WithoutRd};
pub use upstream::text as upstream_text;
pub use zone::{Catalog, Dnssec, Settings, ZoneConfig};

/// Octets of a socket's receive buffer unless configured: 40 ms of 200,000 queries a second, as
/// the kernel counts them (some 1 KiB each).
const RECEIVE_BUFFER_DEFAULT: usize = 8 << 20;

/// The directory of [`Config::state`] unless configured, beside the configuration.
const STATE_DEFAULT: &str = "state";

//----------- Config ---------------------------------------------------------

/// How datagrams are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PathChoice {
    /// io_uring where it is allowed, otherwise recvmmsg.
    Auto,
    /// io_uring.
    Uring,
    /// recvmmsg and sendmmsg.
    Mmsg,
}

/// Everything that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    /// Empty: every core this process may run on.
    pub cores: Vec<usize>,
    pub path: PathChoice,
    pub user: Option<String>,
    pub identity: Identity,
    pub receive_buffer: usize,
    pub stream: StreamLimits,
    /// Where zones of other servers are kept.
    pub state: PathBuf,
    /// Whether this process may change what is there: only the server may, not who looks at it.
    pub owns_state: bool,
    pub keys: Arc<Keys>,
    pub zones: Vec<ZoneConfig>,
    /// Who may ask for names of others; of use if there are forwards.
    pub recursion: Recursion,
    /// How their answers are kept; `None` without forwards.
    pub caching: Option<Caching>,
    pub forwards: Vec<Forward>,
    /// What is allowed and may not be meant, each with its place.
    pub warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 5300))],
            cores: Vec::new(),
            path: PathChoice::Auto,
            user: None,
            identity: Identity::default(),
            receive_buffer: RECEIVE_BUFFER_DEFAULT,
            stream: StreamLimits {
                threads: STREAM_THREADS_DEFAULT,
                connections: STREAM_CONNECTIONS_DEFAULT,
                connections_per_client: STREAM_CONNECTIONS_PER_CLIENT_DEFAULT,
                idle: STREAM_IDLE_DEFAULT,
                read: STREAM_PROGRESS_DEFAULT,
                write: STREAM_PROGRESS_DEFAULT,
                queued: STREAM_QUEUED_DEFAULT,
                queries: STREAM_QUERIES_DEFAULT,
            },
            state: PathBuf::from(STATE_DEFAULT),
            owns_state: false,
            keys: Arc::default(),
            zones: Vec::new(),
            recursion: Recursion::default(),
            caching: None,
            forwards: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// Reads `file`; the error lists everything that is wrong, a line each.
    pub fn read(file: &Path) -> Result<Config, String> {
        let text = fs::read_to_string(file).map_err(|error| {
            format!("{}: cannot read the configuration: {error}", file.display())
        })?;
        let directory = file.parent().unwrap_or(Path::new(""));
        Config::parse(&file.display().to_string(), &text, directory)
    }

    /// Parses `text`; relative zone files lie in `directory`.
    pub fn parse(file: &str, text: &str, directory: &Path) -> Result<Config, String> {
        let errors = Errors::new(file, text);
        let mut config = Config { state: directory.join(STATE_DEFAULT), ..Config::default() };
        if let Some(root) = errors.parse() {
            let mut root = Table::new(&errors, root, "");
            match root.integer("version", 1, 1) {
                Some(_) => {}
                None if root.has("version") => {}
                None => errors.whole("the key \"version\" is missing: write version = 1"),
            }
            if let Some(mut server) = root.table("server") {
                config.server(&mut server, directory);
                server.finish();
            }
            config.keys = Arc::new(secret::read_all(root.tables("key"), directory));
            let patterns = Patterns::read(root.tables("pattern"), directory, &config.keys);
            let place = Place { directory, keys: &config.keys, patterns: &patterns };
            let mut names = HashSet::new();
            for mut zone in root.tables("zone") {
                let read = ZoneConfig::read(&mut zone, &place);
                if let Some(read) = read {
                    if !names.insert(read.name.clone()) {
                        let name = &read.name;
                        zone.error("name", &format!("zone {name} is named twice: remove one"));
                    }
                    config.zones.push(read);
                }
                zone.finish();
            }
            let all = config.zones.iter().map(|zone| &**zone).chain(patterns.settings());
            for catalog in all.filter_map(|settings| settings.member_of.as_ref()) {
                let is_it = |zone: &ZoneConfig| zone.name == *catalog && zone.is_produced();
                if !config.zones.iter().any(is_it) {
                    errors.whole(&format!(
                        "catalog_member: {catalog} is no zone with catalog = {{ produce = true }}: \
                         add it, or correct the name"
                    ));
                }
            }
            config.resolving(&mut root, directory);
            root.finish();
        }
        config.warnings = errors.warnings();
        errors.into_result(config)
    }

    /// Reads what concerns names of others.
    fn resolving(&mut self, root: &mut Table<'_>, directory: &Path) {
        const NOBODY_ANSWERS: &str = "there is no [[forward]] to answer: add one, or remove it";
        let is_served = |name: &Name| self.zones.iter().any(|zone| zone.name == *name);
        let around = Around { directory, listen: &self.listen, is_served: &is_served };
        self.forwards = forward::read_all(root.tables("forward"), &around);
        let forwards = root.has("forward");
        if let Some(mut table) = root.table("recursion") {
            self.recursion = Recursion::read(&mut table);
            table.finish();
            if !forwards {
                root.error("recursion", NOBODY_ANSWERS);
            }
        }
        let timeout = self.recursion.timeout;
        self.caching = forwards.then(|| Caching::new(timeout));
        if let Some(mut table) = root.table("cache") {
            let caching = Caching::read(&mut table, timeout, &self.state);
            table.finish();
            if forwards {
                self.caching = Some(caching);
            } else {
                root.error("cache", NOBODY_ANSWERS);
            }
        }
    }

    /// What only shows once the command line has been heard: forwards of zones that are served, and
    /// upstreams that are this server, on a machine with the addresses `own`.
    pub fn check_forwards(&self, own: &[IpAddr]) -> Result<(), String> {
        for forward in &self.forwards {
            let name = &forward.zone;
            if self.zones.iter().any(|zone| zone.name == *name) {
                return Err(format!("{name} is forwarded and is a zone here: remove one"));
            }
            let is_own = |address: &SocketAddr| forward::is_listener(&self.listen, own, *address);
            let mut addresses = forward.to.iter().map(|upstream| upstream.address);
            if let Some(address) = addresses.find(is_own) {
                return Err(format!(
                    "the forward of {name} asks {address}, which is this server: write another \
                     address, or change listen"
                ));
            }
        }
        Ok(())
    }

    /// Whether there is something to command: whoever tries the sample finds no new directory.
    pub fn takes_commands(&self) -> bool {
        let moves = |zone: &ZoneConfig| {
            let gives = !zone.rules.transfer.is_empty() || !zone.notify.is_empty();
            gives || zone.is_secondary() || zone.catalog.is_some()
        };
        self.caching.is_some() || self.zones.iter().any(moves)
    }

    fn server(&mut self, server: &mut Table<'_>, directory: &Path) {
        if let Some(listen) = server.list::<SocketAddr>(
            "listen",
            "an address and a port such as \"192.0.2.1:53\" or \"[::]:53\"",
        ) {
            if listen.is_empty() {
                server.error("listen", "expected at least one address and port");
            }
            self.listen = listen;
        }
        if let Some(cores) = server.integers("cores", 0, CORES_MAX as i64 - 1) {
            self.cores = cores.into_iter().map(|core| core as usize).collect();
        }
        let paths =
            [("auto", PathChoice::Auto), ("uring", PathChoice::Uring), ("mmsg", PathChoice::Mmsg)];
        if let Some(path) = server.choice("path", &paths) {
            self.path = path;
        }
        self.user = server.string("user").or(self.user.take());
        if let Some(state) = server.string("state") {
            self.state = directory.join(state);
        }
        let (min, max) = (ANSWER_SIZE_MIN as i64, ANSWER_SIZE_MAX as i64);
        if let Some(size) = server.integer("answer_size_max", min, max) {
            self.identity.answer_size_max = size as usize;
        } else {
            self.identity.answer_size_max = ANSWER_SIZE_DEFAULT;
        }
        self.identity.version = server.text("version", IDENTITY_LEN_MAX);
        self.identity.hostname = server.text("hostname", IDENTITY_LEN_MAX);
        self.identity.id = server.text("id", IDENTITY_LEN_MAX);
        self.identity.nsid = server.text("nsid", IDENTITY_LEN_MAX).map(String::into_bytes);
        if let Some(size) = server.size("receive_buffer", 4 << 10, 1 << 30) {
            self.receive_buffer = size;
        }
        if let Some(mut tcp) = server.table("tcp") {
            if let Some(threads) = tcp.integer("threads", 1, STREAM_THREADS_MAX as i64) {
                self.stream.threads = threads as usize;
            }
            if let Some(connections) = tcp.integer("connections", 1, 1_000_000) {
                self.stream.connections = connections as usize;
            }
            if let Some(connections) = tcp.integer("connections_per_client", 1, 1_000_000) {
                self.stream.connections_per_client = connections as usize;
            }
            for (key, time) in [
                ("idle", &mut self.stream.idle),
                ("read", &mut self.stream.read),
                ("write", &mut self.stream.write),
            ] {
                *time = tcp.duration(key).unwrap_or(*time);
            }
            if let Some(queued) = tcp.size("queued", 1 << 10, 16 << 20) {
                self.stream.queued = queued;
            }
            if let Some(queries) = tcp.integer("queries_per_connection", 1, i64::MAX) {
                self.stream.queries = queries as u64;
            }
            tcp.finish();
        }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse("ring53.toml", text, Path::new("/etc"))
    }

    #[track_caller]
    fn fails(text: &str, expected: &str) {
        let error = parse(text).expect_err(text);
        assert!(error.contains(expected), "{error}\n  does not contain\n{expected}");
    }

    #[test]
    fn a_whole_configuration() {
        let config = parse(
            "version = 1\n[server]\nlisten = [\"0.0.0.0:53\", \"[::]:53\"]\ncores = [0, 1]\n\
             path = \"mmsg\"\nreceive_buffer = \"4MiB\"\nnsid = \"a\"\n\
             tcp = { connections = 10, idle = \"3s\", write = \"2s\", queued = \"1MiB\" }\n\
             [[zone]]\nname = \"example.org.\"\nfile = \"example.org.zone\"\n\
             dnssec = \"strict\"\nzonemd = \"verify\"\nnsec3_iterations_max = 10\n",
        )
        .unwrap();
        let zone = &config.zones[0];
        let policy = (zone.dnssec, zone.zonemd, zone.nsec3_iterations_max);
        assert_eq!(policy, (Dnssec::Strict, true, 10));
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.cores, [0, 1]);
        assert_eq!(config.path, PathChoice::Mmsg);
        assert_eq!(config.receive_buffer, 4 << 20);
        let StreamLimits { idle, read, write, queued, .. } = config.stream;
        assert_eq!([idle, read, write].map(|time| time.as_secs()), [3, 5, 2]);
        assert_eq!(queued, 1 << 20);
        assert_eq!(config.zones[0].file().as_deref(), Some(Path::new("/etc/example.org.zone")));
    }

    #[test]
    fn a_resolver_of_few_words() {
        let config = parse(
            "version = 1\n\
             [recursion]\nallow = [\"127.0.0.0/8\", \"::1\", \"192.168.0.0/16\"]\n\
             [cache]\nmemory = \"512MiB\"\nprefetch = true\nserve_stale = \"1d\"\n\
             [[forward]]\nzone = \".\"\nto = [\"tls://9.9.9.9#dns.quad9.net\", \"1.1.1.1\"]\n\
             [[forward]]\nzone = \"corp.example.\"\nto = [\"10.0.0.53\"]\n",
        )
        .unwrap();
        assert_eq!(config.warnings, [""; 0]);
        assert!(config.takes_commands() && config.zones.is_empty());
        let caching = config.caching.as_ref().unwrap();
        assert_eq!((caching.memory, caching.serve_stale.as_secs()), (512 << 20, 86_400));
        let [root, corp] = &config.forwards[..] else { panic!("two forwards") };
        assert_eq!((root.zone.to_string(), root.to.len()), (".".into(), 2));
        assert_eq!(corp.to[0].address, "10.0.0.53:53".parse().unwrap());
        // Without a forward there is nothing to keep, and nobody to tell.
        let config = parse("version = 1\n").unwrap();
        assert!(config.caching.is_none() && !config.takes_commands());
    }

    /// What the README says of resolving is read, and shows the defaults.
    #[test]
    fn the_readme_shows_the_defaults() {
        let readme = include_str!("../../../README.md");
        let from = readme.find("\n[[forward]]").expect("it shows forwards");
        let tables = readme[from..].split("```").next().unwrap();
        let config = parse(&format!("version = 1{tables}")).unwrap();
        assert_eq!(config.warnings, [""; 0]);
        let recursion = Recursion {
            allow: recursion::Allow::Attached,
            rebind_allow: Vec::new(),
            ..config.recursion.clone()
        };
        assert_eq!(recursion, Recursion::default());
        assert_eq!(config.caching, Some(Caching::new(recursion.timeout)));
        assert_eq!(config.forwards.iter().map(|forward| forward.to.len()).sum::<usize>(), 6);
        let forward = &config.forwards[0];
        assert_eq!(
            (forward.case_randomization, forward.trust_ad, forward.hedge),
            (true, false, true)
        );
    }

    #[test]
    fn a_zone_says_what_its_pattern_does_not() {
        let config = parse(
            "version = 1\n\
             [[pattern]]\nname = \"p\"\nprimaries = [\"192.0.2.1\"]\ndnssec = \"strict\"\n\
             notify = [\"192.0.2.2\"]\nallow_transfer = [\"192.0.2.0/24\"]\n\
             [[pattern]]\nname = \"f\"\nfile = \"zones/%s.zone\"\n\
             [[zone]]\nname = \"a.\"\npattern = \"p\"\n\
             [[zone]]\nname = \"b.\"\npattern = \"p\"\nnotify = []\ndnssec = \"serve\"\n\
             [[zone]]\nname = \"c.\"\npattern = \"p\"\nfile = \"c.zone\"\n\
             [[zone]]\nname = \"D\\\\047e.\"\npattern = \"f\"\n\
             [[zone]]\nname = \"cat.\"\nfile = \"cat\"\n\
             catalog = { pattern = \"p\", groups = { x = \"f\" } }\n",
        )
        .unwrap();
        let [a, b, c, d, catalog] = &config.zones[..] else { panic!("five zones") };
        assert_eq!((a.primaries.len(), a.dnssec, a.notify.len()), (1, Dnssec::Strict, 1));
        assert_eq!((b.primaries.len(), b.dnssec, b.notify.len()), (1, Dnssec::Serve, 0));
        assert!(b.rules.notify.allows([192, 0, 2, 1].into(), None), "its primary tells it");
        assert_eq!((c.primaries.len(), c.file()), (0, Some("/etc/c.zone".into())));
        assert!(c.rules.transfer.allows([192, 0, 2, 9].into(), None));
        assert_eq!(d.file(), Some("/etc/zones/d%2fe.zone".into()));
        let Some(Catalog::Consumed { pattern, groups }) = &catalog.catalog else { panic!() };
        assert_eq!((pattern.primaries.len(), groups["x"].has_file()), (1, true));
    }

    #[test]
    fn errors_name_the_place_and_the_nearest_spelling() {
        for (text, expected) in [
            (
                "version = 1\n[server]\nlistn = []\n",
                "ring53.toml:3:1: unknown key \"listn\": did you mean \"listen\"?",
            ),
            ("version = 2\n", "ring53.toml:1:11: version: expected a number from 1 to 1"),
            ("[server]\n", "ring53.toml: the key \"version\" is missing"),
            (
                "version = 1\n[server]\ncores = [\"a\"]\n",
                "ring53.toml:3:10: cores: expected a number",
            ),
            (
                "version = 1\n[server]\npath = \"urinng\"\n",
                "ring53.toml:3:8: path: expected \"auto\", \"uring\" or \"mmsg\": did you mean \"uring\"?",
            ),
            (
                "version = 1\n[server]\nlisten = [\"1.2.3.4\"]\n",
                "ring53.toml:3:11: listen: expected an address and a port",
            ),
            (
                "version = 1\n[server]\nanswer_size_max = 99\n",
                "ring53.toml:3:19: answer_size_max: expected a number from 512 to 4096",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a..b\"\nfile = \"x\"\n",
                "ring53.toml:3:8: name: expected a domain name",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a\"\n",
                "ring53.toml:2:1: the key \"file\" is missing",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a\"\nprimaries = []\n",
                "ring53.toml:4:13: primaries: expected at least one server",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a\"\nprimaries = [\"192.0.2.1 key k.\"]\n",
                "primaries: no [[key]] is named k.",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a\"\nfile = \"b\"\nprimaries = [\"::1\"]\n",
                "file: a zone comes from its file or from its primaries, not from both",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a\"\nfile = \"b\"\nallow_transfer = [\"any\"]\n",
                "ring53.toml:5:19: allow_transfer: expected an address or prefix",
            ),
            (
                "version = 1\n[[key]]\nname = \"k\"\nalgorithm = \"hmac-sha256\"\nsecret = \"?\"\n",
                "ring53.toml:5:10: secret: expected base64",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a\"\nfile = \"b\"\ncheck_command = []\n",
                "ring53.toml:5:17: check_command: expected a program",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a\"\nfile = \"b\"\ncheck_timeout = \"1s\"\n",
                "ring53.toml:5:17: check_timeout: there is no check_command",
            ),
            ("version = 1\n[server\n", "ring53.toml:2:"),
        ] {
            fails(text, expected);
        }
    }

    #[test]
    fn errors_of_patterns_and_catalogs() {
        // With the root 193 octets and a label of its own.
        let produced = |label: &str| {
            let rest = [63, 63, 63].map(|len| "b".repeat(len)).join(".");
            let name = format!("{label}.{rest}.");
            format!("version = 1\n[[zone]]\nname = \"{name}\"\ncatalog = {{ produce = true }}\n")
        };
        parse(&produced(&"a".repeat(16))).unwrap();
        for (text, expected) in [
            (
                "version = 1\n[[pattern]]\nname = \"mebers\"\nfile = \"%s.zone\"\n\
                 [[zone]]\nname = \"a\"\npattern = \"members\"\n",
                "ring53.toml:7:11: pattern: no [[pattern]] is named \"members\": did you mean \"mebers\"?",
            ),
            (
                "version = 1\n[[pattern]]\nname = \"p\"\nnotfy = []\n",
                "ring53.toml:4:1: unknown key \"notfy\": did you mean \"notify\"?",
            ),
            (
                "version = 1\n[[pattern]]\nname = \"p\"\n[[zone]]\nname = \"c\"\nfile = \"c\"\n\
                 catalog = { pattern = \"p\" }\n",
                "ring53.toml:7:23: pattern: the pattern \"p\" has neither primaries nor a file",
            ),
            (
                "version = 1\n[[zone]]\nname = \"c\"\nfile = \"c\"\ncatalog = {}\n",
                "ring53.toml:5:1: the key \"pattern\" is missing",
            ),
            (
                "version = 1\n[[zone]]\nname = \"c\"\nfile = \"c\"\ncatalog = { produce = true }\n",
                "a catalog that is made here has neither a file nor primaries",
            ),
            (
                "version = 1\n[[zone]]\nname = \"a\"\nfile = \"a\"\ncatalog_member = \"c.\"\n",
                "catalog_member: c. is no zone with catalog = { produce = true }",
            ),
            (
                "version = 1\n[[pattern]]\nname = \"p\"\nfile = \"%s\"\n\
                 [[zone]]\nname = \"c\"\nfile = \"c\"\nallow_update = [\"192.0.2.1\"]\n\
                 catalog = { pattern = \"p\" }\n",
                "ring53.toml:8:16: allow_update: a catalog that is followed is not changed by",
            ),
            (
                "version = 1\n[[pattern]]\nname = \"p\"\nprimaries = [\"192.0.2.1\"]\n\
                 allow_update = [\"192.0.2.1\"]\n[[zone]]\nname = \"c\"\nfile = \"c\"\n\
                 catalog = { pattern = \"p\" }\n",
                "pattern: the pattern \"p\" has allow_update: only a zone from a file is changed",
            ),
            (&produced(&"a".repeat(17)), "name: the name of a catalog made here has at most 210"),
        ] {
            fails(text, expected);
        }
    }
}

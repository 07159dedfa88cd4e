//! What a plan needs before its first load: cores, zones, servers, and what is asked of them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use ring53::wire::Name;

use crate::load::LoadOptions;
use crate::mix::Questions;
use crate::mix::cli::MixOptions;
use crate::mix::profile::Profile;
use crate::ports::free_port;

use super::classes::{Kind, NAMES_MAX, Pool, Shares};
use super::cli::Options;
use super::place::Place;
use super::server::{Cache, Launch, Side, Template};
use super::sorting::{sort, sort_cached};
use super::testbed::{MadeZone, Testbed};
use super::upstream::{Upstream, Upstreams, zone_beside};
use super::zone::{self, ZoneNames};

/// Octets of a cache for an answer of the upstream's own zone, which takes some 64, with room.
const MADE_OCTETS: u64 = 192;
/// For one of real traffic, which may be signed.
const REAL_OCTETS: u64 = 1232;
/// Memory of a cache at least, in MiB.
const CACHE_MIB_MIN: u64 = 64;

/// Memory for so many answers and as many misses beside them, in MiB.
fn cache_mib(answers: u64, octets: u64) -> u64 {
    ((answers * octets * 2) >> 20).max(CACHE_MIB_MIN)
}

/// Hosts of the upstream's zone.
fn names_of(options: &Options) -> u64 {
    options.names.clamp(64, NAMES_MAX as u64)
}

//----------- Role -----------------------------------------------------------

/// What the server has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// It serves the zone.
    pub serves: bool,
    /// It keeps what its upstream says.
    pub caches: bool,
    /// It is asked for what it has to ask for.
    pub misses: bool,
    /// Hosts that its upstream has to have.
    pub names: u64,
}

impl Role {
    /// What the traffic and the attack ask for.
    pub fn of(options: &Options) -> io::Result<Role> {
        let real = options.queries.is_some() || options.profile.is_some();
        let attack = options.attack_class.iter().flat_map(|attack| &attack.classes);
        let own = options.classes.classes.iter().filter(|_| !real);
        let kinds: Vec<Kind> = own.chain(attack).map(|(kind, _)| *kind).collect();
        let has = |wanted: Kind| kinds.contains(&wanted);
        let authority = kinds.iter().find(|kind| !kind.is_of_cache());
        if let (true, Some(kind)) = (options.cached, authority) {
            return Err(io::Error::other(format!(
                "--attack-class {kind}: with --cached the server has no zone: an attack is of \
                 cache-hit or cache-miss"
            )));
        }
        let caches = options.cached || kinds.iter().any(|kind| kind.is_of_cache());
        if caches && options.server_command.is_none() && options.server != "ring53" {
            return Err(io::Error::other(format!(
                "cache-hit, cache-miss, --cached: {} is no cache: --server ring53 is, or another \
                 by --server-command",
                options.server
            )));
        }
        let transfers = !real && options.classes.transfers > 0.0;
        Ok(Role {
            serves: !options.cached && (real || transfers || authority.is_some()),
            caches,
            misses: options.cached || has(Kind::CacheMiss),
            names: if has(Kind::CacheHit) { names_of(options) } else { 0 },
        })
    }
}

//----------- Machine --------------------------------------------------------

/// A folder that goes when this does.
pub struct Folder(pub PathBuf);

impl Folder {
    /// Makes it.
    pub fn new() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("ring53-plan-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The server's and the generator's cores, of those that this process may use.
pub fn cores(options: &Options) -> io::Result<(Vec<usize>, Vec<usize>)> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    let all: Vec<usize> = (0..nix::sched::CpuSet::count())
        .filter(|&core| set.is_set(core).unwrap_or(false))
        .collect();
    let generator = match options.generator_cores.is_empty() {
        true => all[all.len().div_ceil(2)..].to_vec(),
        false => options.generator_cores.clone(),
    };
    let mut server: Vec<usize> =
        all.iter().copied().filter(|core| !generator.contains(core)).collect();
    if let Some(most) = options.cores_max {
        server.truncate(most as usize);
    }
    if server.is_empty() || generator.is_empty() {
        return Err(io::Error::other(format!(
            "cores {all:?}: the server needs one and the generator another; --generator-cores says \
             which"
        )));
    }
    Ok((server, generator))
}

/// 1, 2, 4, and so on, and the most.
pub fn core_counts(most: u32) -> Vec<u32> {
    let mut counts: Vec<u32> = std::iter::successors(Some(1u32), |count| count.checked_mul(2))
        .take_while(|&n| n < most)
        .collect();
    counts.push(most);
    counts
}

/// The template of the server.
fn template(options: &Options, role: &Role) -> io::Result<Template> {
    let Some(command) = &options.server_command else {
        return match options.server.as_str() {
            "ring53" => Ok(Template::ring53(role.serves, role.caches, options.cached)),
            name => Template::of(name).ok_or_else(|| io::Error::other("unknown server")),
        };
    };
    let read = |path: &PathBuf| {
        fs::read_to_string(path)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
    };
    let config = options.server_config.as_ref().map(read).transpose()?.unwrap_or_default();
    let template = Template { command: command.clone(), config };
    match (role.caches, template.names_upstream()) {
        (true, false) => Err(io::Error::other(
            "--server-command, --server-config: {upstream} is in neither: say to the cache that it \
             is to ask {upstream} at port {upstream_port} for everything",
        )),
        (false, true) => Err(io::Error::other(
            "--server-command: {upstream} is who a cache asks, and no class is of a cache: add \
             cache-hit or cache-miss to --class, or --cached to real traffic",
        )),
        _ => Ok(template),
    }
}

/// The zone's name and file, in a copy that reading again may change; what it was made of.
fn zone_in(options: &Options, path: &Path) -> io::Result<(Name, Option<MadeZone>)> {
    if let (Some(zone), Some(apex)) = (&options.zone, &options.apex) {
        fs::copy(zone, path)
            .map_err(|error| io::Error::other(format!("{}: {error}", zone.display())))?;
        return Ok((apex.clone(), None));
    }
    let dnssec = [Kind::Signed, Kind::SignedNxdomain];
    let attack = options.attack_class.iter().flat_map(|shares| &shares.classes);
    let mut kinds = options.classes.classes.iter().chain(attack);
    let signed = kinds.any(|(kind, _)| dnssec.contains(kind));
    let names = options.names.max(64);
    zone::make(path, names, signed)?;
    let apex = "example.".parse().map_err(io::Error::other)?;
    Ok((apex, Some(MadeZone { names, signed })))
}

/// A machine with all that the server needs, the server itself not started; what its zone has.
pub fn testbed(
    options: &Options,
    role: &Role,
    folder: &Path,
    place: Box<dyn Place>,
    server_cores: Vec<usize>,
    generator_cores: &[usize],
) -> io::Result<(Testbed, ZoneNames)> {
    let template = template(options, role)?;
    let path = folder.join("zone");
    let (apex, made) = zone_in(options, &path)?;
    let names = ZoneNames::read(&apex, &path)?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("ring53"),
    };
    let (generator_cores, core) = divided(generator_cores, role.misses);
    let mut upstream = None;
    if role.caches {
        let with = Upstreams {
            program: &program,
            directory: folder.join("upstream"),
            listen: listening(place.client())?,
            core,
            zone: &zone_beside(&apex, role.serves)?,
            names: role.names,
            beside: options.cached.then_some((&apex, path.as_path())),
        };
        upstream = Some(Upstream::start(&*place, &with)?);
    }
    let cache = upstream.as_ref().map(|upstream| Cache {
        upstream: upstream.listen,
        zone: upstream.zone.clone(),
        memory_mib: cache_mib(role.names, MADE_OCTETS),
        serves: role.serves,
    });
    // Now that the upstream has its own.
    let listen = listening(place.server())?;
    let launch = Launch {
        template,
        program,
        apex,
        zone: path,
        directory: folder.join("server"),
        listen,
        client: place.client(),
        side: Side::Server,
        cache,
    };
    let load = LoadOptions {
        cores: generator_cores,
        ports: options.ports,
        run: options.run,
        connections: options.connections,
        timeout: Duration::from_millis(500),
        ..LoadOptions::to(listen)
    };
    let mut testbed = Testbed::new(place, launch, server_cores, load, made);
    testbed.upstream = upstream;
    Ok((testbed, names))
}

/// Cores that remain for the generator, and the upstream's: the last, which is its alone if it is
/// asked (`misses`) and there are others.
fn divided(cores: &[usize], misses: bool) -> (Vec<usize>, usize) {
    let core = cores.last().copied().unwrap_or_default();
    let kept = if misses { cores.len().saturating_sub(1).max(1) } else { cores.len() };
    (cores[..kept.min(cores.len())].to_vec(), core)
}

/// Where a server listens at `ip`: a free port, or 53 where the address is another machine's.
fn listening(ip: std::net::IpAddr) -> io::Result<SocketAddr> {
    match free_port(ip) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok((ip, 53).into()),
        at => at,
    }
}

/// The mix of a query file or of a profile on the zone, all else as it is without options.
fn mix(options: &Options, launch: &Launch) -> io::Result<Option<MixOptions>> {
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        mix: MixOptions,
    }
    let (seed, apex) = (options.seed.to_string(), launch.apex.to_string());
    let mut words: Vec<&OsStr> = vec!["plan".as_ref(), "--seed".as_ref(), seed.as_ref()];
    match (&options.queries, &options.profile) {
        (Some(queries), _) => words.extend(["--queries".as_ref(), queries.as_os_str()]),
        (None, Some(profile)) => {
            words.extend(["--profile".as_ref(), profile.as_os_str(), "--zone".as_ref()]);
            words.extend([launch.zone.as_os_str(), "--apex".as_ref(), apex.as_ref()]);
        }
        (None, None) => return Ok(None),
    }
    Alone::try_parse_from(words).map(|alone| Some(alone.mix)).map_err(io::Error::other)
}

//----------- Pools ----------------------------------------------------------

/// What is asked of each class, the shares of the classes, and what is to be said of them. The
/// server answers then, and has in its cache what is to be there.
pub fn pools(
    options: &Options,
    testbed: &mut Testbed,
    names: &ZoneNames,
) -> io::Result<(Shares, Vec<String>)> {
    let traffic = mix(options, &testbed.launch)?;
    let mut notes = Vec::new();
    let shares = match traffic {
        Some(mix) if options.cached => {
            let (shares, note) = cached(options, testbed, &mix.questions()?)?;
            notes.push(note);
            shares
        }
        Some(mix) => {
            testbed.serve(1)?;
            let (questions, listen) = (mix.questions()?, testbed.launch.listen);
            let mut found = Ok((Shares::default(), Vec::new()));
            let mut work = || {
                found = sort(&questions, listen, options.tcp_per_query);
                Ok(())
            };
            testbed.place.with_client(&mut work)?;
            let (shares, pools) = found?;
            testbed.pools = pools;
            shares
        }
        None => {
            testbed.serve(1)?;
            for &(kind, _) in &options.classes.classes {
                add(options, testbed, names, kind)?;
            }
            options.classes.clone()
        }
    };
    let mut shares = shares;
    // What only an attack asks has no share of the traffic.
    for &(kind, _) in options.attack_class.iter().flat_map(|attack| &attack.classes) {
        if testbed.pools.iter().all(|pool| pool.kind != kind) {
            add(options, testbed, names, kind)?;
            shares.classes.push((kind, 0.0));
        }
    }
    testbed.fill()?;
    Ok((shares, notes))
}

/// Adds the pool of a class, which the server has to have.
fn add(options: &Options, testbed: &mut Testbed, names: &ZoneNames, kind: Kind) -> io::Result<()> {
    let pool = match &testbed.upstream {
        Some(upstream) if kind.is_of_cache() => {
            Pool::of_upstream(kind, &upstream.zone, names_of(options))
        }
        _ => Pool::of_zone(kind, &testbed.launch.apex, names)?,
    };
    confirm(testbed, &pool)?;
    testbed.pools.push(pool);
    Ok(())
}

fn confirm(testbed: &Testbed, pool: &Pool) -> io::Result<()> {
    testbed.place.with_client(&mut || pool.confirm(testbed.launch.listen))
}

/// The pools of real traffic that a cache is asked, which then has been asked all that comes again.
fn cached(
    options: &Options,
    testbed: &mut Testbed,
    questions: &Questions,
) -> io::Result<(Shares, String)> {
    let zone = testbed.upstream.as_ref().map(|upstream| upstream.zone.clone());
    let zone = zone.unwrap_or_else(|| testbed.launch.apex.clone());
    let mut sorted = sort_cached(questions, &zone, options.tcp_per_query);
    let answers = sorted.pools.iter().filter(|pool| pool.filled);
    let answers: usize = answers.map(|pool| pool.messages().count()).sum();
    if let Some(cache) = &mut testbed.launch.cache {
        cache.memory_mib = cache_mib(answers as u64, REAL_OCTETS);
    }
    testbed.serve(1)?;
    testbed.pools = std::mem::take(&mut sorted.pools);
    testbed.fill().map_err(|error| {
        let zone = &testbed.launch.apex;
        io::Error::other(format!("{error}: is it a name of {zone} that it answers for?"))
    })?;
    sorted.pools = std::mem::take(&mut testbed.pools);
    let shares = sorted.shares()?;
    testbed.pools = sorted.pools;
    for pool in &testbed.pools {
        confirm(testbed, pool)?;
    }
    let first = sorted.first as f64 / sorted.queries.max(1) as f64;
    let mut note = format!(
        "{}: {:.1} % of the queries are the first of their question, and counted as cache-miss: a \
         cache that was empty when they began and forgets nothing asks for them",
        questions.text(),
        first * 100.0
    );
    if let Some(path) = &options.profile {
        let original = Profile::read(path)?.reuse.first;
        note += &format!("; {:.1} % in the profile's original", original * 100.0);
    }
    Ok((shares, note))
}

#[cfg(test)]
mod tests {
    use super::super::cli::tests::options;
    use super::*;

    #[test]
    fn cores_double() {
        assert_eq!(core_counts(1), [1]);
        assert_eq!(core_counts(4), [1, 2, 4]);
        assert_eq!(core_counts(6), [1, 2, 4, 6]);
    }

    #[test]
    fn servers_listen_where_they_can() {
        assert!(listening([127, 0, 0, 1].into()).unwrap().port() > 53);
        assert_eq!(listening([192, 0, 2, 1].into()).unwrap().port(), 53);
    }

    #[test]
    fn classes_say_what_the_server_is() {
        let role = |words: &[&str]| Role::of(&options(words).unwrap());
        let plain = role(&[]).unwrap();
        assert_eq!(plain, Role { serves: true, caches: false, misses: false, names: 0 });
        let both = role(&["--class", "hit=1,cache-hit=1", "--names", "500"]).unwrap();
        assert_eq!(both, Role { serves: true, caches: true, misses: false, names: 500 });
        let cache = role(&["--class", "cache-hit=1,cache-miss=1", "--names", "9999999"]).unwrap();
        assert!(!cache.serves && cache.misses && cache.names == 1 << 20);
        let attack = role(&["--target", "1e6", "--attack-class", "cache-miss=1"]).unwrap();
        assert_eq!(attack, Role { serves: true, caches: true, misses: true, names: 0 });
        let with_zone = role(&["--class", "cache-hit=1,transfer=2"]).unwrap();
        assert!(with_zone.serves);
        let real = role(&["--profile", "x", "--cached"]).unwrap();
        assert_eq!(real, Role { serves: false, caches: true, misses: true, names: 0 });
        assert!(!role(&["--profile", "x"]).unwrap().caches);
        assert!(options(&["--cached"]).is_err(), "of what?");
        assert!(options(&["--profile", "x", "--class", "hit=1"]).is_err());

        let error = |words: &[&str]| role(words).unwrap_err().to_string();
        let nsd = error(&["--server", "nsd", "--class", "cache-hit=1"]);
        assert!(nsd.contains("nsd is no cache") && nsd.contains("--server-command"), "{nsd}");
        let words = ["--profile", "x", "--cached", "--target", "1", "--attack-class", "nxdomain=1"];
        assert!(error(&words).contains("the server has no zone"));
    }

    #[test]
    fn a_template_names_the_upstream_if_there_is_one() {
        let made = |words: &[&str]| {
            let options = options(words).unwrap();
            template(&options, &Role::of(&options).unwrap()).map_err(|error| error.to_string())
        };
        let ring53 = made(&["--class", "cache-hit=1"]).unwrap();
        assert!(ring53.names_upstream() && !ring53.config.contains("[[zone]]"));
        assert!(!made(&[]).unwrap().names_upstream());
        let other = ["--server-command", "cached -f {upstream}"];
        let error = made(&other).unwrap_err();
        assert!(error.contains("no class is of a cache"), "{error}");
        assert!(made(&[&other[..], &["--class", "cache-miss=1"]].concat()).is_ok());
        let error = made(&["--server-command", "cached", "--class", "cache-miss=1"]).unwrap_err();
        assert!(error.contains("{upstream} is in neither"), "{error}");
    }

    #[test]
    fn the_upstream_has_a_core_of_its_own_where_that_can_be() {
        assert_eq!(divided(&[2, 3], true), (vec![2], 3));
        assert_eq!(divided(&[2, 3], false), (vec![2, 3], 3));
        assert_eq!(divided(&[1], true), (vec![1], 1));
    }

    #[test]
    fn a_cache_has_room() {
        assert_eq!(cache_mib(100_000, MADE_OCTETS), 64);
        assert_eq!(cache_mib(1 << 20, MADE_OCTETS), 384);
    }
}

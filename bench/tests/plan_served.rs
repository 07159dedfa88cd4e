//! The plan's testbed against a real ring53 over loopback: short, at rates that any machine sustains.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ring53_bench::load::LoadOptions;
use ring53_bench::plan::classes::{Kind, Pool};
use ring53_bench::plan::lab::{Lab, Offer};
use ring53_bench::plan::place::Loopback;
use ring53_bench::plan::server::{Cache, Launch, Side, Template};
use ring53_bench::plan::sorting::sort;
use ring53_bench::plan::testbed::{MadeZone, Testbed};
use ring53_bench::plan::upstream::{Upstream, Upstreams, zone_beside};
use ring53_bench::plan::zone::{self, ZoneNames};
use ring53_bench::ports::free_port;

/// The server beside this test's programs; built if it is not there.
fn program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_ring53-bench")).with_file_name("ring53");
    if !program.exists() {
        // All of the workspace: a part of it would have other features, and be built anew.
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--bins"])
            .args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] })
            .status()
            .unwrap();
        assert!(status.success());
    }
    program
}

/// A port of loopback that nobody has.
fn free() -> SocketAddr {
    free_port(Ipv4Addr::LOCALHOST.into()).unwrap()
}

fn load(listen: SocketAddr) -> LoadOptions {
    LoadOptions {
        ports: 4,
        connections: 2,
        timeout: Duration::from_secs(2),
        late: Duration::from_secs(1),
        ..LoadOptions::to(listen)
    }
}

#[test]
fn a_real_server_is_started_measured_reloaded_and_stopped() {
    let folder = std::env::temp_dir().join(format!("ring53-plan-served-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("zone");
    zone::make(&path, 4000, false).unwrap();
    let apex = "example.".parse().unwrap();
    let names = ZoneNames::read(&apex, &path).unwrap();
    let listen = free();
    let launch = Launch {
        template: Template::of("ring53").unwrap(),
        program: program(),
        apex: apex.clone(),
        zone: path,
        directory: folder.join("server"),
        listen,
        client: IpAddr::from(Ipv4Addr::LOCALHOST),
        side: Side::Server,
        cache: None,
    };
    let made = Some(MadeZone { names: 4000, signed: false });
    let mut testbed = Testbed::new(Box::new(Loopback), launch, vec![0], load(listen), made);
    testbed.serve(1).unwrap();
    let kinds = [Kind::Hit, Kind::Nxdomain, Kind::Referral];
    testbed.pools = kinds.map(|kind| Pool::of_zone(kind, &apex, &names).unwrap()).to_vec();
    for pool in &testbed.pools {
        pool.confirm(listen).unwrap();
    }
    assert!(testbed.receive_buffers().is_none_or(|octets| octets > 65536.0));

    // Each class has its rcode and its size, and all of it costs core time.
    let mut offer = Offer {
        label: "test".into(),
        shares: vec![0.6, 0.3, 0.1],
        cores: 1,
        rate: 2000.0,
        seconds: 0.5,
        transfers: 0.0,
        reload: false,
        seed: 1,
    };
    let run = testbed.run(&offer).unwrap();
    assert!(run.counts.good > run.counts.scheduled / 2, "{:?}", run.counts);
    let nxdomain = run.rcodes["NXDOMAIN"] as f64 / run.counts.answered as f64;
    assert!((nxdomain - 0.3).abs() < 0.1, "{:?}", run.rcodes);
    let server = run.server.unwrap();
    assert!(server.busy > 0.0 && server.busy < 1.0 && server.memory_mib > 1.0, "{server:?}");
    assert!(server.core_us > 0.1, "{server:?}");

    // Beside transfers and a reload it answers too.
    offer.transfers = 5.0;
    offer.reload = true;
    let run = testbed.run(&offer).unwrap();
    assert!(run.counts.good > run.counts.scheduled / 2, "{:?}", run.counts);
    let cost = testbed.transfers(0.2).unwrap();
    assert!(cost.core_us > 0.0 && cost.octets > 4000.0 * 16.0, "{cost:?}");

    // Mixes of real traffic are sorted into the classes they were made of.
    let mix = ring53_bench::plan::classes::questions(&testbed.pools, &[0.5, 0.4, 0.1], 3);
    let (shares, pools) = sort(&mix, listen, false).unwrap();
    let found: Vec<Kind> = shares.classes.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(found, kinds);
    for ((_, share), known) in shares.classes.iter().zip([0.5, 0.4, 0.1]) {
        assert!((share - known).abs() < 0.02, "{shares:?}");
    }
    assert_eq!(pools.len(), 3);

    let points = testbed.memory().unwrap();
    assert!(points.is_sorted_by_key(|point| point.records), "{points:?}");
    let last = points.last().unwrap();
    assert_eq!(last.records, names.records);
    assert!(last.resident_mib > 1.0 && last.reload_mib.unwrap() >= last.resident_mib);
    drop(testbed);
    std::fs::remove_dir_all(&folder).unwrap();
}

//----------- Caches ---------------------------------------------------------

/// What the running server tells of its cache and of whom it asks.
fn told(folder: &Path, words: &[&str]) -> serde_json::Value {
    let config = folder.join("server/server.conf");
    let output = Command::new(program()).args(words).arg("--config").arg(config).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How many questions it has sent to its upstream.
fn sent(folder: &Path) -> u64 {
    told(folder, &["upstreams", "--json"])["upstreams"][0]["sent"].as_u64().unwrap()
}

fn hits(folder: &Path) -> u64 {
    told(folder, &["cache", "stats", "--json"])["cache"]["hits"].as_u64().unwrap()
}

fn offer(shares: [f64; 3]) -> Offer {
    Offer {
        label: "test".into(),
        shares: shares.to_vec(),
        cores: 1,
        rate: 1000.0,
        seconds: 0.5,
        transfers: 0.0,
        reload: false,
        seed: 1,
    }
}

#[test]
fn hits_come_from_the_cache_and_misses_from_the_upstream() {
    const NAMES: u64 = 500;
    let folder = std::env::temp_dir().join(format!("ring53-plan-cached-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("zone");
    zone::make(&path, 100, false).unwrap();
    let apex = "example.".parse().unwrap();
    let names = ZoneNames::read(&apex, &path).unwrap();
    let with = Upstreams {
        program: &program(),
        directory: folder.join("upstream"),
        listen: free(),
        core: 0,
        zone: &zone_beside(&apex, true).unwrap(),
        names: NAMES,
        beside: None,
    };
    let upstream = Upstream::start(&Loopback, &with).unwrap();
    let listen = free();
    let launch = Launch {
        template: Template::ring53(true, true, false),
        program: program(),
        apex: apex.clone(),
        zone: path,
        directory: folder.join("server"),
        listen,
        client: IpAddr::from(Ipv4Addr::LOCALHOST),
        side: Side::Server,
        cache: Some(Cache {
            upstream: upstream.listen,
            zone: upstream.zone.clone(),
            memory_mib: 64,
            serves: true,
        }),
    };
    let mut testbed = Testbed::new(Box::new(Loopback), launch, vec![0], load(listen), None);
    testbed.serve(1).unwrap();
    let of_cache = |kind| Pool::of_upstream(kind, &upstream.zone, NAMES);
    testbed.pools = vec![
        Pool::of_zone(Kind::Hit, &apex, &names).unwrap(),
        of_cache(Kind::CacheHit),
        of_cache(Kind::CacheMiss),
    ];
    for pool in &testbed.pools {
        pool.confirm(listen).unwrap();
    }
    // What an authority says is no answer of a cache.
    let error = testbed.pools[1].confirm(upstream.listen).unwrap_err().to_string();
    assert!(error.contains("none of a cache"), "{error}");
    testbed.upstream = Some(upstream);

    // The first load finds every name in the cache: nobody else is asked.
    testbed.fill().unwrap();
    let filled = sent(&folder);
    assert!(filled >= NAMES, "{filled}");
    let mut run = |shares: [f64; 3]| {
        let run = testbed.run(&offer(shares)).unwrap();
        assert!(run.counts.good > run.counts.scheduled / 2, "{:?}", run.counts);
        assert_eq!(run.counts.wrong, 0, "{:?}", run.rcodes);
        assert_eq!(run.rcodes["NOERROR"], run.counts.answered);
        run.counts
    };
    let before = hits(&folder);
    let counts = run([0.0, 1.0, 0.0]);
    assert_eq!(sent(&folder), filled);
    assert!(hits(&folder) - before >= counts.good, "{counts:?}");
    // Authority is beside it, and asks nobody either.
    run([1.0, 0.0, 0.0]);
    assert_eq!(sent(&folder), filled);

    // Each miss reaches the upstream.
    let counts = run([0.0, 0.0, 1.0]);
    let missed = sent(&folder) - filled;
    assert!(missed >= counts.good && missed <= 2 * counts.sent, "{missed} of {counts:?}");
    // What misses may have taken the place of is asked for again, before the load.
    let before = (hits(&folder), sent(&folder));
    let counts = run([0.0, 1.0, 0.0]);
    let after = (hits(&folder), sent(&folder));
    assert!(after.0 - before.0 >= NAMES + counts.good, "{before:?} {after:?} {counts:?}");
    // All was still there; what is asked shows that the upstream is reached.
    assert!((1..NAMES / 10).contains(&(after.1 - before.1)), "{before:?} {after:?}");
    // Another start begins with nothing, and ends with all of it in the cache.
    assert_eq!(testbed.memory().unwrap().len(), 2);
    let counts = testbed.run(&offer([0.0, 1.0, 0.0])).unwrap().counts;
    let asked = sent(&folder);
    assert!((NAMES..NAMES + NAMES / 2).contains(&asked), "{asked}");
    assert!(hits(&folder) >= counts.good, "{counts:?}");
    drop(testbed);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Plans on loopback at a rate that ends no search: the plan is not whole, its report is written.
fn low(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let report = folder.join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_ring53-bench"))
        .args(["plan", "--names", "300", "--no-reloads", "--quiet", "--place", "loopback"])
        .args(["--cores-max", "1", "--rounds", "1", "--seconds", "0.2", "--ceiling", "none"])
        .args(["--rate-start", "500", "--rate-max", "500", "--slo", "p50<450ms,loss<40%"])
        .arg("--json")
        .arg(&report)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = std::fs::read(&report).unwrap_or_else(|_| panic!("{said}"));
    serde_json::from_slice(&text).unwrap()
}

/// The names of the classes that were measured, with their shares.
fn classes(report: &serde_json::Value) -> Vec<(&str, f64)> {
    let classes = report["plan"]["classes"].as_array().unwrap().iter();
    classes
        .map(|class| (class["name"].as_str().unwrap(), class["share"].as_f64().unwrap()))
        .collect()
}

/// The loads of a class: in the best most queries were answered, in none wrongly.
fn assert_answered(report: &serde_json::Value, class: &str) {
    let of = |run: &&serde_json::Value| run["label"] == format!("class {class}");
    let runs: Vec<_> = report["runs"].as_array().unwrap().iter().filter(of).collect();
    let count = |run: &serde_json::Value, name: &str| run["counts"][name].as_u64().unwrap();
    let most = |run: &&serde_json::Value| count(run, "good") * 2 > count(run, "scheduled");
    assert!(runs.iter().any(most), "{class}: {}", report["notes"]);
    assert!(runs.iter().all(|run| count(run, "wrong") == 0), "{class}: {}", report["notes"]);
}

/// The notes of a report in one text.
fn notes(report: &serde_json::Value) -> String {
    report["notes"].to_string()
}

#[test]
fn real_traffic_is_planned_as_a_cache_sees_it() {
    let folder = std::env::temp_dir().join(format!("ring53-plan-real-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("zone");
    zone::make(&path, 400, false).unwrap();
    // 300 names, of which 100 come twice and one that does not exist comes four times: 301 are
    // first, 103 come again.
    let mut queries = String::new();
    for at in (0..300).chain(0..100) {
        queries += &format!("h{at}.example. A\n");
    }
    queries += &"nothing.example. A\n".repeat(4);
    std::fs::write(folder.join("queries"), &queries).unwrap();
    let word = |name: &str| folder.join(name).display().to_string();
    let arguments = ["--cached", "--zone", &word("zone"), "--apex", "example.", "--queries"];
    let report = low(&folder, &[&arguments[..], &[&word("queries")]].concat());
    assert_eq!(classes(&report), [("cache-hit", 103.0 / 404.0), ("cache-miss", 301.0 / 404.0)]);
    assert_answered(&report, "cache-hit");
    assert_answered(&report, "cache-miss");
    let hits = report["runs"].as_array().unwrap().iter();
    let nxdomain = hits.filter_map(|run| run["rcodes"]["NXDOMAIN"].as_u64()).sum::<u64>();
    assert!(nxdomain > 0, "the traffic's own questions come again");
    let notes = notes(&report);
    assert!(notes.contains("74.5 % of the queries are the first"), "{notes}");
    assert!(notes.contains("the server has no zone"), "{notes}");
    // Names that nobody answers for are no traffic of this cache.
    let stray = "www.example.org. A\n".repeat(50);
    std::fs::write(folder.join("queries"), stray).unwrap();
    let _ = std::fs::remove_file(folder.join("report.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_ring53-bench"))
        .args(["plan", "--quiet", "--place", "loopback", "--cores-max", "1", "--ceiling", "none"])
        .args(arguments)
        .arg(word("queries"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is it a name of example."), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn any_cache_can_be_planned() {
    let installed = Command::new("unbound").arg("-V").output();
    if installed.is_err() {
        eprintln!("skipped: unbound is not installed");
        return;
    }
    let folder = std::env::temp_dir().join(format!("ring53-plan-other-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("unbound.conf");
    std::fs::write(&config, UNBOUND).unwrap();
    let config = config.display().to_string();
    let report = low(
        &folder,
        &[
            "--class",
            "cache-hit=0.6,cache-miss=0.4",
            "--server-command",
            "unbound -d -c {config}",
            "--server-config",
            &config,
        ],
    );
    assert_eq!(classes(&report), [("cache-hit", 0.6), ("cache-miss", 0.4)]);
    assert_answered(&report, "cache-hit");
    assert_answered(&report, "cache-miss");
    std::fs::remove_dir_all(&folder).unwrap();
}

const UNBOUND: &str = r#"server:
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  logfile: ""
  num-threads: {count}
  module-config: "iterator"
  interface: {address}@{port}
  do-ip6: no
  access-control: {client} allow
  do-not-query-localhost: no
  minimal-responses: yes
  msg-cache-size: {cache_mib}m
  rrset-cache-size: {cache_mib}m
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: {upstream}@{upstream_port}
"#;

#[test]
fn a_command_that_cannot_plan_says_so() {
    let error = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ring53-bench"))
            .args(["plan", "--names", "64", "--no-reloads", "--quiet"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let ended = error(&["--generator-cores", "1", "--server-command", "false"]);
    assert!(ended.contains("has ended"), "{ended}");
    let cache = error(&["--class", "cache-miss=1", "--server", "knot"]);
    assert!(cache.contains("knot is no cache"), "{cache}");
    let alone = error(&["--class", "cache-hit=1", "--server-command", "false"]);
    assert!(alone.contains("{upstream} is in neither"), "{alone}");
    let all = error(&["--generator-cores", "0,1,2,3,4,5,6,7,8,9", "--cores-max", "0"]);
    assert!(all.contains("--generator-cores"), "{all}");
}

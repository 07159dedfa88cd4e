//! The plan's testbed against a real ring53 over loopback: short, at rates that any machine sustains.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ring53_bench::load::LoadOptions;
use ring53_bench::plan::classes::{Kind, Pool, sort};
use ring53_bench::plan::lab::{Lab, Offer};
use ring53_bench::plan::place::Loopback;
use ring53_bench::plan::server::{Launch, Template};
use ring53_bench::plan::testbed::{MadeZone, Testbed};
use ring53_bench::plan::zone::{self, ZoneNames};

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

#[test]
fn a_real_server_is_started_measured_reloaded_and_stopped() {
    let folder = std::env::temp_dir().join(format!("ring53-plan-served-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("zone");
    zone::make(&path, 4000, false).unwrap();
    let apex = "example.".parse().unwrap();
    let names = ZoneNames::read(&apex, &path).unwrap();
    let listen = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let launch = Launch {
        template: Template::of("ring53").unwrap(),
        program: program(),
        apex: apex.clone(),
        zone: path,
        directory: folder.join("server"),
        listen,
        client: IpAddr::from(Ipv4Addr::LOCALHOST),
    };
    let load = LoadOptions {
        ports: 4,
        connections: 2,
        timeout: Duration::from_secs(2),
        late: Duration::from_secs(1),
        ..LoadOptions::to(listen)
    };
    let made = Some(MadeZone { names: 4000, signed: false });
    let mut testbed = Testbed::new(Box::new(Loopback), launch, vec![0], load, made);
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
    let cache = error(&["--class", "cache-miss=1"]);
    assert!(cache.contains("needs a server with a cache"), "{cache}");
    let all = error(&["--generator-cores", "0,1,2,3,4,5,6,7,8,9", "--cores-max", "0"]);
    assert!(all.contains("--generator-cores"), "{all}");
}

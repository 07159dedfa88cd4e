//! ring53, over each of its packet paths.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use super::{Contender, Place, Role, command, hang_up, pinned, said};
use crate::compare::upstream::{self, Carrier, FAR, FAR_ZONE, NEAR, SERVER_NAME};

/// Over io_uring.
pub const URING: Contender = Contender {
    name: "ring53",
    title: "ring53",
    role: Role::Authority,
    asks: &[],
    programs: &["ring53"],
    settings: "one core, path uring",
    version,
    prepare: |place| prepare(place, "uring"),
    reload: hang_up,
};

/// Over recvmmsg and sendmmsg.
pub const MMSG: Contender = Contender {
    name: "mmsg",
    title: "ring53, recvmmsg",
    settings: "one core, path mmsg",
    prepare: |place| prepare(place, "mmsg"),
    ..URING
};

/// As a cache that forwards. Its process has the one core: what resolves shares it with what
/// answers.
pub const CACHE: Contender = Contender {
    name: "ring53-cache",
    title: "ring53, cache",
    role: Role::Cache,
    asks: &[Carrier::Udp, Carrier::Tls, Carrier::Https],
    settings: "one core for all of it, path uring, no limits of outstanding questions but its own",
    prepare: prepare_cache,
    ..URING
};

fn version() -> io::Result<String> {
    said("ring53", "--version", "ring53")
}

fn prepare(place: &Place, path: &str) -> io::Result<Command> {
    let mut text = format!(
        "version = 1\n[server]\nlisten = [\"{}:53\"]\ncores = [{}]\npath = \"{path}\"\n\
         tcp = {{ connections_per_client = 1000 }}\n",
        place.address, place.core
    );
    for (name, file) in &place.zones.files {
        let _ = write!(text, "[[zone]]\nname = \"{name}\"\nfile = \"{}\"\n", file.display());
    }
    let file = place.write("ring53.toml", &text)?;
    let mut command = command("ring53")?;
    command.args(["serve", "--config"]).arg(file);
    Ok(command)
}

/// An answer of these zones takes some 64 octets, and 11 of the table.
const CACHE_OCTETS_PER_NAME: u64 = 128;
const CACHE_MIB_MIN: u64 = 16;

fn prepare_cache(place: &Place) -> io::Result<Command> {
    let (address, core) = (place.address, place.core);
    // It takes what it is given, room for misses beside all names included.
    let memory = ((place.zones.names * CACHE_OCTETS_PER_NAME) >> 20).max(CACHE_MIB_MIN);
    // All questions come from one address here, and are those of many clients.
    let mut text = format!(
        "version = 1\n[server]\nlisten = [\"{address}:53\"]\ncores = [{core}]\npath = \"uring\"\n\
         [recursion]\nallow = [\"10.53.0.0/16\"]\noutstanding_max = 65536\n\
         outstanding_per_client_max = 65536\n[cache]\nmemory = \"{memory}MiB\"\n\
         [[forward]]\nzone = \"{FAR_ZONE}\"\nto = [\"{FAR}\"]\n\
         [[forward]]\nzone = \".\"\n"
    );
    let carrier = place.zones.shape.carrier().unwrap_or(Carrier::Udp);
    let _ = match carrier {
        Carrier::Udp => writeln!(text, "to = [\"{NEAR}\"]"),
        Carrier::Tls => writeln!(text, "to = [\"tls://{NEAR}#{SERVER_NAME}\"]"),
        Carrier::Https => writeln!(text, "to = [\"https://{NEAR}/dns-query#{SERVER_NAME}\"]"),
    };
    if carrier != Carrier::Udp {
        let _ = writeln!(text, "ca = \"{}\"", upstream::authority(place.zones).display());
    }
    let file = place.write("ring53.toml", &text)?;
    let mut command = pinned("ring53", core)?;
    command.args(["serve", "--config"]).arg(file);
    Ok(command)
}

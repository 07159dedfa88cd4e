//! PowerDNS with its bind backend.

use std::fmt::Write as _;
use std::io;
use std::process::{Command, Stdio};

use super::{Contender, Place, Role, command, said};

/// PowerDNS with one receiver that asks the backend itself, and with its caches.
pub const CONTENDER: Contender = Contender {
    name: "powerdns",
    title: "PowerDNS",
    role: Role::Authority,
    asks: &[],
    programs: &["pdns_server", "pdns_control", "pdnsutil"],
    settings: "bind backend, one receiver, one distributor; packet cache (20 s) and query caches \
               on, as they are by default: what is asked again is answered from them",
    version: || said("pdns_server", "--version", "PowerDNS"),
    prepare,
    reload,
};

/// Zones that one command names: arguments have bounds.
const ZONES_MAX: usize = 500;

fn prepare(place: &Place) -> io::Result<Command> {
    let work = place.directory.display();
    let mut list = String::new();
    for (name, file) in &place.zones.files {
        let (name, file) = (name.trim_end_matches('.'), file.display());
        let _ = writeln!(list, "zone \"{name}\" {{ type native; file \"{file}\"; }};");
    }
    place.write("zones.conf", &list)?;
    let database = match place.zones.is_signed() {
        true => format!("{work}/dnssec.db"),
        false => String::new(),
    };
    let text = format!(
        "launch=bind\nbind-config={work}/zones.conf\nbind-dnssec-db={database}\n\
         local-address={}\nlocal-port=53\nsocket-dir={work}\ndaemon=no\nguardian=no\n\
         receiver-threads=1\ndistributor-threads=1\nreuseport=yes\nloglevel=3\n\
         log-dns-queries=no\nquery-logging=no\nsecurity-poll-suffix=\nmax-tcp-connections=1000\n",
        place.address
    );
    place.write("pdns.conf", &text)?;
    if place.zones.is_signed() {
        tool(place, &["create-bind-db", &database])?;
        for (name, _) in &place.zones.files {
            tool(place, &["set-nsec3", name, "1 0 0 -"])?;
            tool(place, &["set-presigned", name])?;
        }
    }
    let mut command = command("pdns_server")?;
    command.arg(format!("--config-dir={work}"));
    Ok(command)
}

fn tool(place: &Place, arguments: &[&str]) -> io::Result<()> {
    let mut command = command("pdnsutil")?;
    command.arg(format!("--config-dir={}", place.directory.display())).args(arguments);
    finish(&mut command)
}

fn reload(place: &Place, _process: u32) -> io::Result<()> {
    for zones in place.zones.files.chunks(ZONES_MAX) {
        let mut command = command("pdns_control")?;
        command.arg(format!("--socket-dir={}", place.directory.display())).arg("bind-reload-now");
        command.args(zones.iter().map(|(name, _)| name.trim_end_matches('.')));
        finish(&mut command)?;
    }
    Ok(())
}

fn finish(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_string();
    Err(io::Error::other(format!("{}: {said}", command.get_program().display())))
}

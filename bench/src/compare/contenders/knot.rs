//! Knot DNS.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use super::{Contender, Place, Role, command, hang_up, said};

/// Knot with one worker for each transport.
pub const CONTENDER: Contender = Contender {
    name: "knot",
    title: "Knot",
    role: Role::Authority,
    asks: &[],
    programs: &["knotd"],
    settings: "udp-workers 1, tcp-workers 1, no journal",
    version: || said("knotd", "--version", "knotd"),
    prepare,
    reload: hang_up,
};

fn prepare(place: &Place) -> io::Result<Command> {
    let work = place.directory.display();
    let mut text = format!(
        "server:\n  rundir: \"{work}\"\n  listen: {}@53\n  udp-workers: 1\n  tcp-workers: 1\n  \
         tcp-max-clients: 1000\n\
         database:\n  storage: \"{work}\"\n\
         log:\n  - target: \"{work}/knot.log\"\n    any: error\n\
         template:\n  - id: default\n    storage: \"{work}\"\n    zonefile-sync: -1\n    \
         zonefile-load: whole\n    journal-content: none\nzone:\n",
        place.address
    );
    for (name, file) in &place.zones.files {
        let _ = write!(text, "  - domain: {name}\n    file: \"{}\"\n", file.display());
    }
    let file = place.write("knot.conf", &text)?;
    let mut command = command("knotd")?;
    command.arg("-c").arg(file);
    Ok(command)
}

//! NSD.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use super::{Contender, Place, Role, command, hang_up, said};

/// NSD with one server process.
pub const CONTENDER: Contender = Contender {
    name: "nsd",
    title: "NSD",
    role: Role::Authority,
    asks: &[],
    programs: &["nsd"],
    settings: "server-count 1, reuseport, buffers of 8 MiB, no database file",
    version: || said("nsd", "-v", "NSD"),
    prepare,
    reload: hang_up,
};

fn prepare(place: &Place) -> io::Result<Command> {
    let work = place.directory.display();
    let mut text = format!(
        "server:\n  server-count: 1\n  ip-address: {}\n  username: \"\"\n  zonesdir: \"{work}\"\n  \
         database: \"\"\n  pidfile: \"{work}/nsd.pid\"\n  xfrdfile: \"{work}/xfrd.state\"\n  \
         zonelistfile: \"{work}/zone.list\"\n  logfile: \"{work}/nsd.log\"\n  reuseport: yes\n  \
         rrl-ratelimit: 0\n  minimal-responses: yes\n  tcp-count: 1000\n  \
         receive-buffer-size: 8388608\n  send-buffer-size: 8388608\n\
         remote-control:\n  control-enable: no\n",
        place.address
    );
    for (name, file) in &place.zones.files {
        let _ = write!(text, "zone:\n  name: {name}\n  zonefile: \"{}\"\n", file.display());
    }
    let file = place.write("nsd.conf", &text)?;
    let mut command = command("nsd")?;
    command.args(["-d", "-c"]).arg(file);
    Ok(command)
}

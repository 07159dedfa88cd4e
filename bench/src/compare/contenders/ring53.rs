//! ring53, over each of its packet paths.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use super::{Contender, Place, Role, command, hang_up, said};

/// Over io_uring.
pub const URING: Contender = Contender {
    name: "ring53",
    title: "ring53",
    role: Role::Authority,
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

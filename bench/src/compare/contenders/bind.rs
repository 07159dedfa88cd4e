//! BIND.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use super::{Contender, Place, Role, command, hang_up, said};

/// BIND with one worker.
pub const CONTENDER: Contender = Contender {
    name: "bind",
    title: "BIND",
    role: Role::Authority,
    asks: &[],
    programs: &["named"],
    settings: "-n 1, minimal-responses, no recursion, buffers of 8 MiB, logs only errors",
    version: || said("named", "-v", "BIND"),
    prepare,
    reload: hang_up,
};

fn prepare(place: &Place) -> io::Result<Command> {
    let work = place.directory.display();
    let mut text = format!(
        "options {{\n  directory \"{work}\"; pid-file none; session-keyfile none; lock-file none;\n  \
         managed-keys-directory \"{work}\"; querylog no; recursion no; allow-query {{ any; }};\n  \
         listen-on port 53 {{ {}; }}; listen-on-v6 {{ none; }}; notify no; reuseport yes;\n  \
         minimal-responses yes; dnssec-validation no; max-cache-size 4m; tcp-clients 1000;\n  \
         udp-receive-buffer 8388608; udp-send-buffer 8388608;\n}};\ncontrols {{ }};\n\
         logging {{ channel errors {{ file \"{work}/errors.log\"; severity error; }};\n  \
         category default {{ errors; }}; }};\n",
        place.address
    );
    for (name, file) in &place.zones.files {
        let file = file.display();
        let _ = writeln!(text, "zone \"{name}\" {{ type primary; file \"{file}\"; }};");
    }
    let file = place.write("named.conf", &text)?;
    let mut command = command("named")?;
    command.args(["-f", "-n", "1", "-c"]).arg(file);
    Ok(command)
}

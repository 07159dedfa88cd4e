//! dnsmasq.

use std::io;
use std::process::Command;

use super::{Contender, Place, Role, hang_up, pinned, said};
use crate::compare::upstream::{Carrier, FAR, FAR_ZONE, NEAR};

/// dnsmasq, which has one thread.
pub const CONTENDER: Contender = Contender {
    name: "dnsmasq",
    title: "dnsmasq",
    role: Role::Cache,
    asks: &[Carrier::Udp],
    programs: &["dnsmasq"],
    settings: "no-resolv, no-hosts, dns-forward-max 16384; a cache-size above all names, which old \
               releases cut to 10,000",
    version: || said("dnsmasq", "--version", "Dnsmasq version"),
    prepare,
    reload: hang_up,
};

fn prepare(place: &Place) -> io::Result<Command> {
    let (address, work) = (place.address, place.directory.display());
    let (answers, far) = (place.cache_answers(), FAR_ZONE.trim_end_matches('.'));
    let text = format!(
        "listen-address={address}\nbind-interfaces\nport=53\nno-resolv\nno-hosts\nno-poll\n\
         user=root\npid-file={work}/dnsmasq.pid\nlog-facility={work}/dnsmasq.log\n\
         cache-size={answers}\ndns-forward-max=16384\nserver={NEAR}\nserver=/{far}/{FAR}\n"
    );
    let file = place.write("dnsmasq.conf", &text)?;
    let mut command = pinned("dnsmasq", place.core)?;
    command.arg("--keep-in-foreground").arg(format!("--conf-file={}", file.display()));
    Ok(command)
}

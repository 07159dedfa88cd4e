//! Unbound, forwarding.

use std::io;
use std::process::Command;

use super::{Contender, Place, Role, hang_up, pinned, said};
use crate::compare::upstream::{self, Carrier, FAR, FAR_ZONE, NEAR, SERVER_NAME};

/// Unbound with one thread, without validation.
pub const CONTENDER: Contender = Contender {
    name: "unbound",
    title: "Unbound",
    role: Role::Cache,
    asks: &[Carrier::Udp, Carrier::Tls],
    programs: &["unbound"],
    settings: "num-threads 1, module iterator, minimal-responses, one slab, so-reuseport, buffers \
               of 8 MiB, outgoing-range 8192, num-queries-per-thread 4096",
    version: || said("unbound", "-V", "Version"),
    prepare,
    reload: hang_up,
};

fn prepare(place: &Place) -> io::Result<Command> {
    let (address, work) = (place.address, place.directory.display());
    let octets = place.cache_octets();
    let (bundle, tls, near) = match place.zones.shape.carrier() {
        Some(Carrier::Tls) => {
            let authority = upstream::authority(place.zones);
            let bundle = format!("  tls-cert-bundle: \"{}\"\n", authority.display());
            (bundle, "yes", format!("{NEAR}@853#{SERVER_NAME}"))
        }
        _ => (String::new(), "no", NEAR.to_string()),
    };
    let text = format!(
        "server:\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{work}\"\n  \
         pidfile: \"\"\n  use-syslog: no\n  logfile: \"{work}/unbound.log\"\n  verbosity: 0\n  \
         statistics-interval: 0\n  num-threads: 1\n  module-config: \"iterator\"\n  \
         interface: {address}\n  do-ip6: no\n  access-control: 10.53.0.0/16 allow\n  \
         so-reuseport: yes\n  so-rcvbuf: 8m\n  so-sndbuf: 8m\n  minimal-responses: yes\n  \
         prefetch: no\n  do-not-query-localhost: no\n  msg-cache-size: {octets}\n  \
         rrset-cache-size: {octets}\n  msg-cache-slabs: 1\n  rrset-cache-slabs: 1\n  \
         infra-cache-slabs: 1\n  key-cache-slabs: 1\n  outgoing-range: 8192\n  \
         num-queries-per-thread: 4096\n  outgoing-num-tcp: 100\n  incoming-num-tcp: 1000\n{bundle}\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \"{FAR_ZONE}\"\n  forward-addr: {FAR}\n\
         forward-zone:\n  name: \".\"\n  forward-tls-upstream: {tls}\n  forward-addr: {near}\n"
    );
    let file = place.write("unbound.conf", &text)?;
    let mut command = pinned("unbound", place.core)?;
    command.args(["-d", "-c"]).arg(file);
    Ok(command)
}

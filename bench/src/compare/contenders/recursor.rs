//! The PowerDNS Recursor, forwarding.

use std::io;
use std::process::Command;

use super::{Contender, Place, Role, hang_up, pinned, said};
use crate::compare::upstream::{Carrier, FAR, FAR_ZONE, NEAR};

/// The Recursor with one thread, and its packet cache.
pub const CONTENDER: Contender = Contender {
    name: "recursor",
    title: "PowerDNS Recursor",
    role: Role::Cache,
    asks: &[Carrier::Udp],
    programs: &["pdns_recursor"],
    settings: "threads=1, no distributor, dnssec=off, packet cache with the TTLs of the answers, \
               max-mthreads=16384",
    version: || said("pdns_recursor", "--version", "PowerDNS"),
    prepare,
    reload: hang_up,
};

fn prepare(place: &Place) -> io::Result<Command> {
    let (address, work) = (place.address, place.directory.display());
    let (answers, far) = (place.cache_answers(), FAR_ZONE.trim_end_matches('.'));
    let text = format!(
        "local-address={address}\nlocal-port=53\nconfig-dir={work}\nsocket-dir={work}\ndaemon=no\n\
         write-pid=no\ndisable-syslog=yes\nloglevel=3\nquiet=yes\nallow-from=10.53.0.0/16\n\
         dont-query=\nthreads=1\npdns-distributes-queries=no\nreuseport=yes\ndnssec=off\n\
         forward-zones-recurse=.={NEAR}, {far}={FAR}\nmax-cache-entries={answers}\n\
         max-packetcache-entries={answers}\npacketcache-ttl=86400\n\
         max-mthreads=16384\nmax-tcp-clients=1000\nsecurity-poll-suffix=\n\
         statistics-interval=0\n"
    );
    place.write("recursor.conf", &text)?;
    let mut command = pinned("pdns_recursor", place.core)?;
    command.arg(format!("--config-dir={work}"));
    Ok(command)
}

//! dnsdist with a packet cache.

use std::io;
use std::process::Command;

use super::{Contender, Place, Role, hang_up, pinned, said};
use crate::compare::upstream::{self, Carrier, FAR, FAR_ZONE, MISS_ZONE, NEAR, SERVER_NAME};

/// dnsdist with one thread that listens, one backend, and its packet cache.
pub const CONTENDER: Contender = Contender {
    name: "dnsdist",
    title: "dnsdist",
    role: Role::Cache,
    asks: &[Carrier::Udp, Carrier::Tls, Carrier::Https],
    programs: &["dnsdist"],
    settings: "one listener, a packet cache of one shard, one backend with four sockets over UDP",
    version: || said("dnsdist", "--version", "dnsdist"),
    prepare,
    reload: hang_up,
};

fn prepare(place: &Place) -> io::Result<Command> {
    let (address, answers) = (place.address, place.cache_answers());
    let tls = || {
        let authority = upstream::authority(place.zones);
        format!(
            "tls=\"openssl\", subjectName=\"{SERVER_NAME}\", caStore=\"{}\", \
             validateCertificates=true",
            authority.display()
        )
    };
    let near = match place.zones.shape.carrier() {
        Some(Carrier::Tls) => format!("address=\"{NEAR}:853\", {}", tls()),
        Some(Carrier::Https) => {
            format!("address=\"{NEAR}:443\", {}, dohPath=\"/dns-query\"", tls())
        }
        _ => format!("address=\"{NEAR}:53\", sockets=4"),
    };
    // Its cache is locked by shards; one thread needs no more than one.
    let text = format!(
        "setLocal(\"{address}:53\")\nsetACL({{\"10.53.0.0/16\"}})\nsetSecurityPollSuffix(\"\")\n\
         setMaxUDPOutstanding(65535)\n\
         newServer({{{near}, checkName=\"up.{MISS_ZONE}\"}})\n\
         newServer({{address=\"{FAR}:53\", pool=\"far\", checkName=\"up.{FAR_ZONE}\"}})\n\
         cache = newPacketCache({answers}, {{maxTTL=86400, numberOfShards=1}})\n\
         getPool(\"\"):setCache(cache)\ngetPool(\"far\"):setCache(cache)\n\
         addAction(\"{FAR_ZONE}\", PoolAction(\"far\"))\n"
    );
    let file = place.write("dnsdist.conf", &text)?;
    let mut command = pinned("dnsdist", place.core)?;
    command.args(["--supervised", "--disable-syslog", "-C"]).arg(file);
    Ok(command)
}

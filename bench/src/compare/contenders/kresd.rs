//! Knot Resolver, forwarding.

use std::io;
use std::process::Command;

use super::{Contender, Place, Role, hang_up, pinned, said};
use crate::compare::upstream::{Carrier, FAR, FAR_ZONE, NEAR};

/// Knot Resolver with one instance, without validation.
pub const CONTENDER: Contender = Contender {
    name: "kresd",
    title: "Knot Resolver",
    role: Role::Cache,
    asks: &[Carrier::Udp],
    programs: &["kresd"],
    settings: "one instance, policy.FORWARD without trust anchors (policy.STUB keeps for 5 s what an \
               authority says), no module that is not needed",
    version: || said("kresd", "--version", "Knot Resolver"),
    prepare,
    reload: hang_up,
};

fn prepare(place: &Place) -> io::Result<Command> {
    let (address, octets) = (place.address, place.cache_octets());
    let text = format!(
        "log_level('err')\nnet.ipv6 = false\nnet.listen('{address}', 53, {{ kind = 'dns' }})\n\
         trust_anchors.remove('.')\nmodules.unload('ta_update')\n\
         modules.unload('ta_signal_query')\nmodules.unload('priming')\n\
         modules.unload('detect_time_skew')\nmodules.unload('detect_time_jump')\n\
         cache.size = {octets}\n\
         policy.add(policy.suffix(policy.FORWARD({{'{FAR}'}}), {{todname('{FAR_ZONE}')}}))\n\
         policy.add(policy.all(policy.FORWARD({{'{NEAR}'}})))\n"
    );
    let file = place.write("kresd.conf", &text)?;
    let mut command = pinned("kresd", place.core)?;
    command.arg("--noninteractive").arg("--config").arg(file).arg(place.directory);
    Ok(command)
}

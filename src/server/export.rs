//! `ring53 zone export`: a zone as text, in canonical order, the SOA first.
//!
//! It reads what a start of the server would read: the file of a zone that has one, otherwise what
//! is kept of other servers' zones. Nothing that was taken from others is newer than that.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use crate::wire::{LowerName, Name, rtype};
use crate::zone::Zone;
use crate::zone::records::{Owned, Place};
use crate::zone::text::write_rdata;

use super::config::{Config, ZoneConfig};
use super::cores;
use super::zones::catalogs::Catalogs;
use super::zones::{ZoneSet, hash_key};

/// Writes the zone `name` of `config` to `out`.
pub fn export(mut config: Config, name: &Name, out: &mut dyn Write) -> Result<(), String> {
    let is_it = |zone: &ZoneConfig| zone.name == *name;
    if !config.zones.iter().any(is_it)
        && let Some(member) = Catalogs::of(&config).member(name)
    {
        config.zones.push(member);
    }
    config.zones.retain(is_it);
    let Some(zone) = config.zones.first_mut() else {
        return Err(format!("zone {name} is not configured, and no catalog lists it"));
    };
    // Its own records are wanted, not those that it lists.
    if zone.is_consumed() {
        Arc::make_mut(&mut zone.settings).catalog = None;
    }
    let mut zones = ZoneSet::new(hash_key()?);
    drop(zones.load(&config, cores::allowed().len()));
    let zone = zones.tracked().into_iter().find_map(|tracked| tracked.zone);
    let Some(zone) = zone else { return Err(format!("zone {name} cannot be loaded")) };
    write(&zone, out).map_err(|error| format!("cannot write: {error}"))
}

/// Writes all records as text, in canonical order.
pub fn write(zone: &Zone, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let mut places: Vec<(Vec<u8>, Place<'_>)> =
        zone.places().map(|place| (canonical(&zone.owner_of(place)), place)).collect();
    places.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, place) in places {
        let mut rrsets = zone.rrsets_of(place);
        rrsets.sort_by_key(|rrset| (rrset.rtype != rtype::SOA, rrset.rtype));
        for rrset in rrsets {
            rrset_text(&rrset, &mut out)?;
        }
    }
    out.flush()
}

fn rrset_text(rrset: &Owned<'_>, out: &mut dyn Write) -> io::Result<()> {
    let owner = Name::from_wire(rrset.owner.as_wire()).expect("an owner is a name");
    let records = rrset.records.iter().map(|record| (rrset.rtype, record));
    let signatures = rrset.signatures.iter().map(|record| (rtype::RRSIG, record));
    for (kind, record) in records.chain(signatures) {
        let (kind_name, text) = (rtype::name(kind), write_rdata(kind, &record.rdata));
        writeln!(out, "{owner} {} IN {kind_name} {text}", record.ttl)?;
    }
    Ok(())
}

/// Octets whose order is the canonical one of names (RFC 4034, 6.1): labels from the top, each
/// ended by a zero, which in a label is written as two octets.
fn canonical(name: &LowerName) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for depth in 1..=name.depth() {
        let label = &name.as_wire()[name.suffix_at(depth) + 1..name.suffix_at(depth - 1)];
        for &octet in label {
            match octet {
                0 | 1 => key.extend_from_slice(&[1, octet + 1]),
                _ => key.push(octet),
            }
        }
        key.push(0);
    }
    key
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rfc_4034() {
        // RFC 4034, 6.1: its example.
        let names = [
            "example.",
            "a.example.",
            "yljkjljk.a.example.",
            "Z.a.example.",
            "zABC.a.EXAMPLE.",
            "z.example.",
            "\\001.z.example.",
            "*.z.example.",
            "\\200.z.example.",
        ];
        let keys = names.map(|text| {
            let mut name = LowerName::new();
            name.read(text.parse::<Name>().unwrap().as_wire()).unwrap();
            canonical(&name)
        });
        assert!(keys.is_sorted(), "{keys:?}");
    }
}

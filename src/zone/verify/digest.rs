//! The digest of a whole zone (RFC 8976).

use ring::digest::{Algorithm, Context, SHA384, SHA512};

use crate::wire::{LowerName, rtype};
use crate::zone::Zone;
use crate::zone::order::canonical_key;
use crate::zone::records::{Place, expand, make_canonical};

use super::Findings;

/// SIMPLE (RFC 8976, 2.2.2): the only scheme there is.
const SIMPLE: u8 = 1;

/// Checks the ZONEMD of `zone`, which may be `required`.
pub fn check(zone: &Zone, required: bool, findings: &mut Findings<'_>) {
    let apex = &zone.lower_apex();
    let Some(rrset) = zone.node(zone.apex_at()).rrset(rtype::ZONEMD) else {
        if required {
            findings.error(apex, rtype::ZONEMD, "a ZONEMD record: the configuration asks for one");
        }
        return;
    };
    let mut verified = false;
    let mut faults = Vec::new();
    for record in expand(rrset, apex) {
        let Some((&[a, b, c, d, scheme, hash], digest)) = record.rdata.split_first_chunk() else {
            faults.push("a whole ZONEMD record".to_string());
            continue;
        };
        let algorithm = match (scheme, hash) {
            (SIMPLE, 1) => &SHA384,
            (SIMPLE, 2) => &SHA512,
            _ => {
                let expected = format!("a digest that can be checked, not of {scheme} {hash}");
                findings.warning(apex, rtype::ZONEMD, expected);
                continue;
            }
        };
        if u32::from_be_bytes([a, b, c, d]) != zone.serial() {
            faults.push(format!("a digest of serial {} (RFC 8976, 4)", zone.serial()));
        } else if of_zone(zone, algorithm) != digest {
            faults.push("the digest of this zone (RFC 8976, 4): its records differ".to_string());
        } else {
            verified = true;
        }
    }
    // One that is right is enough.
    if !verified {
        faults.into_iter().for_each(|expected| findings.error(apex, rtype::ZONEMD, expected));
    }
}

/// The digest of all records in canonical order, but for ZONEMD at the apex and its signatures.
fn of_zone(zone: &Zone, algorithm: &'static Algorithm) -> Vec<u8> {
    let mut places: Vec<(Box<[u8]>, Place<'_>)> = zone
        .places()
        .map(|place| {
            let owner = zone.owner_of(place);
            let relative = &owner.as_wire()[..owner.len() - zone.apex_len()];
            (canonical_key(relative).into(), place)
        })
        .collect();
    places.sort_by(|a, b| a.0.cmp(&b.0));
    let mut context = Context::new(algorithm);
    for name in places.chunk_by(|a, b| a.0 == b.0) {
        let owner = &zone.owner_of(name[0].1);
        let mut records: Vec<(u16, Vec<u8>, u32)> = Vec::new();
        for set in name.iter().flat_map(|&(_, place)| zone.rrsets_of(place)) {
            if set.rtype == rtype::ZONEMD && owner.as_wire() == zone.apex_wire() {
                continue;
            }
            let mut take = |kind, record: &super::Expanded| {
                let mut rdata = record.rdata.clone();
                make_canonical(kind, &mut rdata);
                records.push((kind, rdata, record.ttl));
            };
            set.records.iter().for_each(|record| take(set.rtype, record));
            set.signatures.iter().for_each(|record| take(rtype::RRSIG, record));
        }
        records.sort();
        records.dedup_by(|a, b| (a.0, &a.1) == (b.0, &b.1));
        for (kind, rdata, ttl) in &records {
            update(&mut context, owner, *kind, *ttl, rdata);
        }
    }
    context.finish().as_ref().to_vec()
}

fn update(context: &mut Context, owner: &LowerName, kind: u16, ttl: u32, rdata: &[u8]) {
    context.update(owner.as_wire());
    context.update(&kind.to_be_bytes());
    context.update(&[0, 1]);
    context.update(&ttl.to_be_bytes());
    context.update(&(rdata.len() as u16).to_be_bytes());
    context.update(rdata);
}

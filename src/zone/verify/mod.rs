//! What a careful operator wants to know of a signed zone before it serves: whether a validator
//! will believe it, now and tomorrow.
//!
//! | of | error | warning |
//! | --- | --- | --- |
//! | signatures | missing, expired, early, wrong | of no key, over nothing, soon to expire |
//! | algorithms | | one that signs not everything, one that cannot be checked |
//! | NSEC, NSEC3 | a name without one, a wrong next name, wrong types | one that denies nothing |
//! | keys | signatures, but no DNSKEY | CDS or CDNSKEY of no key |
//! | ZONEMD | a digest that is not the zone's | a scheme or algorithm that cannot be checked |

mod chain;
mod digest;
mod signature;

use std::thread;

use crate::limits::DIAGNOSTICS_MAX;
use crate::wire::{LowerName, Name, rtype};

use super::node::flag;
use super::records::{Expanded, Owned, Place};
use super::{Denial, Diagnostic, Node, Severity, Zone};
use signature::{Checked, Key, Signature, is_before};

/// Signatures that expire within this time are worth a word: most signers renew a week before.
pub const EXPIRES_SOON_SECONDS: u32 = 3 * 24 * 3600;

/// Collects findings about one zone.
struct Findings<'a> {
    file: &'a str,
    /// Apart, so that no number of warnings hides an error.
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl<'a> Findings<'a> {
    fn new(file: &'a str) -> Findings<'a> {
        Findings { file, errors: Vec::new(), warnings: Vec::new() }
    }

    fn add(&mut self, severity: Severity, owner: &LowerName, rtype: u16, expected: String) {
        let list = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if list.len() >= DIAGNOSTICS_MAX {
            return;
        }
        let name = Name::from_wire(owner.as_wire()).map_or_else(|_| "?".into(), |n| n.to_string());
        list.push(Diagnostic {
            severity,
            file: self.file.into(),
            line: 0,
            column: 0,
            text: format!("{name} {}", rtype::name(rtype)),
            expected,
        });
    }

    fn error(&mut self, owner: &LowerName, rtype: u16, expected: impl Into<String>) {
        self.add(Severity::Error, owner, rtype, expected.into());
    }

    fn into_diagnostics(self) -> Vec<Diagnostic> {
        let Findings { mut errors, mut warnings, .. } = self;
        errors.sort_by(|a, b| a.text.cmp(&b.text));
        warnings.sort_by(|a, b| a.text.cmp(&b.text));
        errors.append(&mut warnings);
        errors
    }

    fn warning(&mut self, owner: &LowerName, rtype: u16, expected: impl Into<String>) {
        self.add(Severity::Warning, owner, rtype, expected.into());
    }
}

/// What to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Keys, signatures, NSEC and NSEC3.
    pub signatures: bool,
    /// ZONEMD, which must then be there.
    pub digest: bool,
}

/// Everything that is wrong with the signatures and proofs of `zone` at `now`, in seconds since
/// 1970.
pub fn verify(
    zone: &Zone,
    file: &str,
    now: u32,
    threads: usize,
    checks: Checks,
) -> Vec<Diagnostic> {
    let apex = &zone.lower_apex();
    let apex_node = zone.node(zone.apex_at());
    let mut findings = Findings::new(file);
    let keys = keys(zone, apex_node);
    let is_signed = checks.signatures && zone.is_signed();
    if checks.signatures && !is_signed && !keys.is_empty() {
        findings.warning(apex, rtype::DNSKEY, "signatures: the zone has a key and none");
    }
    if is_signed && keys.is_empty() {
        findings.error(apex, rtype::DNSKEY, "a DNSKEY for the signatures of the zone");
    }
    if is_signed {
        check_denial(zone, &mut findings);
        child_keys(zone, apex_node, &keys, &mut findings);
        signatures(zone, &keys, now, threads, &mut findings);
        chain::check(zone, &mut findings);
    }
    if checks.digest || checks.signatures {
        digest::check(zone, checks.digest, &mut findings);
    }
    findings.into_diagnostics()
}

/// As [`verify`], of a zone that was amended: only what has changed since `before`, which was found
/// good, is looked at, as long as that tells all. A digest is of all records.
pub fn verify_amended(
    zone: &Zone,
    before: &Zone,
    file: &str,
    now: u32,
    threads: usize,
    checks: Checks,
) -> Vec<Diagnostic> {
    let all = || verify(zone, file, now, threads, checks);
    let apex = |zone: &Zone| keys(zone, zone.node(zone.apex_at()));
    let (own, known) = (apex(zone), apex(before));
    let same_keys = own.iter().map(|key| &key.rdata).eq(known.iter().map(|key| &key.rdata));
    let Some((names, blocks)) = zone.news_since(before).filter(|_| same_keys) else {
        return all();
    };
    if checks.digest || !checks.signatures || !zone.is_signed() {
        return all();
    }
    let mut findings = Findings::new(file);
    check_denial(zone, &mut findings);
    child_keys(zone, zone.node(zone.apex_at()), &own, &mut findings);
    let stays = |node: &Node<'_>| node.flags() & flag::GONE == 0;
    let nodes = names.iter().map(|&at| zone.node(at)).filter(stays).map(Place::Node);
    let places = nodes.chain(blocks.iter().map(|&at| Place::Block(zone.block(at))));
    for set in places.flat_map(|place| zone.rrsets_of(place)) {
        check_set(zone, &own, now, &set, &mut findings);
    }
    if !chain::check_amended(zone, before, (&names, &blocks), &mut findings) {
        return all();
    }
    digest::check(zone, false, &mut findings);
    findings.into_diagnostics()
}

fn check_denial(zone: &Zone, findings: &mut Findings<'_>) {
    if matches!(zone.denial(), Denial::Unsigned) {
        let expected = "NSEC or NSEC3 records: without, nothing can be denied";
        findings.error(&zone.lower_apex(), rtype::NSEC, expected);
    }
}

fn keys(zone: &Zone, apex: Node<'_>) -> Vec<Key> {
    let Some(rrset) = apex.rrset(rtype::DNSKEY) else { return Vec::new() };
    let records = super::records::expand(rrset, &zone.lower_apex());
    records.iter().filter_map(|record| Key::read(&record.rdata)).collect()
}

/// CDS and CDNSKEY must be of keys that are there (RFC 7344, 4.1), or ask for removal.
fn child_keys(zone: &Zone, apex: Node<'_>, keys: &[Key], findings: &mut Findings<'_>) {
    for (kind, expected) in [
        (rtype::CDS, "a digest of a DNSKEY of this zone (RFC 7344, 4.1)"),
        (rtype::CDNSKEY, "a DNSKEY of this zone (RFC 7344, 4.1)"),
    ] {
        let Some(rrset) = apex.rrset(kind) else { continue };
        for record in super::records::expand(rrset, &zone.lower_apex()) {
            let removal =
                record.rdata.get(2..4) == Some(&[3, 0]) || record.rdata.get(2) == Some(&0);
            let known = keys.iter().any(|key| match kind {
                rtype::CDNSKEY => key.rdata == record.rdata,
                _ => {
                    record.rdata.get(..3) == Some(&[tag_of(key)[0], tag_of(key)[1], key.algorithm])
                }
            });
            if !removal && !known {
                findings.warning(&zone.lower_apex(), kind, expected);
            }
        }
    }
}

fn tag_of(key: &Key) -> [u8; 2] {
    key.tag.to_be_bytes()
}

//----------- Signatures -----------------------------------------------------

fn signatures(zone: &Zone, keys: &[Key], now: u32, threads: usize, findings: &mut Findings<'_>) {
    let places: Vec<Place<'_>> = zone.places().collect();
    let part = places.len().div_ceil(threads.max(1)).max(1);
    let file = findings.file;
    let parts: Vec<Findings<'_>> = thread::scope(|scope| {
        let running: Vec<_> = places
            .chunks(part)
            .map(|places| {
                scope.spawn(move || {
                    let mut findings = Findings::new(file);
                    for set in places.iter().flat_map(|&place| zone.rrsets_of(place)) {
                        check_set(zone, keys, now, &set, &mut findings);
                    }
                    findings
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for part in parts {
        let room = |list: &[Diagnostic]| DIAGNOSTICS_MAX.saturating_sub(list.len());
        let (errors, warnings) = (room(&findings.errors), room(&findings.warnings));
        findings.errors.extend(part.errors.into_iter().take(errors));
        findings.warnings.extend(part.warnings.into_iter().take(warnings));
    }
}

/// Whether the zone answers with authority for this RRset, and must have signed it.
fn is_authoritative(set: &Owned<'_>) -> bool {
    set.node.is_none_or(|node| {
        let flags = node.flags();
        flags & flag::OCCLUDED == 0
            && (flags & flag::CUT == 0 || matches!(set.rtype, rtype::DS | rtype::NSEC))
    })
}

fn check_set(zone: &Zone, keys: &[Key], now: u32, set: &Owned<'_>, findings: &mut Findings<'_>) {
    let (owner, kind) = (&set.owner, set.rtype);
    if set.records.is_empty() || !is_authoritative(set) {
        if !set.signatures.is_empty() {
            let expected = if set.records.is_empty() {
                "the records that the signature covers"
            } else {
                "no signature: the zone does not answer for it with authority (RFC 4035, 2.2)"
            };
            findings.warning(owner, kind, expected);
        }
        return;
    }
    let mut algorithms: Vec<u8> = keys.iter().map(|key| key.algorithm).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let mut good = Vec::new();
    for rrsig in &set.signatures {
        let Some(signature) = Signature::read(&rrsig.rdata) else {
            findings.error(owner, kind, "a whole RRSIG");
            continue;
        };
        if let Some(algorithm) = check_signature(zone, keys, now, set, &signature, findings) {
            good.push(algorithm);
        }
    }
    if good.is_empty() {
        let expected = if set.signatures.is_empty() {
            "a signature (RFC 4035, 2.2)"
        } else {
            "a signature that is valid now"
        };
        findings.error(owner, kind, expected);
    } else if let Some(missing) = algorithms.iter().find(|algorithm| !good.contains(algorithm)) {
        let expected = format!("a signature of algorithm {missing} too (RFC 4035, 2.2)");
        findings.warning(owner, kind, expected);
    }
}

/// Checks one signature; its algorithm if a validator accepts it.
fn check_signature(
    zone: &Zone,
    keys: &[Key],
    now: u32,
    set: &Owned<'_>,
    signature: &Signature<'_>,
    findings: &mut Findings<'_>,
) -> Option<u8> {
    let (owner, kind) = (&set.owner, set.rtype);
    let labels = owner.depth() - usize::from(owner.as_wire().starts_with(b"\x01*"));
    if signature.signer.as_wire() != zone.apex_wire() || signature.labels != labels {
        findings.error(owner, kind, "a signature by this zone and for this name (RFC 4034, 3.1)");
        return None;
    }
    if is_before(signature.expiration, now) {
        let days = now.wrapping_sub(signature.expiration) / 86400;
        findings.error(owner, kind, format!("a signature that has not expired, {days} days ago"));
        return None;
    }
    if is_before(now, signature.inception) {
        findings.error(owner, kind, "a signature that is valid already: is the clock right?");
        return None;
    }
    let mut unknown = false;
    let of_key = |key: &&Key| key.tag == signature.tag && key.algorithm == signature.algorithm;
    let mut candidates = keys.iter().filter(of_key).peekable();
    if candidates.peek().is_none() {
        let expected = format!("a DNSKEY with the tag {} of a signature", signature.tag);
        findings.warning(owner, kind, expected);
        return None;
    }
    for key in candidates {
        match signature.check(key, owner, &set.records) {
            Checked::Good => {
                if is_before(signature.expiration, now.wrapping_add(EXPIRES_SOON_SECONDS)) {
                    let hours = signature.expiration.wrapping_sub(now) / 3600;
                    let expected = format!("a signature that lasts, not one for {hours} hours");
                    findings.warning(owner, kind, expected);
                }
                return Some(signature.algorithm);
            }
            Checked::Unknown => unknown = true,
            Checked::Bad => {}
        }
    }
    if unknown {
        let expected = format!("an algorithm that can be checked, not {}", signature.algorithm);
        findings.warning(owner, kind, expected);
        return Some(signature.algorithm);
    }
    findings.error(owner, kind, "a signature of these records: this one is of others");
    None
}

/// The types in a bitmap of NSEC or NSEC3 (RFC 4034, 4.1.2).
fn types_of(mut bitmap: &[u8]) -> Vec<u16> {
    let mut types = Vec::new();
    while let [window, len, rest @ ..] = bitmap {
        let Some((octets, after)) = rest.split_at_checked(usize::from(*len)) else { break };
        for (i, octet) in octets.iter().enumerate() {
            for bit in 0..8 {
                if octet & (0x80 >> bit) != 0 {
                    types.push(u16::from(*window) << 8 | (i * 8 + bit) as u16);
                }
            }
        }
        bitmap = after;
    }
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_are_read_window_by_window() {
        // RFC 4034, 4.3: A MX RRSIG NSEC TYPE1234.
        let mut bitmap = vec![0x00, 0x06, 0x40, 0x01, 0x00, 0x00, 0x00, 0x03, 0x04, 0x1b];
        bitmap.extend([0; 26]);
        bitmap.push(0x20);
        assert_eq!(types_of(&bitmap), [1, 15, 46, 47, 1234]);
        assert!(types_of(&[0, 9, 1]).is_empty());
    }

    #[test]
    fn serials_go_round() {
        assert!(is_before(1, 2) && !is_before(2, 1) && is_before(u32::MAX, 1));
    }
}

//! Records whose fields depend on one another: IPSECKEY, HIP, AMTRELAY.

use super::super::lexer::{Fault, Read};
use super::super::name::write_name;
use super::Rdata;
use super::address::{ip4, ip6};
use super::binary::{Base64Digits, HexDigits};
use super::number::decimal;

/// A gateway or relay of the kind that `kind` says (RFC 4025, 2.3).
fn gateway(rdata: &mut Rdata<'_, '_>, kind: u64) -> Read<()> {
    let word = rdata.need("a gateway")?;
    match kind {
        0 if word.text == b"." => Ok(()),
        0 => Err(Fault::of(word, ". (no gateway)")),
        1 => ip4(word, rdata.out),
        2 => ip6(word, rdata.out),
        3 => write_name(word, rdata.origin, rdata.out),
        _ => Err(Fault::of(word, "a gateway type from 0 to 3 before this")),
    }
}

fn octet(rdata: &mut Rdata<'_, '_>, max: u64, expected: &'static str) -> Read<u64> {
    let value = decimal(rdata.need(expected)?, max, expected)?;
    Ok(value)
}

/// `precedence gateway-type algorithm gateway [public key]` (RFC 4025, 3.1).
pub(super) fn ipsec(rdata: &mut Rdata<'_, '_>) -> Read<()> {
    let precedence = octet(rdata, 255, "a precedence from 0 to 255")?;
    let kind = octet(rdata, 3, "a gateway type from 0 to 3")?;
    let algorithm = octet(rdata, 255, "an algorithm from 0 to 255")?;
    rdata.out.extend_from_slice(&[precedence as u8, kind as u8, algorithm as u8]);
    gateway(rdata, kind)?;
    rdata.base64(false)
}

/// `precedence discovery relay-type relay` (RFC 8777, 4.3).
pub(super) fn amt_relay(rdata: &mut Rdata<'_, '_>) -> Read<()> {
    let precedence = octet(rdata, 255, "a precedence from 0 to 255")?;
    let discovery = octet(rdata, 1, "the discovery-optional flag, 0 or 1")?;
    let kind = octet(rdata, 3, "a relay type from 0 to 3")?;
    rdata.out.extend_from_slice(&[precedence as u8, (discovery as u8) << 7 | kind as u8]);
    gateway(rdata, kind)
}

/// `algorithm HIT public-key [rendezvous servers]` (RFC 8005, 6).
pub(super) fn hip(rdata: &mut Rdata<'_, '_>) -> Read<()> {
    let algorithm = octet(rdata, 255, "an algorithm from 0 to 255")?;
    let word = rdata.need("a HIT in hexadecimal")?;
    let (mut digits, mut hit) = (HexDigits::default(), Vec::new());
    digits.take(word, &mut hit)?;
    let hit_len = u8::try_from(hit.len()).ok().filter(|&len| len > 0 && digits.is_whole());
    let hit_len = hit_len.ok_or_else(|| Fault::of(word, "a HIT of 1 to 255 octets"))?;
    let word = rdata.need("a public key in base64")?;
    let (mut digits, mut key) = (Base64Digits::default(), Vec::new());
    digits.take(word, &mut key)?;
    let key_len = u16::try_from(key.len()).ok().filter(|&len| len > 0 && digits.is_whole());
    let key_len = key_len.ok_or_else(|| Fault::of(word, "a public key in base64"))?;
    rdata.out.extend_from_slice(&[hit_len, algorithm as u8]);
    rdata.out.extend_from_slice(&key_len.to_be_bytes());
    rdata.out.extend_from_slice(&hit);
    rdata.out.extend_from_slice(&key);
    while let Some(word) = rdata.next()? {
        write_name(word, rdata.origin, rdata.out)?;
    }
    Ok(())
}

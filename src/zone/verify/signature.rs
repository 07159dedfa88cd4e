//! Keys and signatures (RFC 4034, 2 and 3): the arithmetic is `ring`'s.

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};

use crate::wire::LowerName;
use crate::zone::records::{Expanded, make_canonical};

/// Octets of an RRSIG before the signer's name.
const RRSIG_FIXED_LEN: usize = 18;

//----------- Key ------------------------------------------------------------

/// A DNSKEY of the zone's apex.
#[derive(Clone, Debug)]
pub struct Key {
    pub algorithm: u8,
    pub tag: u16,
    octets: Vec<u8>,
    /// The whole RDATA.
    pub rdata: Vec<u8>,
}

/// What became of checking one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Good,
    Bad,
    /// Of an algorithm that cannot be checked here.
    Unknown,
}

impl Key {
    /// Reads RDATA of a DNSKEY; `None` if it is no key of a zone.
    pub fn read(rdata: &[u8]) -> Option<Key> {
        let (&[high, low, 3, algorithm], octets) = rdata.split_first_chunk()? else {
            return None;
        };
        let flags = u16::from_be_bytes([high, low]);
        const ZONE: u16 = 0x0100;
        const REVOKE: u16 = 0x0080;
        (flags & ZONE != 0 && flags & REVOKE == 0).then(|| Key {
            algorithm,
            tag: tag(rdata),
            octets: octets.to_vec(),
            rdata: rdata.to_vec(),
        })
    }

    /// Checks `signature` over `data`.
    pub fn check(&self, data: &[u8], signature: &[u8]) -> Checked {
        let result = match self.algorithm {
            5 | 7 => {
                self.rsa(&signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, data, signature)
            }
            8 => self.rsa(
                &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                data,
                signature,
            ),
            10 => self.rsa(
                &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                data,
                signature,
            ),
            13 | 14 => {
                let point = [&[4], &self.octets[..]].concat();
                let algorithm = if self.algorithm == 13 {
                    &signature::ECDSA_P256_SHA256_FIXED
                } else {
                    &signature::ECDSA_P384_SHA384_FIXED
                };
                UnparsedPublicKey::new(algorithm, point).verify(data, signature).is_ok()
            }
            15 => UnparsedPublicKey::new(&signature::ED25519, &self.octets)
                .verify(data, signature)
                .is_ok(),
            _ => return Checked::Unknown,
        };
        if result { Checked::Good } else { Checked::Bad }
    }

    /// RFC 3110, 2: the exponent's length in one octet or three, the exponent, the modulus.
    fn rsa(&self, algorithm: &signature::RsaParameters, data: &[u8], signature: &[u8]) -> bool {
        let parts = match *self.octets.as_slice() {
            [0, high, low, ref rest @ ..] => {
                rest.split_at_checked(u16::from_be_bytes([high, low]).into())
            }
            [len, ref rest @ ..] => rest.split_at_checked(len.into()),
            [] => None,
        };
        let Some((e, n)) = parts else { return false };
        RsaPublicKeyComponents { n, e }.verify(algorithm, data, signature).is_ok()
    }
}

/// The key tag (RFC 4034, B).
pub fn tag(rdata: &[u8]) -> u16 {
    let sum = rdata.iter().enumerate().fold(0u32, |sum, (i, &octet)| {
        sum + if i % 2 == 0 { u32::from(octet) << 8 } else { u32::from(octet) }
    });
    (sum + (sum >> 16)) as u16
}

//----------- Signature ------------------------------------------------------

/// An RRSIG, read.
pub struct Signature<'a> {
    pub covered: u16,
    pub algorithm: u8,
    pub labels: usize,
    pub original_ttl: u32,
    pub expiration: u32,
    pub inception: u32,
    pub tag: u16,
    pub signer: LowerName,
    octets: &'a [u8],
    /// Everything before the signature.
    fields: &'a [u8],
}

impl<'a> Signature<'a> {
    /// Reads RDATA of an RRSIG.
    pub fn read(rdata: &'a [u8]) -> Option<Signature<'a>> {
        let fields = rdata.get(..RRSIG_FIXED_LEN)?;
        let half = |at: usize| u16::from_be_bytes([fields[at], fields[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let mut signer = LowerName::new();
        let signer_len = signer.read(&rdata[RRSIG_FIXED_LEN..])?;
        let (fields, octets) = rdata.split_at(RRSIG_FIXED_LEN + signer_len);
        Some(Signature {
            covered: half(0),
            algorithm: fields[2],
            labels: fields[3].into(),
            original_ttl: word(4),
            expiration: word(8),
            inception: word(12),
            tag: half(16),
            signer,
            octets,
            fields,
        })
    }

    /// Checks it with `key` over `records` of `owner`.
    pub fn check(&self, key: &Key, owner: &LowerName, records: &[Expanded]) -> Checked {
        let mut data = self.fields[..RRSIG_FIXED_LEN].to_vec();
        data.extend_from_slice(self.signer.as_wire());
        let labels = owner.depth() - usize::from(owner.as_wire().starts_with(b"\x01*"));
        let mut name = Vec::new();
        if self.labels < labels {
            name.extend_from_slice(b"\x01*");
            name.extend_from_slice(owner.suffix(self.labels));
        } else {
            name.extend_from_slice(owner.as_wire());
        }
        let mut sorted: Vec<Vec<u8>> = records
            .iter()
            .map(|record| {
                let mut rdata = record.rdata.clone();
                make_canonical(self.covered, &mut rdata);
                rdata
            })
            .collect();
        sorted.sort();
        sorted.dedup();
        for rdata in sorted {
            data.extend_from_slice(&name);
            data.extend_from_slice(&self.covered.to_be_bytes());
            data.extend_from_slice(&[0, 1]);
            data.extend_from_slice(&self.original_ttl.to_be_bytes());
            data.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
            data.extend_from_slice(&rdata);
        }
        key.check(&data, self.octets)
    }
}

/// Whether `a` is before `b` on the circle of 32 bits (RFC 1982, 3.2; RFC 4034, 3.1.5).
pub fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

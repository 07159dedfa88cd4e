//! Keys: a name, an algorithm and a secret that two servers share.

use std::fmt;
use std::sync::Arc;

use ring::hmac;

use crate::wire::Name;

//----------- Algorithm ------------------------------------------------------

/// An algorithm (RFC 8945, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// For old peers only.
    HmacSha1,
    /// What everybody has.
    HmacSha256,
    /// As long as its name says.
    HmacSha384,
    /// The longest.
    HmacSha512,
}

impl Algorithm {
    /// All of them, the one to choose first.
    pub const ALL: [Algorithm; 4] =
        [Algorithm::HmacSha256, Algorithm::HmacSha384, Algorithm::HmacSha512, Algorithm::HmacSha1];

    /// As configurations write it.
    pub fn text(self) -> &'static str {
        match self {
            Algorithm::HmacSha1 => "hmac-sha1",
            Algorithm::HmacSha256 => "hmac-sha256",
            Algorithm::HmacSha384 => "hmac-sha384",
            Algorithm::HmacSha512 => "hmac-sha512",
        }
    }

    /// As a domain name in wire form.
    pub fn name(self) -> &'static [u8] {
        match self {
            Algorithm::HmacSha1 => b"\x09hmac-sha1\0",
            Algorithm::HmacSha256 => b"\x0Bhmac-sha256\0",
            Algorithm::HmacSha384 => b"\x0Bhmac-sha384\0",
            Algorithm::HmacSha512 => b"\x0Bhmac-sha512\0",
        }
    }

    /// Octets of a whole MAC, and of a good secret.
    pub fn mac_len(self) -> usize {
        match self {
            Algorithm::HmacSha1 => 20,
            Algorithm::HmacSha256 => 32,
            Algorithm::HmacSha384 => 48,
            Algorithm::HmacSha512 => 64,
        }
    }

    fn ring(self) -> hmac::Algorithm {
        match self {
            Algorithm::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::HmacSha256 => hmac::HMAC_SHA256,
            Algorithm::HmacSha384 => hmac::HMAC_SHA384,
            Algorithm::HmacSha512 => hmac::HMAC_SHA512,
        }
    }
}

//----------- Key ------------------------------------------------------------

/// One key. Cheap to clone; never printed.
#[derive(Clone)]
pub struct Key(Arc<Inner>);

struct Inner {
    name: Name,
    algorithm: Algorithm,
    secret: Vec<u8>,
    hmac: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.0.name, self.0.algorithm.text())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.name == b.name && a.algorithm == b.algorithm && a.secret == b.secret
    }
}

impl Eq for Key {}

impl Key {
    /// A key with this secret, in octets.
    pub fn new(name: &Name, algorithm: Algorithm, secret: &[u8]) -> Key {
        let hmac = hmac::Key::new(algorithm.ring(), secret);
        Key(Arc::new(Inner { name: name.to_lowercase(), algorithm, secret: secret.into(), hmac }))
    }

    /// Its name in wire form, lower case.
    pub fn name(&self) -> &[u8] {
        self.0.name.as_wire()
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    pub(super) fn hmac(&self) -> &hmac::Key {
        &self.0.hmac
    }

    /// The shortest MAC that is accepted: a whole one, for nobody in use cuts them.
    pub(super) fn mac_len_min(&self) -> usize {
        self.0.algorithm.mac_len()
    }
}

//----------- Keys -----------------------------------------------------------

/// The keys this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Of these; names are different.
    pub fn new(keys: Vec<Key>) -> Keys {
        Keys(keys)
    }

    /// The key of this name, whatever its algorithm.
    pub fn named(&self, name: &Name) -> Option<&Key> {
        self.0.iter().find(|key| key.0.name == *name)
    }

    /// The key with a name and an algorithm in wire form and lower case.
    pub fn find(&self, name: &[u8], algorithm: &[u8]) -> Option<&Key> {
        self.0.iter().find(|key| key.name() == name && key.algorithm().name() == algorithm)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }
}

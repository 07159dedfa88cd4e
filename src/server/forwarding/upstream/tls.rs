//! Who is believed to be an upstream: by the name in its certificate, or by its public key.
//!
//! Issuers are the system's unless a file of others is configured: a distribution withdraws one
//! that has failed, and a company adds its own, without this server being built anew.

use std::fmt;
use std::io;
use std::sync::Arc;

use data_encoding::BASE64;
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::resolver::{Fault, Upstream};

/// The issuers that are believed: those in `pem`, or the system's.
pub fn issuers(pem: Option<&[u8]>) -> io::Result<Arc<RootCertStore>> {
    let mut store = RootCertStore::empty();
    if let Some(pem) = pem {
        let wrong = |error: String| {
            let reason = format!("ca: its file has no certificates in PEM: {error}");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        };
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            store.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if store.is_empty() {
            return Err(wrong("it has none".into()));
        }
    } else {
        let (added, _) =
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            let reason = "the system has no certificates of issuers: install ca-certificates, \
                          or configure a file of them or a pin of the upstream";
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
    }
    Ok(Arc::new(store))
}

/// What a connection to `upstream` is made with; `issuers` of those without pins.
pub fn configure(
    upstream: &Upstream,
    issuers: impl FnOnce() -> io::Result<Arc<RootCertStore>>,
    protocol: &[u8],
) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = if upstream.pins.is_empty() {
        builder.with_root_certificates(issuers()?).with_no_client_auth()
    } else {
        let pinned = Pinned { pins: upstream.pins.clone(), provider };
        let dangerous = builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned));
        dangerous.with_no_client_auth()
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// The name that is asked for, and checked unless there are pins.
pub fn server_name(upstream: &Upstream) -> io::Result<ServerName<'static>> {
    match &upstream.server_name {
        None => Ok(ServerName::from(upstream.address.ip())),
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| {
            let reason = format!("upstream {}: {name:?} is no name of a host", upstream.address);
            io::Error::new(io::ErrorKind::InvalidInput, reason)
        }),
    }
}

/// What an error of a handshake means.
pub fn fault(error: &io::Error) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            Fault::Certificate(reason.to_string())
        }
        Some(Error::InvalidCertificate(reason)) => Fault::Certificate(reason.to_string()),
        Some(Error::NoCertificatesPresented) => Fault::Certificate("it has none".into()),
        _ => Fault::Connection(format!("TLS: {error}")),
    }
}

//----------- Pinned ---------------------------------------------------------

/// Believes whoever has one of the keys (RFC 7858, 4.2).
#[derive(Debug)]
struct Pinned {
    pins: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

/// The key is another one.
struct Unpinned(String);

// An error of a handshake over QUIC is told as a text that has this.
impl fmt::Debug for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its public key is none of those pinned: {}", self.0)
    }
}

impl std::error::Error for Unpinned {}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let digest = digest::digest(&digest::SHA256, key.as_ref());
        if self.pins.iter().any(|pin| pin == digest.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        let other = Unpinned(BASE64.encode(digest.as_ref()));
        Err(CertificateError::Other(OtherError(Arc::new(other))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

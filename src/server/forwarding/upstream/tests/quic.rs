//! A server of DNS over QUIC by others, and peers that do not do as they should.

use std::collections::BTreeSet;

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record};
use hickory_server::ServerFuture;
use hickory_server::authority::{Catalog, ZoneType};
use hickory_server::store::in_memory::InMemoryAuthority;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::*;

impl Certificates {
    fn certified(&self) -> CertifiedKey {
        let chain = vec![CertificateDer::from(self.certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key).unwrap())
    }

    fn quic(&self, protocol: &[u8]) -> quinn::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified())));
        config.alpn_protocols = vec![protocol.to_vec()];
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()))
    }

    fn trusted(&self, address: SocketAddr) -> Upstream {
        let issuers = Some(self.issuer.as_bytes().into());
        Upstream { issuers, ..upstream(address, Carrier::Quic) }
    }
}

/// Runs what `serve` makes of a socket of its own, until the test's process ends.
fn aside<F: Future<Output = ()>>(
    serve: impl FnOnce(std::net::UdpSocket) -> F + Send + 'static,
) -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve(socket));
    });
    address
}

/// Answers everything under `test.`.
fn hickory(certificates: &Certificates) -> SocketAddr {
    let resolver = Arc::new(SingleCertAndKey::from(certificates.certified()));
    aside(|socket| async move {
        let origin: Name = "test.".parse().unwrap();
        let mut zone = InMemoryAuthority::empty(origin.clone(), ZoneType::Primary, false);
        let any = "*.test.".parse().unwrap();
        let address = RData::A(A::new(192, 0, 2, 1));
        zone.upsert_mut(Record::from_rdata(any, 60, address), 0);
        let mut catalog = Catalog::new();
        catalog.upsert(origin.into(), vec![Arc::new(zone)]);
        let mut server = ServerFuture::new(catalog);
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        let patience = Duration::from_secs(10);
        server.register_quic_listener(socket, patience, resolver, None).unwrap();
        server.block_until_done().await.unwrap();
    })
}

#[test]
fn hickory_answers_over_quic() {
    let right = Certificates::of("dns.test", false);
    let address = hickory(&right);
    let mut streams = start(right.trusted(address), StreamOptions::default());
    // It takes a hundred queries on a connection, and resets the stream of the last of them: that
    // one is the engine's to ask again.
    for round in 0..3 {
        let results = ask(&mut streams, round * 1000, 30);
        assert_eq!(results.len(), 30);
        assert_answered(&results);
    }
    // With its key, nothing else is asked for.
    let other = Some("another.test".to_string());
    let pinned = Upstream {
        pins: vec![[0; 32], right.pin()],
        server_name: other.clone(),
        ..upstream(address, Carrier::Quic)
    };
    assert_answered(&ask(&mut start(pinned, StreamOptions::default()), 0, 10));
    // With another key, name or issuer it is not believed.
    for (wrong, reason) in [
        (Upstream { pins: vec![[7; 32]], ..right.trusted(address) }, "none of those pinned"),
        (Upstream { server_name: other, ..right.trusted(address) }, "not valid for name"),
        (Upstream { server_name: None, ..right.trusted(address) }, "not valid for name"),
        (upstream(address, Carrier::Quic), "UnknownIssuer"),
    ] {
        for (_, result) in ask(&mut start(wrong, StreamOptions::default()), 0, 3) {
            let Err(Fault::Certificate(text)) = &result else { panic!("{reason}: {result:?}") };
            let text = text.to_lowercase().replace(' ', "");
            assert!(text.contains(&reason.to_lowercase().replace(' ', "")), "{text}");
        }
    }
}

/// What a peer does with a query, which has its length before it.
#[derive(Clone, Copy, Debug)]
enum Way {
    Answer,
    OtherId,
    Short,
    Twice,
    Empty,
    Keepalive,
    Reset,
    Silent,
    /// Closes the connection after so many.
    CloseAfter(usize),
    /// Closes the connection at the first.
    CloseAt,
}

/// A peer; how many connections it has had, and queries at most on one that had another ID than 0.
fn liar(way: Way, certificates: &Certificates) -> (SocketAddr, Arc<AtomicUsize>) {
    let config = certificates.quic(b"doq");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = aside(move |socket| async move {
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(Default::default(), Some(config), socket, runtime);
        let endpoint = endpoint.unwrap();
        while let Some(incoming) = endpoint.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let connection = incoming.await.ok()?;
                for number in 1.. {
                    let stream = connection.accept_bi().await.ok()?;
                    if matches!(way, Way::CloseAt) {
                        connection.close(0_u32.into(), b"");
                        return None;
                    }
                    tokio::spawn(lie(stream, way));
                    if matches!(way, Way::CloseAfter(most) if number == most) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        connection.close(0_u32.into(), b"");
                    }
                }
                Some(())
            });
        }
    });
    (address, connections)
}

async fn lie(
    (mut send, mut receive): (quinn::SendStream, quinn::RecvStream),
    way: Way,
) -> Option<()> {
    let mut message = receive.read_to_end(70_000).await.ok()?;
    assert_eq!(message[2..4], [0, 0], "the ID");
    assert_eq!(usize::from(u16::from_be_bytes([message[0], message[1]])) + 2, message.len());
    message[4] |= 0x80;
    match way {
        Way::Answer | Way::CloseAfter(_) | Way::CloseAt => {}
        Way::OtherId => message[3] = 1,
        Way::Short => message.truncate(20),
        Way::Twice => message.extend_from_within(..),
        Way::Empty => message.clear(),
        Way::Keepalive => {
            let at = message.len() - 2;
            message.truncate(at);
            message.extend([0, 6, 0, 11, 0, 2, 0, 9]);
            message[1] += 6;
        }
        Way::Reset => {
            send.reset(1_u32.into()).ok()?;
            return None;
        }
        Way::Silent => std::future::pending().await,
    }
    send.write_all(&message).await.ok()?;
    send.finish().ok()
}

#[test]
fn liars_over_quic_are_ended() {
    let certificates = Certificates::of("dns.test", false);
    for (way, reasons) in [
        (Way::Answer, &[][..]),
        (Way::OtherId, &["a reply with an ID other than 0"]),
        (Way::Short, &["18 octets in a stream that has said"]),
        (Way::Twice, &["octets in a stream that has said"]),
        (Way::Empty, &["a stream without a message"]),
        (Way::Keepalive, &["edns-tcp-keepalive over QUIC"]),
        (Way::Reset, &["reset"]),
        (Way::Silent, &["no reply for 0.7 s"]),
    ] {
        let (address, _) = liar(way, &certificates);
        let mut streams = start(certificates.trusted(address), hasty());
        let results = ask(&mut streams, 0, 20);
        assert_eq!(results.len(), 20, "{way:?}");
        if reasons.is_empty() {
            assert_answered(&results);
            continue;
        }
        let texts: BTreeSet<String> = faults(&results).iter().map(|it| format!("{it:?}")).collect();
        assert!(!texts.is_empty() && results.values().all(Result::is_err), "{way:?}: {results:?}");
        for reason in reasons {
            assert!(texts.iter().any(|text| text.contains(reason)), "{way:?}: {texts:?}");
        }
    }
}

#[test]
fn a_connection_that_has_ended_is_made_anew() {
    let certificates = Certificates::of("dns.test", false);
    let (address, connections) = liar(Way::CloseAfter(5), &certificates);
    let mut streams = start(certificates.trusted(address), hasty());
    for round in 0..3 {
        let results = ask(&mut streams, round * 10, 4);
        assert_answered(&results);
        // It is idle for longer than it may be.
        thread::sleep(Duration::from_millis(800));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
    // It takes five queries at a time: the others are asked on the next one.
    let results = ask(&mut streams, 100, 20);
    assert_eq!(results.len(), 20);
    assert_answered(&results);
    assert!(connections.load(Ordering::SeqCst) >= 7);
}

#[test]
fn a_peer_that_closes_without_a_word_is_given_up() {
    let certificates = Certificates::of("dns.test", false);
    let (address, connections) = liar(Way::CloseAt, &certificates);
    let mut streams = start(certificates.trusted(address), hasty());
    let results = ask(&mut streams, 0, 20);
    assert_eq!(faults(&results).len(), 20, "{results:?}");
    assert!(connections.load(Ordering::SeqCst) <= 20);
}

#[test]
fn who_is_not_there_or_speaks_something_else_is_given_up() {
    let certificates = Certificates::of("dns.test", false);
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = StreamOptions { connect: Duration::from_millis(500), ..hasty() };
    let results = ask(&mut start(certificates.trusted(nobody), options.clone()), 0, 3);
    assert_eq!(faults(&results).len(), 3, "{results:?}");
    let config = certificates.quic(b"h3");
    let other = aside(move |socket| async move {
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(Default::default(), Some(config), socket, runtime);
        let endpoint = endpoint.unwrap();
        while let Some(incoming) = endpoint.accept().await {
            let _ = incoming.await;
        }
    });
    for (_, result) in ask(&mut start(certificates.trusted(other), options), 0, 3) {
        assert_eq!(result, Err(Fault::Protocol("it does not speak DNS over QUIC".into())));
    }
}

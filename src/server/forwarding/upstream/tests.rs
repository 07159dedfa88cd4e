//! Unbound as a peer, and peers that lie, stall, flood and close.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::resolver::Carrier;

use super::*;

mod quic;

//----------- Certificates ---------------------------------------------------

/// An issuer, and a certificate by it.
struct Certificates {
    issuer: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Certificates {
    fn of(name: &str, is_expired: bool) -> Certificates {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let issuer = authority.self_signed(&authority_key).unwrap().pem();
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        if is_expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &Issuer::new(authority, &authority_key)).unwrap();
        Certificates { issuer, certificate, key }
    }

    fn pin(&self) -> [u8; 32] {
        let digest =
            ring::digest::digest(&ring::digest::SHA256, &self.key.subject_public_key_info());
        digest.as_ref().try_into().unwrap()
    }

    fn write(&self, directory: &Path) {
        fs::write(directory.join("issuer.pem"), &self.issuer).unwrap();
        fs::write(directory.join("certificate.pem"), self.certificate.pem()).unwrap();
        fs::write(directory.join("key.pem"), self.key.serialize_pem()).unwrap();
    }

    fn acceptor(&self) -> TlsAcceptor {
        let chain = vec![CertificateDer::from(self.certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

//----------- Asking ---------------------------------------------------------

fn upstream(address: SocketAddr, carrier: Carrier) -> Upstream {
    let (server_name, pins, path) = (Some("dns.test".to_string()), Vec::new(), String::new());
    Upstream { address, carrier, server_name, pins, path, issuers: None }
}

/// `n<number>.test. A`, with OPT.
fn query(number: u64) -> Vec<u8> {
    let label = format!("n{number}");
    let mut octets = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, label.len() as u8];
    octets.extend(label.bytes());
    octets.extend(b"\x04test\0\0\x01\0\x01");
    octets.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    octets
}

type Results = HashMap<u64, Result<Vec<u8>, Fault>>;

/// Asks `count` questions at once and waits for what becomes of them.
fn ask(streams: &mut Streams, from: u64, count: u64) -> Results {
    for number in from..from + count {
        assert!(streams.send(number, 0, query(number)));
    }
    collect(streams)
}

fn collect(streams: &mut Streams) -> Results {
    let end = Instant::now() + Duration::from_secs(20);
    let mut results = Results::new();
    while streams.in_flight() > 0 {
        assert!(Instant::now() < end, "{} have not ended", streams.in_flight());
        streams.receive(usize::MAX, &mut |exchange, result| {
            assert!(results.insert(exchange, result).is_none(), "{exchange} ended twice");
        });
        thread::sleep(Duration::from_millis(1));
    }
    results
}

fn assert_answered(results: &Results) {
    for (exchange, result) in results {
        let message = result.as_ref().unwrap_or_else(|fault| panic!("{exchange}: {fault:?}"));
        let asked = query(*exchange);
        let question = &asked[12..asked.len() - 11];
        assert_eq!(&message[12..12 + question.len()], question, "another's reply");
        assert!(message[2] & 0x80 != 0);
    }
}

fn start(upstream: Upstream, options: StreamOptions) -> Streams {
    Streams::start(&[upstream], options, Waker::new().unwrap()).unwrap()
}

//----------- Unbound --------------------------------------------------------

struct Unbound {
    child: Child,
    tls: SocketAddr,
    https: SocketAddr,
}

impl Unbound {
    /// Answers everything under `test.` over UDP, TCP, TLS and HTTPS.
    fn start(directory: &Path) -> Unbound {
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [tls, https] = [0, 1].map(|i: usize| sockets[i].local_addr().unwrap());
        drop(sockets);
        let work = directory.display();
        let config = format!(
            "server:\n username: \"\"\n chroot: \"\"\n directory: \"{work}\"\n \
             pidfile: \"{work}/pid\"\n use-syslog: no\n do-daemonize: no\n num-threads: 1\n \
             logfile: \"{work}/log\"\n interface: 127.0.0.1@{}\n interface: 127.0.0.1@{}\n \
             tls-port: {}\n https-port: {}\n http-max-streams: 100\n \
             tls-service-key: \"{work}/key.pem\"\n tls-service-pem: \"{work}/certificate.pem\"\n \
             edns-tcp-keepalive: yes\n edns-tcp-keepalive-timeout: 30000\n incoming-num-tcp: 50\n \
             local-zone: \"test.\" redirect\n local-data: \"test. A 192.0.2.1\"\n\
             remote-control:\n control-enable: no\n",
            tls.port(),
            https.port(),
            tls.port(),
            https.port()
        );
        fs::write(directory.join("unbound.conf"), config).unwrap();
        let child = Command::new("unbound")
            .arg("-d")
            .arg("-c")
            .arg(directory.join("unbound.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("unbound is installed: apt install unbound");
        let unbound = Unbound { child, tls, https };
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(tls).is_err() {
            let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "unbound does not listen: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
        unbound
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn unbound_answers_over_tls_and_https() {
    let work = tempfile::tempdir().unwrap();
    let right = Certificates::of("dns.test", false);
    right.write(work.path());
    let unbound = Unbound::start(work.path());
    let issuers: Option<Arc<[u8]>> = Some(right.issuer.as_bytes().into());
    let upstream =
        |address, carrier| Upstream { issuers: issuers.clone(), ..upstream(address, carrier) };
    for (address, carrier) in [(unbound.tls, Carrier::Tls), (unbound.https, Carrier::Https)] {
        let options = StreamOptions::default();
        let mut streams = start(upstream(address, carrier), options.clone());
        for round in 0..3 {
            let results = ask(&mut streams, round * 1000, 300);
            assert_eq!(results.len(), 300);
            assert_answered(&results);
        }
        // With its key, nothing else is asked for.
        let other = Some("another.test".to_string());
        let pinned = Upstream {
            pins: vec![[0; 32], right.pin()],
            server_name: other.clone(),
            issuers: None,
            ..upstream(address, carrier)
        };
        assert_answered(&ask(&mut start(pinned, options.clone()), 0, 10));
        // With another key, name or issuer it is not believed.
        let unpinned = Upstream { pins: vec![[7; 32]], ..upstream(address, carrier) };
        let misnamed = Upstream { server_name: other, ..upstream(address, carrier) };
        let unnamed = Upstream { server_name: None, ..upstream(address, carrier) };
        let unknown = Upstream { issuers: None, ..upstream(address, carrier) };
        let another = Certificates::of("dns.test", false).issuer.into_bytes();
        let foreign = Upstream { issuers: Some(another.into()), ..upstream(address, carrier) };
        for (wrong, reason) in [
            (unpinned, "public key is none of those pinned"),
            (misnamed, "not valid for name"),
            (unnamed, "not valid for name"),
            (unknown, "UnknownIssuer"),
            (foreign, ""),
        ] {
            for (_, result) in ask(&mut start(wrong, options.clone()), 0, 3) {
                let Err(Fault::Certificate(text)) = &result else { panic!("{reason}: {result:?}") };
                let text = text.to_lowercase().replace(' ', "");
                assert!(text.contains(&reason.to_lowercase().replace(' ', "")), "{text}");
            }
        }
    }
    // A path that is not there.
    let mut lost = upstream(unbound.https, Carrier::Https);
    lost.path = "/nothing".into();
    for (_, result) in ask(&mut start(lost, StreamOptions::default()), 0, 3) {
        assert_eq!(result, Err(Fault::Protocol("HTTP status 404".into())));
    }
}

//----------- Liars ----------------------------------------------------------

/// What a peer does with its queries.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Answers in groups of so many, the last first.
    Backwards(usize),
    /// Closes after so many.
    CloseAfter(usize),
    /// Sends a part of the first reply, then closes.
    Half,
    /// Takes everything, says nothing.
    Silent,
    /// Sends what is no message.
    Garbage,
    /// Answers what was not asked, for ever.
    Flood,
    /// Says with the first reply that it wants no more.
    KeepaliveZero,
    /// Answers all but every tenth.
    Forgetful,
}

struct Liar {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Liar {
    fn start(way: Way, acceptor: Option<TlsAcceptor>) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        // It ends with the test's process.
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    count.fetch_add(1, Ordering::SeqCst);
                    match acceptor.clone() {
                        None => drop(tokio::spawn(lie(stream, way))),
                        Some(acceptor) => drop(tokio::spawn(async move {
                            let stream = acceptor.accept(stream).await.ok()?;
                            lie(stream, way).await
                        })),
                    }
                }
            });
        });
        Liar { address, connections }
    }
}

async fn lie<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, way: Way) -> Option<()> {
    let mut held: Vec<Vec<u8>> = Vec::new();
    for count in 1.. {
        let len = stream.read_u16().await.ok()?;
        let mut message = vec![0; len.into()];
        stream.read_exact(&mut message).await.ok()?;
        message[2] |= 0x80;
        let framed = |message: &[u8]| [&(message.len() as u16).to_be_bytes(), message].concat();
        match way {
            Way::Backwards(group) => {
                held.push(message);
                if held.len() == group {
                    while let Some(message) = held.pop() {
                        stream.write_all(&framed(&message)).await.ok()?;
                    }
                }
            }
            Way::CloseAfter(most) => {
                stream.write_all(&framed(&message)).await.ok()?;
                if count == most {
                    return None;
                }
            }
            Way::Half => {
                stream.write_all(&framed(&message)[..20]).await.ok()?;
                return None;
            }
            Way::Silent => {}
            Way::Garbage => stream.write_all(&[0, 5, 1, 2, 3, 4, 5]).await.ok()?,
            Way::Flood => loop {
                message[0] = message[0].wrapping_add(1);
                stream.write_all(&framed(&message)).await.ok()?;
            },
            Way::KeepaliveZero => {
                if let [.., 0, 4, 0, 11, 0, 0] = message[..] {
                    let at = message.len() - 6;
                    message.truncate(at);
                    message.extend([0, 6, 0, 11, 0, 2, 0, 0]);
                }
                stream.write_all(&framed(&message)).await.ok()?;
            }
            Way::Forgetful if count % 10 == 0 => {}
            Way::Forgetful => stream.write_all(&framed(&message)).await.ok()?,
        }
    }
    None
}

/// As short as tests want to wait.
fn hasty() -> StreamOptions {
    let stall = Duration::from_millis(700);
    StreamOptions { stall, idle: Duration::from_millis(400), ..StreamOptions::default() }
}

fn faults(results: &Results) -> Vec<&Fault> {
    results.values().filter_map(|result| result.as_ref().err()).collect()
}

#[test]
fn replies_in_any_order_over_few_connections() {
    let liar = Liar::start(Way::Backwards(50), None);
    let mut streams = start(upstream(liar.address, Carrier::Udp), hasty());
    for round in 0..20 {
        assert_answered(&ask(&mut streams, round * 1000, 50));
    }
    assert_eq!(liar.connections.load(Ordering::SeqCst), 1, "it stays open");
    thread::sleep(Duration::from_millis(800));
    assert_answered(&ask(&mut streams, 1_000_000, 50));
    assert_eq!(liar.connections.load(Ordering::SeqCst), 2, "it was idle");
    drop(streams);
    // More than one takes: others are opened, as many as there may be; none is lost.
    let options = StreamOptions { queries: 50, connections: 3, ..hasty() };
    let liar = Liar::start(Way::Backwards(1), None);
    let mut streams = start(upstream(liar.address, Carrier::Tcp), options);
    assert_answered(&ask(&mut streams, 0, 1500));
    assert!((2..=3).contains(&liar.connections.load(Ordering::SeqCst)));
}

#[test]
fn who_closes_fails_what_it_had() {
    let certificates = Certificates::of("dns.test", false);
    for acceptor in [None, Some(certificates.acceptor())] {
        let mut target = upstream(([127, 0, 0, 1], 0).into(), Carrier::Tcp);
        if acceptor.is_some() {
            target = Upstream { pins: vec![certificates.pin()], carrier: Carrier::Tls, ..target };
        }
        let at = |liar: &Liar| Upstream { address: liar.address, ..target.clone() };
        let liar = Liar::start(Way::CloseAfter(7), acceptor.clone());
        let mut streams = start(at(&liar), hasty());
        let results = ask(&mut streams, 0, 40);
        let failed = faults(&results);
        assert!(failed.iter().all(|fault| matches!(fault, Fault::Connection(_))), "{failed:?}");
        assert!(!failed.is_empty() && failed.len() <= 33, "{}", failed.len());
        // The next ones get a connection of their own.
        assert_answered(&ask(&mut streams, 100, 7));
        assert!(liar.connections.load(Ordering::SeqCst) >= 2);
        let liar = Liar::start(Way::Half, acceptor.clone());
        let results = ask(&mut start(at(&liar), hasty()), 0, 5);
        assert_eq!(faults(&results).len(), 5);
        for (way, protocol, part) in [
            (Way::Silent, false, "no reply for 0.7 s"),
            (Way::Garbage, true, "a message of 5 octets"),
            (Way::Flood, true, "messages that answer nothing"),
        ] {
            let liar = Liar::start(way, acceptor.clone());
            let results = ask(&mut start(at(&liar), hasty()), 0, 1);
            assert_eq!(faults(&results).len(), 1, "{way:?}");
            for fault in faults(&results) {
                match fault {
                    Fault::Protocol(text) if protocol => assert!(text.contains(part), "{text}"),
                    Fault::Connection(text) if !protocol => assert!(text.contains(part), "{text}"),
                    other => panic!("{way:?}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn who_says_zero_gets_no_more() {
    let liar = Liar::start(Way::KeepaliveZero, None);
    let mut streams = start(upstream(liar.address, Carrier::Tcp), hasty());
    for number in 0..5 {
        assert_answered(&ask(&mut streams, number, 1));
    }
    assert_eq!(liar.connections.load(Ordering::SeqCst), 5);
}

#[test]
fn what_is_abandoned_ends_and_frees_its_place() {
    let liar = Liar::start(Way::Forgetful, None);
    let options = StreamOptions { exchanges: 200, queries: 100, ..StreamOptions::default() };
    let mut streams = start(upstream(liar.address, Carrier::Tcp), options);
    let mut ended = 0;
    for round in 0..30u64 {
        for number in round * 100..round * 100 + 100 {
            assert!(streams.send(number, 0, query(number)));
        }
        let end = Instant::now() + Duration::from_secs(10);
        let mut open: HashSet<u64> = (round * 100..round * 100 + 100).collect();
        // Each connection forgets every tenth of its own.
        while open.len() > 20 {
            streams.receive(usize::MAX, &mut |exchange, result| {
                assert!(result.is_ok() && open.remove(&exchange), "{exchange} {result:?}");
                ended += 1;
            });
            assert!(Instant::now() < end, "{} of round {round} are open", open.len());
            thread::sleep(Duration::from_millis(1));
        }
        open.iter().for_each(|exchange| streams.abandon(*exchange));
        while streams.in_flight() > 0 {
            streams.receive(usize::MAX, &mut |exchange, _| assert!(open.contains(&exchange)));
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(ended >= 30 * 80, "{ended}");
}

#[test]
fn what_has_no_room_is_not_taken() {
    let liar = Liar::start(Way::Silent, None);
    let options =
        StreamOptions { exchanges: 30, queries: 5, connections: 2, waiting: 3, ..hasty() };
    let mut streams = start(upstream(liar.address, Carrier::Tcp), options);
    assert!(!streams.send(0, 1, query(0)), "no such upstream");
    assert!(!streams.send(0, 0, vec![0; 11]), "no message");
    for number in 0..30 {
        assert!(streams.send(number, 0, query(number)));
    }
    assert!(!streams.send(30, 0, query(30)));
    let results = collect(&mut streams);
    let full = results.values().filter(|result| **result == Err(Fault::NoRoom)).count();
    assert!((17..=27).contains(&full), "{full}");
}

#[test]
fn who_does_not_listen_refuses() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut streams = start(upstream(address, Carrier::Tcp), hasty());
    for _ in 0..3 {
        let results = ask(&mut streams, 0, 20);
        assert_eq!(results.len(), 20);
        assert!(results.values().all(|result| *result == Err(Fault::Refused)), "{results:?}");
    }
}

#[test]
fn an_expired_certificate_is_not_believed() {
    let expired = Certificates::of("dns.test", true);
    let liar = Liar::start(Way::CloseAfter(9), Some(expired.acceptor()));
    let issuers = Some(expired.issuer.as_bytes().into());
    let upstream = Upstream { issuers, ..upstream(liar.address, Carrier::Tls) };
    for (_, result) in ask(&mut start(upstream, hasty()), 0, 3) {
        let Err(Fault::Certificate(text)) = &result else { panic!("{result:?}") };
        assert!(text.to_lowercase().contains("expired"), "{text}");
    }
}

#[test]
fn what_cannot_be_is_said_at_the_start() {
    let address = ([127, 0, 0, 1], 853).into();
    let waker = Waker::new().unwrap();
    let wrong = |upstream: Upstream, options: StreamOptions| {
        Streams::start(&[upstream], options, waker.clone()).err().unwrap().to_string()
    };
    let empty = Upstream { issuers: Some((*b"nothing").into()), ..upstream(address, Carrier::Tls) };
    let text = wrong(empty, hasty());
    assert!(text.contains("127.0.0.1:853: ca: its file has no certificates"), "{text}");
    let mut misnamed = upstream(address, Carrier::Tls);
    misnamed.server_name = Some("no name".into());
    misnamed.pins.push([0; 32]);
    assert!(wrong(misnamed, hasty()).contains("no name"));
}

#[test]
fn connections_come_from_where_they_are_to() {
    let options = StreamOptions {
        sources: ["127.0.0.2", "::1", "127.0.0.3"].map(|it| it.parse().unwrap()).into(),
        ..hasty()
    };
    let [v4, v6] = ["192.0.2.1:53", "[2001:db8::1]:53"].map(|it| it.parse().unwrap());
    let from = |to, number| options.source(to, number).map(|source| source.ip().to_string());
    let of_v4: Vec<_> = (0..3).map(|number| from(v4, number).unwrap()).collect();
    assert_eq!(of_v4, ["127.0.0.2", "127.0.0.3", "127.0.0.2"]);
    assert_eq!(from(v6, 1).unwrap(), "::1");
    assert_eq!(StreamOptions::default().source(v4, 0), None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut streams = start(upstream(address, Carrier::Tcp), options);
    assert!(streams.send(1, 0, query(1)));
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.2");
}

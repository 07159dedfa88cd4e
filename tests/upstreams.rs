//! Forwarding through NSD, Knot, BIND and Unbound: what a client gets is what the upstream says to
//! whoever asks it directly, and no certificate is believed that is not the right one.

#[path = "support/process.rs"]
mod process;
mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use hickory_proto::op::Message as Parsed;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Record, RecordType};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use ring53::wire::{Name, rtype};

use process::{PATIENCE, Process};
use support::{Server, free_port, query};
use upstream::{edes, octets_of, reply_of, streamed, with_opt, with_opt_of};

const SERVFAIL: u16 = 2;

//----------- Comparing ------------------------------------------------------

/// The records of a section: each without its TTL, and the TTL.
type Section = BTreeMap<String, u32>;

fn section(records: &[Record]) -> Section {
    let is_data = |record: &&Record| record.record_type() != RecordType::OPT;
    let text = |record: &Record| {
        let (name, class) = (record.name(), record.dns_class());
        format!("{name} {class} {} {}", record.record_type(), record.data()).to_lowercase()
    };
    records.iter().filter(is_data).map(|record| (text(record), record.ttl())).collect()
}

fn sections(octets: &[u8]) -> (u16, [Section; 3]) {
    let message = Parsed::from_vec(octets).unwrap_or_else(|error| panic!("{error}: {octets:02x?}"));
    let of = [message.answers(), message.name_servers(), message.additionals()].map(section);
    (message.response_code().into(), of)
}

/// Asks `direct` and `server` the same, over TCP so that all of it comes, and over UDP as well:
/// the same records, held no longer. Twice, so that the second reply is the cache's.
fn compare(direct: SocketAddr, server: SocketAddr, name: &str, qtype: u16) {
    let mut query = with_opt_of(name, qtype, 1232);
    query[2] |= 1;
    let (code, records) = sections(&streamed(direct, &query));
    for round in 0..2 {
        let what = format!("{name} {qtype}, round {round}");
        let (our_code, ours) = sections(&streamed(server, &query));
        assert_eq!(our_code, code, "{what}");
        for (ours, theirs) in ours.iter().zip(&records) {
            let [of_ours, of_theirs] = [ours, theirs].map(|it| it.keys().collect::<Vec<_>>());
            assert_eq!(of_ours, of_theirs, "{what}");
            for (record, ttl) in ours {
                assert!(*ttl <= theirs[record], "{what}: {record} for {ttl} s");
            }
        }
        let (udp_code, udp) = sections(&octets_of(server, &query));
        let is_cut = octets_of(server, &query)[2] & 2 != 0;
        assert_eq!(udp_code, code, "{what}");
        assert!(is_cut || udp[0].keys().eq(ours[0].keys()), "{what}: {udp:?}");
    }
}

//----------- A zone ---------------------------------------------------------

/// Every kind of answer that a zone can give.
fn zone_text() -> String {
    let mut text = String::from(
        "$ORIGIN z.\n$TTL 600\n@ SOA ns h 1 3600 600 86400 120\n@ NS ns\n@ NS ns2\n\
         ns A 192.0.2.1\nns2 AAAA 2001:db8::2\nwww A 192.0.2.10\nwww A 192.0.2.11\nwww AAAA ::1\n\
         mail MX 10 www\nmail MX 20 ns\nalias CNAME www\nfar CNAME alias\nlost CNAME gone\n\
         text TXT \"one\" \"two\"\n_sip._udp SRV 1 2 5060 www\n*.wild A 192.0.2.20\n\
         *.wild TXT \"wild\"\ntree DNAME other\nx.other A 192.0.2.30\nodd TYPE65280 \\# 3 abcdef\n\
         caa CAA 0 issue \"ca.example\"\nzero 0 A 192.0.2.40\nsvc HTTPS 1 . alpn=h2\n\
         a.b.c.deep A 192.0.2.50\nUPPER A 192.0.2.60\n",
    );
    for number in 0..100 {
        text += &format!("big A 198.51.100.{number}\n");
        text += &format!("long TXT \"{number:0200}\"\n");
    }
    text
}

/// Names and types that are asked for.
const QUESTIONS: &[(&str, u16)] = &[
    ("z.", rtype::SOA),
    ("z.", rtype::NS),
    ("www.z.", rtype::A),
    ("WWW.z.", rtype::AAAA),
    ("www.z.", rtype::TXT),
    ("mail.z.", rtype::MX),
    ("alias.z.", rtype::A),
    ("far.z.", rtype::AAAA),
    ("far.z.", rtype::CNAME),
    ("lost.z.", rtype::A),
    ("text.z.", rtype::TXT),
    ("_sip._udp.z.", rtype::SRV),
    ("a.wild.z.", rtype::A),
    ("b.c.wild.z.", rtype::TXT),
    ("a.wild.z.", rtype::MX),
    ("x.tree.z.", rtype::A),
    ("y.tree.z.", rtype::A),
    ("odd.z.", 65280),
    ("caa.z.", 257),
    ("svc.z.", 65),
    ("zero.z.", rtype::A),
    ("gone.z.", rtype::A),
    ("c.deep.z.", rtype::A),
    ("upper.z.", rtype::A),
    ("big.z.", rtype::A),
    ("long.z.", rtype::TXT),
];

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// A server with `text` behind its listeners.
fn serve(directory: &Path, text: &str) -> (Process, SocketAddr) {
    let start = "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\ncores = [0]\nstate = \"state\"\n\
                 [recursion]\nports = 256\n";
    let config = write(directory, "ring53.toml", &format!("{start}{text}"));
    let server = Process::start(&["--config", config.to_str().unwrap()]);
    let address = server.address();
    (server, address)
}

fn forward(zone: &str, to: &str) -> String {
    format!("[[forward]]\nzone = \"{zone}\"\nto = [\"{to}\"]\n")
}

/// Starts a peer in a directory, with zones and what it has to answer before it is used.
type Start = fn(&Path, &[(&str, &Path)], &[u8]) -> Server;

fn probe() -> Vec<u8> {
    query(1, b"\x01z\0", rtype::SOA, None)
}

#[test]
fn nsd_knot_and_bind_come_through_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "zone", &zone_text());
    for start in [Server::nsd, Server::knot, Server::bind] {
        let work = tempfile::tempdir().unwrap();
        let peer = start(work.path(), &[("z.", &file)], &probe());
        for carrier in ["", "tcp://"] {
            let work = tempfile::tempdir().unwrap();
            let to = format!("{carrier}{}", peer.address);
            let (_server, server) = serve(work.path(), &forward("z.", &to));
            for (name, qtype) in QUESTIONS {
                compare(peer.address, server, name, *qtype);
            }
            println!("{} over {carrier:?}: {} questions", peer.name, QUESTIONS.len());
        }
    }
}

#[test]
fn zones_go_where_they_are_told_to_and_aliases_lead_out() {
    let directory = tempfile::tempdir().unwrap();
    let start = |zone: &str, address: &str, server: Start| {
        let text = format!(
            "$ORIGIN {zone}\n$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww A {address}\n\
             sub.www A {address}\n"
        );
        let file = write(directory.path(), zone.trim_end_matches('.'), &text);
        let work = directory.path().join(format!("{zone}work"));
        fs::create_dir(&work).unwrap();
        let apex = zone.parse::<Name>().unwrap();
        server(&work, &[(zone, &file)], &query(1, apex.as_wire(), rtype::SOA, None))
    };
    let outer = start("corp.", "192.0.2.71", Server::nsd);
    let inner = start("lab.corp.", "192.0.2.72", Server::knot);
    let local = "$ORIGIN here.\n$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 127.0.0.1\n\
                 out CNAME www.corp.\nfar CNAME out\nlab CNAME sub.www.lab.corp.\n\
                 gone CNAME gone.corp.\nown A 192.0.2.73\n";
    let file = write(directory.path(), "here", local);
    let text = format!(
        "[[zone]]\nname = \"here.\"\nfile = \"{}\"\n{}{}",
        file.display(),
        forward("corp.", &outer.address.to_string()),
        forward("lab.corp.", &inner.address.to_string())
    );
    let (_server, server) = serve(directory.path(), &text);
    for (direct, name) in [
        (outer.address, "www.corp."),
        (outer.address, "sub.www.corp."),
        (outer.address, "gone.corp."),
        (inner.address, "www.lab.corp."),
        (inner.address, "sub.www.lab.corp."),
        (inner.address, "lab.corp."),
    ] {
        compare(direct, server, name, rtype::A);
    }
    let data = |name: &str| -> (u16, Vec<String>) {
        let reply = reply_of(server, &with_opt(name));
        let data = reply.answers().iter().map(|record| record.data().to_string()).collect();
        (reply.response_code().into(), data)
    };
    let owned = |text: &[&str]| text.iter().map(|it| (*it).to_string()).collect::<Vec<_>>();
    for _ in 0..2 {
        assert_eq!(data("own.here."), (0, owned(&["192.0.2.73"])));
        assert_eq!(data("out.here."), (0, owned(&["www.corp.", "192.0.2.71"])));
        let far = owned(&["out.here.", "www.corp.", "192.0.2.71"]);
        assert_eq!(data("far.here."), (0, far));
        assert_eq!(data("lab.here."), (0, owned(&["sub.www.lab.corp.", "192.0.2.72"])));
        assert_eq!(data("gone.here."), (3, owned(&["gone.corp."])));
    }
    // What no forward covers has an answer, too: that there is nobody to ask.
    let reply = reply_of(server, &with_opt("www.elsewhere."));
    assert!([2, 5].contains(&u16::from(reply.response_code())) && !edes(&reply).is_empty());
}

//----------- Unbound --------------------------------------------------------

/// An issuer, and a certificate by it for `dns.example`.
struct Certificates {
    issuer: String,
    certificate: String,
    key: KeyPair,
}

impl Certificates {
    fn new() -> Certificates {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let issuer = authority.self_signed(&authority_key).unwrap().pem();
        let params = CertificateParams::new(vec!["dns.example".to_string()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &Issuer::new(authority, &authority_key)).unwrap();
        Certificates { issuer, certificate: certificate.pem(), key }
    }

    /// The pin of its key, as configured.
    fn pin(&self) -> String {
        let key = self.key.subject_public_key_info();
        BASE64.encode(ring::digest::digest(&ring::digest::SHA256, &key).as_ref())
    }
}

/// Unbound, which asks `authority` for `z.`; ended when it is dropped.
struct Unbound {
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
    https: SocketAddr,
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Unbound {
    fn start(directory: &Path, authority: &Server, certificates: &Certificates) -> Unbound {
        write(directory, "key.pem", &certificates.key.serialize_pem());
        write(directory, "certificate.pem", &certificates.certificate);
        let [plain, tls, https] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let work = directory.display();
        let config = format!(
            "server:\n username: \"\"\n chroot: \"\"\n directory: \"{work}\"\n pidfile: \"{work}/pid\"\n \
             use-syslog: no\n logfile: \"{work}/log\"\n do-daemonize: no\n num-threads: 1\n \
             interface: 127.0.0.1@{}\n interface: 127.0.0.1@{}\n interface: 127.0.0.1@{}\n \
             tls-port: {}\n https-port: {}\n tls-service-key: \"{work}/key.pem\"\n \
             tls-service-pem: \"{work}/certificate.pem\"\n do-not-query-localhost: no\n \
             module-config: \"iterator\"\n qname-minimisation: no\n minimal-responses: yes\n \
             rrset-roundrobin: no\n outgoing-range: 256\n\
             remote-control:\n control-enable: no\n\
             stub-zone:\n name: \"z.\"\n stub-addr: 127.0.0.1@{}\n stub-prime: no\n",
            plain.port(),
            tls.port(),
            https.port(),
            tls.port(),
            https.port(),
            authority.address.port()
        );
        let file = write(directory, "unbound.conf", &config);
        let mut command = Command::new("unbound");
        let child = command.arg("-d").arg("-c").arg(&file).stderr(Stdio::null()).spawn();
        let child = child.expect("unbound: run scripts/test");
        let unbound = Unbound { child, plain, tls, https };
        let end = Instant::now() + PATIENCE;
        while [plain, tls, https].iter().any(|it| std::net::TcpStream::connect(it).is_err()) {
            let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "unbound does not listen: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
        unbound
    }
}

/// Codes and texts of the Extended DNS Errors.
fn reasons(reply: &Parsed) -> String {
    let options = reply.extensions().as_ref().unwrap().options();
    let text = |option: &EdnsOption| match option {
        EdnsOption::Unknown(15, octets) => {
            let code = u16::from_be_bytes([octets[0], octets[1]]);
            Some(format!("{code}: {}", String::from_utf8_lossy(&octets[2..])))
        }
        _ => None,
    };
    options.as_ref().iter().filter_map(|(_, it)| text(it)).collect::<Vec<_>>().join("; ")
}

#[test]
fn unbound_comes_through_over_everything_and_is_known_by_name_or_pin() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "zone", &zone_text());
    let work = tempfile::tempdir().unwrap();
    let authority = Server::nsd(work.path(), &[("z.", &file)], &probe());
    let (right, other) = (Certificates::new(), Certificates::new());
    let of_unbound = tempfile::tempdir().unwrap();
    let unbound = Unbound::start(of_unbound.path(), &authority, &right);
    let issuer = write(directory.path(), "issuer.pem", &right.issuer);
    let stranger = write(directory.path(), "stranger.pem", &other.issuer);
    let ca = |file: &Path| format!("ca = \"{}\"\n", file.display());
    let (Unbound { plain, tls, https, .. }, pin) = (&unbound, right.pin());
    for (to, more) in [
        (format!("{plain}"), String::new()),
        (format!("tcp://{plain}"), String::new()),
        (format!("tls://{tls}#dns.example"), ca(&issuer)),
        (format!("tls://{tls}?pin-sha256={pin}"), String::new()),
        (format!("https://{https}/dns-query#dns.example"), ca(&issuer)),
        (format!("https://{https}/dns-query?pin-sha256={pin}"), String::new()),
    ] {
        let work = tempfile::tempdir().unwrap();
        let (_server, server) = serve(work.path(), &(forward("z.", &to) + &more));
        for (name, qtype) in QUESTIONS {
            compare(*plain, server, name, *qtype);
        }
        println!("{to}: {} questions", QUESTIONS.len());
    }
    let wrong = other.pin();
    for (to, more) in [
        (format!("tls://{tls}#another.example"), ca(&issuer)),
        (format!("tls://{tls}#dns.example"), ca(&stranger)),
        (format!("tls://{tls}#dns.example"), String::new()),
        (format!("tls://{tls}?pin-sha256={wrong}"), String::new()),
        (format!("https://{https}/dns-query#another.example"), ca(&issuer)),
        (format!("https://{https}/dns-query#dns.example"), ca(&stranger)),
        (format!("https://{https}/dns-query?pin-sha256={wrong}"), String::new()),
    ] {
        let work = tempfile::tempdir().unwrap();
        let (_server, server) = serve(work.path(), &(forward("z.", &to) + &more));
        let reply = reply_of(server, &with_opt("www.z."));
        let code = u16::from(reply.response_code());
        let reasons = reasons(&reply);
        println!("{to}: {reasons}");
        assert_eq!((code, reply.answers().len()), (SERVFAIL, 0), "{to}: {reply}");
        assert!(edes(&reply).contains(&23) && reasons.contains("certificate"), "{to}: {reasons}");
    }
}

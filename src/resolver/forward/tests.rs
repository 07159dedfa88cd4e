//! Simulated upstreams and a clock that jumps: thousands of questions, each ended as it should be.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::BuildHasher;

use super::*;
use crate::limits::UPSTREAM_LIES_MAX;
use crate::resolver::Question;
use crate::resolver::random::tests::sequence;
use crate::wire::message::{CLASS_IN, Message, Section, Writer, header};
use crate::wire::rtype;

const MS: Duration = Duration::from_millis(1);

//----------- Upstreams ------------------------------------------------------

/// What an upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Good,
    Dead,
    /// Loses one datagram in so many.
    Loses(u64),
    Code(u16),
    /// Answers FORMERR to OPT.
    NoEdns,
    /// The same, with nothing but a header.
    NoEdnsBare,
    /// TC over UDP; TCP works, or does not.
    Truncates {
        tcp: bool,
    },
    /// Letters come back in lower case, over TCP too.
    Lowers,
    OtherQuestion,
    OtherRecords,
    Broken,
    Loops,
    /// Forges before it tells the truth.
    ForgesFirst,
    Cookies,
    /// Knows no cookie that is sent at first.
    BadCookie,
    Hangs,
    Closes,
    Refuses,
}

struct Simulated {
    kind: Kind,
    delay: Duration,
    asked: usize,
}

fn truth(name: &[u8]) -> [u8; 4] {
    (Keyed(5).hash_one(name.to_ascii_lowercase()) as u32).to_be_bytes()
}

/// The query's name, whether it has OPT, and the octets of its cookie.
fn parse(query: &[u8]) -> (Vec<u8>, bool, Vec<u8>) {
    let message = Message::new(query).unwrap();
    let question = message.question().unwrap().unwrap();
    assert_eq!(message.flags() & !0x10, header::RD);
    let opt = message.records().unwrap().map(Result::unwrap).next();
    let options = opt.as_ref().map_or(&[][..], |opt| &query[opt.rdata.clone()]);
    let cookie = match options {
        [0, 10, 0, len, rest @ ..] => rest[..usize::from(*len)].to_vec(),
        _ => Vec::new(),
    };
    (question.name, opt.is_some(), cookie)
}

fn answer(name: &[u8], rcode: u16, flags: u16, owner: Option<&[u8]>) -> Writer {
    let mut writer = Writer::new(0, header::QR | header::RD | 0x80 | flags | rcode & 0xF);
    writer.question(name, rtype::A, CLASS_IN);
    if let Some(owner) = owner {
        writer.record(Section::Answer, owner, rtype::A, 60, &truth(name));
    }
    writer
}

impl Simulated {
    /// What comes, one after the other; nothing, if nothing does.
    fn replies(&mut self, query: &[u8], carrier: Carrier, random: &mut Random) -> Vec<Vec<u8>> {
        self.asked += 1;
        let fixed_at = 12 + parse(query).0.len();
        let mut replies = self.addresses(query, carrier, random);
        // Probes ask for another type: the question is theirs.
        for reply in replies.iter_mut().filter(|reply| reply.len() >= fixed_at + 2) {
            if reply[12..fixed_at].eq_ignore_ascii_case(&query[12..fixed_at]) {
                reply[fixed_at..fixed_at + 2].copy_from_slice(&query[fixed_at..fixed_at + 2]);
            }
        }
        replies
    }

    fn addresses(&mut self, query: &[u8], carrier: Carrier, random: &mut Random) -> Vec<Vec<u8>> {
        let (name, edns, cookie) = parse(query);
        let probe = query[12 + name.len() + 1] != rtype::A as u8;
        let good = || {
            let mut writer = answer(&name, 0, 0, (!probe).then_some(&name[..]));
            if edns {
                writer.opt(1232, None);
            }
            writer.into_octets()
        };
        let udp = carrier == Carrier::Udp;
        let one = |writer: Writer| vec![writer.into_octets()];
        let evil = b"\x04evil\0";
        match self.kind {
            Kind::Good => vec![good()],
            Kind::Dead | Kind::Hangs | Kind::Closes | Kind::Refuses => vec![],
            Kind::Loses(share) if random.below(share) == 0 => vec![],
            Kind::Loses(_) => vec![good()],
            Kind::Code(rcode) => {
                let mut writer = answer(&name, rcode, 0, None);
                writer.opt(1232, Some((15, &[0, 9, b'w', b'h', b'y'])));
                one(writer)
            }
            Kind::NoEdns if edns => one(answer(&name, rcode::FORMERR, 0, None)),
            Kind::NoEdnsBare if edns => vec![vec![0, 0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]],
            Kind::NoEdns | Kind::NoEdnsBare => vec![good()],
            Kind::Truncates { .. } if udp => one(answer(&name, 0, header::TC, None)),
            Kind::Truncates { tcp: true } => vec![good()],
            Kind::Truncates { tcp: false } => vec![],
            Kind::Lowers => {
                let mut reply = good();
                reply[12..12 + name.len()].make_ascii_lowercase();
                vec![reply]
            }
            Kind::OtherQuestion => one(answer(evil, 0, 0, Some(evil))),
            Kind::OtherRecords => one(answer(&name, 0, 0, Some(evil))),
            Kind::Broken => vec![good()[..good().len() - 3].to_vec()],
            Kind::Loops => {
                let mut reply = good();
                let at = 12 + name.len() + 4;
                reply.resize(reply.len().max(at + 2), 0);
                reply[at..at + 2].copy_from_slice(&(0xC000 | at as u16).to_be_bytes());
                vec![reply]
            }
            Kind::ForgesFirst => {
                vec![answer(evil, 0, 0, Some(evil)).into_octets(), good()]
            }
            Kind::Cookies | Kind::BadCookie => {
                let stale = self.kind == Kind::BadCookie && cookie.get(8..) != Some(b"serverck");
                let mut writer = answer(&name, 7, 0, (!stale).then_some(&name));
                writer = if stale { writer } else { answer(&name, 0, 0, Some(&name)) };
                let ours = cookie.get(..8).map(|ours| [ours, b"serverck"].concat());
                writer.opt(1232, ours.as_deref().map(|octets| (10, octets)));
                let mut reply = writer.into_octets();
                if stale {
                    let ttl_at = 12 + name.len() + 4 + 5;
                    (reply[3], reply[ttl_at]) = (reply[3] & 0xF0 | 7, 1);
                }
                vec![reply]
            }
        }
    }
}

//----------- Driver ---------------------------------------------------------

/// An outcome and when it came.
type Ended = (Duration, Outcome);

/// When, in which order, of which exchange, and the message, unless it is lost.
type Coming = (Duration, u64, ExchangeId, Option<Vec<u8>>);

struct Simulation {
    seed: u64,
    now: Duration,
    engine: Forwarder,
    upstreams: Vec<Simulated>,
    random: Random,
    /// What is on its way.
    coming: BinaryHeap<Reverse<Coming>>,
    order: u64,
    open: HashMap<ExchangeId, bool>,
    requests: HashMap<RequestId, Request>,
    ended: HashMap<RequestId, Ended>,
    cancelled: HashSet<RequestId>,
    sent: usize,
    over_tcp: usize,
}

fn upstream(index: usize, carrier: Carrier) -> Upstream {
    Upstream {
        address: ([192, 0, 2, index as u8], 53).into(),
        carrier,
        server_name: None,
        pins: Vec::new(),
        path: String::new(),
        issuers: None,
    }
}

impl Simulation {
    fn new(seed: u64, kinds: &[(Kind, u64)]) -> Simulation {
        let configs = (0..kinds.len()).map(|index| upstream(index, Carrier::Udp)).collect();
        Simulation::of(seed, kinds, Forward::new(Name::root(), configs))
    }

    fn of(seed: u64, kinds: &[(Kind, u64)], forward: Forward) -> Simulation {
        let simulated = |&(kind, delay): &(Kind, u64)| {
            let delay = Duration::from_micros(delay * 1000);
            Simulated { kind, delay, asked: 0 }
        };
        Simulation {
            seed,
            now: Duration::from_secs(3),
            engine: Forwarder::new(&[forward], sequence(seed)),
            upstreams: kinds.iter().map(simulated).collect(),
            random: sequence(!seed),
            coming: BinaryHeap::new(),
            order: 0,
            open: HashMap::new(),
            requests: HashMap::new(),
            ended: HashMap::new(),
            cancelled: HashSet::new(),
            sent: 0,
            over_tcp: 0,
        }
    }

    fn ask(&mut self, budget: u16, patience: Duration) -> RequestId {
        let id = RequestId(self.requests.len() as u64);
        let name: Name = format!("n{}.some-zone.example.", id.0).parse().unwrap();
        let question = Question {
            name,
            qtype: rtype::A,
            qclass: CLASS_IN,
            dnssec_ok: id.0.is_multiple_of(2),
            checking_disabled: id.0.is_multiple_of(3),
        };
        let request = Request { question, deadline: self.now + patience, budget };
        self.requests.insert(id, request.clone());
        self.engine.ask_traced(self.now, id, request);
        self.act();
        id
    }

    /// Does what the engine says.
    fn act(&mut self) {
        let seed = self.seed;
        while let Some(action) = self.engine.poll() {
            match action {
                Action::Send { exchange, upstream, carrier, message } => {
                    self.sent += 1;
                    self.over_tcp += usize::from(carrier == Carrier::Tcp);
                    assert!(self.open.insert(exchange, true).is_none(), "seed {seed}: used twice");
                    let simulated = &mut self.upstreams[upstream.0 as usize];
                    let replies = simulated.replies(&message, carrier, &mut self.random);
                    let jitter = simulated.delay / 8 * self.random.below(8) as u32 / 8;
                    let at = self.now + simulated.delay + jitter;
                    let fault =
                        matches!(simulated.kind, Kind::Closes | Kind::Refuses).then_some(None);
                    for reply in replies.into_iter().map(Some).chain(fault) {
                        self.order += 1;
                        self.coming.push(Reverse((at, self.order, exchange, reply)));
                    }
                    self.engine.recycle(message);
                }
                Action::Abandon(exchange) => {
                    let open = self.open.insert(exchange, false);
                    assert_eq!(open, Some(true), "seed {seed}: abandoned twice, or never sent");
                }
                Action::Done(id, outcome) => {
                    assert!(!self.cancelled.contains(&id), "seed {seed}: cancelled");
                    let ended = self.ended.insert(id, (self.now, outcome));
                    assert!(ended.is_none(), "seed {seed}: ended twice");
                    self.judge(id);
                }
            }
        }
    }

    /// What every outcome must be.
    fn judge(&mut self, id: RequestId) {
        let (request, seed) = (&self.requests[&id], self.seed);
        let (at, outcome) = &self.ended[&id];
        assert!(*at <= request.deadline, "seed {seed}: {at:?} after {:?}", request.deadline);
        let trace = self.engine.take_trace(id).unwrap();
        let sends = trace.attempts.len() + trace.omitted;
        assert!(sends <= usize::from(request.budget), "seed {seed}: {trace:?}");
        match outcome {
            Outcome::Failure { edes } => assert!(!edes.is_empty(), "seed {seed}"),
            Outcome::Message { message, .. } => {
                let message = Message::new(message).unwrap();
                let question = message.question().unwrap().unwrap();
                let name = request.question.name.as_wire();
                assert!(question.name.eq_ignore_ascii_case(name), "seed {seed}");
                let records = message.records().unwrap().map(Result::unwrap);
                let answers: Vec<_> =
                    records.filter(|record| record.section == Section::Answer).collect();
                if message.rcode() == 0 && message.flags() & header::TC == 0 {
                    assert_eq!(answers.len(), 1, "seed {seed}");
                    let rdata = &message.octets()[answers[0].rdata.clone()];
                    assert_eq!(rdata, truth(name), "seed {seed}");
                }
            }
        }
    }

    /// Lets time go on until `end`.
    fn run(&mut self, end: Duration) {
        loop {
            let coming = self.coming.peek().map(|Reverse((at, ..))| *at);
            let due = self.engine.deadline().map(|due| due.max(self.now));
            let Some(next) = coming.into_iter().chain(due).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if coming == Some(next) {
                let Reverse((_, _, exchange, reply)) = self.coming.pop().unwrap();
                self.deliver(exchange, reply);
            }
            self.engine.on_time(self.now);
            self.act();
        }
        self.now = self.now.max(end);
        self.engine.on_time(self.now);
        self.act();
    }

    fn deliver(&mut self, exchange: ExchangeId, reply: Option<Vec<u8>>) {
        let was_open = self.open[&exchange];
        let taken = match reply {
            Some(reply) => self.engine.on_reply(self.now, exchange, &reply),
            None => {
                let fault = Fault::Connection("reset by peer".into());
                self.engine.on_fault(self.now, exchange, fault);
                self.open.insert(exchange, false);
                return self.act();
            }
        };
        if taken {
            assert!(was_open, "seed {}: taken after its end", self.seed);
            self.open.insert(exchange, false);
        }
        if !was_open {
            assert_eq!(self.engine.poll(), None, "seed {}: it was abandoned", self.seed);
        }
        self.act();
    }

    fn rest(&mut self) {
        self.run(self.now + Duration::from_secs(30));
        assert_eq!(self.engine.pending(), 0, "seed {}", self.seed);
        let all = self.ended.len() + self.cancelled.len();
        assert_eq!(all, self.requests.len(), "seed {}", self.seed);
    }

    /// Asks so many questions at intervals.
    fn load(&mut self, count: usize, interval: Duration) {
        for _ in 0..count {
            self.ask(8, 5000 * MS);
            self.run(self.now + interval);
        }
    }

    fn answered(&self) -> usize {
        let good = |(_, outcome): &&Ended| {
            matches!(outcome, Outcome::Message { message, .. }
                if message[3] & 0xF == 0 && message[2] & 2 == 0)
        };
        self.ended.values().filter(good).count()
    }

    fn asked(&self) -> Vec<usize> {
        self.upstreams.iter().map(|upstream| upstream.asked).collect()
    }
}

//----------- Tests ----------------------------------------------------------

const KINDS: &[Kind] = &[
    Kind::Good,
    Kind::Dead,
    Kind::Loses(3),
    Kind::Code(rcode::SERVFAIL),
    Kind::Code(rcode::REFUSED),
    Kind::NoEdns,
    Kind::NoEdnsBare,
    Kind::Truncates { tcp: true },
    Kind::Truncates { tcp: false },
    Kind::Lowers,
    Kind::OtherQuestion,
    Kind::OtherRecords,
    Kind::Broken,
    Kind::Loops,
    Kind::ForgesFirst,
    Kind::Cookies,
    Kind::BadCookie,
    Kind::Hangs,
    Kind::Closes,
    Kind::Refuses,
];

#[test]
fn every_request_ends_once_in_time_within_its_budget_with_the_truth() {
    for seed in 0..300 {
        let mut random = sequence(seed * 7 + 1);
        let kinds: Vec<(Kind, u64)> = (0..1 + random.below(4))
            .map(|_| (KINDS[random.below(KINDS.len() as u64) as usize], 1 + random.below(300)))
            .collect();
        let mut simulation = Simulation::new(seed, &kinds);
        for _ in 0..100 {
            let budget = random.below(10) as u16;
            let id = simulation.ask(budget, random.below(4000) as u32 * MS);
            simulation.run(simulation.now + random.below(100) as u32 * MS);
            if random.below(10) == 0 && !simulation.ended.contains_key(&id) {
                simulation.engine.cancel(id);
                simulation.cancelled.insert(id);
                simulation.act();
            }
            if random.below(50) == 0 {
                let place = random.below(kinds.len() as u64) as usize;
                let kind = KINDS[random.below(KINDS.len() as u64) as usize];
                simulation.upstreams[place].kind = kind;
            }
        }
        simulation.rest();
        let left: Vec<_> = simulation.engine.upstreams().map(|report| report.in_flight).collect();
        assert!(left.iter().all(|&left| left <= 1), "seed {seed}: only probes are left: {left:?}");
    }
}

#[test]
fn one_good_upstream_is_enough() {
    for (seed, &kind) in KINDS.iter().enumerate() {
        let mut simulation = Simulation::new(seed as u64, &[(kind, 10), (Kind::Good, 30)]);
        simulation.load(200, 5 * MS);
        simulation.rest();
        assert_eq!(simulation.answered(), 200, "{kind:?}");
        assert!(simulation.sent < 900, "{kind:?}: {}", simulation.sent);
    }
}

#[test]
fn each_peculiarity_alone_is_got_over() {
    for (kind, over_tcp_max) in [
        (Kind::NoEdns, 0),
        (Kind::NoEdnsBare, 0),
        (Kind::Lowers, 30),
        (Kind::ForgesFirst, 0),
        (Kind::Cookies, 0),
        (Kind::BadCookie, 0),
        (Kind::Loses(10), 0),
        (Kind::Truncates { tcp: true }, 300),
    ] {
        let mut simulation = Simulation::new(9, &[(kind, 10)]);
        simulation.load(300, 20 * MS);
        simulation.rest();
        assert_eq!(simulation.answered(), 300, "{kind:?}");
        assert!(simulation.over_tcp <= over_tcp_max, "{kind:?}: {}", simulation.over_tcp);
        // What has been learnt is not asked again and again.
        let sends_max = if over_tcp_max == 300 { 600 } else { 400 };
        assert!(simulation.sent <= sends_max, "{kind:?}: {}", simulation.sent);
    }
}

#[test]
fn cookies_are_kept_and_forgotten() {
    let mut simulation = Simulation::new(1, &[(Kind::Cookies, 10)]);
    simulation.load(10, 20 * MS);
    assert!(simulation.engine.upstreams().next().unwrap().has_cookie);
    // The upstream gives no cookies any more: TCP says that this is no forgery.
    simulation.upstreams[0].kind = Kind::Good;
    simulation.load(100, 20 * MS);
    simulation.rest();
    assert!(!simulation.engine.upstreams().next().unwrap().has_cookie);
    assert_eq!(simulation.answered(), 110);
    assert!((1..5).contains(&simulation.over_tcp), "{}", simulation.over_tcp);
}

#[test]
fn the_best_of_bad_replies_is_the_outcome() {
    let codes = [Kind::Code(rcode::REFUSED), Kind::Code(rcode::SERVFAIL), Kind::Code(4)];
    let kinds = codes.map(|kind| (kind, 5));
    for seed in 0..20 {
        let mut simulation = Simulation::new(seed, &kinds);
        let id = simulation.ask(10, 3000 * MS);
        simulation.rest();
        let Outcome::Message { message, edes, .. } = &simulation.ended[&id].1 else {
            panic!("seed {seed}: {:?}", simulation.ended)
        };
        assert_eq!(message[3] & 0xF, 2, "seed {seed}");
        assert_eq!((edes[0].code, &edes[0].text[..]), (9, "why"));
        assert_eq!(simulation.sent, 3, "seed {seed}: each is asked once");
    }
    let mut simulation = Simulation::new(1, &[(Kind::Truncates { tcp: false }, 5)]);
    let id = simulation.ask(10, 3000 * MS);
    simulation.rest();
    let (_, Outcome::Message { message, .. }) = &simulation.ended[&id] else { panic!() };
    assert!(message[2] & 2 != 0, "TCP fails everywhere");
}

#[test]
fn failures_name_who_has_failed() {
    let mut simulation = Simulation::new(1, &[(Kind::Dead, 5), (Kind::Refuses, 5)]);
    let id = simulation.ask(10, 3000 * MS);
    simulation.rest();
    let (_, Outcome::Failure { edes }) = &simulation.ended[&id] else { panic!() };
    let codes: Vec<_> = edes.iter().map(|ede| ede.code).collect();
    assert_eq!(codes, [22, 23, 23], "{edes:?}");
    assert!(edes.iter().any(|ede| ede.text == "192.0.2.0:53 over UDP has not answered in time"));
}

#[test]
fn names_go_where_they_belong() {
    let forward = |zone: &str, index| {
        Forward::new(zone.parse().unwrap(), vec![upstream(index, Carrier::Udp)])
    };
    let forwards = [forward("Example.", 0), forward("b.example.", 1), forward("org.", 0)];
    let mut engine = Forwarder::new(&forwards, sequence(1));
    assert_eq!(engine.upstreams().count(), 2, "equal upstreams are one");
    for (name, zone) in [
        ("example.", Some("example.")),
        ("a.example.", Some("example.")),
        ("xb.example.", Some("example.")),
        ("a.b.example.", Some("b.example.")),
        ("org.", Some("org.")),
        ("com.", None),
        (".", None),
    ] {
        let covering = engine.covering(&name.parse().unwrap()).map(Name::to_string);
        assert_eq!(covering.as_deref(), zone, "{name}");
    }
    let name = "a.com.".parse().unwrap();
    let (dnssec_ok, checking_disabled) = (true, false);
    let question = Question { name, qtype: 1, qclass: 1, dnssec_ok, checking_disabled };
    engine.ask(MS, RequestId(3), Request { question, deadline: 9 * MS, budget: 9 });
    let Some(Action::Done(RequestId(3), Outcome::Failure { edes })) = engine.poll() else {
        panic!("no forward covers it")
    };
    assert_eq!(edes[0].code, rcode::EDE_NO_REACHABLE_AUTHORITY);
}

#[test]
fn the_slow_get_few_questions_and_the_late_are_outrun() {
    let mut simulation = Simulation::new(3, &[(Kind::Good, 10), (Kind::Good, 150)]);
    simulation.load(2000, 5 * MS);
    simulation.rest();
    let asked = simulation.asked();
    assert!(asked[1] > 5 && asked[1] < 150, "{asked:?}");
    // The fast one becomes the slow one.
    simulation.upstreams[0].delay = 400 * MS;
    let begun = simulation.asked();
    simulation.load(1000, 5 * MS);
    simulation.rest();
    let now = simulation.asked();
    assert!(now[0] - begun[0] < 300, "{begun:?} {now:?}");
    let (id, worst) = simulation
        .ended
        .iter()
        .map(|(id, (at, _))| (id.0, *at + 5000 * MS - simulation.requests[id].deadline))
        .max_by_key(|(_, took)| *took)
        .unwrap();
    assert!(worst < 600 * MS, "question {id} took {worst:?}");
}

#[test]
fn who_comes_back_is_asked_within_five_seconds() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(seed, &[(Kind::Good, 20)]);
        simulation.load(300, 10 * MS);
        for down in [1000, 7000, 40_000 + seed * 777] {
            simulation.upstreams[0].kind = Kind::Dead;
            let before = simulation.asked()[0];
            for _ in 0..down / 100 {
                simulation.ask(4, 2000 * MS);
                simulation.run(simulation.now + 100 * MS);
            }
            let health = simulation.engine.upstreams().next().unwrap().health;
            assert!(down < 5000 || health != Health::Healthy, "seed {seed}");
            // It costs little meanwhile.
            assert!(simulation.asked()[0] - before < 60 + down as usize / 20, "seed {seed}");
            simulation.upstreams[0].kind = Kind::Good;
            let begun = simulation.now;
            simulation.run(begun + 5000 * MS);
            let report = simulation.engine.upstreams().next().unwrap();
            assert_eq!(report.health, Health::Healthy, "seed {seed} after {down}");
            let answered = simulation.answered();
            simulation.load(20, 20 * MS);
            simulation.run(simulation.now + 1000 * MS);
            assert_eq!(simulation.answered(), answered + 20, "seed {seed} after {down}");
        }
        simulation.rest();
    }
}

#[test]
fn nobody_is_probed_for_ever() {
    let mut simulation = Simulation::new(4, &[(Kind::Dead, 20)]);
    simulation.load(20, 100 * MS);
    simulation.run(simulation.now + Duration::from_secs(200));
    let asked = simulation.asked();
    simulation.run(simulation.now + Duration::from_secs(3600));
    assert_eq!((simulation.asked(), simulation.engine.deadline()), (asked, None));
    simulation.upstreams[0].kind = Kind::Good;
    simulation.ask(4, 2000 * MS);
    simulation.rest();
    assert_eq!(simulation.answered(), 1);
}

#[test]
fn liars_are_left_alone() {
    for kind in [Kind::OtherQuestion, Kind::OtherRecords, Kind::Broken, Kind::Loops] {
        let mut simulation = Simulation::new(5, &[(kind, 5), (Kind::Good, 50)]);
        simulation.load(1000, 10 * MS);
        simulation.rest();
        assert_eq!(simulation.answered(), 1000, "{kind:?}");
        let report = simulation.engine.upstreams().next().unwrap();
        assert!(matches!(report.health, Health::BackingOff { .. }), "{kind:?}");
        let lies_max = u64::from(UPSTREAM_LIES_MAX) * 3;
        assert!(report.tally.lies <= lies_max, "{kind:?}: {:?}", report.tally);
    }
}

#[test]
fn a_connection_that_lies_is_over() {
    let forward =
        Forward::new(Name::root(), vec![upstream(0, Carrier::Tls), upstream(1, Carrier::Https)]);
    let mut simulation = Simulation::of(6, &[(Kind::OtherRecords, 5), (Kind::Good, 10)], forward);
    simulation.load(100, 20 * MS);
    simulation.rest();
    assert_eq!((simulation.answered(), simulation.over_tcp), (100, 0));
}

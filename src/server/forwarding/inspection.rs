//! What a running server knows of a question to others, and of those whom it asks.
//!
//! ```text
//!   ring53 explain NAME TYPE ──> | explain www.example. A do |
//!                            <── {"cache": {...}, "flight": {...}, "upstreams": [...]}
//!   ring53 upstreams         ──> | upstreams |
//! ```
//!
//! The cache is read here; what only the thread that resolves knows, it is asked for
//! (`resolving/orders.rs`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::Wanted;
use crate::cache::{self, Entry, Prepared, flag};
use crate::limits::QUESTION_TIME_MAX;
use crate::resolver::{
    Attempt, Ending, Fault, Forward, Health, Trace, Trouble, Upstream, UpstreamReport, carrier_name,
};
use crate::wire::{Name, rcode, rtype};

use super::Kept;
use super::misses::Misses;
use super::resolving::orders::{Order, QuestionReport, REPORTS_MAX, Told};
use crate::server::config::upstream_text;

/// How long the thread that resolves may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is said when it does not.
const BUSY: &str = "the thread that resolves is busy: try again";
/// EDNS option of Extended DNS Errors (RFC 8914).
const OPTION_EDE: u16 = 15;

//----------- Query ----------------------------------------------------------

/// A question that is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// QNAME.
    pub name: Name,
    /// QTYPE.
    pub qtype: u16,
    /// DO.
    pub dnssec: bool,
    /// Whether the upstreams are asked now, whatever the cache has.
    pub asks: bool,
}

impl Query {
    /// As it is sent, behind `explain`.
    pub fn to_words(&self) -> String {
        let word = |is_there, word| if is_there { word } else { "" };
        let more = [word(self.dnssec, " do"), word(self.asks, " ask")].concat();
        format!("{} {}{more}", self.name, rtype::name(self.qtype))
    }

    /// Reads what follows `explain`.
    pub fn parse(words: &[&str]) -> Option<Query> {
        let (name, qtype, more) = match words {
            [name, qtype, more @ ..] => (name, qtype, more),
            _ => return None,
        };
        let (dnssec, asks) = match more {
            [] => (false, false),
            ["do"] => (true, false),
            ["ask"] => (false, true),
            ["do", "ask"] => (true, true),
            _ => return None,
        };
        let qtype = rtype::parse(qtype.as_bytes())?;
        Some(Query { name: name.parse().ok()?, qtype, dnssec, asks })
    }
}

//----------- Inspection -----------------------------------------------------

/// A server that resolves, as commands see it. Called on a thread that may take its time.
pub struct Inspection {
    /// Its cache.
    pub kept: Arc<Kept>,
    /// Where the thread that resolves takes orders.
    pub misses: Arc<Misses>,
}

impl Inspection {
    /// All upstreams.
    pub fn upstreams(&self) -> Value {
        let forwards = self.kept.forwards();
        let mut all = Vec::new();
        loop {
            let order = Order::Upstreams(all.len());
            let Some(Told::Upstreams(now, some)) = self.misses.orders.give(order, PATIENCE) else {
                return json!({ "error": BUSY });
            };
            let count = some.len();
            all.extend(some.iter().map(|report| upstream(report, now, &forwards)));
            if count < REPORTS_MAX {
                return json!({ "upstreams": all });
            }
        }
    }

    /// What there is to know of a question that leaves the zones here.
    pub fn explain(&self, query: &Query) -> Value {
        let flags = if query.dnssec { flag::DNSSEC_OK } else { 0 };
        let wanted = self.kept.wanted(&query.name.to_lowercase(), query.qtype, flags);
        let before = self.cached(&wanted);
        let order = Order::Question { wanted: Box::new(wanted.clone()), asks: query.asks };
        let patience = if query.asks { QUESTION_TIME_MAX + PATIENCE } else { PATIENCE };
        let Some(Told::Question(report)) = self.misses.orders.give(order, patience) else {
            return json!({ "error": BUSY });
        };
        let forwards = self.kept.forwards();
        let mut told = told(&report, &forwards);
        told["cache"] = before;
        if query.asks {
            told["cache_after"] = self.cached(&wanted);
        }
        told
    }

    /// What the cache has of a question.
    fn cached(&self, wanted: &Wanted) -> Value {
        let mut prepared = Prepared::default();
        let others = [0, 1, 2, 3].into_iter().filter(|flags| *flags != wanted.flags);
        let words = ["without DO", "with DO", "with CD", "with DO and CD"];
        let held = |flags: u8, prepared: &mut Prepared| {
            let wanted = Wanted { flags, ..wanted.clone() };
            self.kept.cache.copy(&wanted.key(), prepared)
        };
        let others = others.filter(|flags| held(*flags, &mut prepared));
        let others: Vec<&str> = others.map(|flags| words[usize::from(flags)]).collect();
        if !held(wanted.flags, &mut prepared) {
            return json!({ "state": "absent", "others": others });
        }
        let mut told = entry(&prepared.entry(), cache::second(self.kept.now()));
        told["others"] = others.into();
        told
    }
}

/// What there is to say of an entry, at a second of the cache's clock.
fn entry(entry: &Entry<'_>, now: u32) -> Value {
    let is_fresh = entry.is_fresh(now);
    let is = |flag: u8| entry.flags() & flag != 0;
    let kind = match () {
        () if is(flag::FAILURE) => "failure",
        () if is(flag::NEGATIVE) => "negative",
        () => "answer",
    };
    let state = match is_fresh {
        true => "fresh",
        // Nobody gets a failure whose time is over.
        false if is(flag::FAILURE) => "over",
        false => "stale",
    };
    let over_at = u64::from(entry.since()) + u64::from(entry.ttl());
    let now = u64::from(now);
    json!({
        "state": state,
        "kind": kind,
        "code": rcode::name(entry.rcode().into()),
        "records": entry.records().counts,
        "age_seconds": now.saturating_sub(entry.since().into()),
        "ttl_seconds": over_at.saturating_sub(now),
        "stale_seconds": now.saturating_sub(over_at),
        "authentic": is(flag::AUTHENTIC),
        "octets": entry.octets().len(),
        "edes": edes(entry.ede_options()),
    })
}

/// Extended DNS Errors in EDNS options.
fn edes(mut options: &[u8]) -> Vec<Value> {
    let mut edes = Vec::new();
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let [code, len] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let Some((option, rest)) = rest.split_at_checked(len.into()) else { break };
        if let (OPTION_EDE, Some((info, text))) = (code, option.split_first_chunk::<2>()) {
            edes.push(json!({
                "code": u16::from_be_bytes(*info),
                "text": String::from_utf8_lossy(text),
            }));
        }
        options = rest;
    }
    edes
}

//----------- Upstreams ------------------------------------------------------

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

/// Seconds until `at`, if that is to come.
fn left(at: Duration, now: Duration) -> Option<f64> {
    at.checked_sub(now).filter(|left| !left.is_zero()).map(seconds)
}

fn upstream(report: &UpstreamReport, now: Duration, forwards: &[Forward]) -> Value {
    let zones = forwards.iter().filter(|forward| forward.upstreams.contains(&report.config));
    let zones: Vec<String> = zones.map(|forward| forward.zone.to_string()).collect();
    let (health, since, next_probe) = match report.health {
        Health::Healthy => ("healthy", None, None),
        Health::BackingOff { since, until } => {
            let since = seconds(now.saturating_sub(since));
            ("backing off", Some(since), until.and_then(|until| left(until, now)))
        }
    };
    let trouble = report.trouble.as_ref().map(|(at, trouble)| {
        json!({ "what": words_of(trouble), "seconds_ago": seconds(now.saturating_sub(*at)) })
    });
    let tally = &report.tally;
    json!({
        "upstream": upstream_text(&report.config),
        "forwards": zones,
        "health": health,
        "since_seconds": since,
        "next_probe_seconds": next_probe,
        "rtt_ms": report.srtt.map(milliseconds),
        "rtt_variance_ms": report.variance.map(milliseconds),
        "tcp_rtt_ms": report.tcp_srtt.map(milliseconds),
        "failures_in_row": report.failures_in_row,
        "in_flight": report.in_flight,
        "sent": tally.sent,
        "answers": tally.answers,
        "refusals": tally.refusals,
        "timeouts": tally.timeouts,
        "faults": tally.faults,
        "lies": tally.lies,
        "outrun": tally.outrun,
        "trouble": trouble,
        "without_edns_seconds": left(report.plain_until, now),
        "lower_case_seconds": left(report.lower_until, now),
        "cookie": report.has_cookie,
    })
}

fn words_of(trouble: &Trouble) -> String {
    match trouble {
        Trouble::TimedOut => "no reply in time".into(),
        Trouble::Outrun => "others were faster, several times in a row".into(),
        Trouble::Lied => "what it said was not true".into(),
        Trouble::Fault(Fault::Refused) => "it refuses connections".into(),
        Trouble::Fault(Fault::Connection(text)) => format!("connection: {text}"),
        Trouble::Fault(Fault::Certificate(text)) => format!("certificate: {text}"),
        Trouble::Fault(Fault::Protocol(text)) => format!("protocol: {text}"),
        Trouble::Fault(Fault::NoRoom) => "there was no room to ask it".into(),
    }
}

/// An upstream of which only the configuration tells.
pub fn configured(config: &Upstream) -> Value {
    json!({ "upstream": upstream_text(config) })
}

//----------- Question -------------------------------------------------------

fn told(report: &QuestionReport, forwards: &[Forward]) -> Value {
    let now = report.now;
    let route = report.route.as_ref();
    let upstreams = route.iter().flat_map(|route| &route.upstreams);
    let upstreams: Vec<Value> = upstreams
        .map(|(_, preferred, report)| {
            let mut told = upstream(report, now, forwards);
            told["preferred"] = (*preferred).into();
            told
        })
        .collect();
    let name_of = |attempt: &Attempt| {
        let found = route?.upstreams.iter().find(|(id, ..)| *id == attempt.upstream)?;
        Some(upstream_text(&found.2.config))
    };
    let trace = report.trace.as_ref().map(|trace| attempts(trace, &name_of));
    json!({
        "forward": route.map(|route| route.zone.to_string()),
        "flight": report.waiting.map(|waiting| json!({ "clients": waiting })),
        "spared_seconds": report.spared_until.and_then(|until| left(until, now)),
        "upstreams": upstreams,
        "asked": trace,
        "unasked": report.unasked,
    })
}

fn attempts(trace: &Trace, name_of: &dyn Fn(&Attempt) -> Option<String>) -> Value {
    let attempt = |attempt: &Attempt| {
        json!({
            "upstream": name_of(attempt),
            "carrier": carrier_name(attempt.carrier),
            "sent_ms": milliseconds(attempt.sent),
            "ended_ms": attempt.ended.map(milliseconds),
            "ending": ending(attempt.ending),
        })
    };
    json!({
        "attempts": trace.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "omitted": trace.omitted,
    })
}

fn ending(ending: Ending) -> String {
    match ending {
        Ending::Waiting => "waiting".into(),
        Ending::Replied(code) => rcode::name(code),
        Ending::TimedOut => "no reply in time".into(),
        Ending::Lied => "what it said was not true".into(),
        Ending::Failed => "it could not be carried".into(),
        Ending::NoRoom => "there was no room to ask it".into(),
        Ending::Abandoned => "another was faster".into(),
    }
}

//----------- Words ----------------------------------------------------------

/// What is said of upstreams to people.
pub fn upstream_lines(upstreams: &Value) -> Vec<String> {
    upstreams.as_array().into_iter().flatten().flat_map(upstream_words).collect()
}

fn upstream_words(told: &Value) -> Vec<String> {
    let name = told["upstream"].as_str().unwrap_or("?");
    let Some(health) = told["health"].as_str() else { return vec![name.to_string()] };
    let number = |key: &str| told[key].as_f64();
    let mut state = vec![health.to_string()];
    state.extend(number("since_seconds").map(|since| format!("for {since:.1} s")));
    state.extend(number("next_probe_seconds").map(|next| format!("probed in {next:.1} s")));
    state.push(match (number("rtt_ms"), number("rtt_variance_ms")) {
        (Some(rtt), Some(variance)) => format!("{rtt:.1} ms +- {variance:.1}"),
        _ => "has never answered".into(),
    });
    state.extend(number("tcp_rtt_ms").map(|rtt| format!("over TCP {rtt:.1} ms")));
    match told["preferred"].as_bool() {
        Some(true) => state.push("asked first".into()),
        Some(false) if health == "healthy" => state.push("slower: asked now and then".into()),
        _ => {}
    }
    let mut lines = vec![format!("{name}  {}", state.join(", "))];
    let counts = [
        ("sent", "sent"),
        ("answers", "answers"),
        ("refusals", "of them to ask another"),
        ("timeouts", "time-outs"),
        ("faults", "faults"),
        ("lies", "lies"),
        ("outrun", "outrun"),
        ("in_flight", "in flight"),
        ("failures_in_row", "failures in a row"),
    ];
    let count = |(key, word): (&str, &str)| match told[key].as_u64() {
        None | Some(0) => None,
        Some(count) => Some(format!("{count} {word}")),
    };
    let mut counts: Vec<String> = counts.into_iter().filter_map(count).collect();
    counts.extend(number("without_edns_seconds").map(|left| format!("no EDNS for {left:.0} s")));
    counts.extend(number("lower_case_seconds").map(|left| format!("no 0x20 for {left:.0} s")));
    if told["cookie"].as_bool() == Some(true) {
        counts.push("has a cookie".into());
    }
    if !counts.is_empty() {
        lines.push(format!("    {}", counts.join(", ")));
    }
    if let (Some(what), Some(ago)) =
        (told["trouble"]["what"].as_str(), told["trouble"]["seconds_ago"].as_f64())
    {
        lines.push(format!("    last trouble {ago:.1} s ago: {what}"));
    }
    lines
}

/// What is said of a question to people.
pub fn lines(told: &Value) -> Vec<String> {
    let mut lines = vec![format!("cache     {}", cache_words(&told["cache"]))];
    if let Some(clients) = told["flight"]["clients"].as_u64() {
        lines.push(format!("flight    it is being asked; {clients} clients wait"));
    }
    if let Some(left) = told["spared_seconds"].as_f64() {
        lines.push(format!(
            "flight    it has failed: for {left:.1} s clients get what is stale at once"
        ));
    }
    if let Some(reason) = told["unasked"].as_str() {
        lines.push(format!("asked     not asked: {reason}"));
    }
    for attempt in told["asked"]["attempts"].as_array().into_iter().flatten() {
        let text = |key: &str| attempt[key].as_str().unwrap_or("?");
        let sent = attempt["sent_ms"].as_f64().unwrap_or(0.0);
        let ended = match attempt["ended_ms"].as_f64() {
            Some(ended) => format!(" at {ended:.1} ms"),
            None => String::new(),
        };
        lines.push(format!(
            "asked     at {sent:.1} ms {} over {}: {}{ended}",
            text("upstream"),
            text("carrier"),
            text("ending")
        ));
    }
    if let Some(omitted) = told["asked"]["omitted"].as_u64().filter(|omitted| *omitted > 0) {
        lines.push(format!("          and {omitted} more"));
    }
    if told["cache_after"].is_object() {
        lines.push(format!("cache     then {}", cache_words(&told["cache_after"])));
    }
    let upstreams = upstream_lines(&told["upstreams"]);
    lines.extend(upstreams.iter().map(|line| match line.strip_prefix("    ") {
        Some(more) => format!("          {more}"),
        None => format!("upstream  {line}"),
    }));
    lines
}

fn cache_words(told: &Value) -> String {
    let text = |key: &str| told[key].as_str().unwrap_or("");
    let count = |key: &str| told[key].as_u64().unwrap_or(0);
    let others: Vec<&str> =
        told["others"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let beside = match others.is_empty() {
        true => String::new(),
        false => format!("; there is one {}", others.join(", one ")),
    };
    if text("state") == "absent" {
        return format!("absent{beside}");
    }
    let records: u64 =
        told["records"].as_array().into_iter().flatten().filter_map(Value::as_u64).sum();
    let time = match text("state") {
        "fresh" => format!("{} s left", count("ttl_seconds")),
        _ => format!("past its time for {} s", count("stale_seconds")),
    };
    let mut words = vec![
        format!("{} {}: {}", text("state"), text("kind"), text("code")),
        format!("{records} records"),
        format!("held for {} s", count("age_seconds")),
        time,
    ];
    if told["authentic"].as_bool() == Some(true) {
        words.push("AD".into());
    }
    for ede in told["edes"].as_array().into_iter().flatten() {
        words.push(format!("EDE {} \"{}\"", ede["code"], ede["text"].as_str().unwrap_or("")));
    }
    format!("{}{beside}", words.join(", "))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Key, TtlBounds};

    #[test]
    fn queries_come_back_from_their_words() {
        for (dnssec, asks) in [(false, false), (true, false), (false, true), (true, true)] {
            let name = "a\\032b.example.".parse().unwrap();
            let query = Query { name, qtype: rtype::A, dnssec, asks };
            let words = query.to_words();
            let words: Vec<&str> = words.split_whitespace().collect();
            assert_eq!(Query::parse(&words), Some(query));
        }
        for wrong in ["", "a.", "a. NONE", "a. A now", "a. A ask do", "a..b A"] {
            let words: Vec<&str> = wrong.split_whitespace().collect();
            assert_eq!(Query::parse(&words), None, "{wrong}");
        }
    }

    #[test]
    fn an_entry_is_fresh_then_over() {
        let key = Key { name_hash: 1, name: b"\x01a\0", qtype: rtype::A, flags: 0 };
        let mut prepared = Prepared::default();
        let failure = TtlBounds::default().failure;
        prepared.failure(&key, Duration::from_secs(100), failure, &[(22, "no upstream")]);
        let at = |seconds| entry(&prepared.entry(), cache::second(Duration::from_secs(seconds)));
        let told = at(102);
        assert_eq!(
            (told["state"].as_str(), told["kind"].as_str()),
            (Some("fresh"), Some("failure"))
        );
        assert_eq!(
            (told["age_seconds"].as_u64(), told["ttl_seconds"].as_u64()),
            (Some(2), Some(3))
        );
        assert_eq!(told["edes"], json!([{ "code": 22, "text": "no upstream" }]));
        let words = cache_words(&told);
        assert_eq!(
            words,
            "fresh failure: SERVFAIL, 0 records, held for 2 s, 3 s left, EDE 22 \"no upstream\""
        );
        let told = at(110);
        assert_eq!(
            (told["state"].as_str(), told["stale_seconds"].as_u64()),
            (Some("over"), Some(5))
        );
    }
}

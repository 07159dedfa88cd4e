//! `ring53 explain NAME TYPE`: why an answer is what it is.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::Record;
use serde_json::{Value, json};

use crate::answer::{
    CoreState, Counters, Exchange, Step, Ticket, Transport, Verdict, answer_batch, explain,
};
use crate::limits::MESSAGE_SIZE_MAX;
use crate::policy::mapped;
use crate::snapshot::Snapshot;
use crate::wire::{Name, rtype};

use super::config::Config;
use super::report::tell;
use super::{cores, zones};

use elsewhere::Elsewhere;

mod elsewhere;

/// What is asked.
pub struct Question {
    /// QNAME.
    pub name: Name,
    /// QTYPE.
    pub rtype: u16,
    /// DO.
    pub dnssec: bool,
    /// Whether a running server is to ask its upstreams now.
    pub asks: bool,
}

/// What becomes of a question.
enum Becomes {
    /// It is answered from the zones here.
    Answered(Answer),
    /// Others are asked: for this name.
    Resolved(Name),
}

/// An answer, read.
struct Answer {
    octets: usize,
    code: String,
    flags: String,
    sections: [Vec<String>; 3],
}

const SECTIONS: [&str; 3] = ["answer", "authority", "additional"];

/// Loads the zones of `config` and tells how the question is answered.
pub fn run(config: &Config, question: &Question, as_json: bool) -> Result<ExitCode, String> {
    let mut zones = zones::ZoneSet::new(zones::hash_key()?);
    let snapshot = zones.load(config, cores::allowed().len());
    let snapshot = elsewhere::for_everybody(*snapshot, zones.recursion_of(config));
    let mut steps = explain(&snapshot, &question.name, question.rtype, question.dnssec);
    let datagram = match answer(&snapshot, question, Transport::Datagram)? {
        Becomes::Answered(datagram) => datagram,
        Becomes::Resolved(name) => {
            let elsewhere = Elsewhere::new(config, &snapshot, name, question);
            elsewhere.correct(&mut steps);
            return elsewhere.tell(config, question, &steps, as_json);
        }
    };
    elsewhere::correct_special(&mut steps, config, &snapshot);
    let Becomes::Answered(stream) = answer(&snapshot, question, Transport::Stream { idle: 0 })?
    else {
        return Err("it is answered over UDP, and not over TCP".into());
    };
    let left_out: Vec<String> = SECTIONS
        .iter()
        .enumerate()
        .flat_map(|(i, section)| {
            let fits = &datagram.sections[i];
            let missing = stream.sections[i].iter().filter(|record| !fits.contains(record));
            missing.map(move |record| format!("{section}: {record}"))
        })
        .collect();
    if as_json {
        let shown = |answer: &Answer| {
            json!({
                "octets": answer.octets,
                "code": answer.code,
                "flags": answer.flags,
                "answer": answer.sections[0],
                "authority": answer.sections[1],
                "additional": answer.sections[2],
            })
        };
        tell!(
            "{}",
            json!({
                "name": question.name.to_string(),
                "type": rtype::name(question.rtype),
                "dnssec": question.dnssec,
                "steps": steps_json(&steps),
                "datagram": shown(&datagram),
                "stream_octets": stream.octets,
                "left_out": left_out,
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    tell_steps(&steps);
    tell!("UDP       {}{}, {} octets", datagram.code, datagram.flags, datagram.octets);
    for (section, records) in SECTIONS.iter().zip(&datagram.sections) {
        for record in records {
            tell!("          {section}: {record}");
        }
    }
    tell!("TCP       {} octets", stream.octets);
    for record in left_out {
        tell!("          only there: {record}");
    }
    Ok(ExitCode::SUCCESS)
}

fn steps_json(steps: &[Step]) -> Vec<Value> {
    let step = |step: &Step| json!({"what": step.what, "name": step.name, "words": step.words});
    steps.iter().map(step).collect()
}

fn tell_steps(steps: &[Step]) {
    for step in steps {
        tell!("{:9} {}: {}", step.what, step.name, step.words);
    }
}

fn answer(
    snapshot: &Snapshot,
    question: &Question,
    transport: Transport,
) -> Result<Becomes, String> {
    let mut buffer = vec![0; MESSAGE_SIZE_MAX];
    let name = question.name.as_wire();
    let desired = u8::from(snapshot.recursion().is_some());
    let mut query = vec![0, 0, desired, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    query.extend_from_slice(name);
    query.extend_from_slice(&question.rtype.to_be_bytes());
    query.extend_from_slice(&[0, 1, 0, 0, rtype::OPT as u8, 0xFF, 0xFF, 0, 0]);
    query.extend_from_slice(&[u8::from(question.dnssec) << 7, 0, 0, 0]);
    buffer[..query.len()].copy_from_slice(&query);
    let mut exchanges = [Exchange {
        buffer: &mut buffer,
        query_len: query.len(),
        transport,
        client: mapped(Ipv4Addr::LOCALHOST.into()),
        verdict: Verdict::Reply(0),
    }];
    let mut core = CoreState::new(Arc::new(Counters::default()));
    answer_batch(snapshot, Duration::ZERO, &mut core, &mut exchanges);
    let octets = match exchanges[0].verdict {
        Verdict::Reply(octets) => octets,
        Verdict::Defer(Ticket::Resolve) => {
            let name = Name::from_wire(core.wanted.name.as_wire());
            return name.map(Becomes::Resolved).map_err(|_| "the name cannot be read".into());
        }
        _ => return Err("no answer to this question".into()),
    };
    let message = Message::from_vec(&buffer[..octets])
        .map_err(|error| format!("the answer cannot be read back: {error}"))?;
    let records =
        |records: &[Record]| records.iter().map(|record| record.to_string()).collect::<Vec<_>>();
    let flag = |set, text| if set { text } else { "" };
    Ok(Becomes::Answered(Answer {
        octets,
        code: format!("{:?}", message.response_code()).to_uppercase(),
        flags: [flag(message.authoritative(), ", AA"), flag(message.truncated(), ", TC")].concat(),
        sections: [
            records(message.answers()),
            records(message.name_servers()),
            records(message.additionals()),
        ],
    }))
}

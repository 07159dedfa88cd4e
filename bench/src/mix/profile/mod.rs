//! Profiles of real traffic: learned from a capture, without a name or an address in them.
//!
//! ```text
//!   pcap, pcapng, dnstap ──> messages ──> learn ──> Profile (JSON) ──> replay ──> Questions
//! ```

pub mod capture;
mod classes;
mod dnstap;
pub mod learn;
pub mod model;
mod packet;
pub mod replay;
pub mod reuse;
mod stream;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ring53::wire::message::{CLASS_IN, Message};
use ring53::wire::{Name, rtype};

use capture::{Seen, Skipped};
use learn::Learner;
pub use model::Profile;

/// What to learn from.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A pcap, pcapng or dnstap file.
    pub capture: PathBuf,
    /// Where the profile goes.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The port that servers listen on.
    #[arg(long, default_value_t = 53)]
    pub port: u16,
    /// Also write the queries themselves, `name type` a line, for a comparison on this machine.
    /// This file has the names in it.
    #[arg(long, value_name = "FILE")]
    pub queries_out: Option<PathBuf>,
}

/// Learns a profile and says what it is of.
pub fn run(options: &Options) -> io::Result<()> {
    let mut learner = Learner::default();
    let mut list = options.queries_out.as_deref().map(List::create).transpose()?;
    let skipped = capture::read(&options.capture, options.port, &mut |seen| {
        if let Some(list) = &mut list {
            list.take(seen);
        }
        learner.take(seen);
    })?;
    if let Some(list) = list {
        list.finish()?;
    }
    if learner.queries() == 0 {
        let error = format!(
            "{}: no queries to port {} in {} frames: say --port if servers listen on another",
            options.capture.display(),
            options.port,
            skipped.frames
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    let others = learner.others;
    let profile = learner.finish(&skipped);
    profile.write(&options.out)?;
    print!("{}", describe(&profile, &skipped, others));
    Ok(())
}

/// The profile in a few lines.
fn describe(profile: &Profile, skipped: &Skipped, others: u64) -> String {
    // The sum of nothing is -0.
    let percent = |share: f64| format!("{:.1}%", share * 100.0 + 0.0);
    let of = |fits: fn(&model::VariantShare) -> bool| {
        percent(profile.variants.iter().filter(|it| fits(it)).map(|it| it.share).sum())
    };
    let mut text = format!(
        "{} queries in {} s ({:.0}/s) of {} clients: {} names, {} questions, {} of them once\n",
        profile.queries,
        profile.seconds,
        profile.rate(),
        profile.clients.count,
        profile.names,
        profile.questions,
        profile.seen_once,
    );
    let types = profile.beside.iter().take(6);
    let types = types.map(|it| format!("{} {}", rtype::name(it.r#type), percent(it.queries)));
    text += &format!(
        "{}; TCP {}, EDNS {}, DO {}, mixed case {}\n",
        types.collect::<Vec<_>>().join(", "),
        of(|it| it.stream),
        of(|it| it.edns.is_some()),
        of(|it| it.dnssec_ok),
        of(|it| it.mixed_case),
    );
    let sizes = [0.01, 0.1, 1.0].map(|share| {
        let size = (profile.questions as f64 * share).ceil();
        format!("{} of {size}", percent(profile.hit_ratio(size)))
    });
    text += &format!("hit ratio of caches without expiry: {}\n", sizes.join(", "));
    if let Some(responses) = &profile.responses {
        text += &format!(
            "answered {}, NXDOMAIN {}, no records {}\n",
            percent(responses.answered),
            percent(responses.rcodes.get(3).copied().unwrap_or(0.0)),
            percent(responses.nodata),
        );
    }
    text += &format!(
        "not taken: {} of {} frames, {others} messages that ask for no name, {} cut off, {} TCP \
         streams with gaps{}\n",
        skipped.others,
        skipped.frames,
        skipped.cut,
        skipped.streams_lost,
        if skipped.truncated { "; the file ends early" } else { "" },
    );
    text
}

//----------- List -----------------------------------------------------------

/// The queries of a capture as a file of queries.
struct List {
    file: BufWriter<File>,
    failed: io::Result<()>,
}

impl List {
    fn create(path: &Path) -> io::Result<List> {
        let file = File::create(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Ok(List { file: BufWriter::new(file), failed: Ok(()) })
    }

    fn take(&mut self, seen: &Seen<'_>) {
        let message = Message::new(seen.message).filter(|it| it.opcode() == 0 && seen.to_server);
        let question = message.and_then(|message| message.question().ok().flatten());
        let Some(question) = question.filter(|question| question.qclass == CLASS_IN) else {
            return;
        };
        let records = message.and_then(|message| message.records().ok()).into_iter().flatten();
        let mut opts = records.flatten().filter(|record| record.rtype == rtype::OPT);
        let flags = match opts.next() {
            Some(opt) if opt.ttl & 0x8000 != 0 => " D",
            Some(_) => " E",
            None => "",
        };
        if let (Ok(name), Ok(())) = (Name::from_wire(&question.name), &self.failed) {
            self.failed = writeln!(self.file, "{name} {}{flags}", rtype::name(question.qtype));
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.failed?;
        self.file.flush()
    }
}

//! `ring53-bench find`: the rates that a server sustains, with the generator's own ceiling beside
//! them.

mod bounds;
mod ceiling;
mod search;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::load::cli::{TargetOptions, begin, note, positive, schedule};
use crate::load::{self, Load, LoadOptions, Schedule};
use crate::mix::Questions;
use crate::mix::cli::MixOptions;
use crate::report::Outputs;
use crate::report::model::{Ceiling, Run};

pub use bounds::Bounds;
pub use ceiling::{CeilingOption, measure};
pub use search::{CEILING_SHARE_MAX, Probe, Search, search, spoilt};

/// Options of `find`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    mix: MixOptions,
    /// What a rate has to hold.
    #[arg(long, default_value = "p99.9<1ms,loss<0.01%")]
    slo: Bounds,
    /// Queries a second to begin with.
    #[arg(long, default_value_t = 1000.0)]
    low: f64,
    /// Queries a second that are not exceeded; 0: no bound.
    #[arg(long, default_value_t = 0.0)]
    high: f64,
    /// Seconds of each load.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    seconds: f64,
    /// How many times all of it is done.
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// How narrow a bracket ends the search, as a share of the rate.
    #[arg(long, default_value_t = 0.02)]
    precision: f64,
    /// When queries are sent: poisson, constant, bursts:N [default: poisson, or the gaps of the
    /// profile].
    #[arg(long)]
    schedule: Option<Schedule>,
    /// The generator's own ceiling: auto measures it first, against a reflector in the driver
    /// (root) or an echo on another core; a number is one that is known; none does without.
    #[arg(long, default_value = "auto")]
    ceiling: CeilingOption,
    #[command(flatten)]
    outputs: Outputs,
}

/// Sends loads of one mix to one server.
pub struct Generator<'a> {
    /// Whom to ask and how.
    pub options: &'a LoadOptions,
    /// With what.
    pub questions: &'a Arc<Questions>,
    /// When.
    pub schedule: &'a Schedule,
    /// For how long each.
    pub seconds: f64,
    /// Told what is happening.
    pub live: &'a mut dyn FnMut(&str, f64, &load::Live),
}

impl Probe for Generator<'_> {
    fn run(&mut self, label: &str, rate: f64, seed: u64) -> io::Result<Run> {
        let load = Load {
            label: label.into(),
            schedule: self.schedule.clone(),
            rate,
            seconds: self.seconds,
            seed,
        };
        let live = &mut self.live;
        load::run(self.options, self.questions, &load, &mut |now| live(label, rate, now))
    }
}

/// Finds the rates of one server.
pub fn run(options: &Options) -> io::Result<()> {
    let began = Instant::now();
    let questions = Arc::new(options.mix.questions()?);
    if matches!(options.schedule, Some(Schedule::Ramp(_))) {
        let message = "a ramp has no rate: --schedule poisson, constant or bursts:N";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut load_options = options.target.load_options();
    // What is sent late must not decide about a percentile of this latency.
    let tenth = Duration::from_nanos((options.slo.latency_us * 100.0) as u64);
    load_options.late = load_options.late.min(tenth.max(Duration::from_micros(100)));
    let mut report = begin("find", &options.target, &note(&questions));
    let ceiling: Option<Ceiling> = measure(&options.ceiling, &load_options, &questions)?;
    let search = Search {
        bounds: options.slo,
        low: options.low.max(10.0),
        high: options.high,
        repeats: options.repeats,
        precision: options.precision.clamp(0.001, 0.5),
        ceiling: ceiling.as_ref().map(|ceiling| ceiling.rate),
        ..Search::default()
    };
    if ceiling.is_none() {
        report.notes.push("the generator's ceiling was not measured (--ceiling none)".into());
    }
    if ceiling.as_ref().is_some_and(|ceiling| ceiling.against == "echo") {
        report.notes.push(
            "the ceiling is that of an echo on one core: as root it is measured against a \
             reflector in the driver"
                .into(),
        );
    }
    report.generator.ceiling = ceiling;
    let mut progress = options.outputs.progress();
    let mut shown = String::new();
    let mut generator = Generator {
        options: &load_options,
        questions: &questions,
        schedule: &schedule(&options.schedule, &options.mix)?,
        seconds: options.seconds,
        live: &mut |label, rate, now| {
            let label = format!("{label}, {rate:.0}/s");
            if now.seconds < options.seconds / 2.0 && label != shown {
                progress.begin(&label, options.seconds);
                shown = label;
            }
            progress.show(now);
        },
    };
    let (find, runs) = search::search(&search, &mut generator)?;
    drop(progress);
    for factor in &search.factors {
        if !find.overload.iter().any(|overload| overload.factor == *factor) {
            report.notes.push(format!(
                "{factor} times the peak was not offered: the generator cannot, or must not (--high)"
            ));
        }
    }
    report.find = Some(find);
    report.runs = runs;
    report.seconds = began.elapsed().as_secs_f64();
    options.outputs.finish(&report)
}

//! The line that moves while a load runs.
//!
//! ```text
//!   terminal       bisect 3 ━━━━━━━━━━────────── 182 k/s, lost 0.012 %, p99 412 µs, 7.0 s left
//!   no terminal    bisect 3: 3.0 of 10.0 s, 182 k/s, lost 0.012 %, p99 412 µs     every 5 seconds
//!   --quiet        nothing
//! ```

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units;
use crate::load::Live;

/// Seconds of a load between two plain lines.
const LINE_SECONDS: f64 = 5.0;
/// Seconds over which the live rate is taken.
const RATE_SECONDS: f64 = 1.0;
/// Steps of a bar: fine enough for any terminal.
const STEPS: u64 = 1000;

/// What is shown of the loads of a command, on stderr. Dropping it clears the bar.
pub struct Progress {
    screen: Screen,
    load: Current,
}

/// Where it is shown.
enum Screen {
    Silent,
    Lines { out: Box<dyn Write>, next: f64 },
    Bar(ProgressBar),
}

/// The load that runs.
#[derive(Default)]
struct Current {
    label: String,
    seconds: f64,
    /// Time and good answers at the start of the span over which the rate is taken.
    since: (f64, u64),
    rate: f64,
}

impl Progress {
    /// A bar if stderr is a terminal, lines if it is not, nothing if `quiet`.
    pub fn new(quiet: bool) -> Progress {
        if quiet {
            Progress::on(Screen::Silent)
        } else if io::stderr().is_terminal() {
            Progress::bar(ProgressDrawTarget::stderr())
        } else {
            Progress::lines(Box::new(io::stderr()))
        }
    }

    /// A bar on this terminal.
    fn bar(target: ProgressDrawTarget) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(STEPS), target);
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━━─"));
        Progress::on(Screen::Bar(bar))
    }

    /// Plain lines into `out`.
    fn lines(out: Box<dyn Write>) -> Progress {
        Progress::on(Screen::Lines { out, next: LINE_SECONDS })
    }

    fn on(screen: Screen) -> Progress {
        Progress { screen, load: Current::default() }
    }

    /// The next load begins: what it is for, and its seconds.
    pub fn begin(&mut self, label: &str, seconds: f64) {
        self.load = Current { label: label.to_string(), seconds, ..Current::default() };
        match &mut self.screen {
            Screen::Silent => {}
            Screen::Lines { next, .. } => *next = LINE_SECONDS,
            Screen::Bar(bar) => {
                bar.set_position(0);
                bar.set_prefix(self.load.label.clone());
                bar.set_message("");
            }
        }
    }

    /// What the load looks like now.
    pub fn show(&mut self, live: &Live) {
        self.load.take(live);
        match &mut self.screen {
            Screen::Silent => {}
            Screen::Lines { out, next } => {
                if live.seconds >= *next {
                    *next = (live.seconds / LINE_SECONDS).floor() * LINE_SECONDS + LINE_SECONDS;
                    // A closed stderr is no reason to stop a measurement.
                    let _ = writeln!(out, "{}", self.load.line(live));
                }
            }
            Screen::Bar(bar) => {
                let share = live.seconds / self.load.seconds.max(1e-9);
                bar.set_position((share.clamp(0.0, 1.0) * STEPS as f64) as u64);
                bar.set_message(self.load.message(live));
            }
        }
    }

    /// Says something that stays, above the bar.
    pub fn note(&mut self, text: &str) {
        match &mut self.screen {
            Screen::Silent => {}
            Screen::Lines { out, .. } => {
                let _ = writeln!(out, "{text}");
            }
            Screen::Bar(bar) => bar.println(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Screen::Bar(bar) = &self.screen {
            bar.finish_and_clear();
        }
    }
}

impl Current {
    fn take(&mut self, live: &Live) {
        let (seconds, good) = self.since;
        let span = live.seconds - seconds;
        // Before the first span is full the mean so far is the best there is.
        if span >= RATE_SECONDS || seconds == 0.0 {
            self.rate = live.good.saturating_sub(good) as f64 / span.max(1e-9);
        }
        if span >= RATE_SECONDS {
            self.since = (live.seconds, live.good);
        }
    }

    fn state(&self, live: &Live) -> String {
        let decided = (live.good + live.lost).max(1);
        format!(
            "{}, lost {}, p99 {}",
            units::rate(self.rate),
            units::share(live.lost as f64 / decided as f64),
            units::micros(live.p99)
        )
    }

    fn message(&self, live: &Live) -> String {
        let left = self.seconds - live.seconds;
        if left > 0.0 {
            format!("{}, {left:.1} s left", self.state(live))
        } else {
            format!("{}, last answers", self.state(live))
        }
    }

    fn line(&self, live: &Live) -> String {
        let (now, all) = (live.seconds.min(self.seconds), self.seconds);
        format!("{}: {now:.1} of {all:.1} s, {}", self.label, self.state(live))
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// What was written, by whoever writes.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl Paper {
        fn add(&self, text: &str) {
            self.0.lock().unwrap().push_str(text);
        }

        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    impl Write for Paper {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.add(std::str::from_utf8(octets).unwrap());
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.add(text);
            self.add("\n");
            Ok(())
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.add(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.add("\r");
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A load of 12 seconds, shown four times a second, that slows down half-way.
    fn run(progress: &mut Progress) {
        progress.begin("bisect 3", 12.0);
        let mut good = 0;
        for step in 1..=50 {
            good += if step <= 24 { 250 } else { 125 };
            let live = Live {
                seconds: f64::from(step) / 4.0,
                sent: good + 5,
                good,
                lost: good / 99,
                p99: 412.0,
            };
            progress.show(&live);
        }
    }

    #[test]
    fn without_a_terminal_there_is_a_line_every_five_seconds() {
        let paper = Paper::default();
        let mut progress = Progress::lines(Box::new(paper.clone()));
        run(&mut progress);
        progress.note("done");
        assert_eq!(
            paper.text(),
            "bisect 3: 5.0 of 12.0 s, 1.00 k/s, lost 0.990 %, p99 412 µs\n\
             bisect 3: 10.0 of 12.0 s, 500/s, lost 0.990 %, p99 412 µs\n\
             done\n"
        );
    }

    #[test]
    fn a_bar_shows_rate_loss_latency_and_what_is_left() {
        let paper = Paper::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
        let mut progress = Progress::bar(target);
        progress.begin("load", 10.0);
        let live = Live { seconds: 4.0, sent: 4000, good: 3960, lost: 40, p99: 1500.0 };
        progress.show(&live);
        if let Screen::Bar(bar) = &progress.screen {
            assert_eq!(bar.position(), 400);
            assert_eq!(bar.message(), "990/s, lost 1.00 %, p99 1.50 ms, 6.0 s left");
            bar.force_draw();
        }
        progress.show(&Live { seconds: 10.5, ..live });
        if let Screen::Bar(bar) = &progress.screen {
            assert!(bar.message().ends_with("last answers"), "{}", bar.message());
        }
        progress.note("a note");
        let text = paper.text();
        assert!(text.contains("load ━") && text.contains("6.0 s left"), "{text}");
        assert!(text.contains("a note"), "{text}");
    }

    #[test]
    fn quiet_is_silent() {
        let mut progress = Progress::new(true);
        assert!(matches!(progress.screen, Screen::Silent));
        run(&mut progress);
        progress.note("nothing");
    }
}

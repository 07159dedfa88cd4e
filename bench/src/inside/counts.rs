//! Instructions of each piece, counted under callgrind and held against a file: a ratchet.
//!
//! ```text
//!   check ──> setarch -R valgrind ... counts run PIECE --passes 1 ─┐
//!                                                      --passes 2 ─┴─> difference / 1000 queries
//! ```
//!
//! Only what the pass itself does is counted, and what the first pass does once (the dynamic linker
//! finds `memcpy`) falls out of the difference. Secrets, names and signatures are fixed, there is
//! one thread, addresses and environment are the same each time: a count repeats to the
//! instruction.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Subcommand;
use nix::sys::personality::{self, Persona};

use super::pieces::{PIECES, Pass, Piece, QUERIES, Slot};

/// With another compiler a count may be so much more before the ratchet fails, in percent.
const MARGIN_PERCENT: u64 = 3;
/// With the same, in thousandths, and as much less. One program repeats to the instruction; code
/// elsewhere in it moves what is inlined and how copies are aligned.
const MARGIN_THOUSANDTHS: u64 = 5;

/// What is done with counts.
#[derive(Subcommand)]
pub enum Counts {
    /// Count, and fail unless the file says the same.
    Check {
        /// The ratchet.
        #[arg(long, default_value = "bench/counts.toml")]
        file: PathBuf,
    },
    /// Count, and write what has fallen into the file. What has risen is edited by hand, with its
    /// reason beside it.
    Write {
        /// The ratchet.
        #[arg(long, default_value = "bench/counts.toml")]
        file: PathBuf,
    },
    /// Do one piece: what runs under callgrind.
    #[command(hide = true)]
    Run {
        /// The piece.
        piece: String,
        /// How often.
        #[arg(long)]
        passes: usize,
    },
    /// Print what of the processor is used: it may decide which instructions are counted.
    #[command(hide = true)]
    Processor,
}

/// Does it.
pub fn run(counts: Counts) -> io::Result<()> {
    match counts {
        Counts::Run { piece, passes } => {
            let (mut pass, mut slots) = Piece::named(&piece)?.prepare(passes)?;
            counted_region(&mut pass, &mut slots);
            Ok(())
        }
        Counts::Processor => {
            println!("{}", processor());
            Ok(())
        }
        Counts::Check { file } => {
            let recorded = Ratchet::read(&file)?;
            let verdict = judge(&recorded, &count_all()?);
            verdict.said.iter().for_each(|line| println!("{line}"));
            if verdict.holds {
                return Ok(());
            }
            Err(io::Error::other(format!("{} does not hold", file.display())))
        }
        Counts::Write { file } => {
            let text = fs::read_to_string(&file)?;
            let recorded = Ratchet::parse(&text)?;
            let counted = count_all()?;
            for (name, from, to) in risen(&recorded, &counted) {
                println!("{name}: {} is more than {}: not written", shown(to), shown(from));
            }
            fs::write(&file, lowered(&text, &recorded, &counted))
        }
    }
}

/// The only function that callgrind counts in, and in what it calls.
#[inline(never)]
fn counted_region(pass: &mut Pass, slots: &mut [Slot]) {
    pass(slots);
}

//----------- Counting -------------------------------------------------------

/// Counts in thousandths of an instruction per query, and what they were taken with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ratchet {
    taken_with: String,
    counts: BTreeMap<String, u64>,
}

fn count_all() -> io::Result<Ratchet> {
    let mut counts = BTreeMap::new();
    for piece in PIECES {
        let (once, twice) = (callgrind(piece.name, 1)?, callgrind(piece.name, 2)?);
        // A pass is a thousand queries: its instructions are thousandths of one query's.
        const { assert!(QUERIES == 1000) };
        let more = twice.checked_sub(once).filter(|&more| more > 0);
        let more = more.ok_or_else(|| {
            io::Error::other(format!("{}: twice the queries take no more: {once}", piece.name))
        })?;
        counts.insert(piece.name.to_string(), more);
    }
    Ok(Ratchet { taken_with: taken_with()?, counts })
}

/// Runs this program under callgrind; the instructions of the region.
fn callgrind(piece: &str, passes: usize) -> io::Result<u64> {
    let out = tempfile::NamedTempFile::new()?;
    let passes = passes.to_string();
    let tool = [
        "--tool=callgrind",
        "--toggle-collect=*counted_region*",
        &format!("--callgrind-out-file={}", out.path().display()),
    ];
    valgrind(&tool, &["counts", "run", piece, "--passes", &passes])?;
    let text = fs::read_to_string(out.path())?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.filter(|&total| total > 0).ok_or_else(|| {
        io::Error::other(format!("callgrind counted nothing of {piece}: is counted_region there?"))
    })
}

/// Runs this program under valgrind with `arguments`; what it prints.
fn valgrind(tool: &[&str], arguments: &[&str]) -> io::Result<String> {
    let program = std::env::current_exe()?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    let name = Path::new(".").join(program.file_name().unwrap_or_default());
    // Where it is not allowed, valgrind still places the program itself.
    if let Ok(persona) = personality::get() {
        let _ = personality::set(persona | Persona::ADDR_NO_RANDOMIZE);
    }
    // Path and environment stand on the stack: other ones would move it.
    let output = Command::new("valgrind")
        .args(tool)
        .arg(name)
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/local/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::other(format!("valgrind: {error}: install it")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("valgrind {arguments:?}: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Everything that decides which instructions there are: compiler, target, valgrind, the C library
/// (its `memcpy`), and what valgrind shows of the processor.
fn taken_with() -> io::Result<String> {
    let first = |program: &str, argument: &str| -> io::Result<String> {
        let output = Command::new(program)
            .arg(argument)
            .output()
            .map_err(|error| io::Error::other(format!("{program}: {error}: install it")))?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.lines().next().unwrap_or_default().trim().to_string())
    };
    let library = first("getconf", "GNU_LIBC_VERSION")?;
    let processor = valgrind(&["--tool=none"], &["counts", "processor"])?;
    let parts = [&first("rustc", "--version")?, &first("valgrind", "--version")?, &library];
    Ok(format!("{}, {}, {}, {processor}", parts[0], parts[1], parts[2]))
}

/// The target, and those of the processor's sets of instructions that libraries ask about.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let sets = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("sha", std::arch::is_x86_feature_detected!("sha")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let sets: [(&str, bool); 0] = [];
    let sets = sets.iter().filter(|(_, there)| *there).map(|(name, _)| *name);
    let target = [std::env::consts::ARCH, std::env::consts::OS];
    target.into_iter().chain(sets).collect::<Vec<_>>().join(" ")
}

//----------- The ratchet ----------------------------------------------------

/// Thousandths, as the file has them.
fn shown(thousandths: u64) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

impl Ratchet {
    fn read(file: &Path) -> io::Result<Ratchet> {
        let text = fs::read_to_string(file)
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        Ratchet::parse(&text)
    }

    /// Reads `name = count` lines and `taken_with = "..."`; what is behind a # is a reason.
    fn parse(text: &str) -> io::Result<Ratchet> {
        let mut ratchet = Ratchet::default();
        for (number, line) in text.lines().enumerate() {
            let fault = || io::Error::other(format!("line {}: expected name = 1.234", number + 1));
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(fault)?;
            let (name, value) = (name.trim(), value.trim());
            if name == "taken_with" {
                ratchet.taken_with = value.trim_matches('"').to_string();
                continue;
            }
            let value = value.split('#').next().unwrap_or_default().trim();
            let (whole, part) = value.split_once('.').ok_or_else(fault)?;
            if part.len() != 3 {
                return Err(fault());
            }
            let count = format!("{whole}{part}").parse().map_err(|_| fault())?;
            ratchet.counts.insert(name.to_string(), count);
        }
        Ok(ratchet)
    }
}

/// Whether a ratchet holds, and what there is to say.
struct Judged {
    holds: bool,
    said: Vec<String>,
}

/// Holds what was counted against what is recorded: closely, if both were taken with the same.
fn judge(recorded: &Ratchet, counted: &Ratchet) -> Judged {
    let exact = recorded.taken_with == counted.taken_with;
    let mut judged = Judged { holds: true, said: Vec::new() };
    if !exact {
        judged.said.push(format!(
            "the counts were taken with \"{}\", and this is \"{}\": {MARGIN_PERCENT} % more is \
             let through",
            recorded.taken_with, counted.taken_with
        ));
    }
    for (name, &now) in &counted.counts {
        let Some(&was) = recorded.counts.get(name) else {
            judged.fails(format!("{name}: {} is not recorded: add the line", shown(now)));
            continue;
        };
        let percent = (now as f64 / was as f64 - 1.0) * 100.0;
        let change = format!("{name}: {} for {} ({percent:+.2} %)", shown(now), shown(was));
        let margin = if exact { MARGIN_THOUSANDTHS } else { MARGIN_PERCENT * 10 };
        if exact && now * 1000 < was * (1000 - margin) {
            judged.fails(format!("{change}: fewer; `ring53-bench counts write` records it"));
        } else if now * 1000 > was * (1000 + margin) {
            judged.fails(format!(
                "{change}: more; mend it, or edit the number with the reason beside it (# ...)"
            ));
        } else {
            judged.said.push(change);
        }
    }
    for name in recorded.counts.keys().filter(|name| !counted.counts.contains_key(*name)) {
        judged.fails(format!("{name}: recorded, but not counted any more: remove the line"));
    }
    judged
}

impl Judged {
    fn fails(&mut self, line: String) {
        self.holds = false;
        self.said.push(line);
    }
}

/// What has risen: name, from, to. With another compiler that is nobody's doing, within the margin.
fn risen(recorded: &Ratchet, counted: &Ratchet) -> Vec<(String, u64, u64)> {
    let exact = recorded.taken_with == counted.taken_with;
    let margin = if exact { 0 } else { MARGIN_PERCENT };
    let pairs = counted.counts.iter().filter_map(|(name, &now)| {
        let was = *recorded.counts.get(name)?;
        (now * 100 > was * (100 + margin)).then(|| (name.clone(), was, now))
    });
    pairs.collect()
}

/// The file with what has fallen, and what is new; reasons and order stay.
fn lowered(text: &str, recorded: &Ratchet, counted: &Ratchet) -> String {
    let risen = risen(recorded, counted);
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let name = line.split('=').next().unwrap_or_default().trim();
        let kept = risen.iter().any(|(risen, _, _)| risen == name);
        // A file with what has risen in it is not one that was taken with this.
        lines.push(match counted.counts.get(name) {
            Some(&count) if !kept && line.contains('=') => {
                let reason =
                    line.split_once('#').map_or(String::new(), |(_, it)| format!(" #{it}"));
                format!("{name} = {}{reason}", shown(count))
            }
            _ if name == "taken_with" && risen.is_empty() => {
                format!("taken_with = \"{}\"", counted.taken_with)
            }
            _ => line.to_string(),
        });
    }
    let new = counted.counts.iter().filter(|(name, _)| !recorded.counts.contains_key(*name));
    lines.extend(new.map(|(name, &count)| format!("{name} = {}", shown(count))));
    lines.join("\n") + "\n"
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Instructions.\ntaken_with = \"rustc 1\"\n\nparse = 100.000\n\
                        hit = 600.500 # DNAME costs a branch\n";

    fn counted(taken_with: &str, counts: &[(&str, u64)]) -> Ratchet {
        let counts = counts.iter().map(|(name, count)| (name.to_string(), *count)).collect();
        Ratchet { taken_with: taken_with.into(), counts }
    }

    #[test]
    fn a_ratchet_turns_one_way() {
        let recorded = Ratchet::parse(FILE).unwrap();
        for (with, parse, hit, holds, says) in [
            ("rustc 1", 100_000, 600_500, true, "parse: 100.000 for 100.000 (+0.00 %)"),
            ("rustc 1", 99_500, 600_500, true, "(-0.50 %)"),
            ("rustc 1", 99_499, 600_500, false, "counts write"),
            ("rustc 1", 100_500, 600_500, true, "(+0.50 %)"),
            ("rustc 1", 100_501, 600_500, false, "edit the number with the reason beside it"),
            ("rustc 2", 103_000, 600_500, true, "3 % more is let through"),
            ("rustc 2", 103_001, 600_500, false, "more; mend it"),
            ("rustc 2", 50_000, 600_500, true, "(-50.00 %)"),
        ] {
            let judged = judge(&recorded, &counted(with, &[("parse", parse), ("hit", hit)]));
            let said = judged.said.join("\n");
            assert!(judged.holds == holds && said.contains(says), "{with} {parse}: {said}");
        }
        for counts in [&[("parse", 100_000)][..], &[("parse", 100_000), ("hit", 600_500), ("x", 1)]]
        {
            assert!(!judge(&recorded, &counted("rustc 1", counts)).holds, "{counts:?}");
        }
    }

    #[test]
    fn what_has_fallen_is_written_and_what_has_risen_is_not() {
        let recorded = Ratchet::parse(FILE).unwrap();
        let now = counted("rustc 1", &[("parse", 100_001), ("hit", 599_000), ("new", 5)]);
        let expected = "# Instructions.\ntaken_with = \"rustc 1\"\n\nparse = 100.000\n\
                        hit = 599.000 # DNAME costs a branch\nnew = 0.005\n";
        assert_eq!(lowered(FILE, &recorded, &now), expected);
        // Another compiler: all of it is taken anew, unless it is past the margin.
        let now = counted("rustc 2", &[("parse", 101_000), ("hit", 600_000)]);
        let text = lowered(FILE, &recorded, &now);
        assert_eq!(Ratchet::parse(&text).unwrap(), now);
        let now = counted("rustc 2", &[("parse", 200_000), ("hit", 600_000)]);
        assert!(lowered(FILE, &recorded, &now).contains("\"rustc 1\"\n\nparse = 100.000"));
    }

    #[test]
    fn lines_that_are_no_counts() {
        for text in ["parse", "parse = 1", "parse = 1.5", "parse = x.123"] {
            assert!(Ratchet::parse(text).is_err(), "{text}");
        }
    }
}

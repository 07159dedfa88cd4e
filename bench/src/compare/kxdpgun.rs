//! kxdpgun: an open loop that costs little, for offering a core more than it answers.
//!
//! It counts replies, and neither matches nor times them; [`super::prober`] does that beside it.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::contenders::command;
use crate::bed::Bed;
use crate::bed::namespaces::NOBODY;

/// What it needs to read its queries, and for its last replies, at most.
const SLACK: Duration = Duration::from_secs(30);
/// When it sends for certain, of a file of up to [`LINES_MAX`] queries.
pub const LEAD: Duration = Duration::from_millis(1200);
/// Queries in a file at most: it reads them before it sends.
pub const LINES_MAX: u64 = 1_000_000;
/// Queries that it sends at once: more cost a server more than clients that know nothing of each
/// other would.
const BATCH: &str = "32";
/// Before the upstreams on its core, after a prober: what it sends late comes in bursts, which cost
/// a server more, and its clients time.
const PRIORITY: &str = "30";

/// A load for kxdpgun.
#[derive(Clone, Debug)]
pub struct Shot {
    /// The server.
    pub address: Ipv4Addr,
    /// Queries.
    pub queries: PathBuf,
    /// Queries a second.
    pub rate: u64,
    /// For how long.
    pub seconds: f64,
    /// From addresses that nobody has.
    pub spoofed: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replies {
    /// Queries sent.
    pub sent: u64,
    /// The same, a second.
    pub sent_rate: f64,
    /// Replies.
    pub received: u64,
    /// The same, a second.
    pub rate: f64,
    /// Mean octets of a reply.
    pub octets: f64,
    /// Replies by rcode.
    pub rcodes: BTreeMap<String, u64>,
    /// Datagrams that came to sockets of the client's namespace meanwhile, which its own replies do
    /// not: what upstreams were asked.
    pub upstream: u64,
}

impl Replies {
    /// The share of queries without a reply.
    pub fn loss(&self) -> f64 {
        1.0 - self.received.min(self.sent) as f64 / self.sent.max(1) as f64
    }
}

/// Sends a load and waits for its end.
pub fn fire(bed: &Bed, shot: &Shot) -> io::Result<Replies> {
    bed.pin_polling()?;
    let core = bed.client_core().to_string();
    let mut gun = command("taskset")?;
    gun.args(["-c", &core, "chrt", "-f", PRIORITY]);
    gun.args(["kxdpgun", "-F", &core, "-p", "53", "-b", BATCH]);
    gun.args(["-t", &format!("{:.2}", shot.seconds), "-Q", &shot.rate.to_string()]);
    if shot.spoofed {
        gun.args(["-l", NOBODY]);
    }
    gun.arg("-i").arg(&shot.queries).arg(shot.address.to_string());
    gun.env("PATH", path());
    let before = bed.client_udp()?;
    let mut gun = bed.in_client(&gun);
    gun.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = gun.spawn()?;
    let end = Instant::now() + Duration::from_secs_f64(shot.seconds) + SLACK;
    // Whoever looks all the time takes something of a core.
    thread::sleep(Duration::from_secs_f64(shot.seconds));
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other("kxdpgun does not end: is its interface still there?"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    let upstream = bed.client_udp()?.received.saturating_sub(before.received);
    let text = String::from_utf8_lossy(&output.stdout);
    let replies = parse(&text).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        io::Error::other(format!("kxdpgun: {} {}", said.trim(), text.trim()))
    })?;
    Ok(Replies { upstream, ..replies })
}

/// Where programs are, root's too.
fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// From what kxdpgun 3.2 prints.
fn parse(text: &str) -> Option<Replies> {
    // `total queries:     50016 (50016 pps)`
    let counted = |mark: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(mark))?;
        let mut numbers = line.split(|letter: char| !letter.is_ascii_digit());
        let mut next = || numbers.by_ref().find(|word| !word.is_empty())?.parse::<u64>().ok();
        Some((next()?, next()?))
    };
    let (sent, sent_rate) = counted("total queries:")?;
    let (received, rate) = counted("total replies:")?;
    let octets = text.lines().find_map(|line| line.strip_prefix("average DNS reply size:"));
    let octets = octets.and_then(|words| words.split_whitespace().next()?.parse().ok());
    let mut rcodes = BTreeMap::new();
    for line in text.lines() {
        if let Some((rcode, count)) =
            line.strip_prefix("responded ").and_then(|rest| rest.split_once(':'))
        {
            rcodes.insert(rcode.to_string(), count.trim().parse().ok()?);
        }
    }
    Some(Replies {
        sent,
        sent_rate: sent_rate as f64,
        received,
        rate: rate as f64,
        octets: octets.unwrap_or_default(),
        rcodes,
        upstream: 0,
    })
}

/// How many queries a file for a load needs, so that none is sent twice in it.
pub fn lines(rate: u64, seconds: f64) -> u64 {
    ((rate as f64 * seconds * 1.1) as u64).clamp(1000, LINES_MAX)
}

/// Where the generator's queries of a load are.
pub fn queries_file(directory: &Path) -> PathBuf {
    directory.join("queries")
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
using interface r53c, XDP threads 1, UDP, native mode
thread#00: sent 50016, received 50001
total queries:     50016 (50010 pps)
total replies:     50001 (49990 pps) (99%)
average DNS reply size: 59 B
average Ethernet reply rate: 28764016 bps (28.76 Mbps)
responded NOERROR:   45000
responded NXDOMAIN:  5001
duration: 1 s
";

    #[test]
    fn what_kxdpgun_prints_is_read() {
        let replies = parse(SAID).unwrap();
        assert_eq!((replies.sent, replies.received), (50016, 50001));
        assert_eq!((replies.sent_rate, replies.rate), (50010.0, 49990.0));
        assert_eq!(replies.octets, 59.0);
        assert_eq!(replies.rcodes["NXDOMAIN"], 5001);
        assert!((replies.loss() - 15.0 / 50016.0).abs() < 1e-9);
    }

    #[test]
    fn what_it_does_not_print_is_no_result() {
        assert_eq!(parse("failed to initialise: is the interface up?"), None);
        assert_eq!(parse(&SAID.replace("total replies", "replies")), None);
    }

    #[test]
    fn a_file_suffices_for_its_load() {
        assert_eq!(lines(100_000, 3.0), 330_000);
        assert_eq!(lines(10, 1.0), 1000);
        assert_eq!(lines(2_000_000, 3.0), LINES_MAX);
    }
}

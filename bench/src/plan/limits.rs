//! What else limits a machine, what memory it needs, and how many to buy. Pure.

use crate::report::model::{Limit, Machines, Memory};

use super::fit;
use super::predict::TransferCost;

//----------- On the wire ----------------------------------------------------

/// Preamble, start of frame, header, check sequence, gap between frames.
const ETHERNET_OCTETS: f64 = 38.0;
/// The least that Ethernet carries in a frame.
const PAYLOAD_OCTETS_MIN: f64 = 46.0;
const UDP_OCTETS: f64 = 8.0;
/// TCP's header with timestamps.
const TCP_OCTETS: f64 = 32.0;
/// Frames of a connection beside query and answer, one direction: handshake, FIN, acknowledgement.
const CONNECTION_FRAMES: f64 = 3.0;

/// How messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// A datagram each.
    #[default]
    Udp,
    /// Connections that stay.
    Tcp,
    /// A connection each.
    TcpPerQuery,
}

/// What a mean message is on the wire, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Frames {
    /// Frames.
    pub count: f64,
    /// Octets of line time, gaps included.
    pub octets: f64,
}

/// One message of `octets`.
pub fn frames(octets: f64, transport: Transport, ipv6: bool, mtu: f64) -> Frames {
    let ip = if ipv6 { 40.0 } else { 20.0 };
    let carried = |payload: f64, header: f64| {
        let count = (payload / (mtu - ip - header)).ceil().max(1.0);
        let each = (payload / count + ip + header).max(PAYLOAD_OCTETS_MIN) + ETHERNET_OCTETS;
        Frames { count, octets: count * each }
    };
    match transport {
        Transport::Udp => carried(octets + UDP_OCTETS, 0.0),
        Transport::Tcp => carried(octets + 2.0, TCP_OCTETS),
        Transport::TcpPerQuery => {
            let Frames { count, octets } = carried(octets + 2.0, TCP_OCTETS);
            let bare = (ip + TCP_OCTETS).max(PAYLOAD_OCTETS_MIN) + ETHERNET_OCTETS;
            let count = count + CONNECTION_FRAMES;
            Frames { count, octets: octets + CONNECTION_FRAMES * bare }
        }
    }
}

//----------- Limits ---------------------------------------------------------

/// What one class has on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassWire {
    /// Mean octets of a query.
    pub query_octets: f64,
    /// Mean octets of an answer.
    pub answer_octets: f64,
    /// How they travel.
    pub transport: Transport,
}

/// The machine around its cores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Whether addresses are of IPv6.
    pub ipv6: bool,
    /// Octets that a frame carries.
    pub mtu: f64,
    /// Bits a second of the interface, and who says so.
    pub nic_bits: Option<(f64, String)>,
    /// Frames a second and direction that it is known to take.
    pub nic_packets: Option<f64>,
    /// Octets that all of the server's receive buffers hold, and who says so.
    pub buffers: Option<(f64, String)>,
    /// Seconds that a core may be away.
    pub stall_s: f64,
}

/// What the kernel charges a receive buffer for a small datagram: a buffer of 2 KiB, as drivers
/// give it, and its description.
const DATAGRAM_CHARGE: f64 = 2304.0;

impl Surroundings {
    /// All limits but those of cores and memory, for a mix.
    pub fn limits(
        &self,
        shares: &[f64],
        wires: &[ClassWire],
        transfers: Option<TransferCost>,
    ) -> Vec<Limit> {
        let mean = |octets: &dyn Fn(&ClassWire) -> f64| {
            let mut sum = Frames::default();
            for (share, wire) in shares.iter().zip(wires) {
                let one = frames(octets(wire), wire.transport, self.ipv6, self.mtu);
                sum.count += share * one.count;
                sum.octets += share * one.octets;
            }
            sum
        };
        let queries = mean(&|wire| wire.query_octets);
        let answers = mean(&|wire| wire.answer_octets);
        vec![
            self.packets(queries, answers),
            self.line(queries, answers, transfers),
            self.buffers(shares, wires),
        ]
    }

    fn packets(&self, queries: Frames, answers: Frames) -> Limit {
        let each = queries.count.max(answers.count);
        let (rate, note) = match self.nic_packets {
            Some(packets) => (
                Some(packets / each),
                format!("--nic-packets {packets:.0}/s, {each:.2} frames an answer and direction"),
            ),
            None => (
                None,
                format!(
                    "not known: the kernel does not say what an interface takes; {each:.2} frames \
                     an answer and direction (give --nic-packets RATE from its maker or a test)"
                ),
            ),
        };
        Limit { what: "NIC packets".into(), rate, note }
    }

    fn line(&self, queries: Frames, answers: Frames, transfers: Option<TransferCost>) -> Limit {
        let what = "line rate of the answers".to_string();
        let octets = answers.octets.max(queries.octets);
        let size = format!(
            "{:.0} octets an answer with Ethernet ({ETHERNET_OCTETS:.0}, preamble and gap counted), \
             IP and UDP or TCP; {:.0} a query",
            answers.octets, queries.octets
        );
        let Some((bits, from)) = &self.nic_bits else {
            let note =
                format!("not known: no interface here says its speed (give --nic 10G); {size}");
            return Limit { what, rate: None, note };
        };
        // A segment's headers: about 6 of 100 of a transfer's octets.
        let taken = transfers.map_or(0.0, |one| one.per_second * one.octets * 8.0 * 1.06);
        let rate = (bits - taken).max(0.0) / 8.0 / octets;
        let given = match taken {
            0.0 => String::new(),
            taken => format!("; transfers take {:.1} Mbit/s of it", taken / 1e6),
        };
        let note = format!("{} ({from}): {size}{given}", rate_of_bits(*bits));
        Limit { what, rate: Some(rate), note }
    }

    fn buffers(&self, shares: &[f64], wires: &[ClassWire]) -> Limit {
        let what = "socket buffers".to_string();
        let datagrams =
            shares.iter().zip(wires).filter(|(_, wire)| wire.transport == Transport::Udp);
        let share: f64 = datagrams.map(|(share, _)| share).sum();
        let Some((octets, from)) = &self.buffers else {
            let note = "not known: the server's sockets cannot be seen from here (ss -ulm)".into();
            return Limit { what, rate: None, note };
        };
        let held = octets / DATAGRAM_CHARGE;
        let rate = (share > 0.0 && self.stall_s > 0.0).then(|| held / self.stall_s / share);
        let note = format!(
            "{held:.0} datagrams fit ({from}, {DATAGRAM_CHARGE:.0} octets charged for each as \
             drivers with buffers of 2 KiB have it): what arrives while the cores are away for \
             {:.0} ms (--stall-ms)",
            self.stall_s * 1e3
        );
        Limit { what, rate, note }
    }
}

/// The lowest first, those that are not known last.
pub fn sort(limits: &mut [Limit]) {
    let key = |limit: &Limit| limit.rate.unwrap_or(f64::INFINITY);
    limits.sort_by(|a, b| key(a).total_cmp(&key(b)));
}

/// `10 Gbit/s`.
fn rate_of_bits(bits: f64) -> String {
    if bits >= 1e9 { format!("{} Gbit/s", bits / 1e9) } else { format!("{} Mbit/s", bits / 1e6) }
}

/// Bits a second from `10G`, `2.5G`, `100M`.
pub fn read_bits(text: &str) -> Result<f64, String> {
    let factors = [('G', 1e9), ('M', 1e6), ('K', 1e3)];
    let split = factors.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(*unit).or(text.strip_suffix(unit.to_ascii_lowercase()))?;
        Some((number, *factor))
    });
    let (number, factor) = split.unwrap_or((text, 1.0));
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number * factor),
        _ => Err(format!("{text:?} is no rate: for example 10G, 2.5G, 500M or 200k")),
    }
}

//----------- Memory ---------------------------------------------------------

/// One zone that was loaded, and loaded again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryPoint {
    /// Its records.
    pub records: u64,
    /// Resident with it, what processes share counted once.
    pub resident_mib: f64,
    /// The most while it was read again; `None` if it was not.
    pub reload_mib: Option<f64>,
}

/// Fits the memory of a server; `machine_mib` is what the machine has.
pub fn memory(points: &[MemoryPoint], machine_mib: f64) -> Result<Memory, String> {
    /// What a machine keeps for its kernel and everything else.
    const KEPT: f64 = 0.1;
    let line: Vec<(f64, f64)> =
        points.iter().map(|point| (point.records as f64, point.resident_mib)).collect();
    let (base_mib, slope) = fit::line(&line)
        .filter(|&(_, slope)| slope > 0.0)
        .ok_or("memory does not grow with records here: measure larger zones (--names)")?;
    let largest = points.iter().max_by_key(|point| point.records).copied().unwrap_or_default();
    let reload_factor =
        largest.reload_mib.map_or(1.0, |most| (most / largest.resident_mib).max(1.0));
    let records_max = ((machine_mib * (1.0 - KEPT) / reload_factor - base_mib) / slope).max(0.0);
    Ok(Memory {
        points: points.iter().map(|point| (point.records, point.resident_mib)).collect(),
        base_mib,
        record_octets: slope * f64::from(1 << 20),
        reload_factor,
        records_max,
    })
}

/// Memory as a limit: it has no rate, only enough or not.
pub fn memory_limit(memory: &Memory, records: u64, machine_mib: f64) -> Limit {
    let resident = memory.base_mib + memory.record_octets * records as f64 / f64::from(1 << 20);
    let fits = records as f64 <= memory.records_max;
    let note = format!(
        "{records} records: {:.0} MiB ({:.1} and {:.0} octets a record, fitted to {} zones), {:.0} \
         while they are read again; the machine has {machine_mib:.0} MiB, all but a tenth of which \
         suffices for {:.0} records: {}",
        resident,
        memory.base_mib,
        memory.record_octets,
        memory.points.len(),
        resident * memory.reload_factor,
        memory.records_max,
        if fits { "enough" } else { "NOT enough" }
    );
    Limit { what: "memory".into(), rate: (!fits).then_some(0.0), note }
}

//----------- Machines -------------------------------------------------------

/// What machines are counted by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    /// Answers a second that are wanted.
    pub target: f64,
    /// How many times that comes in when attacked.
    pub attack: f64,
    /// Machines that may be down.
    pub down: u32,
    /// What one machine is counted on to carry.
    pub each: f64,
    /// The share of `each` that it carries while it reads its zones again, if measured; one does so
    /// at a time.
    pub reload_share: Option<f64>,
    /// Sentences on how `each` came about.
    pub why: Vec<String>,
}

/// Machines for a target.
pub fn machines(counted: &Counted) -> Result<Machines, String> {
    let Counted { target, attack, down, each, reload_share, .. } = *counted;
    if each.is_nan() || each <= 0.0 {
        return Err(
            "one machine carries nothing within the bounds: no number of them suffices".into()
        );
    }
    let need = target * attack;
    let share = reload_share.unwrap_or(0.0);
    // Rounding must not buy a machine.
    let up = ((need / each - share - 1e-9).ceil().max(0.0) + 1.0).max(1.0);
    let most = f64::from(u32::MAX - down);
    if !(need.is_finite() && need > 0.0 && up <= most) {
        return Err(format!(
            "{need:.0}/s on machines of {each:.0}/s is no number of machines: are --target and \
             --attack right?"
        ));
    }
    let carry = |up: f64| (up - 1.0 + share) * each;
    let reload = match reload_share {
        Some(share) => format!("while it reads its zones again, {:.0} % of that", share * 100.0),
        None => "while it reads its zones again nothing is counted on (not measured)".into(),
    };
    let fewer = match up {
        1.0 => String::new(),
        up => format!(", {} would carry {:.0}", up - 1.0, carry(up - 1.0)),
    };
    let count = up as u32 + down;
    let why: String = counted.why.iter().map(|why| format!(" {why}.")).collect();
    let words = format!(
        "{target:.0}/s x {attack} (attack) = {need:.0}/s. One machine carries {each:.0}/s; {reload}, \
         one at a time. {up} carry ({up} - 1 + {share:.2}) x {each:.0} = {:.0}/s{fewer}. \
         {down} more because so many may be down: {count} to buy.{why}",
        carry(up)
    );
    Ok(Machines { target, attack_factor: attack, down, each, count, reload_share, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_all_its_octets() {
        // 8 + 20 + 38 around 100; the least that Ethernet carries; a fragment.
        let one = frames(100.0, Transport::Udp, false, 1500.0);
        assert_eq!(one, Frames { count: 1.0, octets: 166.0 });
        assert_eq!(frames(12.0, Transport::Udp, false, 1500.0).octets, 84.0);
        let two = frames(3000.0, Transport::Udp, true, 1500.0);
        assert_eq!((two.count, two.octets.round()), (3.0, 3008.0 + 3.0 * 78.0));
        let stream = frames(100.0, Transport::Tcp, false, 1500.0);
        assert_eq!(stream, Frames { count: 1.0, octets: 102.0 + 52.0 + 38.0 });
        let each = frames(100.0, Transport::TcpPerQuery, false, 1500.0);
        assert_eq!(each, Frames { count: 4.0, octets: 192.0 + 3.0 * 90.0 });
    }

    #[test]
    fn limits_are_lowest_first_and_say_how() {
        let wire = ClassWire { query_octets: 40.0, answer_octets: 184.0, ..ClassWire::default() };
        let mut around = Surroundings { mtu: 1500.0, stall_s: 0.01, ..Surroundings::default() };
        let mut limits = around.limits(&[1.0], &[wire], None);
        assert!(limits.iter().all(|limit| limit.rate.is_none()), "{limits:?}");
        assert!(limits.iter().all(|limit| limit.note.contains("not known")), "{limits:?}");
        around.nic_bits = Some((1e9, "--nic".into()));
        around.nic_packets = Some(1e6);
        around.buffers = Some((2304.0 * 1000.0, "ss".into()));
        limits = around.limits(&[1.0], &[wire], None);
        sort(&mut limits);
        let rates: Vec<(&str, f64)> =
            limits.iter().map(|limit| (limit.what.as_str(), limit.rate.unwrap())).collect();
        // 250 octets an answer on the wire: 500,000 of them are a gigabit.
        let line = ("line rate of the answers", 5e5);
        assert_eq!(rates, [("socket buffers", 1e5), line, ("NIC packets", 1e6)]);
        // Transfers take their part of the line.
        let transfers = TransferCost { per_second: 10.0, core_us: 1.0, octets: 1e6 };
        let less = around.limits(&[1.0], &[wire], Some(transfers));
        assert!((less[1].rate.unwrap() / (5e5 * (1.0 - 0.0848)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn speeds_are_read() {
        assert_eq!(read_bits("10G"), Ok(1e10));
        assert_eq!(read_bits("2.5g"), Ok(2.5e9));
        assert_eq!(read_bits("100M"), Ok(1e8));
        assert!(read_bits("fast").unwrap_err().contains("10G"));
        assert!(read_bits("-1G").is_err() && read_bits("0").is_err());
    }

    #[test]
    fn memory_is_fitted_and_bounded() {
        let point =
            |records, resident_mib, reload_mib| MemoryPoint { records, resident_mib, reload_mib };
        let points = [point(0, 10.0, None), point(1 << 20, 110.0, Some(220.0))];
        let memory = memory(&points, 1000.0).unwrap();
        assert!(
            (memory.base_mib - 10.0).abs() < 1e-6 && (memory.record_octets - 100.0).abs() < 1e-6
        );
        // 900 MiB, half of them while reloading: 440 beside the base.
        assert!((memory.records_max / (4.4 * f64::from(1 << 20)) - 1.0).abs() < 1e-6);
        assert_eq!(memory_limit(&memory, 4_000_000, 1000.0).rate, None);
        let limit = memory_limit(&memory, 5_000_000, 1000.0);
        assert!(limit.rate == Some(0.0) && limit.note.contains("NOT enough"), "{limit:?}");
        assert!(super::memory(&points[..1], 1000.0).unwrap_err().contains("--names"));
    }

    #[test]
    fn machines_are_counted_exactly() {
        let of = |target, attack, down, each, reload_share| {
            let why = vec!["So it is".to_string()];
            machines(&Counted { target, attack, down, each, reload_share, why })
        };
        let count = |target, attack, down, share| {
            of(target, attack, down, 1e5, share).map(|machines| machines.count)
        };
        // Nothing lost while reloading: one machine for what one carries.
        assert_eq!(count(1e5, 1.0, 0, Some(1.0)), Ok(1));
        assert_eq!(count(1e5 + 1.0, 1.0, 0, Some(1.0)), Ok(2));
        // 2 x 150,000 on machines of 100,000, one of which carries half.
        assert_eq!(count(1.5e5, 2.0, 0, Some(0.5)), Ok(4));
        assert_eq!(count(1.5e5, 2.0, 3, Some(0.5)), Ok(7));
        // Not measured: it carries nothing.
        assert_eq!(count(1e5, 1.0, 0, None), Ok(2));
        assert_eq!(count(1.0, 1.0, 0, Some(0.5)), Ok(1));
        assert!(of(1e5, 1.0, 0, 0.0, None).is_err());
        // Numbers that are none.
        for (target, attack, down) in
            [(f64::NAN, 1.0, 0), (1e300, 1e300, 0), (1e5, 0.0, 0), (1e30, 1.0, 0)]
        {
            assert!(count(target, attack, down, None).unwrap_err().contains("--target"));
        }
        assert_eq!(count(1e5, 1.0, u32::MAX - 2, None), Ok(u32::MAX));
        assert!(count(1e5, 1.0, u32::MAX, None).unwrap_err().contains("--target"));
        // More is never fewer.
        let counts: Vec<u32> =
            (1..100).map(|at| count(f64::from(at) * 1e4, 3.0, 1, Some(0.4)).unwrap()).collect();
        assert!(counts.is_sorted());
        let words = of(1.5e5, 2.0, 3, 1e5, Some(0.5)).unwrap().words;
        assert!(words.ends_with("7 to buy. So it is.") && words.contains("350000/s"), "{words}");
    }
}

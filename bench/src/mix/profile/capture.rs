//! Captures: pcap, pcapng and dnstap files, read to the DNS messages in them.
//!
//! ```text
//!   pcap, pcapng ──> frame ──> packet ──┬─> datagram ─┬─> Seen
//!                                       └─> stream ───┤
//!   dnstap: Frame Streams, protobuf ──────────────────┘
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use pcap_parser::pcapng::Block;
use pcap_parser::{PcapBlockOwned, PcapError, create_reader};

use super::dnstap;
use super::packet::{self, link};
use super::stream::Streams;

/// Octets that the reader looks at at once; grown up to the maximum for longer blocks.
const WINDOW: usize = 1 << 18;
const WINDOW_MAX: usize = 1 << 26;
/// Interfaces of one pcapng section.
const INTERFACES_MAX: usize = 4096;

/// A message as it was seen.
pub struct Seen<'a> {
    /// When, in nanoseconds.
    pub at_ns: u64,
    /// Who asked.
    pub client: IpAddr,
    /// Over a stream.
    pub stream: bool,
    /// To the server: a query. From it: a response.
    pub to_server: bool,
    /// The message.
    pub message: &'a [u8],
}

/// What was in a capture besides messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Frames in all.
    pub frames: u64,
    /// Frames with nothing to or from the port.
    pub others: u64,
    /// Messages that the capture cut off (a snapshot length that is too short).
    pub cut: u64,
    /// TCP streams with gaps.
    pub streams_lost: u64,
    /// TCP connections seen.
    pub connections: u64,
    /// The file ends inside of a frame.
    pub truncated: bool,
}

fn invalid(path: &Path, message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {message}", path.display()))
}

/// Reads a capture; servers listen on `port`.
pub fn read(path: &Path, port: u16, take: &mut dyn FnMut(&Seen<'_>)) -> io::Result<Skipped> {
    let open = || {
        File::open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    let mut magic = [0; 4];
    open()?.read_exact(&mut magic).map_err(|_| invalid(path, "is empty: expected a capture"))?;
    match magic {
        dnstap::ESCAPE => dnstap::read(open()?, take)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        [0x1F, 0x8B, ..] | [0xFD, b'7', b'z', b'X'] | [0x28, 0xB5, 0x2F, 0xFD] => {
            Err(invalid(path, "is compressed: decompress it first"))
        }
        _ => frames(open()?, path, port, take),
    }
}

//----------- pcap and pcapng ------------------------------------------------

/// Frames of one interface.
#[derive(Clone, Copy)]
struct Interface {
    link_type: i32,
    /// Ticks a second.
    resolution: u64,
    offset_seconds: i64,
}

struct Frames<'a> {
    port: u16,
    interfaces: Vec<Interface>,
    streams: Streams,
    skipped: Skipped,
    take: &'a mut dyn FnMut(&Seen<'_>),
}

fn frames(
    file: File,
    path: &Path,
    port: u16,
    take: &mut dyn FnMut(&Seen<'_>),
) -> io::Result<Skipped> {
    let mut reader = create_reader(WINDOW, file).map_err(|_| {
        invalid(path, "is no capture: expected pcap, pcapng or dnstap (Frame Streams)")
    })?;
    let mut frames = Frames {
        port,
        interfaces: Vec::new(),
        streams: Streams::default(),
        skipped: Skipped::default(),
        take,
    };
    let mut window = WINDOW;
    let mut blocks = 0u64;
    let mut blocks_at_refill = None;
    loop {
        let short = match reader.next() {
            Ok((len, block)) => {
                blocks += 1;
                let taken = frames.block(&block);
                reader.consume(len);
                taken.map_err(|message| invalid(path, &message))?;
                continue;
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => true,
            Err(PcapError::UnexpectedEof) => false,
            Err(_) => return Err(invalid(path, &format!("is damaged behind block {blocks}"))),
        };
        if short && blocks_at_refill != Some(blocks) {
            blocks_at_refill = Some(blocks);
            reader.refill().map_err(|_| invalid(path, "cannot be read on"))?;
        } else if short && window < WINDOW_MAX && !reader.reader_exhausted() {
            // A block that is longer than what is looked at at once.
            window *= 2;
            blocks_at_refill = None;
            if !reader.grow(window) {
                return Err(invalid(path, "has a block that does not fit memory"));
            }
        } else {
            // The rest of what a capturing program was stopped in.
            frames.skipped.truncated = true;
            break;
        }
    }
    frames.skipped.connections = frames.streams.connections;
    frames.skipped.streams_lost = frames.streams.lost;
    Ok(frames.skipped)
}

impl Frames<'_> {
    fn block(&mut self, block: &PcapBlockOwned<'_>) -> Result<(), String> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let resolution =
                    if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                // The upper bits say whether frames have a checksum.
                let link_type = header.network.0 & 0xFFFF;
                self.interface(Interface { link_type, resolution, offset_seconds: 0 })
            }
            PcapBlockOwned::Legacy(frame) => {
                let interface = *self.interfaces.first().ok_or("has frames before its header")?;
                let at_ns = nanoseconds(frame.ts_sec.into(), frame.ts_usec.into(), interface);
                let len = frame.data.len().min(frame.caplen as usize);
                self.frame(at_ns, interface, &frame.data[..len]);
                Ok(())
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.interfaces.clear();
                Ok(())
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
                let power = u32::from(block.if_tsresol & 0x7F);
                let base: u64 = if block.if_tsresol & 0x80 != 0 { 2 } else { 10 };
                let resolution = base.checked_pow(power).ok_or("has impossible timestamps")?;
                let link_type = block.linktype.0;
                let offset_seconds = block.if_tsoffset;
                self.interface(Interface { link_type, resolution, offset_seconds })
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(frame)) => {
                let interface = self.interfaces.get(frame.if_id as usize);
                let interface = *interface.ok_or("has frames of an interface it does not name")?;
                let ticks = u64::from(frame.ts_high) << 32 | u64::from(frame.ts_low);
                let (seconds, rest) = (ticks / interface.resolution, ticks % interface.resolution);
                let at_ns = nanoseconds(seconds, rest, interface);
                let len = frame.data.len().min(frame.caplen as usize);
                self.frame(at_ns, interface, &frame.data[..len]);
                Ok(())
            }
            PcapBlockOwned::NG(Block::SimplePacket(_)) => {
                Err("has frames without timestamps (simple packet blocks)".into())
            }
            PcapBlockOwned::NG(_) => Ok(()),
        }
    }

    fn interface(&mut self, interface: Interface) -> Result<(), String> {
        if !link::ALL.contains(&interface.link_type) {
            return Err(format!(
                "has frames of link type {}: expected Ethernet, Linux cooked, loopback or raw IP",
                interface.link_type
            ));
        }
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err("has too many interfaces".into());
        }
        self.interfaces.push(interface);
        Ok(())
    }

    fn frame(&mut self, at_ns: u64, interface: Interface, frame: &[u8]) {
        self.skipped.frames += 1;
        let packet = packet::of_frame(interface.link_type, frame);
        let packet = packet
            .filter(|packet| packet.destination.1 == self.port || packet.source.1 == self.port);
        let Some(packet) = packet else {
            self.skipped.others += 1;
            return;
        };
        let to_server = packet.destination.1 == self.port;
        let client = if to_server { packet.source.0 } else { packet.destination.0 };
        let stream = packet.segment.is_some();
        let mut seen =
            |message: &[u8]| (self.take)(&Seen { at_ns, client, stream, to_server, message });
        if stream {
            self.streams.segment(&packet, to_server, seen);
        } else if packet.whole {
            seen(packet.payload);
        } else {
            self.skipped.cut += 1;
        }
    }
}

/// A timestamp: seconds, and ticks of the interface.
fn nanoseconds(seconds: u64, ticks: u64, interface: Interface) -> u64 {
    let rest = u128::from(ticks) * 1_000_000_000 / u128::from(interface.resolution);
    let seconds = seconds.saturating_add_signed(interface.offset_seconds);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest as u64)
}

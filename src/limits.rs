//! Every limit of the server, and how the limits relate.
//!
//! A limit that follows from another is derived from it or asserted against it here, so that
//! changing one number either keeps the proof or fails to compile.

use std::time::Duration;

//----------- Names (RFC 1035, 2.3.4) ----------------------------------------

/// Octets of one label.
pub const LABEL_LEN_MAX: usize = 63;
/// Octets of a name in wire form, the root's zero octet included.
pub const NAME_LEN_MAX: usize = 255;
/// Labels of a name, the root not counted: 127 labels of one octet and the root make 255 octets.
pub const NAME_LABELS_MAX: usize = 127;
const _: () = assert!(NAME_LABELS_MAX * 2 < NAME_LEN_MAX);

//----------- Messages -------------------------------------------------------

/// Octets of the header (RFC 1035, 4.1.1).
pub const HEADER_LEN: usize = 12;
/// Octets of the smallest UDP answer every client takes (RFC 1035, 2.3.4).
pub const ANSWER_SIZE_MIN: usize = 512;
/// Octets of a UDP answer unless configured: fits every path without fragments (RFC 9715, 3.1).
pub const ANSWER_SIZE_DEFAULT: usize = 1232;
/// Octets of a UDP answer that may be configured.
pub const ANSWER_SIZE_MAX: usize = 4096;
const _: () = assert!(ANSWER_SIZE_MIN <= ANSWER_SIZE_DEFAULT);
const _: () = assert!(ANSWER_SIZE_DEFAULT <= ANSWER_SIZE_MAX);
/// Octets of a message over TCP: its length prefix has 16 bits.
pub const MESSAGE_SIZE_MAX: usize = 65535;
/// The last octet a compression pointer reaches (RFC 1035, 4.1.4: 14 bits).
pub const POINTER_TARGET_MAX: usize = 0x3FFF;

//----------- Batches --------------------------------------------------------

/// Datagrams answered in one turn of the loop. 64 x 2 KiB = 128 KiB stays in L2.
pub const BATCH_COUNT_MAX: usize = 64;
/// Octets of one datagram buffer: the largest answer, and some to spare.
pub const DATAGRAM_BUFFER_LEN: usize = ANSWER_SIZE_MAX + 256;

/// Cores one server drives: slots of the epoch table.
pub const CORES_MAX: usize = 256;

//----------- Answers --------------------------------------------------------

/// Links of a CNAME or DNAME chain followed inside the server's zones.
pub const CHAIN_LINKS_MAX: usize = 16;
/// Octets of an NSID, hostname or version string: one character-string (RFC 1035, 3.3).
pub const IDENTITY_LEN_MAX: usize = 255;

//----------- Zones ----------------------------------------------------------

/// Files open at once through `$INCLUDE`.
pub const INCLUDE_DEPTH_MAX: usize = 16;
/// Files that one zone may include: each of two lines that include their own file doubles them.
pub const INCLUDE_COUNT_MAX: usize = 10_000;
/// Octets of one zone file.
pub const ZONE_FILE_SIZE_MAX: usize = 1 << 36;
/// Records of one RRset: each may have two names to compress, and those are counted in 16 bits. Far
/// fewer fit a message.
pub const RRSET_RECORDS_MAX: usize = u16::MAX as usize / 2;
/// Octets of RDATA: its length field has 16 bits.
pub const RDATA_LEN_MAX: usize = 65535;
/// Records one `$GENERATE` line may make.
pub const GENERATE_COUNT_MAX: u64 = 16 * 1024 * 1024;
/// Diagnostics kept for one zone; what is beyond is counted, not kept.
pub const DIAGNOSTICS_MAX: usize = 1000;
/// The largest TTL (RFC 2181, 8: a larger one is read as zero by clients).
pub const TTL_MAX: u32 = i32::MAX as u32;

/// A zone with fewer names is built anew for every change: that takes a millisecond or two.
pub const OVERLAY_ZONE_NAMES_MIN: usize = 2048;
/// Names that may differ from the zone that was built, as a share of all: then it is built anew.
pub const OVERLAY_SHARE: usize = 16;
/// The most of them: an overlay is copied with every change.
pub const OVERLAY_NAMES_MAX: usize = 16_384;
/// Octets of their nodes, those that have been replaced included.
pub const OVERLAY_OCTETS_MAX: usize = 4 << 20;

/// NSEC3 chains of one zone that are told apart: during a change of parameters there are two.
pub const NSEC3_CHAINS_MAX: usize = 16;

/// NSEC3 iterations unless configured: past it validators treat a zone as unsigned (RFC 9276, 3.2).
pub const NSEC3_ITERATIONS_DEFAULT: u16 = 150;
/// NSEC3 iterations that may be configured (RFC 5155, 10.3: for the largest keys).
pub const NSEC3_ITERATIONS_MAX: i64 = 2500;

//----------- TSIG -----------------------------------------------------------

/// Seconds that the clocks of two servers may differ (RFC 8945, 10: recommended).
pub const TSIG_FUDGE_SECONDS: u16 = 300;
/// Messages without a signature between two that have one (RFC 8945, 5.3.1).
pub const TSIG_UNSIGNED_MAX: usize = 99;

//----------- Transfers ------------------------------------------------------

/// Octets one transfer in may have unless configured: a primary could go on for ever.
pub const TRANSFER_OCTETS_DEFAULT: u64 = 1 << 33;
/// Records one transfer in may have.
pub const TRANSFER_RECORDS_MAX: u64 = u32::MAX as u64;
/// Transfers in at once.
pub const TRANSFERS_IN_MAX: usize = 64;
/// Zones of one primary that are asked for at once: one that does not answer holds up no other.
pub const TRANSFERS_PER_PRIMARY_MAX: usize = 16;
const _: () = assert!(TRANSFERS_PER_PRIMARY_MAX < TRANSFERS_IN_MAX);
/// Zones that have been taken and are still to be written to disk.
pub const UNWRITTEN_MAX: usize = 1024;
/// Zones of which one peer is told at once.
pub const NOTIFY_PER_PEER_MAX: usize = 16;
/// Commands at once that check what transfers brought. They may take long, and hold no transfer up.
pub const CHECKS_MAX: usize = 2;
/// How long a primary may take to accept a connection.
pub const TRANSFER_CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a primary may take for one message: at a few octets a second it does not hold a place.
pub const TRANSFER_MESSAGE_MAX: Duration = Duration::from_secs(10);
/// How long a transfer may be slow.
pub const TRANSFER_GRACE_SECONDS: u64 = 60;
/// Octets a second that it must have had from then on.
pub const TRANSFER_RATE_MIN: u64 = 1024;
/// How soon after an attempt a NOTIFY leads to the next: anybody may forge one.
pub const NOTIFY_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// How long one transfer in may take.
pub const TRANSFER_TIME_MAX: Duration = Duration::from_secs(3600);
/// Octets of a member's group in a catalog: one character-string (RFC 1035, 3.3).
pub const CATALOG_GROUP_LEN_MAX: usize = 255;
/// Datagrams that wait to be answered off the cores.
pub const DEFERRALS_MAX: usize = 512;
/// Updates of one zone that wait to be taken.
pub const UPDATES_WAITING_MAX: usize = 1024;
/// Changes of one zone that are kept for IXFR.
pub const JOURNAL_CHANGES_MAX: usize = 1000;
/// Octets of them, unless the zone itself has more.
pub const JOURNAL_OCTETS_MIN: usize = 1 << 20;
/// The shortest refresh interval that is followed: a SOA could ask for a request every second.
pub const REFRESH_MIN: Duration = Duration::from_secs(2);
/// The longest: a week without asking is long for any zone.
pub const REFRESH_MAX: Duration = Duration::from_secs(7 * 86400);
/// The shortest retry interval that is followed.
pub const RETRY_MIN: Duration = Duration::from_secs(2);
/// How soon a zone that has never come is asked for again, the first time.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
const _: () = assert!(RETRY_MIN.as_secs() <= REFRESH_MIN.as_secs());

//----------- Forwarding -----------------------------------------------------
//
// What an upstream can cost that lies, stalls, floods or closes. Reading: `RESPONSE_*` bound the
// work on 64 KB, some milliseconds at the very worst. Lying: an exchange is given up after
// `EXCHANGE_LIES_MAX` lies, an upstream after `UPSTREAM_LIES_MAX` in a row. Stalling: a question
// moves on after `EXCHANGE_TIME_MAX` at the latest, an upstream is left alone after
// `UPSTREAM_FAILURES_MAX`. What one question may send is its budget.

/// Records of one response: 4,000 addresses fill 64 KB.
pub const RESPONSE_RECORDS_MAX: usize = 4096;
/// Records of one answer that stand before the CNAME that leads to them: each is looked at again
/// for each link.
pub const RESPONSE_RECORDS_LATE_MAX: usize = 256;
/// Links of a CNAME or DNAME chain in one response.
pub const RESPONSE_LINKS_MAX: usize = 16;
/// Octets of one Extended DNS Error's text that are kept.
pub const EDE_TEXT_LEN_MAX: usize = 128;

/// Upstreams of one forward: a question knows them by bits.
pub const FORWARD_UPSTREAMS_MAX: usize = 32;
/// Exchanges at once, of all questions.
pub const EXCHANGES_MAX: usize = 1 << 20;
/// Exchanges at once with one upstream: ports and IDs of a driver's sockets are shared by all.
pub const UPSTREAM_EXCHANGES_MAX: u32 = 1 << 16;
/// Exchanges at once of one question: the first, two that hedge, and TCP beside them.
pub const QUESTION_EXCHANGES_MAX: usize = 4;
/// Lies to one exchange until it is given up: the true reply may still come behind a forged one.
pub const EXCHANGE_LIES_MAX: u8 = 4;
/// Lies in a row until an upstream is left alone.
pub const UPSTREAM_LIES_MAX: u32 = 16;
const _: () = assert!(UPSTREAM_LIES_MAX > EXCHANGE_LIES_MAX as u32);
/// Time-outs and faults in a row until an upstream is left alone.
pub const UPSTREAM_FAILURES_MAX: u32 = 4;
/// Replies in a row in another letter case, or without the cookie, until neither is asked for.
pub const UPSTREAM_STRIKES_MAX: u32 = 4;
/// Questions at once that an upstream is tried with when no other is left and it does not answer.
pub const UPSTREAM_TRIALS_MAX: u32 = 16;

/// How soon another upstream is asked as well: sooner would ask twice for every hiccup.
pub const HEDGE_TIME_MIN: Duration = Duration::from_millis(20);
/// How late another upstream is asked as well.
pub const HEDGE_TIME_MAX: Duration = Duration::from_millis(800);
/// Questions for each one that may be sent twice: upstreams in trouble do not get twice the load.
pub const HEDGE_SHARE: u32 = 8;
/// After how long an upstream is asked again at the earliest when there is no other: it may have to
/// ask others itself, and what was lost on the way is the smaller part (RFC 8085, 3.1.1: 1 second).
pub const RESEND_TIME_MIN: Duration = Duration::from_secs(1);
/// Questions that may be sent twice at once.
pub const HEDGE_BURST: u32 = 128;
/// How soon an exchange is over: recursion for a name nobody has asked for takes a while.
pub const EXCHANGE_TIME_MIN: Duration = Duration::from_millis(1500);
/// How late an exchange is over, however slow the upstream is.
pub const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(4);
const _: () = assert!(HEDGE_TIME_MIN.as_millis() < HEDGE_TIME_MAX.as_millis());
const _: () = assert!(HEDGE_TIME_MAX.as_millis() < EXCHANGE_TIME_MAX.as_millis());
const _: () = assert!(RESEND_TIME_MIN.as_millis() < EXCHANGE_TIME_MIN.as_millis());
/// How soon an upstream that is left alone is probed.
pub const PROBE_TIME_MIN: Duration = Duration::from_millis(250);
/// How long at most between probes: one that answers again is asked again within five seconds.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(4);
const _: () = assert!(PROBE_TIME_MIN.as_millis() < PROBE_TIME_MAX.as_millis());
const _: () = assert!(PROBE_TIME_MAX.as_secs() < 5);
/// How long an upstream must have been well for the probes to begin anew at the shortest interval.
pub const PROBE_CALM: Duration = Duration::from_secs(10);
/// How long after the last question an upstream is still probed.
pub const PROBE_IDLE: Duration = Duration::from_secs(60);
/// How long an upstream is asked without EDNS that has refused it (RFC 6891, 7).
pub const EDNS_FALLBACK: Duration = Duration::from_secs(600);
/// How long an upstream is asked in lower case that does not keep letters as they are.
pub const CASE_FALLBACK: Duration = Duration::from_secs(600);
/// How long a client cookie is used: nobody shall know us by it for ever (RFC 7873, 8).
pub const COOKIE_LIFE: Duration = Duration::from_secs(86400);
/// Attempts of one question that its trace has.
pub const TRACE_ATTEMPTS_MAX: usize = 16;

//----------- Streams --------------------------------------------------------

/// TCP connections open at once unless configured.
pub const STREAM_CONNECTIONS_DEFAULT: usize = 1024;
/// TCP connections open at once from one client unless configured.
pub const STREAM_CONNECTIONS_PER_CLIENT_DEFAULT: usize = 64;
/// Queries of one TCP connection unless configured.
pub const STREAM_QUERIES_DEFAULT: u64 = u64::MAX;
/// How long a TCP connection may be idle unless configured (RFC 7766, 6.2.3: on the order of a few
/// seconds).
pub const STREAM_IDLE_DEFAULT: Duration = Duration::from_secs(10);
/// How long a query may take to arrive over TCP unless configured, and replies to be taken.
pub const STREAM_PROGRESS_DEFAULT: Duration = Duration::from_secs(5);
/// Octets of replies that wait for one TCP peer unless configured.
pub const STREAM_QUEUED_DEFAULT: usize = 64 << 10;
/// Threads that answer over TCP unless configured: more would take time from the cores.
pub const STREAM_THREADS_DEFAULT: usize = 1;
/// Threads that answer over TCP.
pub const STREAM_THREADS_MAX: usize = 64;

//----------- Resolving ------------------------------------------------------

/// Questions in flight to upstreams unless configured: 160,000 misses a second at 50 ms each, and
/// some 8 MiB when all upstreams are silent.
pub const OUTSTANDING_DEFAULT: usize = 8192;
/// Those of one client (an IPv4 address, a /64 of IPv6) unless configured: a whole site may stand
/// behind one address, and no three of them fill the server.
pub const OUTSTANDING_PER_CLIENT_DEFAULT: usize = 2048;
const _: () = assert!(OUTSTANDING_PER_CLIENT_DEFAULT * 3 < OUTSTANDING_DEFAULT);
/// Questions in flight that may be configured.
pub const OUTSTANDING_MAX: usize = 1 << 20;
/// UDP sockets to upstreams unless configured: with 16 bits of ID a forged reply hits one of 2^28
/// (RFC 5452, 9.2).
pub const UPSTREAM_PORTS_DEFAULT: usize = 4096;
/// The fewest that may be configured, where descriptors are scarce.
pub const UPSTREAM_PORTS_MIN: usize = 256;
/// The most: half of all ports.
pub const UPSTREAM_PORTS_MAX: usize = 32_768;
/// Upstreams of one zone.
pub const UPSTREAMS_MAX: usize = 16;
/// Pins of one upstream: the key in use, the next ones.
pub const PINS_MAX: usize = 8;
/// How long a question may take unless configured: stub resolvers ask again after 5 s.
pub const QUESTION_TIME_DEFAULT: Duration = Duration::from_secs(4);
/// The shortest that may be configured.
pub const QUESTION_TIME_MIN: Duration = Duration::from_millis(100);
/// The longest.
pub const QUESTION_TIME_MAX: Duration = Duration::from_secs(30);

/// Octets of the cache unless configured: some 200,000 answers, and small for any machine.
pub const CACHE_MEMORY_DEFAULT: usize = 64 << 20;
/// The least that may be configured: what its table and segments are made for.
pub const CACHE_MEMORY_MIN: usize = 4 << 20;
/// The most.
pub const CACHE_MEMORY_MAX: usize = 1 << 40;
/// The highest of least TTLs: past an hour names that move are lost too long.
pub const CACHE_TTL_MIN_MAX: Duration = Duration::from_secs(3600);
/// The longest that an answer is fresh unless configured.
pub const CACHE_TTL_DEFAULT: Duration = Duration::from_secs(86_400);
/// The longest that may be configured (RFC 8767, 4: TTLs above a week are capped).
pub const CACHE_TTL_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The longest that "there is none" is fresh unless configured (RFC 2308, 5: one to three hours).
pub const CACHE_NEGATIVE_DEFAULT: Duration = Duration::from_secs(3600);
/// The longest that may be configured.
pub const CACHE_NEGATIVE_MAX: Duration = Duration::from_secs(86_400);
/// How long a failure is remembered the first time unless configured (RFC 9520, 3.2).
pub const CACHE_FAILURE_DEFAULT: Duration = Duration::from_secs(5);
/// The shortest (RFC 9520, 3.2: at least one second).
pub const CACHE_FAILURE_MIN: Duration = Duration::from_secs(1);
/// The longest, backing off or configured (RFC 9520, 3.2: at most five minutes).
pub const CACHE_FAILURE_MAX: Duration = Duration::from_secs(300);
/// How long past its TTL an answer may be served unless configured (RFC 8767, 5: one to three
/// days).
pub const CACHE_STALE_DEFAULT: Duration = Duration::from_secs(86_400);
/// The longest that may be configured.
pub const CACHE_STALE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The TTL of such an answer unless configured (RFC 8767, 4: 30 seconds).
pub const CACHE_STALE_TTL_DEFAULT: Duration = Duration::from_secs(30);
/// How long a client waits for a fresh answer before it gets a stale one unless configured (RFC
/// 8767, 5: 1.8 seconds).
pub const CACHE_STALE_AFTER_DEFAULT: Duration = Duration::from_millis(1800);
const _: () = assert!(CACHE_STALE_AFTER_DEFAULT.as_millis() < QUESTION_TIME_DEFAULT.as_millis());

//! ring53: the nameserver for port 53 at the edge.
//!
//! One function answers ([`answer::answer_batch`]); one seam carries datagrams
//! ([`net::PacketPath`]); only [`server`] speaks to people. `src/ARCHITECTURE.md` tells the life of
//! a query; `tests/tidy.rs` holds the layers below to their rules.
//!
//! ```text
//! server ─┬─> answer ───┬─> snapshot ─> {zone, cache, policy} ─> {wire, tsig, memory} ─> limits
//!         ├─> transfer ─┤
//!         ├─> resolver ─┘
//!         └─> net ────────────────────────────────────────────────────────────────────> limits
//! ```

pub mod answer;
pub mod cache;
pub mod limits;
pub mod memory;
pub mod net;
pub mod policy;
pub mod resolver;
pub mod server;
pub mod snapshot;
pub mod transfer;
pub mod tsig;
pub mod wire;
pub mod zone;

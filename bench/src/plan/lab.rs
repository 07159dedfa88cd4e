//! Where loads are run: the seam between the plan and a machine, or a model of one.

use std::io;

use crate::find::{Bounds, spoilt};
use crate::report::model::Run;

use super::limits::MemoryPoint;
use super::predict::TransferCost;

/// One load that the plan wants to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// What it is for.
    pub label: String,
    /// The shares of the classes; their sum is 1.
    pub shares: Vec<f64>,
    /// On how many cores the server runs.
    pub cores: u32,
    /// Queries a second.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// Transfers a second beside them.
    pub transfers: f64,
    /// Whether the server reads its zones again meanwhile.
    pub reload: bool,
    /// Seed of the schedule and of what is drawn.
    pub seed: u64,
}

/// A server that loads can be sent to.
pub trait Lab {
    /// Sends a load. `Run::server` says how busy the server's cores were beyond what they are
    /// without a load.
    fn run(&mut self, offer: &Offer) -> io::Result<Run>;

    /// What one transfer of the zone costs; `per_second` of the result is left zero.
    fn transfers(&mut self, seconds: f64) -> io::Result<TransferCost>;

    /// Loads zones of several sizes, the largest twice.
    fn memory(&mut self) -> io::Result<Vec<MemoryPoint>>;
}

//----------- Verdict --------------------------------------------------------

/// What a run says about its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The bounds held.
    Held,
    /// They did not.
    Broke,
    /// The generator has spoilt the run: it says nothing about the server.
    Generator,
}

/// Judges a run.
pub fn judge(bounds: &Bounds, run: &Run) -> Verdict {
    match (spoilt(run, bounds), bounds.hold(run)) {
        (Some(_), _) => Verdict::Generator,
        (None, true) => Verdict::Held,
        (None, false) => Verdict::Broke,
    }
}

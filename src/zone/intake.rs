//! A zone from records in wire form: what transfers bring and what is kept on disk.
//!
//! ```text
//!   message ──expand RDATA, check its shape──> stage ──sort──> build + check ──> Zone
//! ```
//!
//! Zone text and transfers meet in the stage: a zone that comes over the network is checked as one
//! that is read from a file, and its errors name the source and the number of the record.

use std::ops::Range;

use crate::limits::RDATA_LEN_MAX;
use crate::wire::{LowerName, Name, rtype};

use super::diagnostic::Severity;
use super::stage::{PARTS_MAX, Stage};
use super::text::{Record, Sink, expand_rdata, rdata_fits};
use super::{LoadOptions, Loaded, finish};

/// Records of a zone that is not complete yet.
pub struct Intake {
    apex: Name,
    stage: Stage,
    threads: usize,
    /// Records so far.
    count: u32,
    rdata: Vec<u8>,
}

/// RDATA that is not of the form its type has, or a type that no zone has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRdata;

impl Intake {
    /// No records yet of the zone `apex`.
    pub fn new(apex: &Name, options: &LoadOptions) -> Intake {
        let mut lower_apex = LowerName::new();
        lower_apex.read(apex.as_wire()).expect("a name is a name");
        Intake {
            apex: apex.clone(),
            stage: Stage::new(options.key, &lower_apex),
            threads: options.threads.clamp(1, PARTS_MAX),
            count: 0,
            rdata: Vec::new(),
        }
    }

    /// Records so far.
    pub fn record_count(&self) -> u32 {
        self.count
    }

    /// Takes a record of a message; `owner` is a whole name in wire form, `range` its RDATA.
    /// Returns the octets of the RDATA when it is expanded.
    pub fn record_of(
        &mut self,
        message: &[u8],
        owner: &[u8],
        (rtype, class, ttl): (u16, u16, u32),
        range: Range<usize>,
    ) -> Result<usize, BadRdata> {
        let mut rdata = std::mem::take(&mut self.rdata);
        rdata.clear();
        let fits = !rtype::is_meta(rtype)
            && expand_rdata(rtype, message, range, &mut rdata)
            && rdata.len() <= RDATA_LEN_MAX;
        if fits {
            self.take(owner, (rtype, class, ttl), &rdata);
        }
        self.rdata = rdata;
        if fits { Ok(self.rdata.len()) } else { Err(BadRdata) }
    }

    /// Takes a record of class IN whose RDATA is expanded.
    pub fn record(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<(), BadRdata> {
        if rtype::is_meta(rtype) || !rdata_fits(rtype, rdata) {
            return Err(BadRdata);
        }
        self.take(owner, (rtype, 1, ttl), rdata);
        Ok(())
    }

    fn take(&mut self, owner: &[u8], (rtype, class, ttl): (u16, u16, u32), rdata: &[u8]) {
        self.count += 1;
        let line = self.count;
        self.stage.record(Record { owner, rtype, class, ttl, rdata, line, file: 0 });
    }

    /// Builds and checks the zone; `source` is what its diagnostics name.
    pub fn finish(self, source: &str, options: &LoadOptions) -> Loaded {
        let mut diagnostics = Vec::new();
        let mut lower_apex = LowerName::new();
        lower_apex.read(self.apex.as_wire()).expect("a name is a name");
        let zone = finish::finish(
            &self.apex,
            lower_apex,
            &[self.stage],
            &[source.to_string()],
            options,
            self.threads,
            &mut diagnostics,
        );
        let broken = diagnostics.iter().any(|found| found.severity == Severity::Error);
        Loaded { zone: zone.filter(|_| !broken), diagnostics }
    }
}

/// The RDATA at `range` of a message, expanded; `None` if it cannot be in a zone.
pub fn expanded(rtype: u16, message: &[u8], range: Range<usize>) -> Option<Vec<u8>> {
    let mut rdata = Vec::new();
    let fits = !rtype::is_meta(rtype)
        && expand_rdata(rtype, message, range, &mut rdata)
        && rdata.len() <= RDATA_LEN_MAX;
    fits.then_some(rdata)
}

/// The five numbers of a SOA: serial, refresh, retry, expire, minimum.
pub fn soa_numbers(rdata: &[u8]) -> Option<[u32; 5]> {
    let numbers = rdata.get(rdata.len().checked_sub(20)?..)?;
    let mut all = [0; 5];
    for (number, octets) in all.iter_mut().zip(numbers.chunks_exact(4)) {
        *number = u32::from_be_bytes(octets.try_into().expect("four octets"));
    }
    Some(all)
}

impl super::Zone {
    /// The five numbers of its SOA.
    pub fn soa_numbers(&self) -> [u32; 5] {
        let soa = self.node(self.apex_at()).rrset(rtype::SOA);
        soa.and_then(|soa| soa_numbers(soa.first_rdata())).expect("a loaded zone has a whole SOA")
    }
}

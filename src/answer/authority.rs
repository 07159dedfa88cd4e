//! Answers from one zone, once the closest encloser is known (RFC 1034, 4.3.2, as RFC 4592 and
//! RFC 6672 amend it).
//!
//! ```text
//!   closest encloser ─┬─ hidden by a cut ──────────> referral
//!                     ├─ below a DNAME ────────────> DNAME, CNAME ──> next link
//!                     ├─ is the name itself ───┐
//!                     ├─ has a wildcard child ─┴──> data, CNAME ──> next link, or NODATA
//!                     └─ otherwise ────────────────> NXDOMAIN
//! ```

use crate::limits::NAME_LEN_MAX;
use crate::wire::rcode::{NXDOMAIN, YXDOMAIN};
use crate::wire::rtype;
use crate::zone::{Node, flag};

use super::denial::{Denied, Proofs};
use super::link::{Link, Next};
use super::reply::{Owner, Reply, Section};

impl<'z> Link<'_, 'z> {
    /// Writes this link's records.
    #[inline]
    pub fn answer(&self, reply: &mut Reply<'_>, proofs: &mut Proofs<'z>) -> Next {
        let node = self.zone.node(self.search.node);
        let flags = node.flags();
        let exact = self.search.low == self.name.depth();
        if flags & (flag::CUT | flag::OCCLUDED | flag::DNAME) != 0
            && let Some(next) = self.hidden(node, exact, reply, proofs)
        {
            return next;
        }
        reply.authoritative |= self.first;
        if exact {
            return self.records(node, false, reply, proofs);
        }
        if flags & flag::WILDCARD_CHILD != 0
            && let Some(wildcard) = self.wildcard(node)
        {
            return self.records(wildcard, true, reply, proofs);
        }
        reply.rcode = NXDOMAIN;
        self.negative(Denied::Name, reply, proofs);
        Next::Done
    }

    /// The wildcard directly below the closest encloser.
    fn wildcard(&self, encloser: Node<'_>) -> Option<Node<'z>> {
        let hash = self.key.wildcard_child(self.hashes[self.search.low]);
        let is_it = |owner: &[u8]| owner.strip_prefix(b"\x01*") == Some(encloser.owner());
        self.zone.find_owner(hash, is_it).map(|position| self.zone.node(position))
    }

    /// The records of `node` under the name that was asked, which it is or is `expanded` to.
    #[inline]
    fn records(
        &self,
        node: Node<'z>,
        expanded: bool,
        reply: &mut Reply<'_>,
        proofs: &mut Proofs<'z>,
    ) -> Next {
        let nothing = |node| if expanded { Denied::ExpandedType(node) } else { Denied::Type(node) };
        let rrset = match self.qtype {
            //= RFC 8482, 4.1
            //# A DNS responder that receives an ANY query MAY decline to provide
            //# a conventional ANY response or MAY instead send a response with a
            //# single RRset
            rtype::ANY => node.rrsets().find(|rrset| rrset.count > 0),
            rtype::RRSIG => {
                if !self.all_signatures(node, reply) {
                    self.negative(nothing(node), reply, proofs);
                } else if expanded {
                    self.deny(Denied::Expanded, reply, proofs);
                }
                return Next::Done;
            }
            qtype => node.rrset(qtype),
        };
        if let Some(rrset) = rrset {
            let Some(start) = reply.rrset(Section::Answer, rrset, self.owner) else {
                reply.truncated = true;
                return Next::Done;
            };
            if expanded {
                self.deny(Denied::Expanded, reply, proofs);
            }
            // Hosts come with their addresses (RFC 1034, 4.3.2, step 6; RFC 9609, 4.2).
            if rrset.has_links() {
                proofs.write(reply);
                reply.addresses(self.zone, rrset, start, false);
            }
            return Next::Done;
        }
        if node.flags() & flag::CNAME != 0
            && let Some(cname) = node.rrset(rtype::CNAME)
        {
            return match reply.rrset(Section::Answer, cname, self.owner) {
                None => {
                    reply.truncated = true;
                    Next::Done
                }
                Some(start) => {
                    if expanded {
                        self.deny(Denied::Expanded, reply, proofs);
                    }
                    Next::Chain(start + 12)
                }
            };
        }
        self.negative(nothing(node), reply, proofs);
        Next::Done
    }

    /// Writes all signatures at `node`; `false` if there are none.
    #[cold]
    fn all_signatures(&self, node: Node<'_>, reply: &mut Reply<'_>) -> bool {
        let mut any = false;
        for rrset in node.rrsets() {
            any |= rrset.signatures().0 > 0;
            if !reply.signatures_alone(Section::Answer, rrset, self.owner) {
                reply.truncated = true;
                return true;
            }
        }
        any
    }

    /// The SOA of a negative answer (RFC 2308, 2), and the proofs that it is right.
    #[inline]
    fn negative(&self, denied: Denied<'z>, reply: &mut Reply<'_>, proofs: &mut Proofs<'z>) {
        let Some(soa) = self.zone.negative_soa() else { return };
        let owner = self.owner.suffix(reply.message(), self.zone.apex_len());
        if reply.rrset(Section::Authority, soa, owner).is_none() {
            reply.truncated = true;
        }
        self.deny(denied, reply, proofs);
    }

    /// What a cut or a DNAME at or above `node` makes of the question; `None` if nothing.
    #[inline(never)]
    fn hidden(
        &self,
        node: Node<'z>,
        exact: bool,
        reply: &mut Reply<'_>,
        proofs: &mut Proofs<'z>,
    ) -> Option<Next> {
        let (node, depth) = if node.flags() & flag::OCCLUDED != 0 {
            let depth = node.cut_depth();
            (self.zone.node(self.zone.find(self.name, depth, self.hashes[depth])?), depth)
        } else {
            (node, self.search.low)
        };
        let exact = exact && depth == self.name.depth();
        if node.flags() & flag::CUT != 0 {
            //= RFC 4035, 3.1.4.1
            //# The DS RRset ... is authoritative at the parent side of the zone cut
            if exact && self.qtype == rtype::DS {
                return None;
            }
            self.referral(node, depth, reply, proofs);
            return Some(Next::Done);
        }
        if node.flags() & flag::DNAME != 0 && !exact {
            return Some(self.dname(node, depth, reply));
        }
        None
    }

    fn referral(
        &self,
        cut: Node<'z>,
        depth: usize,
        reply: &mut Reply<'_>,
        proofs: &mut Proofs<'z>,
    ) {
        let Some(servers) = cut.rrset(rtype::NS) else { return };
        let owner = self.owner.suffix(reply.message(), self.name.suffix_len(depth));
        let Some(start) = reply.rrset(Section::Authority, servers, owner) else {
            reply.truncated = true;
            return;
        };
        match cut.rrset(rtype::DS) {
            Some(ds) => {
                if reply.dnssec_ok() && reply.rrset(Section::Authority, ds, owner).is_none() {
                    reply.truncated = true;
                }
            }
            None => self.deny(Denied::Ds(cut, depth), reply, proofs),
        }
        proofs.write(reply);
        reply.addresses(self.zone, servers, start, true);
    }

    fn dname(&self, node: Node<'_>, depth: usize, reply: &mut Reply<'_>) -> Next {
        reply.authoritative |= self.first;
        let Some(dname) = node.rrset(rtype::DNAME) else { return Next::Done };
        let owner = self.owner.suffix(reply.message(), self.name.suffix_len(depth));
        let Some(start) = reply.rrset(Section::Answer, dname, owner) else {
            reply.truncated = true;
            return Next::Done;
        };
        let prefix_len = self.name.suffix_at(depth);
        let target = dname.first_rdata();
        // RFC 6672, 2.2: a name that substitution makes too long is answered with YXDOMAIN.
        if prefix_len + target.len() > NAME_LEN_MAX {
            reply.rcode = YXDOMAIN;
            return Next::Done;
        }
        let target_at = start + dname.body.len() - target.len();
        let mut prefix = [0; NAME_LEN_MAX];
        let prefix = &mut prefix[..prefix_len];
        match self.owner {
            // The client's letter case where the client's name is at hand.
            Owner::Ends { end, len } => {
                prefix.copy_from_slice(&reply.message()[end - len..end - len + prefix_len]);
            }
            Owner::Starts { .. } => prefix.copy_from_slice(&self.name.as_wire()[..prefix_len]),
        }
        match reply.synthesized_cname(self.owner, dname.ttl(), prefix, target_at, target.len()) {
            None => {
                reply.truncated = true;
                Next::Done
            }
            Some(_) if matches!(self.qtype, rtype::CNAME | rtype::ANY) => Next::Done,
            Some(name_at) => Next::Chain(name_at),
        }
    }
}

//! Addresses and control messages as the kernel writes them.
//!
//! ```text
//!   msghdr  ── name     sockaddr_in or sockaddr_in6 of the peer, 28 octets at most
//!           ── control  cmsghdr + in_pktinfo or in6_pktinfo: the address that was asked
//! ```
//!
//! A listener on a wildcard address would otherwise reply from whatever address the route prefers,
//! and the client would not recognise the reply. The control message is sent back as it came,
//! except that the interface is left to the routes for IPv4.

/// Octets of a peer's address.
pub const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();
/// Octets for one packet-info message of either family, aligned.
pub const CONTROL_LEN: usize = 40;
const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(HEADER_LEN == 16);
const _: () = assert!(HEADER_LEN + size_of::<libc::in6_pktinfo>() <= CONTROL_LEN);

/// Turns a received control message into the one that makes the reply leave from the address that
/// was asked; returns its length, or 0 when there is none.
pub fn reply_control(control: &mut [u8; CONTROL_LEN], received_len: usize) -> usize {
    if received_len < HEADER_LEN {
        return 0;
    }
    let word = |at: usize| i32::from_ne_bytes(control[at..at + 4].try_into().expect("four octets"));
    match (word(8), word(12)) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // struct in_pktinfo { interface, source, header destination }: the destination of the
            // query becomes the source of the reply, through whatever interface the routes say.
            let destination: [u8; 4] = control[24..28].try_into().expect("four octets");
            control[16..20].fill(0);
            control[20..24].copy_from_slice(&destination);
            control[24..28].fill(0);
            HEADER_LEN + size_of::<libc::in_pktinfo>()
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => HEADER_LEN + size_of::<libc::in6_pktinfo>(),
        _ => 0,
    }
}

/// Room for a control message with the alignment that `cmsghdr` has.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Control(pub [u8; CONTROL_LEN]);

/// Room for a peer's address with the alignment that `sockaddr` has.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct PeerName(pub [u8; NAME_LEN]);

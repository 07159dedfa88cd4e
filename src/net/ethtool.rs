//! What a network driver says of itself: the ioctls of ethtool(8) that only ask.
//!
//! ```text
//!   ioctl(socket, SIOCETHTOOL, ifreq { name, ─┐ })
//!                                             v
//!   words: | command | argument or answer | ... |      32 bits each, as linux/ethtool.h has them
//! ```

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Words of the largest answer that is asked for, and more: `struct ethtool_rxnfc` has 48.
pub const ETHTOOL_WORDS: usize = 64;

/// Asks the driver of `interface`: `words` starts with the command and its arguments, and has the
/// answer afterwards.
///
/// The command must be one that asks (`ETHTOOL_G...`): one that sets would do so.
pub fn ethtool(interface: &str, words: &mut [u32; ETHTOOL_WORDS]) -> io::Result<()> {
    // SAFETY:
    // - `ifreq` is made of integers and pointers: all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, &from) in request.ifr_name.iter_mut().zip(interface.as_bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // Any socket will do: it only says which network namespace is meant.
    let socket = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    // SAFETY:
    // - The request lives until the call returns; its name ends with a zero, as it is shorter than
    //   the array that was zeroed.
    // - `words` is larger than each structure the kernel copies for the commands that ask for a
    //   fixed size, and any words are a value of it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    /// `ETHTOOL_GLINK`, which every device answers.
    const LINK: u32 = 0x0a;

    #[test]
    fn the_loopback_has_a_link_and_what_is_not_there_has_none() {
        let mut words = [0; ETHTOOL_WORDS];
        words[0] = LINK;
        ethtool("lo", &mut words).unwrap();
        assert_eq!(words[1], 1);
        assert_eq!(ethtool("nosuch0", &mut words).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(ethtool("a name far too long for one", &mut words).is_err());
    }
}

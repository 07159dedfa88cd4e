//! Socket options that no library offers, one function each.

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use arrayvec::ArrayVec;

/// `setsockopt` with any plain value.
fn set<T>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY:
    // - The pointer and the length describe `value`, which the kernel only reads.
    // - The descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of_val(value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends no fragments and ignores path-MTU messages, which anybody can forge (RFC 9715, 3.1).
pub fn send_no_fragments(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_OMIT)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_OMIT)
    }
}

/// Tells with each datagram which address it was sent to.
pub fn receive_packet_info(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1i32)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, &1i32)
    }
}

/// A receive buffer beyond `net.core.rmem_max`; needs CAP_NET_ADMIN.
pub fn force_receive_buffer(socket: BorrowedFd<'_>, octets: usize) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(octets as i32))
}

/// As [`force_receive_buffer`], for sending.
pub fn force_send_buffer(socket: BorrowedFd<'_>, octets: usize) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(octets as i32))
}

/// Gives each datagram to the socket of the core it arrived on: the group's socket `i` is the one
/// of `cores[i]`. A datagram of another core goes to the socket of its number modulo the group.
///
/// ```text
///   A = cpu;  if A == cores[0] return 0;  if A == cores[1] return 1; ...  return A mod count
/// ```
pub fn steer_by_core(socket: BorrowedFd<'_>, cores: &[usize]) -> io::Result<()> {
    const LOAD_CPU: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    let code = |code: u32| code as u16;
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![step(code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0, 0, LOAD_CPU)];
    for (index, &core) in cores.iter().enumerate() {
        let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
        program.push(step(equal, 0, 1, core as u32));
        program.push(step(code(libc::BPF_RET | libc::BPF_K), 0, 0, index as u32));
    }
    let modulo = code(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K);
    program.push(step(modulo, 0, 0, cores.len() as u32));
    program.push(step(code(libc::BPF_RET | libc::BPF_A), 0, 0, 0));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// Tells with each datagram when it arrived, in nanoseconds of the real-time clock.
pub fn receive_times(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)
}

/// Nanoseconds of a clock of the system: `CLOCK_MONOTONIC` or `CLOCK_REALTIME`.
#[inline]
pub fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY:
    // - The kernel writes one `timespec` to `time`; both clocks exist on every system.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Lets this thread's waits end when they are due, rather than 50 us later.
pub fn wake_on_time() {
    // SAFETY:
    // - The option takes a number of nanoseconds and concerns the calling thread alone.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Datagrams that the kernel dropped because the socket was full.
pub fn socket_drops(socket: BorrowedFd<'_>) -> Option<u64> {
    // The order of `SK_MEMINFO_*` in linux/sock_diag.h; drops are the ninth.
    const DROPS: usize = 8;
    let mut words = [0u32; DROPS + 1];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY:
    // - The kernel writes at most `len` octets to `words`, any of which are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &mut len,
        )
    };
    (result == 0 && len as usize == size_of_val(&words)).then_some(u64::from(words[DROPS]))
}

/// Datagrams of one [`send_messages`].
pub const SEND_COUNT_MAX: usize = 32;

/// A datagram to be sent.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// The peer's address, as the kernel writes it.
    pub name: &'a [u8],
    /// A control message; empty: none.
    pub control: &'a [u8],
    /// What it says.
    pub octets: &'a [u8],
}

/// Sends datagrams, at most [`SEND_COUNT_MAX`] of them; never waits. What the kernel does not take
/// is left out; the last error is told.
pub fn send_messages(socket: BorrowedFd<'_>, datagrams: &[Outgoing<'_>]) -> io::Result<()> {
    let vector = |octets: &[u8]| libc::iovec {
        iov_base: octets.as_ptr().cast_mut().cast(),
        iov_len: octets.len(),
    };
    let mut vectors: ArrayVec<libc::iovec, SEND_COUNT_MAX> =
        datagrams.iter().map(|datagram| vector(datagram.octets)).collect();
    let headers = datagrams.iter().zip(&mut vectors).map(|(datagram, vector)| {
        // SAFETY:
        // - `mmsghdr` is made of integers and pointers: all zeroes is a value of it.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let header = &mut message.msg_hdr;
        header.msg_name = datagram.name.as_ptr().cast_mut().cast();
        header.msg_namelen = datagram.name.len() as u32;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        if !datagram.control.is_empty() {
            header.msg_control = datagram.control.as_ptr().cast_mut().cast();
            header.msg_controllen = datagram.control.len();
        }
        message
    });
    let mut headers: ArrayVec<libc::mmsghdr, SEND_COUNT_MAX> = headers.collect();
    let (mut result, mut at) = (Ok(()), 0);
    while at < headers.len() {
        let left = &mut headers[at..];
        // SAFETY:
        // - All pointers of the headers describe slices and vectors that outlive the call, which
        //   reads them and writes only the headers' lengths.
        // - The descriptor is open for as long as it is borrowed.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                left.as_mut_ptr(),
                left.len() as u32,
                libc::MSG_DONTWAIT,
            )
        };
        if sent > 0 {
            at += sent as usize;
        } else {
            result = Err(io::Error::last_os_error());
            at += 1;
        }
    }
    result
}

/// Owns a descriptor that this process was started with; `None` if there is none of that number.
pub fn adopt(descriptor: RawFd) -> Option<OwnedFd> {
    // SAFETY:
    // - `fcntl` with F_GETFD takes any number and only looks at it.
    if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY:
    // - The descriptor is open, as was just seen.
    // - It was opened by whoever started the process, for whoever asks by sd_listen_fds(3), which
    //   can be done once: nothing else in this process owns it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

//! An XDP program that turns queries into replies before a socket sees them: what a generator can
//! send and receive at most.
//!
//! ```text
//!   IPv4, UDP, port 53:  MAC <-> MAC   IP <-> IP   port <-> port   QR = 1   checksum = 0   XDP_TX
//!   anything else:       XDP_PASS
//! ```
//!
//! A veth whose end turns frames round needs a program at the other end too: without one the kernel
//! puts what was turned round into that end's ring and never says so. One that passes all will do.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::net::if_::if_nametoindex;

/// One instruction of eBPF: `opcode, destination, source, offset, immediate`.
type Instruction = (u8, u8, u8, i16, i32);

/// Load of 1, 2 or 4 octets.
const LOAD: [u8; 5] = [0, 0x71, 0x69, 0, 0x61];
/// Store of 1, 2 or 4 octets.
const STORE: [u8; 5] = [0, 0x73, 0x6B, 0, 0x63];
const MOVE: u8 = 0xBF;
const MOVE_NUMBER: u8 = 0xB7;
const ADD_NUMBER: u8 = 0x07;
const OR_NUMBER: u8 = 0x47;
const STORE_NUMBER_2: u8 = 0x6A;
const JUMP_IF_GREATER: u8 = 0x2D;
const JUMP_UNLESS_NUMBER: u8 = 0x55;
const EXIT: u8 = 0x95;

const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
/// Ethernet, IPv4 without options, UDP, DNS header.
const FRAME_LEN_MIN: i32 = 14 + 20 + 8 + 12;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// A program for an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Turns queries round.
    Reflect,
    /// Passes everything.
    Pass,
}

impl Program {
    fn instructions(self) -> Vec<[u8; 8]> {
        match self {
            Program::Reflect => reflect(),
            Program::Pass => {
                [(MOVE_NUMBER, 0, 0, 0, XDP_PASS), (EXIT, 0, 0, 0, 0)].map(encode).into()
            }
        }
    }
}

fn reflect() -> Vec<[u8; 8]> {
    // r2: start, r3: end.
    let mut checks: Vec<Instruction> = vec![
        (LOAD[4], 2, 1, 0, 0),
        (LOAD[4], 3, 1, 4, 0),
        (MOVE, 4, 2, 0, 0),
        (ADD_NUMBER, 4, 0, 0, FRAME_LEN_MIN),
        (JUMP_IF_GREATER, 4, 3, 0, 0),
    ];
    let wire = |number: u16| i32::from(u16::from_ne_bytes(number.to_be_bytes()));
    for (len, at, number) in [(2, 12, wire(0x0800)), (1, 23, 17), (2, 36, wire(53))] {
        checks.push((LOAD[len], 5, 2, at, 0));
        checks.push((JUMP_UNLESS_NUMBER, 5, 0, 0, number));
    }
    let mut turn = Vec::new();
    for (len, a, b) in [(4, 0, 6), (2, 4, 10), (4, 26, 30), (2, 34, 36)] {
        turn.push((LOAD[len], 5, 2, a, 0));
        turn.push((LOAD[len], 6, 2, b, 0));
        turn.push((STORE[len], 2, 6, a, 0));
        turn.push((STORE[len], 2, 5, b, 0));
    }
    turn.push((LOAD[1], 5, 2, 44, 0));
    turn.push((OR_NUMBER, 5, 0, 0, 0x80));
    turn.push((STORE[1], 2, 5, 44, 0));
    turn.push((STORE_NUMBER_2, 2, 0, 40, 0));
    turn.push((MOVE_NUMBER, 0, 0, 0, XDP_TX));
    turn.push((EXIT, 0, 0, 0, 0));
    let pass_at = checks.len() + turn.len();
    for (at, check) in checks.iter_mut().enumerate() {
        if matches!(check.0, JUMP_IF_GREATER | JUMP_UNLESS_NUMBER) {
            check.3 = (pass_at - at - 1) as i16;
        }
    }
    let pass = [(MOVE_NUMBER, 0, 0, 0, XDP_PASS), (EXIT, 0, 0, 0, 0)];
    checks.into_iter().chain(turn).chain(pass).map(encode).collect()
}

fn encode((opcode, destination, source, offset, immediate): Instruction) -> [u8; 8] {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    [opcode, source << 4 | destination, low, high, a, b, c, d]
}

/// Calls bpf(2) with `attributes`, which the kernel reads as far as they go.
fn bpf(command: libc::c_long, attributes: &[u8]) -> io::Result<i32> {
    // SAFETY:
    // - The kernel reads `attributes.len()` octets of the slice, and what the pointers in it name:
    //   the program and the licence in `attach`, which outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len() as libc::c_long)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Attaches `program` to `interface` of this thread's network namespace, until the result is
/// dropped; needs root.
pub fn attach(interface: &str, program: Program) -> io::Result<OwnedFd> {
    let failed = |what: &str, error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("{what} on {interface}: {error}: an XDP program needs root"),
        )
    };
    let instructions = program.instructions();
    let licence = c"MIT";
    let mut load = Vec::new();
    load.extend(BPF_PROG_TYPE_XDP.to_ne_bytes());
    load.extend((instructions.len() as u32).to_ne_bytes());
    load.extend((instructions.as_ptr() as u64).to_ne_bytes());
    load.extend((licence.as_ptr() as u64).to_ne_bytes());
    // No log of the verifier: level, size, place.
    load.extend([0; 16]);
    let program = bpf(BPF_PROG_LOAD, &load).map_err(|error| failed("load", error))?;
    let mut link = Vec::new();
    link.extend(program.to_ne_bytes());
    link.extend(if_nametoindex(interface)?.to_ne_bytes());
    link.extend(BPF_XDP.to_ne_bytes());
    link.extend(0u32.to_ne_bytes());
    let link = bpf(BPF_LINK_CREATE, &link).map_err(|error| failed("attach", error))?;
    // SAFETY:
    // - The kernel has just made both descriptors for this call alone: nothing else owns them.
    let (_program, link) = unsafe { (OwnedFd::from_raw_fd(program), OwnedFd::from_raw_fd(link)) };
    Ok(link)
}

/// Reflects on `interface` for `duration`, or lets all pass.
pub fn run(interface: &str, program: Program, duration: Duration) -> io::Result<()> {
    let _link = attach(interface, program)?;
    thread::sleep(duration);
    Ok(())
}

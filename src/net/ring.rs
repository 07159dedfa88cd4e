//! What both paths of io_uring do with their rings: entering the kernel, waiting, ending receives.

use std::io;
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue};

/// Marks completions of sends; receives carry the index of their socket.
pub(super) const SEND: u64 = 1 << 32;
/// Enters of the kernel that closing may take: one is enough unless completions overflowed.
const CLOSING_ROUNDS_MAX: usize = 64;

/// Enters the kernel: submits what is queued and completes what has arrived.
#[inline]
pub(super) fn enter(ring: &mut IoUring) -> io::Result<()> {
    match ring.submit_and_wait(0) {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // Interrupted, or completions to be reaped first: both mend themselves.
            Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Submits what is queued and waits for a completion; `false` if none came in time.
pub(super) fn wait(ring: &mut IoUring, timeout: Duration) -> io::Result<bool> {
    let timespec = Timespec::from(timeout);
    let args = SubmitArgs::new().timespec(&timespec);
    match ring.submitter().submit_with_args(1, &args) {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME) => Ok(false),
            Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(true),
            _ => Err(error),
        },
    }
}

/// Ends the receives of `armed` sockets and lets go of all. Without it the kernel would do so some
/// time after the process has ended, and the next one would find the port taken.
pub(super) fn close(ring: &mut IoUring, mut armed: usize) -> io::Result<()> {
    // A kernel before 6.0 cannot, and lets go a moment later.
    ring.submitter().register_sync_cancel(None, CancelBuilder::any())?;
    // A cancelled receive holds its socket until its last completion is made.
    for _ in 0..CLOSING_ROUNDS_MAX {
        enter(ring)?;
        while let Some(completion) = ring.completion().next() {
            let receive = completion.user_data() & SEND == 0;
            armed -= usize::from(receive && !cqueue::more(completion.flags())).min(armed);
        }
        if armed == 0 {
            break;
        }
    }
    ring.submitter().unregister_files()
}

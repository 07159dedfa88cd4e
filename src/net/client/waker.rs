//! Ends another thread's wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes the thread that waits on a path; any thread may. Once is as good as a hundred times, and
/// only the first costs a system call.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    event: EventFd,
    woken: AtomicBool,
}

impl Waker {
    /// Of nobody yet.
    pub fn new() -> io::Result<Waker> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Waker { shared: Arc::new(Shared { event, woken: AtomicBool::new(false) }) })
    }

    /// Ends the present wait, or the next one. What was written to memory before is seen after it.
    #[inline]
    pub fn wake(&self) {
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            // It fails only if the counter is full, and then there is somebody to be woken already.
            let _ = self.shared.event.write(1);
        }
    }

    /// The descriptor that becomes readable.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Has been woken: the next call of [`Waker::wake`] counts again. Call it before looking at
    /// what there is to do. Returns whether anybody had called.
    pub fn rearm(&self) -> bool {
        let _ = self.shared.event.read();
        self.shared.woken.swap(false, Ordering::AcqRel)
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_is_as_good_as_a_hundred_times() {
        let waker = Waker::new().unwrap();
        assert!(!waker.rearm());
        for _ in 0..100 {
            waker.clone().wake();
        }
        assert_eq!(waker.shared.event.read().unwrap(), 1, "one write");
        assert!(waker.rearm() && !waker.rearm());
        waker.wake();
        assert!(waker.rearm());
    }
}

//! Memory of the cache is cleared before it is written to.
//!
//! ```text
//!   table, log written ... | cleared: as much as comes in some hundred ms | not there yet
//!                            ^ this thread, when nothing else wants its core
//! ```
//!
//! The kernel clears a huge page when it is first touched, which takes milliseconds on some
//! machines: the thread that resolves would take them from its core while hits wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use crate::cache::Cache;
use crate::net::give_way;

/// The thread that does it. Dropping it ends the thread, once that comes to run.
pub struct Clearing {
    cache: Cache,
    thread: Thread,
    stop: Arc<AtomicBool>,
}

impl Clearing {
    /// Starts the thread.
    pub fn start(cache: Cache) -> io::Result<Clearing> {
        let stop = Arc::new(AtomicBool::new(false));
        let (its, is_over) = (cache.clone(), Arc::clone(&stop));
        let body = move || {
            give_way();
            while !is_over.load(Ordering::Relaxed) {
                if !its.clear_ahead() {
                    thread::park();
                }
            }
        };
        let handle = thread::Builder::new().name("ring53-clearing".into()).spawn(body)?;
        Ok(Clearing { cache, thread: handle.thread().clone(), stop })
    }

    /// Has it go on if there is something to clear.
    #[inline]
    pub fn nudge(&self) {
        if self.cache.is_cleared_too_little() {
            self.thread.unpark();
        }
    }
}

impl Drop for Clearing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

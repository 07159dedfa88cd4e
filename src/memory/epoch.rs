//! Publishes one value to many cores; only the publisher ever frees.
//!
//! ```text
//!   publisher                                   core i
//!   ─────────                                   ──────
//!   swap(pointer, new)                          slot[i] = epoch          (pin)
//!   epoch += 1                                  read pointer, use it
//!   wait until every slot is OFFLINE or         slot[i] = OFFLINE        (unpin)
//!     >= the new epoch, then free the old
//! ```
//!
//! A core that pins after the swap announces an epoch of at least the one it read; if that is the
//! new epoch, it also sees the new pointer. A core that announced the old epoch may hold the old
//! value, and the publisher waits for it. Pin and unpin are one store each and the pin one fence:
//! no core ever waits, frees or allocates. A core pins once per batch and never across a wait, so
//! the publisher waits at most for one batch.
//!
//! [`Epochs`] is the announcing by itself, for what is freed later rather than waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
use std::time::Duration;

use crossbeam::utils::CachePadded;

const OFFLINE: u64 = 0;

//----------- Published ------------------------------------------------------

/// The publisher's side of a shared value. Dropping it waits for no reader: readers keep it alive.
pub struct Published<T> {
    shared: Arc<Shared<T>>,
    readers_made: usize,
}

struct Shared<T> {
    pointer: AtomicPtr<T>,
    epochs: Epochs,
}

impl<T: Send + Sync> Published<T> {
    /// Publishes `value` for at most `readers_max` readers.
    pub fn new(value: Box<T>, readers_max: usize) -> Published<T> {
        let pointer = AtomicPtr::new(Box::into_raw(value));
        let epochs = Epochs::new(readers_max);
        Published { shared: Arc::new(Shared { pointer, epochs }), readers_made: 0 }
    }

    /// Makes the next reader. Panics past the `readers_max` given to [`Published::new`].
    pub fn reader(&mut self) -> Reader<T> {
        let index = self.readers_made;
        assert!(index < self.shared.epochs.slots.len(), "one reader more than was announced");
        self.readers_made += 1;
        Reader { shared: Arc::clone(&self.shared), index }
    }

    /// Replaces the value, waits until no reader can see the old one, and returns the old one.
    ///
    /// Waits at most for the longest pin, in steps of 50 us; the cores are not disturbed.
    pub fn publish(&mut self, value: Box<T>) -> Box<T> {
        let old = self.shared.pointer.swap(Box::into_raw(value), Ordering::SeqCst);
        let epoch = self.shared.epochs.advance();
        while !self.shared.epochs.is_past(epoch) {
            std::thread::sleep(Duration::from_micros(50));
        }
        // SAFETY:
        // - `old` came from `Box::into_raw` (in `new` or in an earlier `publish`) and left the
        //   shared pointer above, so nobody can reach it any more.
        // - A reader that could have loaded it announced an epoch below `epoch` before loading;
        //   each slot has since been seen OFFLINE or at `epoch` or later, so its pin has ended.
        unsafe { Box::from_raw(old) }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY:
        // - The last owner of `Shared` is being dropped: no reader and no publisher is left, and
        //   the pointer came from `Box::into_raw`.
        drop(unsafe { Box::from_raw(*self.pointer.get_mut()) });
    }
}

//----------- Reader ---------------------------------------------------------

/// One core's side: pins the current value for the length of a batch.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    index: usize,
}

impl<T> Reader<T> {
    /// Pins the current value until the guard is dropped. Wait-free.
    #[inline(always)]
    pub fn pin(&mut self) -> Pin<'_, T> {
        let online = self.shared.epochs.announce(self.index);
        let pointer = self.shared.pointer.load(Ordering::SeqCst);
        // SAFETY:
        // - The pointer is never null and points to a boxed value that `publish` frees only after
        //   this slot has left the epoch announced one line above; `Pin` leaves it on drop.
        // - `&mut self` allows one pin per slot at a time.
        Pin { value: unsafe { &*pointer }, _online: online }
    }
}

/// A pinned value. Never held across a wait.
pub struct Pin<'a, T> {
    value: &'a T,
    _online: Online<'a>,
}

impl<T> std::ops::Deref for Pin<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.value
    }
}

//----------- Epochs ---------------------------------------------------------

/// Who is reading since when.
pub struct Epochs {
    epoch: AtomicU64,
    slots: Box<[CachePadded<AtomicU64>]>,
}

impl Epochs {
    /// For readers with the numbers below `readers_max`.
    pub fn new(readers_max: usize) -> Epochs {
        let slots = (0..readers_max).map(|_| CachePadded::new(AtomicU64::new(OFFLINE))).collect();
        Epochs { epoch: AtomicU64::new(1), slots }
    }

    /// Begins a new epoch. What was taken out of every reader's reach before may be freed when it
    /// [is past](Epochs::is_past).
    pub fn advance(&self) -> u64 {
        // Before the readers are looked at: whoever is not seen there finds what is new.
        fence(Ordering::SeqCst);
        self.epoch.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether every reader that goes on has begun in this epoch or later.
    pub fn is_past(&self, epoch: u64) -> bool {
        self.slots.iter().all(|slot| {
            let seen = slot.load(Ordering::SeqCst);
            seen == OFFLINE || seen >= epoch
        })
    }

    /// Says that reader `index` reads, until what is returned is dropped. One at a time: the first
    /// of two that is dropped would take the other offline.
    #[inline(always)]
    pub(super) fn announce(&self, index: usize) -> Online<'_> {
        let slot = &*self.slots[index];
        slot.store(self.epoch.load(Ordering::SeqCst), Ordering::SeqCst);
        // What is read next may not be read before: on x86-64 such a store sees to that by itself.
        #[cfg(not(target_arch = "x86_64"))]
        fence(Ordering::SeqCst);
        Online { slot }
    }
}

/// A reader that reads.
pub(super) struct Online<'a> {
    slot: &'a AtomicU64,
}

impl Drop for Online<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.slot.store(OFFLINE, Ordering::Release);
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    struct Canary {
        number: u64,
        alive: AtomicBool,
    }

    impl Drop for Canary {
        fn drop(&mut self) {
            self.alive.store(false, Ordering::SeqCst);
        }
    }

    fn canary(number: u64) -> Box<Canary> {
        Box::new(Canary { number, alive: AtomicBool::new(true) })
    }

    #[test]
    fn a_pinned_value_outlives_its_replacement() {
        let mut published = Published::new(canary(0), 2);
        let stop = AtomicBool::new(false);
        let mut readers = [published.reader(), published.reader()];
        std::thread::scope(|scope| {
            for reader in &mut readers {
                scope.spawn(|| {
                    let mut seen_last = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let pin = reader.pin();
                        for _ in 0..50 {
                            assert!(pin.alive.load(Ordering::SeqCst));
                        }
                        assert!(pin.number >= seen_last, "a reader went back in time");
                        seen_last = pin.number;
                    }
                });
            }
            for value in 1..2000 {
                assert_eq!(published.publish(canary(value)).number, value - 1);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn publishing_waits_for_the_pin() {
        let mut published = Published::new(Box::new(1), 1);
        let mut reader = published.reader();
        let pin = reader.pin();
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| published.publish(Box::new(2)));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!publisher.is_finished());
            assert_eq!(*pin, 1);
            drop(pin);
            assert_eq!(*publisher.join().unwrap(), 1);
        });
    }
}

//! The cores belong to their paths: threads that load zones take only what is left, connections to
//! upstreams come after those that answer, a generator that has a core of its own comes first
//! there.

/// Lets this thread, and those it starts, run only when nothing else wants their core.
///
/// SCHED_IDLE rather than a low priority: a loader at nice 19 still gets one time slice in fifty,
/// several milliseconds during which its core answers nothing.
pub fn give_way() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY:
    // - The kernel reads `parameters`, a live value; 0 means the calling thread. A refusal leaves
    //   the thread as it was, which costs latency during a reload and nothing else.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
}

/// Lets others that want this thread's core go first, as those that answer. It gets a tenth of a
/// core that is wanted all the time: whoever waits for it is not forgotten.
pub fn stand_back() {
    const NICE: libc::c_int = 10;
    // SAFETY:
    // - The call reads no memory; 0 means the calling thread. A refusal leaves it as it was.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    take_long_slices();
}

/// Asks for long time slices: whoever wakes goes first, for a while.
pub fn take_long_slices() {
    /// More than the 2.8 ms that anybody has who does not ask: the kernel's threads that receive go
    /// first too. Much more would keep it waiting for long where others are busy.
    const SLICE_NS: u64 = 4_000_000;
    take_slices(SLICE_NS);
}

/// Asks for short time slices, so that others give up the core as soon as something comes for this
/// thread.
pub fn take_short_slices() {
    const SLICE_NS: u64 = 100_000;
    take_slices(SLICE_NS);
}

/// Asks for slices of so many nanoseconds. Whoever wakes and has shorter ones than the one that
/// runs gets the core at once, and not at the end of a slice. Linux does so since 6.12; earlier
/// ones take no notice.
fn take_slices(slice_ns: u64) {
    const LEN: u32 = size_of::<libc::sched_attr>() as u32;
    // SAFETY:
    // - All octets of it are numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY:
    // - The kernel writes at most `LEN` octets to `attributes`, a live value of that size, and
    //   reads no more; 0 means the calling thread. A refusal leaves the thread as it was.
    unsafe {
        if libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, LEN, 0) == 0
            && attributes.sched_policy == libc::SCHED_OTHER as u32
        {
            attributes.sched_runtime = slice_ns;
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
        }
    }
}

/// Has this thread run before others that want its core, if it may (CAP_SYS_NICE). They get a tenth
/// of it all the same: the kernel's own work may be theirs.
pub fn come_first() {
    const NICE: libc::c_int = -10;
    // SAFETY:
    // - The call reads no memory; 0 means the calling thread. A refusal leaves it as it was.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

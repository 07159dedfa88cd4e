//! The cores belong to their paths: threads that load zones take only what is left, the one that
//! resolves comes after those that answer, a generator that has a core of its own comes first
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
}

/// Has this thread run before others that want its core, if it may (CAP_SYS_NICE). They get a tenth
/// of it all the same: the kernel's own work may be theirs.
pub fn come_first() {
    const NICE: libc::c_int = -10;
    // SAFETY:
    // - The call reads no memory; 0 means the calling thread. A refusal leaves it as it was.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

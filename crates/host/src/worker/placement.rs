//! Where and when the thread that moves storage runs: before others, and on a
//! CPU that no vCPU of this worker uses.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The highest priority of a thread (setpriority(2)).
const FIRST: i32 = -20;
/// That of a thread of no importance.
const USUAL: i32 = 0;

/// Raises this thread's priority: guests may wait for it, so it should not wait
/// for a CPU. Without the privilege it runs as everybody else.
pub(super) fn come_first() {
    if rustix::process::setpriority_process(None, FIRST).is_err() {
        tracing::debug!("no privilege to copy before others");
    }
}

/// The thread has its turn like everybody else again.
pub(super) fn fall_back() {
    // Whoever could not come first has its turn like everybody else already.
    let _ = rustix::process::setpriority_process(None, USUAL);
}

/// Lets whoever waits for this CPU run, who may be the guest itself: a thread
/// of the first priority keeps it from everybody else as long as it works.
/// On a host without a CPU to spare, guests stood still for 260 ms in moves.
pub(super) fn give_way() {
    fall_back();
    std::thread::yield_now();
    come_first();
}

/// Moves this thread to a CPU other than those `taken`, if it may use one; from
/// there it may go wherever it could before.
///
/// A thread is woken where it slept last, and that may be a vCPU's CPU by now.
/// The host's scheduler parts the two only when it next balances its load,
/// while another CPU idles: a guest was seen to stand still for 4 ms.
pub(super) fn step_aside(taken: &[usize]) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let free = without(allowed, taken);
    if free.count() == 0 || free == allowed {
        return;
    }
    // The kernel moves the thread before the first call returns. Should the
    // second fail, it is only less free than it was.
    let placed = sched_setaffinity(None, &free).and_then(|()| sched_setaffinity(None, &allowed));
    if let Err(error) = placed {
        tracing::debug!(%error, "stays on the CPU it is on");
    }
}

fn without(mut cpus: CpuSet, taken: &[usize]) -> CpuSet {
    // What a set cannot name is in none.
    for cpu in taken.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU) {
        cpus.unset(*cpu);
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_cpus_are_left_out() {
        let mut cpus = CpuSet::new();
        cpus.set(0);
        cpus.set(3);
        let free = without(cpus, &[3, 7, usize::MAX]);
        assert!(free.is_set(0));
        assert_eq!(free.count(), 1);
    }

    #[test]
    fn who_stepped_aside_may_go_anywhere_again() {
        let before = sched_getaffinity(None).expect("affinity");
        for taken in [&[0][..], &[0, 1, 2, 3], &[]] {
            step_aside(taken);
            assert_eq!(sched_getaffinity(None).expect("affinity"), before);
        }
    }
}

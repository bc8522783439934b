//! What other threads share with a vCPU: the mailbox behind its handle.
//!
//! Everything asked of a vCPU sets a bit of one attention word, which the vCPU
//! looks at before it enters the guest and again every few microseconds.
//!
//! Invariant: `inside` is set before the attention word is read and cleared
//! after the last guest instruction; a requester sets its bit before it reads
//! `inside`; all four are sequentially consistent. So a requester that sees
//! the vCPU outside knows that its request is read before the next guest
//! instruction. A vCPU asleep in `wfi` counts as outside.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::{Fence, FenceTicket, Interrupt, VcpuHandle};

/// Leave the guest.
pub(crate) const KICK: u32 = 1;
/// An interrupt line changed.
pub(crate) const INTERRUPT: u32 = 2;
/// A fence was asked for.
pub(crate) const FENCE: u32 = 4;

/// Level of the interrupt controller's line.
pub(crate) const LINE_EXTERNAL: u32 = 1;
/// SSIP is to be set.
pub(crate) const RAISE_SOFTWARE: u32 = 2;
/// SSIP is to be cleared.
pub(crate) const LOWER_SOFTWARE: u32 = 4;

/// More single ranges than this and forgetting everything is cheaper.
const MAX_RANGES: usize = 16;

/// Fences asked for and not yet carried out.
#[derive(Debug, Default)]
pub(crate) struct FenceRequests {
    pub(crate) instructions: bool,
    pub(crate) all_translations: bool,
    /// Start and size in bytes.
    pub(crate) ranges: Vec<(u64, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    attention: AtomicU32,
    lines: AtomicU32,
    inside: AtomicBool,
    asleep: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
    fences: Mutex<FenceRequests>,
    fences_asked: AtomicU64,
    fences_done: AtomicU64,
}

// Each critical section leaves its data whole at every step, so a panic in
// one is no reason to refuse the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The vCPU is about to run guest instructions.
    pub(crate) fn enter(&self) {
        self.inside.store(true, SeqCst);
    }

    /// The vCPU runs no guest instruction until the next `enter`.
    pub(crate) fn leave(&self) {
        self.inside.store(false, SeqCst);
    }

    /// What wants attention; every bit returned is the caller's to serve.
    pub(crate) fn take_attention(&self) -> u32 {
        if self.attention.load(SeqCst) == 0 { 0 } else { self.attention.swap(0, SeqCst) }
    }

    /// The lines as they are; what was asked of SSIP is taken.
    pub(crate) fn take_lines(&self) -> u32 {
        self.lines.fetch_and(LINE_EXTERNAL, SeqCst)
    }

    /// Forgets the lines: whoever holds one says anew how it stands.
    pub(crate) fn forget_lines(&self) {
        self.lines.store(0, SeqCst);
    }

    /// The fences asked for, and the ticket that is done once they are.
    pub(crate) fn take_fences(&self) -> (FenceRequests, u64) {
        let mut fences = lock(&self.fences);
        (std::mem::take(&mut *fences), self.fences_asked.load(SeqCst))
    }

    pub(crate) fn fences_carried_out(&self, ticket: u64) {
        self.fences_done.fetch_max(ticket, SeqCst);
    }

    /// Sleeps until something but a fence wants attention, at most `limit`.
    /// The vCPU is outside the guest meanwhile and inside again after.
    pub(crate) fn sleep(&self, limit: Option<Duration>) {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut guard = lock(&self.sleep);
        self.leave();
        self.asleep.store(true, SeqCst);
        while self.attention.load(SeqCst) & !FENCE == 0 {
            guard = match deadline {
                None => self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.wake.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        self.asleep.store(false, SeqCst);
        self.enter();
    }

    fn call(&self, attention: u32) {
        self.attention.fetch_or(attention, SeqCst);
        if self.asleep.load(SeqCst) {
            // Between its last look at the word and its wait the sleeper
            // holds the lock.
            drop(lock(&self.sleep));
            self.wake.notify_one();
        }
    }
}

impl VcpuHandle for Shared {
    fn set_interrupt(&self, interrupt: Interrupt, level: bool) {
        let (set, clear) = match (interrupt, level) {
            (Interrupt::External, true) => (LINE_EXTERNAL, 0),
            (Interrupt::External, false) => (0, LINE_EXTERNAL),
            (Interrupt::Software, true) => (RAISE_SOFTWARE, LOWER_SOFTWARE),
            (Interrupt::Software, false) => (LOWER_SOFTWARE, RAISE_SOFTWARE),
        };
        let old = self.lines.fetch_update(SeqCst, SeqCst, |lines| Some(lines & !clear | set));
        // The closure never declines, so both arms hold the old value.
        let old = old.unwrap_or_else(|lines| lines);
        if old & !clear | set != old {
            self.call(INTERRUPT);
        }
    }

    fn kick(&self) {
        self.call(KICK);
    }

    fn request_fence(&self, fence: Fence) -> FenceTicket {
        let mut fences = lock(&self.fences);
        match fence {
            Fence::Instructions => fences.instructions = true,
            Fence::Translations { start, size } => {
                if size == u64::MAX || fences.ranges.len() == MAX_RANGES {
                    fences.all_translations = true;
                    fences.ranges.clear();
                } else if !fences.all_translations {
                    fences.ranges.push((start, size));
                }
            }
        }
        let ticket = self.fences_asked.fetch_add(1, SeqCst) + 1;
        drop(fences);
        self.attention.fetch_or(FENCE, SeqCst);
        FenceTicket(ticket)
    }

    fn fence_done(&self, ticket: FenceTicket) -> bool {
        self.fences_done.load(SeqCst) >= ticket.0 || !self.inside.load(SeqCst)
    }
}

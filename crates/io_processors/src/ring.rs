//! One virtqueue as a device sees it while it works it off.

use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::access::GuestAccess;
use crate::chain::{Chain, ChainFault};
use crate::processor::{Counters, add};

/// Requests a device may take before other queues get their turn: a driver
/// that refills its queue without end starves nobody.
const BUDGET: u32 = 64;
/// The driver asks for no interrupts (2.7.7).
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// The driver broke the rules of a queue. The guest is to blame; only a reset
/// of the device helps it.
#[derive(Debug, thiserror::Error)]
pub enum QueueFault {
    /// The available ring cannot be used: its index jumped by more than the
    /// queue's size, or it cannot be read.
    #[error("the available ring is unusable: {0}")]
    Available(#[source] virtio_queue::Error),
    /// A descriptor chain is unusable.
    #[error(transparent)]
    Chain(#[from] ChainFault),
    /// The used ring cannot be written.
    #[error("the used ring is unusable: {0}")]
    Used(#[source] virtio_queue::Error),
    /// The status of a request cannot be written.
    #[error("a request's status cannot be written: {0}")]
    Status(#[source] vm_memory::GuestMemoryError),
    /// A chain lacks what every request of this device must have.
    #[error("a request lacks {0}")]
    Incomplete(&'static str),
    /// A chain is longer than any sensible driver makes them.
    #[error("a request of {0} bytes is too long")]
    TooLong(u64),
}

/// The chains of one queue, taken one at a time.
pub struct Ring<'a> {
    queue: &'a mut Queue,
    access: &'a GuestAccess,
    pause: &'a AtomicBool,
    counters: &'a Counters,
    left: u32,
    completed: bool,
    outcome: Outcome,
}

/// Why the device stopped taking chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It did not want more.
    Enough,
    /// There were none.
    Drained,
    /// It was told to let others work; there may be more.
    Interrupted,
}

/// What is to be done after a queue was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct After {
    /// Look at it again.
    pub(crate) again: bool,
    /// Tell the driver.
    pub(crate) interrupt: bool,
}

impl<'a> Ring<'a> {
    pub(crate) fn new(
        queue: &'a mut Queue,
        access: &'a GuestAccess,
        pause: &'a AtomicBool,
        counters: &'a Counters,
    ) -> Self {
        let outcome = Outcome::Enough;
        Self { queue, access, pause, counters, left: BUDGET, completed: false, outcome }
    }

    /// Guest storage, for the buffers of the chains taken.
    #[must_use]
    pub fn access(&self) -> &'a GuestAccess {
        self.access
    }

    /// Takes the next chain. `None` when there is none now, or when the
    /// processor is about to quiesce: the device returns, and is called again.
    ///
    /// A chain with a buffer that a storage key forbids the device is given
    /// back at once with nothing written.
    ///
    /// # Errors
    /// [`QueueFault`] when the ring or the chain is unusable.
    pub fn take(&mut self) -> Result<Option<Chain>, QueueFault> {
        while let Some(chain) = self.take_any()? {
            if !chain.is_refused() {
                return Ok(Some(chain));
            }
            self.complete(&chain, 0)?;
        }
        Ok(None)
    }

    /// As [`Ring::take`] for a device whose requests have a status: a chain
    /// may be one that [`Chain::is_refused`].
    ///
    /// # Errors
    /// As for [`Ring::take`].
    pub fn take_any(&mut self) -> Result<Option<Chain>, QueueFault> {
        if self.left == 0 || self.pause.load(Ordering::Acquire) {
            self.outcome = Outcome::Interrupted;
            return Ok(None);
        }
        let size = self.queue.size();
        let next = self.queue.iter(self.access).map_err(QueueFault::Available)?.next();
        let Some(descriptors) = next else {
            self.outcome = Outcome::Drained;
            return Ok(None);
        };
        self.left -= 1;
        Ok(Some(Chain::parse(descriptors, self.access, size)?))
    }

    /// Gives `chain` back to the driver with `written` bytes written to it.
    ///
    /// # Errors
    /// [`QueueFault::Used`] when the used ring cannot be written.
    pub fn complete(&mut self, chain: &Chain, written: u32) -> Result<(), QueueFault> {
        self.queue.add_used(self.access, chain.head(), written).map_err(QueueFault::Used)?;
        self.completed = true;
        add(&self.counters.requests, 1);
        if chain.is_refused() {
            self.count_failure();
        } else {
            add(&self.counters.bytes_from_guest, chain.readable_bytes());
        }
        add(&self.counters.bytes_to_guest, u64::from(written));
        Ok(())
    }

    /// Counts a request that the host could not carry out. (One that a storage
    /// key forbade is counted when it is completed.)
    pub fn count_failure(&self) {
        add(&self.counters.failed_requests, 1);
    }

    /// Counts something the driver should not have asked for but that needs no
    /// reset.
    pub fn count_guest_error(&self) {
        add(&self.counters.guest_errors, 1);
    }

    pub(crate) fn finish(mut self) -> Result<After, QueueFault> {
        // Only an empty queue needs the driver's next notification; a queue
        // left with chains in it is looked at when its device wants them.
        let again = match self.outcome {
            Outcome::Enough => false,
            Outcome::Interrupted => true,
            Outcome::Drained => {
                self.queue.enable_notification(self.access).map_err(QueueFault::Used)?
            }
        };
        let interrupt = self.completed && self.driver_wants_interrupt()?;
        Ok(After { again, interrupt })
    }

    fn driver_wants_interrupt(&mut self) -> Result<bool, QueueFault> {
        let wanted = self.queue.needs_notification(self.access).map_err(QueueFault::Used)?;
        if self.queue.event_idx_enabled() {
            return Ok(wanted);
        }
        // virtio-queue leaves the older flag to its caller.
        let flags: u16 = self
            .access
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(|error| QueueFault::Available(virtio_queue::Error::GuestMemory(error)))?;
        Ok(u16::from_le(flags) & AVAIL_F_NO_INTERRUPT == 0)
    }
}

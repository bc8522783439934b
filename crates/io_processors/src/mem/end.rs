//! The host's end of a memory device: asks for a size, sees what comes of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use storage_window::HOT_PLUG_ALIGNMENT;

use super::blocks::{Allowed, BLOCK};
use crate::device::Waker;

/// How a memory device stands. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemState {
    /// What the host asked for last.
    pub requested: u64,
    /// What the guest has taken. It counts it as its own a moment later.
    pub plugged: u64,
    /// From the region's start to the end of the last block that the guest
    /// uses: so much storage must stay.
    pub end: u64,
    /// Whether the guest has a driver for the device at work.
    pub driver: bool,
}

/// Why a size cannot be asked for. The host is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemRequestError {
    /// Guests take and give memory in blocks.
    #[error("a guest takes and gives memory in blocks of {BLOCK} bytes, not {bytes} bytes")]
    Granularity {
        /// What was asked for.
        bytes: u64,
    },
    /// More than the device's region holds.
    #[error("the guest has room for {size} bytes behind what it booted in, not for {bytes}")]
    TooLarge {
        /// What was asked for.
        bytes: u64,
        /// Bytes of the region.
        size: u64,
    },
}

/// The host's end of a memory device. Clones are the same end.
#[derive(Clone)]
pub struct MemEnd(Arc<Inner>);

/// The device's side of the ends.
pub(super) struct Hub(Arc<Inner>);

struct Inner {
    address: u64,
    size: u64,
    shared: Mutex<Shared>,
    changed: Condvar,
}

struct Shared {
    state: MemState,
    /// Bytes from the region's start that the driver may name. Grows with what
    /// is requested; shrinks when the driver begins anew.
    usable: u64,
    waker: Option<Waker>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every change under the lock is a plain assignment.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that the driver may name while `requested` bytes are requested:
    /// whole pieces of the granularity at which guests add memory.
    fn usable(&self, requested: u64) -> u64 {
        requested.checked_next_multiple_of(HOT_PLUG_ALIGNMENT).unwrap_or(self.size).min(self.size)
    }

    /// `struct virtio_mem_config` (5.15.4).
    fn config(&self, shared: &Shared) -> Vec<u8> {
        let MemState { requested, plugged, .. } = shared.state;
        let node = 0;
        [BLOCK, node, self.address, self.size, shared.usable, plugged, requested]
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    /// Called with the lock held, so that the last configuration shown is
    /// that of the last change.
    fn show(&self, shared: &Shared, tell: bool) {
        if let Some(waker) = &shared.waker {
            waker.configure(self.config(shared), tell);
        }
        self.changed.notify_all();
    }
}

impl Hub {
    pub(super) fn new(address: u64, size: u64) -> Self {
        let state = MemState { requested: 0, plugged: 0, end: 0, driver: false };
        let shared = Mutex::new(Shared { state, usable: 0, waker: None });
        Self(Arc::new(Inner { address, size, shared, changed: Condvar::new() }))
    }

    pub(super) fn end(&self) -> MemEnd {
        MemEnd(Arc::clone(&self.0))
    }

    pub(super) fn attach(&self, waker: Waker) {
        self.0.lock().waker = Some(waker);
    }

    pub(super) fn config(&self) -> Vec<u8> {
        self.0.config(&self.0.lock())
    }

    pub(super) fn address(&self) -> u64 {
        self.0.address
    }

    pub(super) fn allowed(&self) -> Allowed {
        let shared = self.0.lock();
        Allowed { usable: shared.usable, requested: shared.state.requested }
    }

    pub(super) fn set_driver(&self, driver: bool) {
        self.0.lock().state.driver = driver;
        self.0.changed.notify_all();
    }

    /// So much is plugged now, ending there. The driver knows it.
    pub(super) fn set_plugged(&self, plugged: u64, end: u64) {
        let mut shared = self.0.lock();
        (shared.state.plugged, shared.state.end) = (plugged, end);
        self.0.show(&shared, false);
    }

    /// The driver begins anew: the only time at which the usable part of the
    /// region may shrink (5.15.5.2).
    pub(super) fn unplugged_all(&self) {
        let mut shared = self.0.lock();
        shared.usable = self.0.usable(shared.state.requested);
    }
}

impl MemEnd {
    /// Guest physical address and size in bytes of the device's region.
    #[must_use]
    pub fn region(&self) -> (u64, u64) {
        (self.0.address, self.0.size)
    }

    /// Asks the guest to use `bytes` bytes of the region, a multiple of
    /// [`BLOCK`]. The storage for them is there already, within the address
    /// limits that the I/O processors acknowledged; where it is not, the guest
    /// gets nothing. Does not wait for the guest, which may never do it.
    ///
    /// # Errors
    /// [`MemRequestError`]; the former request stands then.
    pub fn request(&self, bytes: u64) -> Result<(), MemRequestError> {
        let size = self.0.size;
        if bytes % BLOCK != 0 {
            return Err(MemRequestError::Granularity { bytes });
        }
        if bytes > size {
            return Err(MemRequestError::TooLarge { bytes, size });
        }
        let mut shared = self.0.lock();
        shared.state.requested = bytes;
        shared.usable = shared.usable.max(self.0.usable(bytes));
        self.0.show(&shared, true);
        Ok(())
    }

    /// Bytes that the guest uses.
    #[must_use]
    pub fn plugged(&self) -> u64 {
        self.state().plugged
    }

    /// How the device stands. While its I/O processor is quiesced and idle
    /// this does not change, but for what is requested.
    #[must_use]
    pub fn state(&self) -> MemState {
        self.0.lock().state
    }

    /// Waits until `enough` is true of the state, or until `deadline`; returns
    /// the state then.
    pub fn wait(&self, deadline: Instant, enough: impl Fn(&MemState) -> bool) -> MemState {
        let mut shared = self.0.lock();
        while !enough(&shared.state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.0.changed.wait_timeout(shared, left);
            shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        shared.state
    }
}

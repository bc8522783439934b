//! What an I/O processor counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What an I/O processor did since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoStatistics {
    /// Requests given back to the driver.
    pub requests: u64,
    /// Requests among them that the host could not carry out or that a storage
    /// key forbade.
    pub failed_requests: u64,
    /// Bytes of device-readable buffers.
    pub bytes_from_guest: u64,
    /// Bytes written to device-writable buffers.
    pub bytes_to_guest: u64,
    /// Nonsense the guest asked for: stores to registers that make none,
    /// requests that cannot be meant, broken queues.
    pub guest_errors: u64,
    /// Transfers that a page's storage key forbade: requests refused, and rings
    /// that could not be used.
    pub key_refusals: u64,
    /// Times the guest broke a queue so that the device needs a reset.
    pub needed_resets: u64,
    /// Times the driver reset the device.
    pub resets: u64,
    /// Notifications by the driver.
    pub notifications: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Where the storage is according to the last "set address limits".
    pub limits: Option<crate::AddressLimits>,
}

/// The counters behind [`IoStatistics`], of the same names.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) failed_requests: AtomicU64,
    pub(crate) bytes_from_guest: AtomicU64,
    pub(crate) bytes_to_guest: AtomicU64,
    pub(crate) guest_errors: AtomicU64,
    pub(crate) needed_resets: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) notifications: AtomicU64,
    pub(crate) interrupts: AtomicU64,
}

/// Adds `count` to one of the [`Counters`].
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) -> IoStatistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IoStatistics {
            requests: get(&self.requests),
            failed_requests: get(&self.failed_requests),
            bytes_from_guest: get(&self.bytes_from_guest),
            bytes_to_guest: get(&self.bytes_to_guest),
            guest_errors: get(&self.guest_errors),
            needed_resets: get(&self.needed_resets),
            resets: get(&self.resets),
            notifications: get(&self.notifications),
            interrupts: get(&self.interrupts),
            key_refusals: 0,
            limits: None,
        }
    }
}

//! What an I/O processor may do to pages by their storage keys.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use main_storage::{AccessKey, StorageKey};
use tracing::warn;
use vm_memory::{GuestAddress, Permissions};

/// A page's storage key forbids a transfer. The guest is to blame, which keeps
/// the keys, or the operator, who gave the device its access key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "access key {access} may not {} the page at {page:#x}, whose storage key is {key:#04x}",
    if *.is_store { "store to" } else { "fetch from" }
)]
pub(crate) struct KeyRefusal {
    /// The access key of the I/O processor.
    access: AccessKey,
    /// Guest physical address of the page.
    page: u64,
    /// Its storage key.
    key: u8,
    is_store: bool,
}

/// An I/O processor's access key, and the transfers that keys forbade.
pub(crate) struct KeyCheck {
    processor: String,
    access: AtomicU8,
    refusals: AtomicU64,
}

impl KeyCheck {
    /// Of the I/O processor of this name; its access key is 0.
    pub(crate) fn new(processor: String) -> Self {
        Self { processor, access: AtomicU8::new(0), refusals: AtomicU64::new(0) }
    }

    pub(crate) fn set_access(&self, key: AccessKey) {
        self.access.store(key.number(), Ordering::Relaxed);
    }

    /// The access key if it is one that keys forbid anything.
    pub(crate) fn restricted(&self) -> Option<AccessKey> {
        AccessKey::new(self.access.load(Ordering::Relaxed)).filter(|key| key.number() != 0)
    }

    /// Whether `key`, that of the page at `page`, allows a transfer.
    pub(crate) fn check(
        access: AccessKey,
        key: StorageKey,
        page: GuestAddress,
        transfer: Permissions,
    ) -> Result<(), KeyRefusal> {
        let is_store = transfer.has_write();
        let allowed = if is_store { key.allows_store(access) } else { key.allows_fetch(access) };
        let refusal = KeyRefusal { access, page: page.0, key: key.byte(), is_store };
        if allowed { Ok(()) } else { Err(refusal) }
    }

    /// Counts a refused transfer and logs the first, second, fourth, eighth
    /// and so on: a guest cannot fill the log.
    pub(crate) fn count(&self, refusal: &KeyRefusal) {
        let count = self.refusals.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            warn!(processor = self.processor, count, %refusal, "a storage key forbade a transfer");
        }
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;

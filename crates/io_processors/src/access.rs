//! The one way from an I/O processor to guest storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestMemoryRegion, Permissions,
};

/// Bytes of a page: the unit that has a storage key.
const PAGE_SIZE: u64 = 4096;
/// Storage key bit: the page was read.
const REFERENCE: u8 = 0x04;
/// Storage key bit: the page was written.
const CHANGE: u8 = 0x02;

/// A guest's storage as an I/O processor needs it: the memory and its keys.
pub trait GuestStorage: Send + Sync {
    /// The memory: one region, at the guest physical address where the guest
    /// sees it. The same region for as long as the storage lives.
    fn memory(&self) -> &GuestMemoryMmap;

    /// The storage key of the page `page` pages after the region's start;
    /// `page` is inside the region.
    fn key_cell(&self, page: usize) -> &AtomicU8;
}

impl GuestStorage for storage_window::StorageWindow {
    fn memory(&self) -> &GuestMemoryMmap {
        Self::memory(self)
    }

    fn key_cell(&self, page: usize) -> &AtomicU8 {
        Self::key_cell(self, page)
    }
}

/// Where a partition's storage lies in main storage, as "set address limits"
/// tells it to an I/O processor. Both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressLimits {
    /// Offset of the partition's first byte in main storage.
    pub origin: u64,
    /// Length of the partition's storage.
    pub size: u64,
}

/// Guest storage within the address limits, with keys kept.
///
/// It is a [`GuestMemory`], so the queue code reads rings and descriptors
/// through it as well. Every transfer asks `get_slices` first; this is where
/// reference and change bits are set, and where a key that forbids the
/// transfer will be enforced.
pub struct GuestAccess {
    storage: Arc<dyn GuestStorage>,
    base: u64,
    size: u64,
    limits: Option<AddressLimits>,
}

impl GuestAccess {
    pub(crate) fn new(storage: Arc<dyn GuestStorage>) -> Self {
        let (base, size) = storage
            .memory()
            .iter()
            .next()
            .map_or((0, 0), |region| (region.start_addr().0, region.len()));
        Self { storage, base, size, limits: None }
    }

    /// Bytes of storage the guest has, from its first address.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What "set address limits" said last.
    pub(crate) fn limits(&self) -> Option<AddressLimits> {
        self.limits
    }

    pub(crate) fn set_limits(&mut self, limits: AddressLimits) {
        self.limits = Some(limits);
    }

    /// Whether all `count` bytes from `address` are guest storage.
    #[must_use]
    pub fn contains(&self, address: GuestAddress, count: u64) -> bool {
        address
            .0
            .checked_sub(self.base)
            .and_then(|offset| offset.checked_add(count))
            .is_some_and(|end| end <= self.size)
    }

    /// Sets the bits that a transfer of `count` bytes, all inside, leaves in
    /// the keys. A write counts as a reference too, as on System/370.
    fn mark(&self, address: GuestAddress, count: u64, access: Permissions) {
        if count == 0 {
            return;
        }
        let bits = if access.has_write() { REFERENCE | CHANGE } else { REFERENCE };
        let offset = address.0 - self.base;
        for page in offset / PAGE_SIZE..=(offset + count - 1) / PAGE_SIZE {
            let Ok(page) = usize::try_from(page) else { return };
            let key = self.storage.key_cell(page);
            // Most pages have their bits already: a plain load does not
            // bounce the cache line between vCPUs and I/O processors.
            if key.load(Ordering::Relaxed) & bits != bits {
                key.fetch_or(bits, Ordering::Relaxed);
            }
        }
    }
}

impl GuestMemory for GuestAccess {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, address: GuestAddress, count: usize, _access: Permissions) -> bool {
        self.contains(address, count as u64)
    }

    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, ()>, GuestMemoryError> {
        if !self.contains(address, count as u64) {
            return Err(GuestMemoryError::InvalidGuestAddress(address));
        }
        self.mark(address, count as u64, access);
        Ok(GuestMemoryBackend::get_slices(self.storage.memory(), address, count))
    }
}

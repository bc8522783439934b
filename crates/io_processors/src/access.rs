//! The one way from an I/O processor to guest storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use storage_window::GuestLayout;
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, Permissions,
};

/// Bytes of a page: the unit that has a storage key.
const PAGE_SIZE: u64 = 4096;
/// Storage key bit: the page was read.
const REFERENCE: u8 = 0x04;
/// Storage key bit: the page was written.
const CHANGE: u8 = 0x02;

/// A guest's storage as an I/O processor needs it: the memory and its keys.
pub trait GuestStorage: Send + Sync {
    /// The memory, at the guest physical addresses where the guest sees it: a
    /// region for each part of the layout. The same regions for as long as the
    /// storage lives; what is behind its size must not be touched.
    fn memory(&self) -> &GuestMemoryMmap;

    /// Where the guest sees the storage. Never changes.
    fn layout(&self) -> GuestLayout;

    /// Bytes of storage now.
    fn size(&self) -> u64;

    /// The storage key of the page `page` pages after the first; `page` is
    /// inside the storage.
    fn key_cell(&self, page: usize) -> &AtomicU8;

    /// Forgets the contents and keys of `count` bytes from `offset`, both in
    /// whole pages and inside the storage: they are zero then.
    fn discard(&self, offset: u64, count: u64);
}

impl GuestStorage for storage_window::StorageWindow {
    fn memory(&self) -> &GuestMemoryMmap {
        Self::memory(self)
    }

    fn layout(&self) -> GuestLayout {
        Self::layout(self)
    }

    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn key_cell(&self, page: usize) -> &AtomicU8 {
        Self::key_cell(self, page)
    }

    fn discard(&self, offset: u64, count: u64) {
        Self::discard(self, offset, count);
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
    layout: GuestLayout,
    size: u64,
    limits: Option<AddressLimits>,
}

impl GuestAccess {
    pub(crate) fn new(storage: Arc<dyn GuestStorage>) -> Self {
        let (layout, size) = (storage.layout(), storage.size());
        Self { storage, layout, size, limits: None }
    }

    /// Bytes of storage within the address limits.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What "set address limits" said last.
    pub(crate) fn limits(&self) -> Option<AddressLimits> {
        self.limits
    }

    /// Works within `limits` from now on; false if there is less storage than
    /// they say.
    pub(crate) fn set_limits(&mut self, limits: AddressLimits) -> bool {
        if limits.size > self.storage.size() {
            return false;
        }
        self.size = limits.size;
        self.limits = Some(limits);
        true
    }

    /// Whether all `count` bytes from `address` are guest storage.
    #[must_use]
    pub fn contains(&self, address: GuestAddress, count: u64) -> bool {
        self.offset(address, count).is_some()
    }

    /// Offset in the storage of `count` bytes from `address` that are all
    /// within the limits.
    fn offset(&self, address: GuestAddress, count: u64) -> Option<u64> {
        self.layout.offset(address.0, count, self.size)
    }

    /// Forgets the contents and keys of `count` bytes from `address`, both in
    /// whole pages, as far as they are within the limits.
    pub fn discard(&self, address: GuestAddress, count: u64) {
        if let Some(offset) = self.offset(address, count) {
            self.storage.discard(offset, count);
        }
    }

    /// Sets the bits that a transfer of `count` bytes from `offset`, all inside,
    /// leaves in the keys. A write counts as a reference too, as on System/370.
    fn mark(&self, offset: u64, count: u64, access: Permissions) {
        if count == 0 {
            return;
        }
        let bits = if access.has_write() { REFERENCE | CHANGE } else { REFERENCE };
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
        let offset = self
            .offset(address, count as u64)
            .ok_or(GuestMemoryError::InvalidGuestAddress(address))?;
        self.mark(offset, count as u64, access);
        Ok(GuestMemoryBackend::get_slices(self.storage.memory(), address, count))
    }
}

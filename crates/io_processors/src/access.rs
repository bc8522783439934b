//! The one way from an I/O processor to guest storage.

use std::io;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use main_storage::{PAGE_SIZE, StorageKey};
use storage_window::GuestLayout;
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, Permissions,
    VolatileSlice,
};

use crate::keys::{KeyCheck, KeyRefusal};

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
/// through it as well. Every transfer asks `get_slices` first; this is where a
/// key that forbids the transfer is enforced, and where reference and change
/// bits are set: before the transfer and again after it, so that a guest that
/// clears them meanwhile misses nothing.
pub struct GuestAccess {
    storage: Arc<dyn GuestStorage>,
    keys: Arc<KeyCheck>,
    layout: GuestLayout,
    size: u64,
    limits: Option<AddressLimits>,
}

impl GuestAccess {
    pub(crate) fn new(storage: Arc<dyn GuestStorage>, keys: Arc<KeyCheck>) -> Self {
        let (layout, size) = (storage.layout(), storage.size());
        Self { storage, keys, layout, size, limits: None }
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

    /// The pages that the `count` bytes from `address` lie on, if they are
    /// within the limits: the address of each and its key.
    fn pages(&self, address: GuestAddress, count: u64) -> impl Iterator<Item = (u64, &AtomicU8)> {
        let offset = self.offset(address, count).filter(|_| count > 0);
        let pages = offset.map(|offset| offset / PAGE_SIZE..(offset + count).div_ceil(PAGE_SIZE));
        pages.into_iter().flatten().enumerate().filter_map(move |(index, page)| {
            let at = (address.0 & !(PAGE_SIZE - 1)) + index as u64 * PAGE_SIZE;
            Some((at, self.storage.key_cell(usize::try_from(page).ok()?)))
        })
    }

    /// Whether the keys allow a transfer of `count` bytes, all inside. Does
    /// not count a refusal.
    pub(crate) fn check_keys(
        &self,
        address: GuestAddress,
        count: u64,
        transfer: Permissions,
    ) -> Result<(), KeyRefusal> {
        let Some(access) = self.keys.restricted() else { return Ok(()) };
        self.pages(address, count).try_for_each(|(page, key)| {
            let key = StorageKey::from_byte(key.load(Ordering::Relaxed));
            KeyCheck::check(access, key, GuestAddress(page), transfer)
        })
    }

    pub(crate) fn count_refusal(&self, refusal: &KeyRefusal) {
        self.keys.count(refusal);
    }

    /// Sets the bits that a transfer of `count` bytes, all inside, leaves in
    /// the keys, now and once more when the result is dropped.
    pub(crate) fn mark(
        &self,
        address: GuestAddress,
        count: u64,
        transfer: Permissions,
    ) -> Marks<'_> {
        let marks = Marks { access: self, address, count, transfer };
        marks.set();
        marks
    }
}

/// Sets the reference and change bits of a transfer after it, when dropped.
pub(crate) struct Marks<'a> {
    access: &'a GuestAccess,
    address: GuestAddress,
    count: u64,
    transfer: Permissions,
}

impl Marks<'_> {
    fn set(&self) {
        // A write counts as a reference too, as on System/370.
        let written = StorageKey::CHANGE | StorageKey::DIRTY;
        let change = if self.transfer.has_write() { written } else { 0 };
        let bits = StorageKey::REFERENCE | change;
        for (_, key) in self.access.pages(self.address, self.count) {
            // Most pages have their bits already: a plain load does not
            // bounce the cache line between vCPUs and I/O processors.
            if key.load(Ordering::Relaxed) & bits != bits {
                key.fetch_or(bits, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Marks<'_> {
    fn drop(&mut self) {
        self.set();
    }
}

/// The slices of a transfer, which ends when they are dropped.
struct Slices<'a, I> {
    slices: I,
    _marks: Marks<'a>,
}

impl<'a, I: Iterator<Item = Result<VolatileSlice<'a>, GuestMemoryError>>> Iterator
    for Slices<'a, I>
{
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.slices.next()
    }
}

impl<'a, I> FusedIterator for Slices<'a, I> where
    I: FusedIterator<Item = Result<VolatileSlice<'a>, GuestMemoryError>>
{
}

impl<'a, I: GuestMemorySliceIterator<'a, ()>> GuestMemorySliceIterator<'a, ()> for Slices<'a, I> {}

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
        self.check_keys(address, count as u64, access).map_err(|refusal| {
            self.count_refusal(&refusal);
            GuestMemoryError::IOError(io::Error::new(io::ErrorKind::PermissionDenied, refusal))
        })?;
        let marks = self.mark(address, count as u64, access);
        let slices = GuestMemoryBackend::get_slices(self.storage.memory(), address, count);
        Ok(Slices { slices, _marks: marks })
    }
}

//! The one way from an I/O processor to guest storage.

use std::io;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use main_storage::{PAGE_SIZE, StorageKey};
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestMemoryRegion, Permissions, VolatileSlice,
};

use crate::keys::{KeyCheck, KeyRefusal};

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
/// through it as well. Every transfer asks `get_slices` first; this is where a
/// key that forbids the transfer is enforced, and where reference and change
/// bits are set: before the transfer and again after it, so that a guest that
/// clears them meanwhile misses nothing.
pub struct GuestAccess {
    storage: Arc<dyn GuestStorage>,
    keys: Arc<KeyCheck>,
    base: u64,
    size: u64,
    limits: Option<AddressLimits>,
}

impl GuestAccess {
    pub(crate) fn new(storage: Arc<dyn GuestStorage>, keys: Arc<KeyCheck>) -> Self {
        let (base, size) = storage
            .memory()
            .iter()
            .next()
            .map_or((0, 0), |region| (region.start_addr().0, region.len()));
        Self { storage, keys, base, size, limits: None }
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

    /// The pages that the `count` bytes from `address`, all inside, lie on:
    /// the address of each and its key.
    fn pages(&self, address: GuestAddress, count: u64) -> impl Iterator<Item = (u64, &AtomicU8)> {
        let offset = address.0 - self.base;
        let pages = offset / PAGE_SIZE..(offset + count).div_ceil(PAGE_SIZE);
        pages.filter(move |_| count > 0).filter_map(|page| {
            let index = usize::try_from(page).ok()?;
            Some((self.base + page * PAGE_SIZE, self.storage.key_cell(index)))
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
        let change = if self.transfer.has_write() { StorageKey::CHANGE } else { 0 };
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

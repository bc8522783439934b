//! One partition's view of its storage.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use main_storage::{BLOCK_SIZE, PAGE_SIZE, Size, StorageKey, StorageRange};
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestRegionMmap, Permissions,
};

use crate::backing;
use crate::layout::GuestLayout;
use crate::mapping::Mapping;
use crate::storage::{KEYS_PER_BLOCK, key_offset, keys_of, total};

/// Why a range could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The guest could not reach its storage. The operator is to blame.
    #[error("a partition of {size} does not fit the guest's reach of {reach} from {base:#x}")]
    Reach {
        /// The partition's size.
        size: Size,
        /// Bytes the guest can reach.
        reach: Size,
        /// Guest physical address where they begin.
        base: u64,
    },
    /// The range is not in these files. The host is to blame.
    #[error("{range} is not inside main storage, which has {total}")]
    Outside {
        /// What should have been mapped.
        range: StorageRange,
        /// Bytes of main storage.
        total: Size,
    },
    /// The host refused addresses or a mapping.
    #[error("the host refused to map the storage; free memory or raise the limit of address space")]
    Host(#[from] io::Error),
}

/// A partition's storage at a host address that never changes.
///
/// The storage is memory shared with a guest: it is read and written only
/// through raw pointers, `vm-memory` and atomics, never as a Rust reference.
#[derive(Debug)]
pub struct StorageWindow {
    // `size` bytes from the start of `storage`, and as many keys as they have
    // pages in `keys`, show main storage from `origin`, at all times but
    // inside `Copied::commit` and `Committed::undo`.
    pub(crate) storage: Mapping,
    pub(crate) keys: Mapping,
    // At least the layout's boot size, at most its reach; changed only by
    // whoever has the claim.
    size: AtomicU64,
    layout: GuestLayout,
    origin: AtomicU64,
    moving: AtomicBool,
    // Held while pages are given back to the host at a guest's wish.
    giving_back: Mutex<()>,
    // All pages of main storage stay its own.
    keeps_pages: bool,
    regions: Vec<Arc<GuestRegionMmap>>,
    memory: GuestMemoryMmap,
}

/// What [`StorageWindow::key_cell`] gives out for pages that do not exist.
static NO_PAGE: AtomicU8 = AtomicU8::new(0);

impl StorageWindow {
    /// Reserves `reach` bytes of addresses and maps `range` of main storage to
    /// their start. The guest sees it from guest physical address `guest_base`
    /// and boots in it; what [`StorageWindow::grow`] adds up to `reach` it sees
    /// where the [`GuestLayout`] says.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(
        storage_fd: BorrowedFd<'_>,
        keys_fd: BorrowedFd<'_>,
        range: StorageRange,
        guest_base: u64,
        reach: u64,
    ) -> Result<Arc<Self>, MapError> {
        let unreachable =
            || MapError::Reach { size: Size(range.size()), reach: Size(reach), base: guest_base };
        let bytes = |count: u64| usize::try_from(count).map_err(|_| unreachable());
        let blocks = reach / BLOCK_SIZE;
        let layout = GuestLayout::new(guest_base, range.size(), blocks * BLOCK_SIZE)
            .ok_or_else(unreachable)?;
        inside(storage_fd, keys_fd, range)?;
        let storage = Mapping::reserve_for(storage_fd, bytes(layout.reach())?)?;
        storage.map_file(storage_fd, range.origin(), bytes(range.size())?)?;
        let keys = Mapping::reserve(bytes(blocks * KEYS_PER_BLOCK)?)?;
        let (offset, length) = keys_of(range);
        keys.map_file(keys_fd, offset, bytes(length)?)?;
        let regions = regions(&storage, &layout)?;
        let memory =
            GuestMemoryMmap::from_arc_regions(regions.clone()).map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            storage,
            keys,
            size: AtomicU64::new(range.size()),
            layout,
            origin: AtomicU64::new(range.origin()),
            moving: AtomicBool::new(false),
            giving_back: Mutex::new(()),
            keeps_pages: backing::keeps_pages(storage_fd)?,
            regions,
            memory,
        }))
    }

    /// Where the guest's first byte is in this process. Never changes; valid
    /// for [`StorageWindow::size`] bytes as long as the window lives.
    #[must_use]
    pub fn host_base(&self) -> *mut u8 {
        self.storage.base()
    }

    /// Where the guest sees the storage. Never changes.
    #[must_use]
    pub fn layout(&self) -> GuestLayout {
        self.layout
    }

    /// Bytes of storage now.
    #[inline]
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Offset in main storage of the first byte. Changes with a relocation.
    #[must_use]
    pub fn origin(&self) -> u64 {
        self.origin.load(Ordering::Acquire)
    }

    /// The storage key of the page `page_index` pages after the first. Never
    /// moves. For a page that does not exist it is a cell nobody looks at.
    #[inline]
    #[must_use]
    pub fn key_cell(&self, page_index: usize) -> &AtomicU8 {
        if page_index as u64 >= self.size() / PAGE_SIZE {
            return &NO_PAGE;
        }
        // SAFETY: the page exists, so its key is inside the mapped keys, which
        // stay mapped as long as `self`; keys are only ever used as atomics.
        unsafe { AtomicU8::from_ptr(self.keys.base().add(key_offset(page_index))) }
    }

    /// Whether anybody stored into the page since the partition was made or put
    /// back: vCPUs and I/O processors say so in its key before they do.
    #[must_use]
    pub fn was_written(&self, page_index: u64) -> bool {
        let key = self.key_cell(usize::try_from(page_index).unwrap_or(usize::MAX));
        key.load(Ordering::SeqCst) & StorageKey::DIRTY != 0
    }

    /// All that can ever be storage: the parts of the [`GuestLayout`], a region
    /// each. Behind [`StorageWindow::size`] there is nothing: an access there
    /// kills the process, so whoever takes an address from a guest checks it
    /// first. The window itself is a [`GuestMemory`] that does.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Forgets the contents and keys of `count` bytes from window offset
    /// `offset`, both multiples of the page size: they are zero then. Their
    /// memory goes back to the host where main storage does not keep it.
    /// Nothing happens to what is not inside the window. The guest and a live
    /// relocation may be running.
    pub fn discard(&self, offset: u64, count: u64) {
        let (Ok(at), Ok(length)) = (usize::try_from(offset), usize::try_from(count)) else {
            return;
        };
        let inside = offset.checked_add(count).is_some_and(|end| end <= self.size());
        if !inside || (offset | count) % PAGE_SIZE != 0 || count == 0 {
            return;
        }
        self.empty(at, length);
        for page in offset / PAGE_SIZE..(offset + count) / PAGE_SIZE {
            self.key_cell(page as usize).store(0, Ordering::Relaxed);
        }
    }

    /// Makes a part of the window zero, and gives its memory back if it can.
    pub(crate) fn empty(&self, at: usize, length: usize) {
        if !self.give_back(at, length) {
            // SAFETY: the caller's part is inside the window, so mapped; others
            // may use the bytes at the same time, as with every store of a
            // guest. What is in flight makes the store wait, as every other.
            unsafe { std::ptr::write_bytes(self.storage.base().add(at), 0, length) };
        }
    }

    /// Gives the memory of a part of the window back to the host, unless it
    /// refuses, main storage keeps its pages, or they may be about to move:
    /// the kernel looks up the place in main storage first and empties it
    /// later, when something else may have moved there.
    fn give_back(&self, at: usize, length: usize) -> bool {
        if self.keeps_pages {
            return false;
        }
        let _held = self.giving_back.lock().unwrap_or_else(PoisonError::into_inner);
        !self.moving.load(Ordering::Acquire) && self.storage.discard(at, length).is_ok()
    }

    /// The range of main storage that the window shows.
    pub(crate) fn shows(&self, range: StorageRange) -> bool {
        range.origin() == self.origin() && range.size() == self.size()
    }

    pub(crate) fn set_origin(&self, origin: u64) {
        self.origin.store(origin, Ordering::Release);
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// Claims the window for one relocation or change of size; false if one is
    /// under way.
    pub(crate) fn claim(&self) -> bool {
        if self.moving.swap(true, Ordering::AcqRel) {
            return false;
        }
        // Whoever gives pages back now comes to an end first; whoever begins
        // later sees the claim.
        drop(self.giving_back.lock().unwrap_or_else(PoisonError::into_inner));
        true
    }

    pub(crate) fn release(&self) {
        self.moving.store(false, Ordering::Release);
    }
}

impl Drop for StorageWindow {
    fn drop(&mut self) {
        // `memory()` can be cloned. If a clone outlives the window, what it
        // points to must stay mapped: the addresses are leaked.
        self.memory = GuestMemoryMmap::default();
        if self.regions.iter().any(|region| Arc::strong_count(region) > 1) {
            if let Ok(spare) = Mapping::reserve(PAGE_SIZE as usize) {
                std::mem::forget(std::mem::replace(&mut self.storage, spare));
            } else {
                // Not even one page of addresses is left to put in its place.
                std::process::abort();
            }
        }
    }
}

/// Guest storage as far as there is any now.
impl GuestMemory for StorageWindow {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, address: GuestAddress, count: usize, _: Permissions) -> bool {
        self.layout.offset(address.0, count as u64, self.size()).is_some()
    }

    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, ()>, GuestMemoryError> {
        if !self.check_range(address, count, access) {
            return Err(GuestMemoryError::InvalidGuestAddress(address));
        }
        Ok(GuestMemoryBackend::get_slices(&self.memory, address, count))
    }
}

/// A region for each part of `layout`, in `storage`.
fn regions(storage: &Mapping, layout: &GuestLayout) -> Result<Vec<Arc<GuestRegionMmap>>, MapError> {
    let boot = (layout.base(), 0, layout.boot_size());
    let rest = (layout.hot_plug_base(), layout.boot_size(), layout.reach() - layout.boot_size());
    let mut regions = Vec::new();
    for (address, offset, size) in [boot, rest].into_iter().filter(|(.., size)| *size > 0) {
        // SAFETY: the part is inside the reserved addresses, and the window's
        // `Drop` keeps them reserved for as long as anybody holds the region.
        // What is not mapped yet is inaccessible: a use of it ends the process
        // and corrupts nothing.
        let region = unsafe {
            let start = storage.base().add(offset as usize);
            MmapRegionBuilder::new(size as usize).with_raw_mmap_pointer(start).build()
        };
        let region = region.map_err(io::Error::other)?;
        let region = GuestRegionMmap::new(region, GuestAddress(address))
            .ok_or_else(|| io::Error::other("a region that wraps"))?;
        regions.push(Arc::new(region));
    }
    Ok(regions)
}

/// Whether both files are long enough for `range`: beyond their end, a load
/// would kill the process.
pub(crate) fn inside(
    storage: BorrowedFd<'_>,
    keys: BorrowedFd<'_>,
    range: StorageRange,
) -> Result<(), MapError> {
    let total = total(storage, keys)?;
    if range.end() > total {
        return Err(MapError::Outside { range, total: Size(total) });
    }
    Ok(())
}

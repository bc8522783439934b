//! One partition's view of its storage.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use main_storage::{BLOCK_SIZE, PAGE_SIZE, Size, StorageRange};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

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
    size: u64,
    guest_base: u64,
    origin: AtomicU64,
    moving: AtomicBool,
    region: Arc<GuestRegionMmap>,
    memory: GuestMemoryMmap,
}

/// What [`StorageWindow::key_cell`] gives out for pages that do not exist.
static NO_PAGE: AtomicU8 = AtomicU8::new(0);

impl StorageWindow {
    /// Reserves `reach` bytes of addresses and maps `range` of main storage to
    /// their start. The guest sees it from guest physical address `guest_base`.
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
        let blocks = reach.div_ceil(BLOCK_SIZE);
        let bytes = |count: u64| usize::try_from(count).map_err(|_| unreachable());
        let reserved = bytes(blocks.checked_mul(BLOCK_SIZE).ok_or_else(unreachable)?)?;
        let size = bytes(range.size())?;
        if range.size() > reach || guest_base.checked_add(range.size()).is_none() {
            return Err(unreachable());
        }
        inside(storage_fd, keys_fd, range)?;
        let storage = Mapping::reserve_for(storage_fd, reserved)?;
        storage.map_file(storage_fd, range.origin(), size)?;
        let keys = Mapping::reserve(bytes(blocks * KEYS_PER_BLOCK)?)?;
        let (offset, length) = keys_of(range);
        keys.map_file(keys_fd, offset, bytes(length)?)?;

        // SAFETY: `size` bytes from there were just mapped, and `Drop` keeps
        // them mapped for as long as anybody holds the region.
        let builder = unsafe { MmapRegionBuilder::new(size).with_raw_mmap_pointer(storage.base()) };
        let region = builder.build().map_err(io::Error::other)?;
        let region =
            GuestRegionMmap::new(region, GuestAddress(guest_base)).ok_or_else(unreachable)?;
        let region = Arc::new(region);
        let memory = GuestMemoryMmap::from_arc_regions(vec![Arc::clone(&region)])
            .map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            storage,
            keys,
            size: range.size(),
            guest_base,
            origin: AtomicU64::new(range.origin()),
            moving: AtomicBool::new(false),
            region,
            memory,
        }))
    }

    /// Where the guest's first byte is in this process. Never changes; valid
    /// for [`StorageWindow::size`] bytes as long as the window lives.
    #[must_use]
    pub fn host_base(&self) -> *mut u8 {
        self.storage.base()
    }

    /// Guest physical address of the first byte.
    #[must_use]
    pub fn guest_base(&self) -> u64 {
        self.guest_base
    }

    /// Bytes of storage.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
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
        if page_index as u64 >= self.size / PAGE_SIZE {
            return &NO_PAGE;
        }
        // SAFETY: the page exists, so its key is inside the mapped keys, which
        // stay mapped as long as `self`; keys are only ever used as atomics.
        unsafe { AtomicU8::from_ptr(self.keys.base().add(key_offset(page_index))) }
    }

    /// The storage as I/O processors use it: one region at
    /// [`StorageWindow::guest_base`]. Addresses outside are errors.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The range of main storage that the window shows.
    pub(crate) fn shows(&self, range: StorageRange) -> bool {
        range.origin() == self.origin() && range.size() == self.size
    }

    pub(crate) fn set_origin(&self, origin: u64) {
        self.origin.store(origin, Ordering::Release);
    }

    /// Claims the window for one relocation; false if one is under way.
    pub(crate) fn claim(&self) -> bool {
        !self.moving.swap(true, Ordering::AcqRel)
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
        if Arc::strong_count(&self.region) > 1 {
            if let Ok(spare) = Mapping::reserve(PAGE_SIZE as usize) {
                std::mem::forget(std::mem::replace(&mut self.storage, spare));
            } else {
                // Not even one page of addresses is left to put in its place.
                std::process::abort();
            }
        }
    }
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

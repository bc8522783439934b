//! Main storage itself: the daemon's side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use main_storage::{BLOCK_SIZE, PAGE_SIZE, PAGES_PER_BLOCK, RangeError, Size, StorageRange};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use crate::fault::{self, Point};
use crate::runs::runs;

/// Bytes of the key file for one block: its keys, on a page of their own, so
/// that a worker can map its own keys and nobody else's.
pub(crate) const KEYS_PER_BLOCK: u64 = PAGE_SIZE;

const _: () = assert!(PAGES_PER_BLOCK <= KEYS_PER_BLOCK);

/// What main storage is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backing {
    /// Anonymous memory of the host, given out page by page at first touch.
    #[default]
    Memfd,
}

/// Why there is no main storage. The host is to blame, but for the size.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Not a positive number of blocks.
    #[error("main storage cannot have this size")]
    Size(#[from] RangeError),
    /// The host refused the memory.
    #[error("the host refused {size} of main storage; choose a smaller size or free memory")]
    Memory {
        /// What was wanted.
        size: Size,
        /// Why.
        source: io::Error,
    },
}

/// Why a range was not discarded: it must not be given to anybody.
#[derive(Debug, thiserror::Error)]
pub enum DiscardError {
    /// The range is not in main storage. The caller is to blame.
    #[error("{range} is not inside main storage, which has {total}")]
    Outside {
        /// What should have been discarded.
        range: StorageRange,
        /// Bytes of main storage.
        total: Size,
    },
    /// The host refused.
    #[error("the host could not clear {range}; it must not be used")]
    Punch {
        /// What should have been discarded.
        range: StorageRange,
        /// Why.
        source: io::Error,
    },
}

/// One block of host memory that all partitions live in, and its keys.
#[derive(Debug)]
pub struct MainStorage {
    size: u64,
    storage: OwnedFd,
    keys: OwnedFd,
}

impl MainStorage {
    /// Makes main storage of `size` bytes. It reads as zero, all keys are
    /// zero, and it costs memory only where it is touched.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(size: u64, backing: Backing) -> Result<Self, CreateError> {
        StorageRange::new(0, size)?;
        let Backing::Memfd = backing;
        let refused = |source| CreateError::Memory { size: Size(size), source };
        let keys_size = size / BLOCK_SIZE * KEYS_PER_BLOCK;
        let storage = memfd("berth-storage", size).map_err(refused)?;
        let keys = memfd("berth-keys", keys_size).map_err(refused)?;
        Ok(Self { size, storage, keys })
    }

    /// Bytes of main storage.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file that is the storage.
    #[must_use]
    pub fn storage_fd(&self) -> BorrowedFd<'_> {
        self.storage.as_fd()
    }

    /// The file of the storage keys: 4 KiB for each block, of which the first
    /// 256 bytes are its pages' keys.
    #[must_use]
    pub fn keys_fd(&self) -> BorrowedFd<'_> {
        self.keys.as_fd()
    }

    /// Gives the memory of `range` back to the host: it reads as zero, with
    /// zero keys, to whoever gets it next.
    ///
    /// # Errors
    /// [`DiscardError`]; the range must then not be given to anybody.
    pub fn discard(&self, range: StorageRange) -> Result<(), DiscardError> {
        if range.end() > self.size {
            return Err(DiscardError::Outside { range, total: Size(self.size) });
        }
        discard(self.storage_fd(), self.keys_fd(), range)
            .map_err(|source| DiscardError::Punch { range, source })
    }

    /// Bytes of `range` that cost memory now.
    ///
    /// # Errors
    /// When the host cannot tell.
    pub fn resident(&self, range: StorageRange) -> io::Result<u64> {
        let runs = runs(self.storage_fd(), range)?;
        let data = runs.iter().filter(|run| run.data);
        Ok(data.map(|run| run.pages.end - run.pages.start).sum::<u64>() * PAGE_SIZE)
    }
}

fn memfd(name: &str, size: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, size)?;
    // A worker that could shrink the file would kill everybody who maps it.
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Where the keys of `range` are in the key file: offset and length.
pub(crate) fn keys_of(range: StorageRange) -> (u64, u64) {
    (range.origin() / BLOCK_SIZE * KEYS_PER_BLOCK, range.size() / BLOCK_SIZE * KEYS_PER_BLOCK)
}

/// Offset of page `page`'s key from the start of its range's keys.
pub(crate) const fn key_offset(page: usize) -> usize {
    (page >> 8 << 12) | (page & 0xff)
}

const _: () = assert!(PAGES_PER_BLOCK == 1 << 8 && KEYS_PER_BLOCK == 1 << 12);

pub(crate) fn discard(
    storage: BorrowedFd<'_>,
    keys: BorrowedFd<'_>,
    range: StorageRange,
) -> io::Result<()> {
    punch(storage, range.origin(), range.size())?;
    let (offset, length) = keys_of(range);
    punch(keys, offset, length)
}

pub(crate) fn punch(file: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    fault::check(Point::Punch)?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, flags, offset, length) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

//! Main storage itself: the daemon's side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use main_storage::{BLOCK_SIZE, PAGE_SIZE, PAGES_PER_BLOCK, RangeError, Size, StorageRange};
use rustix::fs::{FallocateFlags, FileType, MemfdFlags};

use crate::backing::{self, Backing};
use crate::fault::{self, Point};
use crate::runs::runs;

/// Bytes of the key file for one block: its keys, on a page of their own, so
/// that a worker can map its own keys and nobody else's.
pub(crate) const KEYS_PER_BLOCK: u64 = PAGE_SIZE;

const _: () = assert!(PAGES_PER_BLOCK <= KEYS_PER_BLOCK);

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
    /// Not a number of the backing's pages. The operator is to blame.
    #[error("main storage of {size} is not a multiple of {page}, the size of its pages")]
    Granularity {
        /// What was wanted.
        size: Size,
        /// Bytes of a page.
        page: Size,
    },
    /// The host has not enough huge pages.
    #[error(
        "main storage needs {wanted} huge pages of {page}, and the host has {free} free; set {set}"
    )]
    HugePages {
        /// Pages wanted.
        wanted: u64,
        /// Bytes of one.
        page: Size,
        /// Pages nobody has.
        free: u64,
        /// What sets how many there are.
        set: String,
        /// What the host said.
        source: io::Error,
    },
    /// The file or device cannot be main storage. The operator is to blame.
    #[error("{path} cannot be main storage: {what}; choose another path")]
    Path {
        /// The file or device.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// Memory cannot be bound to the NUMA node. The operator is to blame.
    #[error(
        "memory cannot come from NUMA node {node}; `ls /sys/devices/system/node` shows those there are"
    )]
    Node {
        /// The node.
        node: u32,
        /// Why not.
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
    granularity: u64,
    // Pages cost memory only where they are touched.
    lazy: bool,
    storage: OwnedFd,
    keys: OwnedFd,
}

impl MainStorage {
    /// Makes main storage of `size` bytes; all keys are zero. What
    /// [`Backing::Memfd`] makes reads as zero and costs memory only where it
    /// is touched; every other backing is there as a whole, or refused.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(size: u64, backing: Backing) -> Result<Self, CreateError> {
        Self::create_on(size, &backing, None)
    }

    /// The same, its memory from NUMA node `node` of the host.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create_on(size: u64, backing: &Backing, node: Option<u32>) -> Result<Self, CreateError> {
        StorageRange::new(0, size)?;
        let storage = backing::make(size, backing, node)?;
        let refused = |source| CreateError::Memory { size: Size(size), source };
        let keys_size = size / BLOCK_SIZE * KEYS_PER_BLOCK;
        let flags = MemfdFlags::empty();
        let keys = backing::memfd("berth-keys", keys_size, flags, false).map_err(refused)?;
        backing::place(keys.as_fd(), keys_size, node)?;
        Self::of(storage, keys).map_err(refused)
    }

    /// Main storage that was made before, from its two files.
    ///
    /// # Errors
    /// When they are not such files.
    pub fn of(storage: OwnedFd, keys: OwnedFd) -> io::Result<Self> {
        let size = total(storage.as_fd(), keys.as_fd())?;
        let granularity = backing::granularity(storage.as_fd())?;
        let lazy = !backing::keeps_pages(storage.as_fd())?;
        Ok(Self { size, granularity, lazy, storage, keys })
    }

    /// Bytes of main storage.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What origins and sizes of partitions must be multiples of, in bytes:
    /// the size of its pages, at least [`BLOCK_SIZE`].
    #[must_use]
    pub fn granularity(&self) -> u64 {
        self.granularity
    }

    /// Whether memory is taken from the host only when it is first touched, so
    /// that the host may have none when a guest touches it.
    #[must_use]
    pub fn is_lazy(&self) -> bool {
        self.lazy
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

    /// Gives the memory of `range` back to the host, or keeps it and makes it
    /// zero where all of main storage is kept: it reads as zero, with zero
    /// keys, to whoever gets it next.
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
        if !self.lazy {
            return Ok(range.size());
        }
        let runs = runs(self.storage_fd(), range)?;
        let data = runs.iter().filter(|run| run.data);
        Ok(data.map(|run| run.pages.end - run.pages.start).sum::<u64>() * PAGE_SIZE)
    }
}

/// Bytes of main storage that both files have room for.
pub(crate) fn total(storage: BorrowedFd<'_>, keys: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = |file| rustix::fs::fstat(file);
    let length = |stat: &rustix::fs::Stat| u64::try_from(stat.st_size).unwrap_or(0);
    let of_keys = length(&stat(keys)?) / KEYS_PER_BLOCK * BLOCK_SIZE;
    let storage = stat(storage)?;
    // A device has no length; it was checked when main storage was made.
    match FileType::from_raw_mode(storage.st_mode) {
        FileType::CharacterDevice => Ok(of_keys),
        _ => Ok(of_keys.min(length(&storage))),
    }
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
    if backing::keeps_pages(storage)? {
        fault::check(Point::Punch)?;
        backing::zero(storage, range)?;
    } else {
        punch(storage, range.origin(), range.size())?;
    }
    let (offset, length) = keys_of(range);
    punch(keys, offset, length)
}

/// Gives a piece of the file of main storage back to the host; refused where
/// all of it is kept.
pub(crate) fn give_back(storage: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    if backing::keeps_pages(storage)? {
        return Err(io::ErrorKind::Unsupported.into());
    }
    punch(storage, offset, length)
}

fn punch(file: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    fault::check(Point::Punch)?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, flags, offset, length) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

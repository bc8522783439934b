//! Where a disk's bytes are kept.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::overlay::Overlay;
use super::shared::{DiskControl, SharedOverlay};
use super::vectored::{self, Buffers};

/// A disk's contents. One thread uses it, one request at a time; a method may
/// block as long as the medium does, and the I/O processor is busy meanwhile.
pub trait DiskBackend: Send {
    /// Bytes of the disk. Constant.
    fn length(&self) -> u64;

    /// Whether writes are refused.
    fn read_only(&self) -> bool;

    /// Fills `buffers` from the disk's byte `offset` on; what lies behind the
    /// end of the disk reads as zeros.
    ///
    /// # Errors
    /// What the medium says. The buffers' contents are undefined then.
    fn read(&self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()>;

    /// Writes `buffers` from the disk's byte `offset` on.
    ///
    /// # Errors
    /// What the medium says. What of the range was written is undefined then.
    fn write(&mut self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()>;

    /// Returns once everything written before is on the medium.
    ///
    /// # Errors
    /// What the medium says.
    fn flush(&mut self) -> io::Result<()>;

    /// What captures the disk or puts it back, if it can be.
    fn control(&self) -> Option<DiskControl> {
        None
    }
}

/// How a disk is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskMode {
    /// The file is only read; several partitions may share it.
    ReadOnly,
    /// The file is written in place.
    ReadWrite,
    /// The file is only read, several partitions may share it; what the guest
    /// writes goes to a sparse file of its own. That file is made if there is
    /// none or it is empty, and taken on with its contents otherwise.
    Overlay {
        /// The file for what is written.
        overlay: PathBuf,
        /// In which units it is written, if it is made now.
        cluster: ClusterSize,
    },
    /// Begins as the disk was when its overlay was captured by
    /// [`DiskControl::capture`], and can be put back to that. What the guest writes
    /// goes to a sparse file of its own, which is for this use only: whatever was in
    /// it is dropped, and nothing of it is promised to survive.
    Copy {
        /// The captured overlay, which is only read; copies share it.
        captured: PathBuf,
        /// The file for what is written.
        overlay: PathBuf,
    },
}

/// In which units an overlay keeps what was written. Larger units mean a
/// smaller map; smaller ones less copying for small writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClusterSize {
    /// 4 KiB: a page of the guest, so that its writes mostly need no copying.
    #[default]
    Kib4,
    /// 64 KiB.
    Kib64,
}

impl ClusterSize {
    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Kib4 => 4 << 10,
            Self::Kib64 => 64 << 10,
        }
    }
}

/// Why a disk could not be opened. The operator or the host is to blame.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// The file cannot be opened, made or read.
    #[error("cannot open the disk {path}: check that it exists and is accessible")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another partition uses the file in a way that excludes this use.
    #[error("the disk {path} is in use: give each partition a file of its own, or an overlay")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file given as overlay is not one, or not one of this disk.
    #[error("the overlay {path} cannot be used ({reason}): remove it to begin with an empty one")]
    Overlay {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Opens the disk at `path`.
///
/// Files that are written are locked against every other use, files that are
/// read against being written, for as long as the disk is open.
///
/// # Errors
/// [`OpenDiskError`].
pub fn open_disk(path: &Path, mode: &DiskMode) -> Result<Box<dyn DiskBackend>, OpenDiskError> {
    match mode {
        DiskMode::ReadOnly => Ok(Box::new(RawDisk::open(path, true)?)),
        DiskMode::ReadWrite => Ok(Box::new(RawDisk::open(path, false)?)),
        DiskMode::Overlay { overlay, cluster } => {
            let base = RawDisk::open(path, true)?;
            Ok(Box::new(SharedOverlay::new(Overlay::open(base, overlay, *cluster)?)))
        }
        DiskMode::Copy { captured, overlay } => {
            let base = RawDisk::open(path, true)?;
            Ok(Box::new(SharedOverlay::new(Overlay::copy(base, captured, overlay)?)))
        }
    }
}

/// Locks `file` for the life of the descriptor: for this user alone, or for
/// readers.
pub(super) fn lock(file: &File, path: &Path, alone: bool) -> Result<(), OpenDiskError> {
    let operation = if alone {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenDiskError::InUse { path: path.into() }),
        Err(error) => Err(OpenDiskError::File { path: path.into(), source: error.into() }),
    }
}

/// A file whose bytes are the disk's.
pub(super) struct RawDisk {
    file: File,
    length: u64,
    read_only: bool,
}

impl RawDisk {
    /// Tells this disk from another of its length: FNV-1a of its beginning,
    /// where file systems keep their identity. An overlay shows nonsense over
    /// any base but its own.
    pub(super) fn fingerprint(&self) -> io::Result<u64> {
        const BEGINNING: u64 = 64 << 10;
        let mut beginning = Vec::new();
        let mut file = &self.file;
        io::Seek::rewind(&mut file)?;
        io::Read::read_to_end(&mut io::Read::take(file, BEGINNING), &mut beginning)?;
        let start = 0xcbf2_9ce4_8422_2325;
        Ok(beginning
            .iter()
            .fold(start, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
    }

    pub(super) fn open(path: &Path, read_only: bool) -> Result<Self, OpenDiskError> {
        let failed = |source| OpenDiskError::File { path: path.into(), source };
        let file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(failed)?;
        lock(&file, path, !read_only)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self { file, length, read_only })
    }
}

impl DiskBackend for RawDisk {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        let done = vectored::read(&self.file, offset, buffers)?;
        // Behind the end there are zeros; a file that has become shorter than
        // the disk has lost data.
        if done < buffers.length() {
            if offset + done < self.length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffers.part(done, u64::MAX).clear();
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        vectored::write(&self.file, offset, buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }
}

//! A window that grows and shrinks behind its guest's boot storage.

use std::io;
use std::os::fd::BorrowedFd;

use main_storage::{BLOCK_SIZE, RangeError, Size, StorageRange};

use crate::fault::{self, Point};
use crate::storage::{KEYS_PER_BLOCK, discard, keys_of};
use crate::window::{MapError, StorageWindow, inside};

/// Why a window has not changed its size. Nothing has happened.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// The range does not begin where the window is, or is not larger (to
    /// grow) or smaller (to shrink). The host is to blame.
    #[error("the window shows {size} of storage from {origin:#x}, which cannot become {after}")]
    NotThis {
        /// Where the window's storage begins, in bytes.
        origin: u64,
        /// The window's size.
        size: Size,
        /// What it should have become.
        after: StorageRange,
    },
    /// The guest would lose storage that it booted in. The operator is to blame.
    #[error(
        "the guest booted in {boot}, so it cannot have less; start it anew in a smaller partition"
    )]
    Boot {
        /// Bytes of boot storage.
        boot: Size,
    },
    /// The storage is being moved or resized. The host is to blame.
    #[error("the storage is being moved or resized already; wait for the end of that")]
    Busy,
    /// The guest cannot reach so far, the range is not in main storage, or it
    /// cannot be mapped.
    #[error("cannot map the storage behind the partition")]
    Map(#[from] MapError),
    /// What was in the additional range before could not be cleared.
    #[error("cannot clear the storage behind the partition")]
    Clear(#[source] io::Error),
    /// What should be given up cannot be unmapped from this process.
    #[error("the host refused to unmap the end of the storage; the partition keeps it")]
    Unmap(#[source] io::Error),
}

/// Releases the window's claim.
struct Claim<'a>(&'a StorageWindow);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl StorageWindow {
    /// Makes the window show `after`: the present range and what is behind it
    /// in main storage. The additional storage reads as zero with zero keys;
    /// it costs memory where it is touched. The guest and its I/O processors
    /// may be running: vCPUs can reach the additional storage from now on, I/O
    /// processors once they have acknowledged the new address limits. The
    /// caller has made sure, by the resource manager, that the range is this
    /// partition's.
    ///
    /// # Errors
    /// [`ResizeError`]; nothing has happened then.
    pub fn grow(
        &self,
        storage_fd: BorrowedFd<'_>,
        keys_fd: BorrowedFd<'_>,
        after: StorageRange,
    ) -> Result<(), ResizeError> {
        let _claim = self.claim_to_resize(after)?;
        let size = self.size();
        let layout = self.layout();
        if after.size() > layout.reach() {
            let (base, reach) = (layout.base(), Size(layout.reach()));
            return Err(MapError::Reach { size: Size(after.size()), reach, base }.into());
        }
        let tail = self.difference(size, after.size(), after)?;
        inside(storage_fd, keys_fd, after)?;
        discard(storage_fd, keys_fd, tail).map_err(ResizeError::Clear)?;
        let (offset, length) = keys_of(tail);
        let mapped = self
            .keys
            .map_file_at(keys_before(size), keys_fd, offset, length as usize)
            .and_then(|()| fault::check(Point::MapTail))
            .and_then(|()| {
                let (at, length) = (size as usize, tail.size() as usize);
                self.storage.map_file_at(at, storage_fd, tail.origin(), length)
            });
        if let Err(error) = mapped {
            // Nobody looks behind the window's size, mapped or not.
            let _ = self.hide(size, tail);
            return Err(MapError::Host(error).into());
        }
        self.set_size(after.size());
        Ok(())
    }

    /// Makes the window show `after`: the present range without its end, which
    /// this process can no longer reach then. What it holds is still there;
    /// whoever frees the range discards it.
    ///
    /// No vCPU is inside the guest and every I/O processor is idle. Before a
    /// vCPU enters again it has been asked to forget all translations, and
    /// before an I/O processor resumes it has acknowledged the new address
    /// limits: one that still reached for the end would take the process
    /// (never another partition's storage) with it.
    ///
    /// # Errors
    /// [`ResizeError`]; nothing has happened then.
    pub fn shrink(&self, after: StorageRange) -> Result<(), ResizeError> {
        let _claim = self.claim_to_resize(after)?;
        let boot = self.layout().boot_size();
        if after.size() < boot {
            return Err(ResizeError::Boot { boot: Size(boot) });
        }
        let tail = self.difference(after.size(), self.size(), after)?;
        let hidden = self.storage.hide(after.size() as usize, tail.size() as usize);
        hidden.map_err(ResizeError::Unmap)?;
        self.set_size(after.size());
        // Behind the window's size nobody looks for a key, mapped or not.
        let _ = self.keys.hide(keys_before(after.size()), keys_of(tail).1 as usize);
        Ok(())
    }

    fn claim_to_resize(&self, after: StorageRange) -> Result<Claim<'_>, ResizeError> {
        if !self.claim() {
            return Err(ResizeError::Busy);
        }
        let claim = Claim(self);
        if after.origin() == self.origin() { Ok(claim) } else { Err(self.not(after)) }
    }

    fn not(&self, after: StorageRange) -> ResizeError {
        ResizeError::NotThis { origin: self.origin(), size: Size(self.size()), after }
    }

    /// What a window of `large` bytes has and one of `small` bytes lacks.
    fn difference(
        &self,
        small: u64,
        large: u64,
        after: StorageRange,
    ) -> Result<StorageRange, ResizeError> {
        let difference = large.checked_sub(small).ok_or_else(|| self.not(after))?;
        StorageRange::new(after.origin() + small, difference)
            .map_err(|_: RangeError| self.not(after))
    }

    /// Makes `tail`, `offset` bytes from the start, inaccessible.
    fn hide(&self, offset: u64, tail: StorageRange) -> io::Result<()> {
        self.storage.hide(offset as usize, tail.size() as usize)?;
        self.keys.hide(keys_before(offset), keys_of(tail).1 as usize)
    }
}

/// Bytes of keys of the first `size` bytes of a window.
fn keys_before(size: u64) -> usize {
    (size / BLOCK_SIZE * KEYS_PER_BLOCK) as usize
}

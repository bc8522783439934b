//! An overlay that somebody beside its I/O processor has a handle of.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::DiskBackend;
use super::overlay::Overlay;
use super::vectored::Buffers;

/// The handle of a disk that keeps what was written in a file of its own: what was
/// written can be captured, and that of a copy be taken back. Nobody uses the disk
/// meanwhile: its I/O processor is idle.
#[derive(Clone)]
pub struct DiskControl(Arc<Mutex<Overlay>>);

impl DiskControl {
    /// Writes what the overlay has to `target`, an empty file, which is an overlay of
    /// the same disk then; returns how many bytes of the disk it has.
    ///
    /// # Errors
    /// What the medium says; the file is then of no use. [`io::ErrorKind::Unsupported`]
    /// of a copy, whose overlay is only a part of what was written.
    pub fn capture(&self, target: &File) -> io::Result<u64> {
        lock(&self.0).capture(target)
    }

    /// Makes a copy's disk what it was captured as; returns how many bytes of it had
    /// been written since.
    ///
    /// # Errors
    /// What the medium says; what the disk has is undefined then.
    /// [`io::ErrorKind::Unsupported`] of a disk that is no copy.
    pub fn put_back(&self) -> io::Result<u64> {
        lock(&self.0).put_back()
    }
}

/// What the I/O processor has of it.
pub(super) struct SharedOverlay(Arc<Mutex<Overlay>>);

impl SharedOverlay {
    pub(super) fn new(overlay: Overlay) -> Self {
        Self(Arc::new(Mutex::new(overlay)))
    }
}

/// A request that panicked has left the overlay as one that failed.
fn lock(overlay: &Mutex<Overlay>) -> MutexGuard<'_, Overlay> {
    overlay.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskBackend for SharedOverlay {
    fn length(&self) -> u64 {
        lock(&self.0).length()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        lock(&self.0).read(offset, buffers)
    }

    fn write(&mut self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        lock(&self.0).write(offset, buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.0).flush()
    }

    fn control(&self) -> Option<DiskControl> {
        Some(DiskControl(Arc::clone(&self.0)))
    }
}

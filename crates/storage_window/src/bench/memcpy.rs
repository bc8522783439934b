//! Plain `memcpy`, what every copy is held against.

use std::io;

use super::{BenchError, fill, page_wise, rate};
use crate::mapping::Mapping;
use crate::{Backing, MainStorage};

/// Two populated mappings of the same kind as a partition's, of which one is
/// copied to the other.
#[derive(Debug)]
pub struct Memcpy {
    source: Mapping,
    target: Mapping,
    size: u64,
    length: usize,
}

impl Memcpy {
    /// Twice `size` bytes of memory with content; a multiple of a block.
    ///
    /// # Errors
    /// [`BenchError`] if there is not so much.
    pub fn new(size: u64) -> Result<Self, BenchError> {
        let storage = MainStorage::create(2 * size, Backing::Memfd)?;
        let length =
            usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let source = Mapping::of_file(storage.storage_fd(), 0, length)?;
        let target = Mapping::of_file(storage.storage_fd(), size, length)?;
        fill(source.base(), size);
        fill(target.base(), size);
        Ok(Self { source, target, size, length })
    }

    /// Copies all of it at once; bytes per second.
    #[must_use]
    pub fn run(&mut self) -> f64 {
        let (source, target, length) = (self.source.base(), self.target.base(), self.length);
        // SAFETY: both mappings have `length` bytes and are `self`'s, which
        // nobody else uses meanwhile.
        rate(self.size, || unsafe { std::ptr::copy_nonoverlapping(source, target, length) })
    }

    /// Copies it page by page; bytes per second.
    pub(super) fn page_wise(&mut self) -> f64 {
        rate(self.size, || page_wise(&self.source, &self.target, self.size))
    }
}

//! A piece of main storage.

use std::fmt;

use crate::{BLOCK_SIZE, PAGE_SIZE, Size};

/// A contiguous range of main storage: not empty, origin and size multiples of
/// [`BLOCK_SIZE`], its end a number that exists. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
// Private because the constructor checks what the first line promises; nobody
// who holds a range checks again.
pub struct StorageRange {
    origin: u64,
    size: u64,
}

/// Why there is no such range. Whoever wrote the numbers is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The size is 0.
    #[error("a partition of size 0 has no storage; give it at least 1M")]
    Empty,
    /// The origin is between two blocks.
    #[error("origin {0} is not a multiple of 1M; storage is handed out in blocks of 1M")]
    OriginUnaligned(Size),
    /// The size is not a number of blocks.
    #[error("size {0} is not a multiple of 1M; storage is handed out in blocks of 1M")]
    SizeUnaligned(Size),
    /// Origin and size together pass 2^64 bytes.
    #[error("origin {origin} and size {size} end past every main storage; choose a smaller one")]
    PastTheEnd {
        /// Where it would start.
        origin: Size,
        /// How long it would be.
        size: Size,
    },
}

impl StorageRange {
    /// The range of `size` bytes from `origin`.
    ///
    /// # Errors
    /// [`RangeError`] when it is empty, unaligned or past 2^64.
    pub const fn new(origin: u64, size: u64) -> Result<Self, RangeError> {
        if size == 0 {
            return Err(RangeError::Empty);
        }
        if origin % BLOCK_SIZE != 0 {
            return Err(RangeError::OriginUnaligned(Size(origin)));
        }
        if size % BLOCK_SIZE != 0 {
            return Err(RangeError::SizeUnaligned(Size(size)));
        }
        if origin.checked_add(size).is_none() {
            return Err(RangeError::PastTheEnd { origin: Size(origin), size: Size(size) });
        }
        Ok(Self { origin, size })
    }

    /// From `start` to `end`, both known to be block aligned; `None` if empty.
    pub(crate) fn between(start: u64, end: u64) -> Option<Self> {
        debug_assert!(start % BLOCK_SIZE == 0 && end % BLOCK_SIZE == 0);
        (start < end).then(|| Self { origin: start, size: end - start })
    }

    /// Offset of its first byte in main storage.
    #[must_use]
    pub const fn origin(self) -> u64 {
        self.origin
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.size
    }

    /// Offset of the first byte after it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.origin + self.size
    }

    /// Its length in pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.size / PAGE_SIZE
    }

    /// Whether the byte at `offset` of main storage is in it.
    #[must_use]
    pub const fn contains(self, offset: u64) -> bool {
        self.origin <= offset && offset < self.end()
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.origin < other.end() && other.origin < self.end()
    }

    /// The bytes the two have in common.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(self.origin.max(other.origin), self.end().min(other.end()))
    }

    /// The parts that are not in `other`: none, one below or above it, or both.
    pub fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let below = Self::between(self.origin, self.end().min(other.origin));
        let above = Self::between(self.origin.max(other.end()), self.end());
        below.into_iter().chain(above)
    }

    /// The range of the same size at another origin.
    ///
    /// # Errors
    /// As for [`StorageRange::new`].
    pub const fn at(self, origin: u64) -> Result<Self, RangeError> {
        Self::new(origin, self.size)
    }
}

impl fmt::Display for StorageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", Size(self.origin), Size(self.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = BLOCK_SIZE;

    #[test]
    fn no_range_is_empty_unaligned_or_past_the_end() {
        assert_eq!(StorageRange::new(0, 0), Err(RangeError::Empty));
        assert_eq!(StorageRange::new(1, M), Err(RangeError::OriginUnaligned(Size(1))));
        assert_eq!(StorageRange::new(M, M + 4096), Err(RangeError::SizeUnaligned(Size(M + 4096))));
        assert!(matches!(
            StorageRange::new(u64::MAX - M + 1, M),
            Err(RangeError::PastTheEnd { .. })
        ));
        assert!(StorageRange::new(u64::MAX - 2 * M + 1, M).is_ok());
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let [a, b] = [StorageRange::new(0, 2 * M), StorageRange::new(2 * M, M)].map(Result::unwrap);
        assert!(!a.overlaps(b) && !b.overlaps(a) && a.overlaps(a));
        assert_eq!(a.intersection(b), None);
    }

    #[test]
    fn without_leaves_what_is_below_and_above() {
        let range = |origin, size| StorageRange::new(origin * M, size * M).unwrap();
        let left = |a: StorageRange, b| a.without(b).collect::<Vec<_>>();
        assert_eq!(left(range(0, 10), range(3, 2)), [range(0, 3), range(5, 5)]);
        assert_eq!(left(range(4, 4), range(0, 6)), [range(6, 2)]);
        assert_eq!(left(range(4, 4), range(6, 6)), [range(4, 2)]);
        assert_eq!(left(range(4, 4), range(4, 4)), []);
        assert_eq!(left(range(4, 4), range(20, 4)), [range(4, 4)]);
        assert_eq!(left(range(4, 4), range(0, 1)), [range(4, 4)]);
    }
}

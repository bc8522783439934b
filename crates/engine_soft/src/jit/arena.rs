//! Memory that compiled code lies in.
//!
//! Invariant: no page of it is ever writable and executable. Code is copied
//! into pages that are writable only, which then become executable only and
//! stay so until the arena is unmapped; the next code begins on a fresh page.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the host's pages, or a multiple of them.
const PAGE: usize = 4096;

/// Bytes of code in an arena, at most.
pub(crate) const ARENA: usize = 16 << 20;

/// A block of address space for code, filled from its start.
#[derive(Debug)]
pub(crate) struct Arena {
    base: usize,
    size: usize,
    used: AtomicUsize,
}

impl Arena {
    /// Reserves `size` bytes, a multiple of the host's page size; nothing can
    /// be read there yet.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        // SAFETY: asks for new memory wherever the kernel likes.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.expose_provenance(), size, used: AtomicUsize::new(0) })
    }

    /// Bytes taken by code.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Copies `pieces` in, each at a multiple of 16, and returns where each
    /// begins; `None` if they do not fit or the host refuses. One thread only
    /// adds code.
    pub(crate) fn add(&self, pieces: &[&[u8]]) -> Option<Vec<usize>> {
        let start = self.used();
        let mut offsets = Vec::with_capacity(pieces.len());
        let mut end = start;
        for piece in pieces {
            offsets.push(end);
            end = (end + piece.len()).next_multiple_of(16);
        }
        let end = end.next_multiple_of(PAGE);
        if end > self.size {
            return None;
        }
        self.protect(start, end, libc::PROT_READ | libc::PROT_WRITE)?;
        for (piece, offset) in pieces.iter().zip(&offsets) {
            let to = ptr::with_exposed_provenance_mut::<u8>(self.base + offset);
            // SAFETY: from `start` to `end` is part of the mapping, was just
            // made writable, and nobody knows of it yet.
            unsafe { ptr::copy_nonoverlapping(piece.as_ptr(), to, piece.len()) };
        }
        self.protect(start, end, libc::PROT_READ | libc::PROT_EXEC)?;
        self.used.store(end, Ordering::Relaxed);
        Some(offsets.into_iter().map(|offset| self.base + offset).collect())
    }

    fn protect(&self, start: usize, end: usize, protection: libc::c_int) -> Option<()> {
        let at = ptr::with_exposed_provenance_mut(self.base + start);
        // SAFETY: whole pages of the mapping, none of them in use: code that
        // was published lies below `start`.
        let result = unsafe { libc::mprotect(at, end - start, protection) };
        (result == 0).then_some(())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`. Whoever executes code in it holds
        // the arena.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.base), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_apart_and_later_ones_on_later_pages() {
        let arena = Arena::new(4 * PAGE).unwrap();
        let first = arena.add(&[&[1; 17], &[2; 5]]).unwrap();
        assert_eq!(first[1] - first[0], 32);
        let second = arena.add(&[&[3; 1]]).unwrap();
        assert_eq!(second[0] - first[0], PAGE);
        let code = ptr::with_exposed_provenance::<u8>(first[1]);
        // SAFETY: code just put there, readable.
        assert_eq!(unsafe { *code }, 2);
    }

    #[test]
    fn a_full_arena_takes_no_more() {
        let arena = Arena::new(2 * PAGE).unwrap();
        assert!(arena.add(&[&[0; PAGE], &[0; PAGE]]).is_some());
        assert!(arena.add(&[&[0; 1]]).is_none());
        assert_eq!(arena.used(), 2 * PAGE);
    }
}

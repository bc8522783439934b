//! Address ranges of this process.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr;

use main_storage::PAGE_SIZE;
use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};

use crate::fault::{self, Point};

/// Page tables move as a whole only between addresses aligned to what one of
/// them covers.
const ALIGNMENT: usize = 2 << 20;

/// A range of this process's addresses that it alone uses.
#[derive(Debug)]
pub(crate) struct Mapping {
    // `length` bytes from `base` are reserved or mapped by this value and
    // unmapped when it is dropped; `base` is a multiple of ALIGNMENT and of
    // the pages of the file that is mapped there.
    base: *mut u8,
    length: usize,
}

// SAFETY: an address range belongs to the process, not to a thread; what lies
// in it is only reached through raw pointers and atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method on `&self` changes the value.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `length` bytes (a positive multiple of the page size) that
    /// nothing can be read from or written to.
    pub(crate) fn reserve(length: usize) -> io::Result<Self> {
        Self::reserve_aligned(length, ALIGNMENT)
    }

    /// The same, where `file` can be mapped: the pages of a file can be huge.
    pub(crate) fn reserve_for(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let page = usize::try_from(rustix::fs::fstat(file)?.st_blksize).unwrap_or(0);
        let alignment = if page.is_power_of_two() { page.max(ALIGNMENT) } else { ALIGNMENT };
        Self::reserve_aligned(length, alignment)
    }

    /// `alignment` is a power of two and a multiple of the page size.
    fn reserve_aligned(length: usize, alignment: usize) -> io::Result<Self> {
        let padded = length.checked_add(alignment).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                padded,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        }
        .cast::<u8>();
        let before = start.align_offset(alignment);
        // SAFETY: `before` is below the alignment, so all three pieces are parts of
        // the mapping just made, and nobody knows the two that are returned.
        let base = unsafe {
            let base = start.add(before);
            unmap(start, before);
            unmap(base.add(length), padded - length - before);
            base
        };
        Ok(Self { base, length })
    }

    /// Reserves `length` bytes and maps `file` there from `offset`.
    pub(crate) fn of_file(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        let mapping = Self::reserve_for(file, length)?;
        mapping.map_file(file, offset, length)?;
        Ok(mapping)
    }

    /// Maps the first `length` bytes of `file`, which may be open for reading
    /// only, to be read.
    pub(crate) fn to_read(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let mapping = Self::reserve(length)?;
        // SAFETY: replaces what this value just reserved.
        unsafe {
            rustix::mm::mmap(
                mapping.base.cast(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                0,
            )?;
        }
        Ok(mapping)
    }

    /// Maps `length` bytes of `file` from `offset` to the start, instead of
    /// what was there.
    pub(crate) fn map_file(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> io::Result<()> {
        self.map_file_at(0, file, offset, length)
    }

    /// Maps the bytes `part` of this range to those of `file` that lie as far
    /// behind `offset`, instead of what was there.
    pub(crate) fn map_part(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        part: &Range<usize>,
    ) -> io::Result<()> {
        self.map_file_at(part.start, file, offset + part.start as u64, part.len())
    }

    /// Maps `length` bytes of `file` from `offset`, `at` bytes (a multiple of
    /// the page size) from the start, instead of what was there.
    pub(crate) fn map_file_at(
        &self,
        at: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> io::Result<()> {
        self.check(at, length)?;
        // SAFETY: replaces pages inside this value's own range. Whoever holds
        // pointers into it reads and writes shared memory either way.
        unsafe {
            rustix::mm::mmap(
                self.base.add(at).cast(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE,
                file,
                offset,
            )?;
        }
        Ok(())
    }

    /// Moves the pages `part` of `other`, with their page tables, to the same
    /// part of this range, instead of what was there. `other` stays mapped.
    /// When it fails, what was there may be gone.
    pub(crate) fn take_part(&self, other: &Self, part: &Range<usize>) -> io::Result<()> {
        self.check(part.start, part.len())?;
        other.check(part.start, part.len())?;
        // SAFETY: the part lies within both values' own ranges. DONTUNMAP
        // keeps `other`'s addresses mapped, so that it still owns them all.
        unsafe {
            rustix::mm::mremap_fixed(
                other.base.add(part.start).cast(),
                part.len(),
                part.len(),
                MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
                self.base.add(part.start).cast(),
            )?;
        }
        Ok(())
    }

    /// Makes `part` writable, or only readable: whoever stores there then gets
    /// SIGSEGV.
    pub(crate) fn protect(&self, part: &Range<usize>, write: bool) -> io::Result<()> {
        self.check(part.start, part.len())?;
        let write = if write { MprotectFlags::WRITE } else { MprotectFlags::empty() };
        // SAFETY: pages inside this value's own range; loads go on, and who
        // stores is made to wait by the module `flight`.
        unsafe {
            rustix::mm::mprotect(
                self.base.add(part.start).cast(),
                part.len(),
                MprotectFlags::READ | write,
            )?;
        }
        Ok(())
    }

    /// Moves `other`'s pages, with their page tables, to the start of this
    /// range, instead of what was there. When it fails, what was there may be
    /// gone, and `other` is gone.
    pub(crate) fn take(&self, other: Self) -> io::Result<()> {
        if other.length > self.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: both ranges belong to their values; `other` is forgotten
        // once its addresses are no longer mapped.
        unsafe {
            rustix::mm::mremap_fixed(
                other.base.cast(),
                other.length,
                other.length,
                MremapFlags::MAYMOVE,
                self.base.cast(),
            )?;
        }
        std::mem::forget(other);
        Ok(())
    }

    /// Moves the page tables of the first `spare.length` bytes to `spare`,
    /// which then shows the same memory. These addresses stay mapped too, so
    /// that nothing else can come to lie there. `None` on a kernel that cannot
    /// do that with shared memory (before 5.13).
    pub(crate) fn set_aside(&self, spare: Self) -> Option<Self> {
        if spare.length > self.length {
            return None;
        }
        // SAFETY: both ranges belong to their values, and what this one shows
        // stays the same.
        let moved = unsafe {
            rustix::mm::mremap_fixed(
                self.base.cast(),
                spare.length,
                spare.length,
                MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
                spare.base.cast(),
            )
        };
        moved.ok().map(|_| spare)
    }

    /// Has the memory of what is mapped come from NUMA node `node` (below 64).
    pub(crate) fn bind(&self, node: u32) -> io::Result<()> {
        let mask = 1u64 << node;
        // SAFETY: sets a policy for this value's own range; the mask is read
        // during the call only, and 64 bits of it exist. The kernel counts one
        // bit less than it is told.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.base,
                self.length,
                libc::MPOL_BIND,
                &raw const mask,
                u64::BITS + 1,
                0,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Makes every byte zero. All of it is mapped, and nobody else uses it.
    pub(crate) fn clear(&self) {
        // SAFETY: this value's own range, mapped for writing by the caller's
        // promise, of which no references exist.
        unsafe { self.base.write_bytes(0, self.length) };
    }

    /// Makes everything in it inaccessible.
    #[cfg(test)]
    pub(crate) fn revoke(&self) {
        self.hide(0, self.length).unwrap();
    }

    /// Makes `length` bytes from `at` inaccessible. The addresses stay
    /// reserved: nothing else can come to lie there.
    pub(crate) fn hide(&self, at: usize, length: usize) -> io::Result<()> {
        self.check(at, length)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: replaces pages of this value's own.
        unsafe {
            let start = self.base.add(at).cast();
            rustix::mm::mmap_anonymous(start, length, ProtFlags::empty(), flags)?;
        }
        Ok(())
    }

    /// Gives the memory behind `length` bytes from `at` back to the host; they
    /// read as zero then, here and in every other mapping of the file.
    pub(crate) fn discard(&self, at: usize, length: usize) -> io::Result<()> {
        fault::check(Point::Punch)?;
        self.check(at, length)?;
        // SAFETY: inside this value's range, which is shared memory whose
        // content anybody may change at any time.
        unsafe {
            let start = self.base.add(at).cast();
            Ok(rustix::mm::madvise(start, length, Advice::LinuxRemove)?)
        }
    }

    fn check(&self, at: usize, length: usize) -> io::Result<()> {
        match at.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Brings in the pages of `length` bytes from `offset` for writing (which
    /// allocates them) or only for reading. A kernel that cannot (before 5.14)
    /// leaves it to the first touch.
    pub(crate) fn populate(&self, offset: usize, length: usize, write: bool) -> io::Result<()> {
        fault::check(Point::Populate)?;
        self.check(offset, length)?;
        let advice = if write { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        // SAFETY: inside this value's range; populating changes no content.
        match unsafe { rustix::mm::madvise(self.base.add(offset).cast(), length, advice) } {
            Err(rustix::io::Errno::INVAL) => Ok(()),
            result => Ok(result?),
        }
    }

    /// For each page of `part`, whether it surely has content: set in the
    /// lowest bit. Those that were swapped out are missing.
    pub(crate) fn resident(&self, part: &Range<usize>) -> io::Result<Vec<u8>> {
        self.check(part.start, part.len())?;
        let mut pages = vec![0; part.len().div_ceil(PAGE_SIZE as usize)];
        // SAFETY: asks about this value's own range; the vector has a byte for
        // each of its pages.
        let start = unsafe { self.base.add(part.start) };
        // SAFETY: as above.
        match unsafe { libc::mincore(start.cast(), part.len(), pages.as_mut_ptr()) } {
            0 => Ok(pages),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The first byte.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Bytes of address space.
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own, and whoever lent out pointers
        // into it keeps the value alive as long as they are used.
        unsafe { unmap(self.base, self.length) };
    }
}

/// # Safety
/// The range was mapped by this module and is used by nobody any more.
unsafe fn unmap(base: *mut u8, length: usize) {
    if length > 0 {
        // Fails only when splitting a mapping exceeds the host's limit of
        // mappings: then the addresses stay reserved, which harms nobody.
        // SAFETY: the caller's promise.
        let _ = unsafe { rustix::mm::munmap(base.cast(), length) };
    }
}

//! Transfers between a file and buffers that a guest may change meanwhile.
//!
//! The only unsafe code of this crate. Rust's slices must not be made of guest
//! storage, which vCPUs write at the same time; the kernel is given the raw
//! addresses instead.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};

use vm_memory::{GuestMemory, GuestMemoryError, Permissions, VolatileMemory, VolatileSlice};

use crate::access::{GuestAccess, Marks};
use crate::chain::Segment;

/// Bytes of a page of the host.
const PAGE_SIZE: usize = 4096;
/// How often one transfer waits for storage that is moving: once for each
/// chunk that it touches, and for those that follow in its way.
const MAX_FAULTS: u32 = 10_000;

/// Buffers of one transfer, in order, in guest storage or the host's own.
#[derive(Default)]
pub struct Buffers<'a> {
    slices: Vec<VolatileSlice<'a>>,
    length: u64,
    /// Dropped with the buffers: the transfer has ended then.
    marks: Vec<Marks<'a>>,
}

impl fmt::Debug for Buffers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("slices", &self.slices).finish_non_exhaustive()
    }
}

impl<'a> Buffers<'a> {
    /// The buffers that `segments` name, about to be written (a disk read) or
    /// read (a disk write) as `access_kind` says.
    pub(super) fn of_guest(
        access: &'a GuestAccess,
        segments: &[Segment],
        access_kind: Permissions,
    ) -> Result<Self, GuestMemoryError> {
        let mut buffers = Self::default();
        for segment in segments {
            let length = segment.length as usize;
            for slice in access.get_slices(segment.address, length, access_kind)? {
                buffers.push(slice?);
            }
            buffers.marks.push(access.mark(segment.address, length as u64, access_kind));
        }
        Ok(buffers)
    }

    /// One buffer of the host's.
    #[must_use]
    pub fn of_host(bytes: &'a mut [u8]) -> Self {
        let mut buffers = Self::default();
        buffers.push(VolatileSlice::from(bytes));
        buffers
    }

    fn push(&mut self, slice: VolatileSlice<'a>) {
        if !slice.is_empty() {
            self.length += slice.len() as u64;
            self.slices.push(slice);
        }
    }

    /// Bytes of all buffers.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The `count` bytes from `start` on; fewer if there are not as many.
    #[must_use]
    pub fn part(&self, start: u64, count: u64) -> Self {
        let mut part = Self::default();
        let (mut skip, mut left) = (start, count);
        for slice in &self.slices {
            let length = slice.len() as u64;
            if skip >= length {
                skip -= length;
                continue;
            }
            let take = left.min(length - skip);
            // In range by the two lines above; `skip` and `take` are below
            // `length`, a usize.
            if let Ok(piece) = slice.subslice(skip as usize, take as usize) {
                part.push(piece);
            }
            skip = 0;
            left -= take;
            if left == 0 {
                break;
            }
        }
        part
    }

    /// Stores into every page, without changing anything: a store waits for
    /// storage that cannot be written just now.
    fn store_in_place(&self) {
        for slice in &self.slices {
            let page = PAGE_SIZE - slice.ptr_guard().as_ptr().addr() % PAGE_SIZE;
            let offsets = std::iter::once(0).chain((page..slice.len()).step_by(PAGE_SIZE));
            for cell in offsets.filter_map(|offset| slice.get_atomic_ref::<AtomicU8>(offset).ok()) {
                let value = cell.load(Ordering::Relaxed);
                // If it fails, somebody else has stored there.
                let _ = cell.compare_exchange(value, value, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Sets every byte to zero.
    pub fn clear(&self) {
        const ZEROS: [u8; 4096] = [0; 4096];
        for slice in &self.slices {
            let mut rest = *slice;
            while !rest.is_empty() {
                rest.copy_from(&ZEROS);
                match rest.offset(rest.len().min(ZEROS.len())) {
                    Ok(next) => rest = next,
                    Err(_) => break,
                }
            }
        }
    }

    /// Copies everything into `target`, as far as it reaches.
    pub fn copy_to(&self, target: &mut [u8]) {
        let mut rest = target;
        for slice in &self.slices {
            let count = slice.copy_to(rest);
            rest = &mut rest[count..];
        }
    }

    /// Fills the buffers from `source`, as far as it reaches.
    pub fn copy_from(&self, source: &[u8]) {
        let mut rest = source;
        for slice in &self.slices {
            slice.copy_from(rest);
            rest = rest.get(slice.len()..).unwrap_or(&[]);
        }
    }
}

/// Which way a transfer goes.
#[derive(Clone, Copy)]
enum Direction {
    FromFile,
    ToFile,
}

/// Reads from `file` at `offset` until the buffers are full or the file ends;
/// returns how many bytes were read.
pub(super) fn read(file: &File, offset: u64, buffers: &Buffers<'_>) -> io::Result<u64> {
    transfer(file, offset, buffers, Direction::FromFile)
}

/// Writes all of the buffers to `file` at `offset`.
pub(super) fn write(file: &File, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
    let done = transfer(file, offset, buffers, Direction::ToFile)?;
    if done == buffers.length() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn transfer(
    file: &File,
    offset: u64,
    buffers: &Buffers<'_>,
    direction: Direction,
) -> io::Result<u64> {
    let (mut done, mut faults) = (0, 0);
    while done < buffers.length() {
        let rest = buffers.part(done, u64::MAX);
        let at = offset.checked_add(done).and_then(|at| i64::try_from(at).ok());
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        match transfer_once(file, at, &rest.slices, direction) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The guest's storage is moving, and the kernel does not wait for
            // the chunk in flight as a store does.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) && faults < MAX_FAULTS => {
                faults += 1;
                rest.store_in_place();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn transfer_once(
    file: &File,
    at: i64,
    slices: &[VolatileSlice<'_>],
    direction: Direction,
) -> io::Result<u64> {
    // The guards keep whatever makes the pointers valid until the call is over.
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let vectors: Vec<libc::iovec> = guards
        .iter()
        .take(libc::UIO_MAXIOV as usize)
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
        .collect();
    let count = libc::c_int::try_from(vectors.len()).unwrap_or(libc::UIO_MAXIOV);
    let (fd, vectors) = (file.as_raw_fd(), vectors.as_ptr());
    let done = match direction {
        // SAFETY: `fd` is open as long as `file` is borrowed. Each of the
        // `count` vectors names memory that its VolatileSlice guarantees valid
        // for reads and writes of its length while the slice and its guard
        // live, which both outlive the call. Others may access that memory at
        // the same time; no Rust reference to it exists, and the kernel copies
        // bytes without giving them a meaning.
        Direction::FromFile => unsafe { libc::preadv64(fd, vectors, count, at) },
        // SAFETY: as above; the memory is only read.
        Direction::ToFile => unsafe { libc::pwritev64(fd, vectors, count, at) },
    };
    u64::try_from(done).map_err(|_| io::Error::last_os_error())
}

//! A partition's storage kept in a file: other partitions begin as copies of
//! it, and are made the same again by putting back only what was written since.
//!
//! The file: the storage, page by page, with a hole for every page that is
//! zero; behind it one byte per page, its storage key.
//!
//! What was written since is told by the host's own bit of each storage key
//! ([`StorageKey::DIRTY`]), which vCPUs and I/O processors set with the change
//! bit and no guest can clear.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use main_storage::{PAGE_SIZE, StorageKey, StorageRange};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::mapping::Mapping;
use crate::runs;
use crate::window::{MapError, StorageWindow, inside};

/// Pages of a copy that one thread makes at once: 2 MiB, as huge pages have them.
const PART: usize = 512;

/// Why storage could not be captured, copied or put back.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The window is being moved or changes its size.
    #[error("the partition's storage is being moved; try again when that has ended")]
    Busy,
    /// The files are not those of the window. The host is to blame.
    #[error("the files are not those of the partition's storage")]
    Files(#[from] MapError),
    /// The capture is one of another size, or was cut off.
    #[error(
        "the capture has {found} bytes, and one of this partition's storage has {expected}; remove it to have it made again"
    )]
    Length {
        /// Bytes of the file.
        found: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// The host could not read or write.
    #[error("the capture cannot be read or written")]
    Io(#[from] io::Error),
}

/// What a partition's storage and keys were at one moment.
#[derive(Debug)]
pub struct Capture {
    pages: Mapping,
    /// Pages that are not zero, ascending.
    data: Vec<Range<u64>>,
    /// A key for each page, without the host's own bit.
    keys: Vec<u8>,
}

/// What was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutBack {
    /// Pages that had been written and were given their content back.
    pub copied: u64,
    /// Pages that had been written and are zero again.
    pub cleared: u64,
}

impl StorageWindow {
    /// Writes contents and keys to `target`, an empty file, and returns how many
    /// bytes are not zero. Nobody uses the storage meanwhile: no vCPU is in the
    /// guest and every I/O processor is idle. The files are those of main storage
    /// and its keys.
    ///
    /// # Errors
    /// [`CaptureError`]; the file is then of no use.
    pub fn capture(
        self: &Arc<Self>,
        storage: BorrowedFd<'_>,
        keys: BorrowedFd<'_>,
        target: &File,
    ) -> Result<u64, CaptureError> {
        let _claim = Claim::of(self)?;
        let size = self.size();
        let range = StorageRange::new(self.origin(), size).map_err(io::Error::other)?;
        inside(storage, keys, range)?;
        let pages = range.pages();
        target.set_len(size + pages)?;
        let mut bytes = 0;
        let runs = runs::runs_mapped(storage, range, &self.storage, 0..pages)?;
        for page in runs.into_iter().filter(|run| run.data).flat_map(|run| run.pages) {
            let offset = page * PAGE_SIZE;
            // SAFETY: a page of the window, which nobody changes meanwhile.
            let (content, zero) = unsafe {
                let first = self.storage.base().add(offset as usize);
                let content = std::slice::from_raw_parts(first, PAGE_SIZE as usize);
                (content, runs::is_zero(first))
            };
            if !zero {
                target.write_all_at(content, offset)?;
                bytes += PAGE_SIZE;
            }
        }
        let key = |page| StorageKey::from_byte(self.key_cell(page).load(Ordering::SeqCst)).byte();
        let keys: Vec<u8> = (0..pages as usize).map(key).collect();
        target.write_all_at(&keys, size)?;
        target.sync_all()?;
        Ok(bytes)
    }
}

impl Capture {
    /// Opens a capture of `size` bytes of storage. The file is only read, and
    /// must not change as long as this value lives.
    ///
    /// # Errors
    /// [`CaptureError::Length`] or [`CaptureError::Io`].
    pub fn open(file: &File, size: u64) -> Result<Self, CaptureError> {
        let found = file.metadata()?.len();
        let pages = size / PAGE_SIZE;
        let expected = size.saturating_add(pages);
        if found != expected {
            return Err(CaptureError::Length { found, expected });
        }
        let length = usize::try_from(size).map_err(io::Error::other)?;
        let mut keys = vec![0; length / PAGE_SIZE as usize];
        file.read_exact_at(&mut keys, size)?;
        keys.iter_mut().for_each(|key| *key = StorageKey::from_byte(*key).byte());
        let pages = Mapping::to_read(file.as_fd(), length)?;
        Ok(Self { pages, data: data_of(file, size)?, keys })
    }

    /// Bytes that are not zero.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.data.iter().map(|pages| pages.end - pages.start).sum::<u64>() * PAGE_SIZE
    }

    /// Makes a window that is nothing but holes a copy. Nobody uses it yet. The
    /// file is that of main storage.
    ///
    /// # Errors
    /// [`CaptureError`]; the window may be a part of a copy then.
    pub fn fill(
        &self,
        storage: BorrowedFd<'_>,
        window: &StorageWindow,
    ) -> Result<(), CaptureError> {
        let _claim = self.claim(window)?;
        let (parts, next) = (self.parts(), AtomicUsize::new(0));
        let fill = || {
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.fill_part(storage, window, part)?;
            }
            Ok::<(), io::Error>(())
        };
        // The kernel finds room for pages faster on two CPUs than on one.
        std::thread::scope(|scope| {
            let second = std::thread::Builder::new().spawn_scoped(scope, fill);
            let first = fill();
            // Without a second thread the first has done it all.
            let second = second
                .map_or(Ok(()), |second| second.join().unwrap_or_else(|why| resume_unwind(why)));
            first.and(second)
        })?;
        for (page, key) in self.keys.iter().enumerate() {
            // A key that is written makes its page of keys cost memory.
            if *key != 0 {
                window.key_cell(page).store(*key, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Makes a window that was filled from this capture the same again: gives
    /// the pages written since their content back, and every page its key.
    /// Nobody uses the storage meanwhile, and every vCPU forgets its
    /// translations before it does, since it marks a page only at the first
    /// store through a translation.
    ///
    /// # Errors
    /// [`CaptureError`]; the storage is then as it was.
    pub fn put_back(&self, window: &StorageWindow) -> Result<PutBack, CaptureError> {
        let claim = self.claim(window)?;
        let mut done = PutBack::default();
        let mut zero: Vec<Range<u64>> = Vec::new();
        let mut data = self.data.iter().peekable();
        for (page, key) in self.keys.iter().enumerate() {
            let cell = window.key_cell(page);
            let now = cell.load(Ordering::SeqCst);
            if now == *key {
                continue;
            }
            if now & StorageKey::DIRTY != 0 {
                let number = page as u64;
                while data.next_if(|pages| pages.end <= number).is_some() {}
                if data.peek().is_some_and(|pages| pages.contains(&number)) {
                    self.copy(window, page * PAGE_SIZE as usize, PAGE_SIZE as usize);
                    done.copied += 1;
                } else {
                    match zero.last_mut() {
                        Some(last) if last.end == number => last.end += 1,
                        _ => zero.push(number..number + 1),
                    }
                    done.cleared += 1;
                }
            }
            cell.store(*key, Ordering::SeqCst);
        }
        // Pages are given back only while no move can begin, by the window's own
        // rules.
        drop(claim);
        for pages in zero {
            let (start, end) = (pages.start * PAGE_SIZE, pages.end * PAGE_SIZE);
            window.empty(start as usize, (end - start) as usize);
        }
        Ok(done)
    }

    /// All that is not zero, in parts of at most [`PART`] pages.
    fn parts(&self) -> Vec<Range<u64>> {
        let parts = |pages: &Range<u64>| {
            let end = pages.end;
            pages.clone().step_by(PART).map(move |start| start..end.min(start + PART as u64))
        };
        self.data.iter().flat_map(parts).collect()
    }

    fn fill_part(
        &self,
        storage: BorrowedFd<'_>,
        window: &StorageWindow,
        pages: &Range<u64>,
    ) -> io::Result<()> {
        let (start, end) = (pages.start * PAGE_SIZE, pages.end * PAGE_SIZE);
        let (at, length) = (start as usize, (end - start) as usize);
        // Half the time that it takes by the mapping: no page is made zero before
        // it is written, and the guest's first touch maps many at once.
        if !self.write(storage, window.origin() + start, at, length)? {
            window.storage.populate(at, length, true)?;
            self.copy(window, at, length);
        }
        Ok(())
    }

    fn claim<'a>(&self, window: &'a StorageWindow) -> Result<Claim<'a>, CaptureError> {
        let (found, expected) = (window.size(), self.pages.length() as u64);
        if found != expected {
            return Err(CaptureError::Length { found: expected, expected: found });
        }
        Claim::of(window)
    }

    /// Writes a part of the capture to the file of main storage; false if it is of
    /// a kind that can be mapped only (huge pages, devices).
    fn write(
        &self,
        storage: BorrowedFd<'_>,
        mut offset: u64,
        at: usize,
        length: usize,
    ) -> io::Result<bool> {
        // SAFETY: inside the mapping, whose file does not change.
        let content = unsafe { std::slice::from_raw_parts(self.pages.base().add(at), length) };
        let mut left = content;
        while !left.is_empty() {
            match rustix::io::pwrite(storage, left, offset) {
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if left.len() == length => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                written => {
                    let written = written?;
                    left = left.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
            }
        }
        Ok(true)
    }

    fn copy(&self, window: &StorageWindow, at: usize, length: usize) {
        // SAFETY: inside both mappings, which are of one size and apart; by the
        // callers' contracts nobody uses the window's bytes.
        unsafe {
            let (from, to) = (self.pages.base().add(at), window.storage.base().add(at));
            std::ptr::copy_nonoverlapping(from.cast_const(), to, length);
        }
    }
}

/// The right to change a window's content, or its place.
struct Claim<'a>(&'a StorageWindow);

impl<'a> Claim<'a> {
    fn of(window: &'a StorageWindow) -> Result<Self, CaptureError> {
        if window.claim() { Ok(Self(window)) } else { Err(CaptureError::Busy) }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// The pages of `file`'s first `size` bytes that are not holes.
fn data_of(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < size => start / PAGE_SIZE,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(start * PAGE_SIZE))?;
        let end = hole.min(size).div_ceil(PAGE_SIZE).max(start + 1);
        all.push(start..end);
        at = end * PAGE_SIZE;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backing, MainStorage};
    use proptest::prelude::*;

    const M: u64 = 1 << 20;
    const BASE: u64 = 0x8000_0000;
    const PAGES: usize = (2 * M / PAGE_SIZE) as usize;

    fn window(main: &MainStorage, origin: u64) -> Arc<StorageWindow> {
        let range = StorageRange::new(origin * M, 2 * M).unwrap();
        StorageWindow::map(main.storage_fd(), main.keys_fd(), range, BASE, 2 * M).unwrap()
    }

    /// As a vCPU stores, with all the bits it sets.
    fn store(window: &StorageWindow, page: usize, byte: u8) {
        // SAFETY: a page of the window, which is this test's alone.
        unsafe { window.host_base().add(page * PAGE_SIZE as usize + 7).write(byte) };
        window.key_cell(page).fetch_or(0x07, Ordering::SeqCst);
    }

    fn content(window: &StorageWindow) -> (Vec<u8>, Vec<u8>) {
        // SAFETY: all of the window, which is this test's alone.
        let bytes = unsafe { std::slice::from_raw_parts(window.host_base(), 2 * M as usize) };
        let keys = (0..PAGES).map(|page| window.key_cell(page).load(Ordering::SeqCst));
        (bytes.to_vec(), keys.collect())
    }

    fn captured(main: &MainStorage, window: &Arc<StorageWindow>) -> (File, Capture) {
        let file = tempfile::tempfile().unwrap();
        window.capture(main.storage_fd(), main.keys_fd(), &file).unwrap();
        let capture = Capture::open(&file, 2 * M).unwrap();
        (file, capture)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_copy_is_the_same_again_whatever_was_done_to_it(
            before in prop::collection::vec((0..PAGES, any::<u8>()), 0..40),
            after in prop::collection::vec((0..PAGES, any::<u8>(), any::<u8>()), 0..40),
        ) {
            let main = MainStorage::create(4 * M, Backing::Memfd).unwrap();
            let original = window(&main, 0);
            for (page, byte) in before {
                store(&original, page, byte);
            }
            let (_file, capture) = captured(&main, &original);
            let copy = window(&main, 2);
            capture.fill(main.storage_fd(), &copy).unwrap();
            let as_captured = content(&copy);
            prop_assert_eq!(&as_captured.0, &content(&original).0);
            prop_assert!(as_captured.1.iter().all(|key| key & StorageKey::DIRTY == 0));
            for (page, byte, key) in after {
                store(&copy, page, byte);
                // What a guest can do to a key leaves the host's bit alone.
                copy.key_cell(page).store(key & 0xfe | StorageKey::DIRTY, Ordering::SeqCst);
            }
            capture.put_back(&copy).unwrap();
            prop_assert!(content(&copy) == as_captured);
        }
    }

    #[test]
    fn what_is_cleared_costs_nothing_and_what_was_not_written_is_not_copied() {
        let main = MainStorage::create(4 * M, Backing::Memfd).unwrap();
        let original = window(&main, 0);
        store(&original, 3, 1);
        let (_file, capture) = captured(&main, &original);
        assert_eq!(capture.bytes(), PAGE_SIZE);
        let copy = window(&main, 2);
        let range = StorageRange::new(2 * M, 2 * M).unwrap();
        capture.fill(main.storage_fd(), &copy).unwrap();
        assert_eq!(main.resident(range).unwrap(), PAGE_SIZE);
        store(&copy, 3, 2);
        store(&copy, 9, 2);
        let done = capture.put_back(&copy).unwrap();
        assert_eq!(done, PutBack { copied: 1, cleared: 1 });
        assert_eq!(main.resident(range).unwrap(), PAGE_SIZE);
        assert_eq!(capture.put_back(&copy).unwrap(), PutBack::default());
    }

    #[test]
    fn storage_that_can_be_mapped_only_is_filled_too() {
        let main = MainStorage::create(4 * M, Backing::Memfd).unwrap();
        let original = window(&main, 0);
        store(&original, 3, 1);
        let (_file, capture) = captured(&main, &original);
        let copy = window(&main, 2);
        // There need be no such pages: nothing is stored in this file.
        let flags = rustix::fs::MemfdFlags::HUGETLB | rustix::fs::MemfdFlags::HUGE_2MB;
        let huge = rustix::fs::memfd_create("huge", flags).unwrap();
        capture.fill(huge.as_fd(), &copy).unwrap();
        assert!(content(&copy).0 == content(&original).0);
    }

    #[test]
    fn a_capture_of_another_size_or_cut_off_is_refused() {
        let main = MainStorage::create(4 * M, Backing::Memfd).unwrap();
        let (file, _) = captured(&main, &window(&main, 0));
        assert!(matches!(Capture::open(&file, M), Err(CaptureError::Length { .. })));
        file.set_len(100).unwrap();
        assert!(matches!(Capture::open(&file, 2 * M), Err(CaptureError::Length { .. })));
    }
}

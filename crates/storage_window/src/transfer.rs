//! The copy itself: page by page, key by key.

use std::ops::{ControlFlow, Range};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use main_storage::{Direction, MovePlan, PAGE_SIZE, PAGES_PER_BLOCK};

use crate::copy_page::{self, CopyPage, FOUR};
use crate::runs::Run;
use crate::storage::{give_back, key_offset};

/// One range of main storage and its keys as mapped in this process.
#[derive(Clone, Copy)]
pub(crate) struct View {
    /// Its first byte.
    pub(crate) storage: *mut u8,
    /// Its first page's key.
    pub(crate) keys: *mut u8,
}

impl View {
    /// # Safety
    /// `page` is a page of the view, mapped as long as the pointer is used.
    unsafe fn page(self, page: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.storage.add(page * PAGE_SIZE as usize) }
    }

    /// # Safety
    /// As for [`View::page`].
    unsafe fn key<'a>(self, page: usize) -> &'a AtomicU8 {
        // SAFETY: every page of a view has a key; keys are only ever atomics.
        unsafe { AtomicU8::from_ptr(self.keys.add(key_offset(page))) }
    }
}

/// What one transfer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// The pages that are at the destination, counted from the range's start.
    pub(crate) pages: Range<u64>,
    /// Bytes that were copied (holes are not).
    pub(crate) bytes: u64,
    /// Whether all wanted pages are there.
    pub(crate) complete: bool,
}

/// A copy from one range to another that may overlap it.
pub(crate) struct Transfer<'a> {
    /// From where, to where, in which order.
    pub(crate) plan: MovePlan,
    /// `plan.from()` as mapped here.
    pub(crate) from: View,
    /// `plan.to()` as mapped here.
    pub(crate) to: View,
    /// The file of main storage.
    pub(crate) file: BorrowedFd<'a>,
    /// The destination may have content outside the overlap too.
    pub(crate) stale: bool,
}

impl Transfer<'_> {
    /// Copies those pages of `runs` that are in `pages` and their keys, in the
    /// plan's order. `progress` hears after each block how many pages are
    /// done; when it breaks, the transfer ends there.
    ///
    /// # Safety
    /// Both views are mapped for the whole of their ranges, for writing, and
    /// `runs` lie within them. Nobody relies on the destination's content.
    pub(crate) unsafe fn run(
        &self,
        runs: &[Run],
        pages: Range<u64>,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Done {
        // SAFETY: the caller's promise.
        unsafe { self.run_with::<true>(runs, pages, progress) }
    }

    /// The same, but for the keys.
    ///
    /// # Safety
    /// As for [`Transfer::run`].
    pub(crate) unsafe fn run_without_keys(
        &self,
        runs: &[Run],
        pages: Range<u64>,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Done {
        // SAFETY: the caller's promise.
        unsafe { self.run_with::<false>(runs, pages, progress) }
    }

    /// Copies the keys of `pages` only, in the plan's order.
    ///
    /// # Safety
    /// As for [`Transfer::run`].
    pub(crate) unsafe fn run_keys(&self, pages: Range<u64>) {
        self.in_order(pages, |page| {
            // SAFETY: mapped by the caller's promise.
            unsafe { self.copy_key(page as usize) };
        });
    }

    /// # Safety
    /// As for [`Transfer::run`].
    unsafe fn run_with<const KEYS: bool>(
        &self,
        runs: &[Run],
        pages: Range<u64>,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Done {
        let direction = self.plan.direction();
        let copy = Copy { one: copy_page::fastest(direction), four: copy_page::four() };
        let mut count = 0;
        let mut bytes = 0;
        let mut complete = true;
        let next = |index: usize| match direction {
            Direction::Up => runs.get(index),
            Direction::Down => runs.get(runs.len().checked_sub(index + 1)?),
        };
        'runs: for index in 0.. {
            let Some(run) = next(index) else { break };
            let mut rest = run.pages.start.max(pages.start)..run.pages.end.min(pages.end);
            while !rest.is_empty() {
                let piece = if run.data { cut(&mut rest, direction) } else { take(&mut rest) };
                count += piece.end - piece.start;
                // SAFETY: the caller's promise; the piece is part of a run.
                unsafe {
                    if run.data {
                        bytes += (piece.end - piece.start) * PAGE_SIZE;
                        self.copy::<KEYS>(piece, copy);
                    } else {
                        self.clear::<KEYS>(piece);
                    }
                }
                if progress(count).is_break() {
                    complete = false;
                    break 'runs;
                }
            }
        }
        copy_page::finish();
        let pages = match direction {
            Direction::Up => pages.start..pages.start + count,
            Direction::Down => pages.end - count..pages.end,
        };
        Done { pages, bytes, complete }
    }

    /// Copies pages and their keys.
    ///
    /// # Safety
    /// As for [`Transfer::run`]; `pages` lie within the views.
    unsafe fn copy<const KEYS: bool>(&self, mut pages: Range<u64>, copy: Copy) {
        if KEYS {
            // SAFETY: the caller's promise.
            unsafe { self.run_keys(pages.clone()) };
        }
        let step = |page: u64, copy: CopyPage| {
            // SAFETY: mapped by the caller's promise. Source and destination
            // are blocks apart in main storage, so no page of up to four is both.
            unsafe { copy(self.from.page(page as usize), self.to.page(page as usize)) };
        };
        if let Some(four) = copy.four {
            while pages.end - pages.start >= FOUR {
                step(take_four(&mut pages, self.plan.direction()), four);
            }
        }
        self.in_order(pages, |page| step(page, copy.one));
    }

    /// The same for pages without content: the destination becomes a hole.
    ///
    /// # Safety
    /// As for [`Transfer::copy`].
    unsafe fn clear<const KEYS: bool>(&self, pages: Range<u64>) {
        if KEYS {
            // SAFETY: the caller's promise.
            unsafe { self.run_keys(pages.clone()) };
        }
        // Outside the old range the destination was a hole, or zero, before.
        let with_content = if self.stale { Some(self.plan.to()) } else { self.plan.overlap() };
        let Some(overlap) = with_content else { return };
        let to = self.plan.to().origin();
        let start = (to + pages.start * PAGE_SIZE).max(overlap.origin());
        let end = (to + pages.end * PAGE_SIZE).min(overlap.end());
        if start < end && give_back(self.file, start, end - start).is_err() {
            // What cannot be given back can still be made zero.
            // SAFETY: part of the destination, mapped by the caller's promise.
            unsafe {
                let first = self.to.storage.add((start - to) as usize);
                std::ptr::write_bytes(first, 0, (end - start) as usize);
            }
        }
    }

    /// # Safety
    /// As for [`Transfer::copy`].
    unsafe fn copy_key(&self, page: usize) {
        // SAFETY: mapped by the caller's promise.
        unsafe {
            let key = self.from.key(page).load(Ordering::Relaxed);
            let cell = self.to.key(page);
            // Most keys of untouched pages are zero on both sides already.
            if cell.load(Ordering::Relaxed) != key {
                cell.store(key, Ordering::Relaxed);
            }
        }
    }

    fn in_order(&self, pages: Range<u64>, step: impl FnMut(u64)) {
        match self.plan.direction() {
            Direction::Up => pages.for_each(step),
            Direction::Down => pages.rev().for_each(step),
        }
    }
}

/// How pages are copied: one, and four at once where that is faster.
#[derive(Clone, Copy)]
struct Copy {
    one: CopyPage,
    four: Option<CopyPage>,
}

/// Cuts four pages off the end that comes first; the lowest of them.
fn take_four(pages: &mut Range<u64>, direction: Direction) -> u64 {
    match direction {
        Direction::Up => {
            pages.start += FOUR;
            pages.start - FOUR
        }
        Direction::Down => {
            pages.end -= FOUR;
            pages.end
        }
    }
}

/// Cuts at most one block's worth of pages off the end that comes first.
fn cut(rest: &mut Range<u64>, direction: Direction) -> Range<u64> {
    let count = (rest.end - rest.start).min(PAGES_PER_BLOCK);
    match direction {
        Direction::Up => {
            rest.start += count;
            rest.start - count..rest.start
        }
        Direction::Down => {
            rest.end -= count;
            rest.end..rest.end + count
        }
    }
}

fn take(rest: &mut Range<u64>) -> Range<u64> {
    std::mem::replace(rest, 0..0)
}

//! Two partitions change places while both guests are stopped.
//!
//! ```text
//! Exchange::prepare --run()--> ExchangeReport        one process, for both
//! window.prepare_adoption() -> Adoption --adopt()    each partition's process
//! ```
//!
//! Pages and keys are swapped one by one through a bounce buffer of one page,
//! so that no third range is needed. How far that is stands in the [`Record`],
//! memory that both partitions' processes share: if the one that swaps is
//! killed in the middle, the other goes on from there, and its guest loses
//! nothing. Every step can be done again, because what it reads is overwritten
//! only by a later one.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use main_storage::{ExchangePlan, ExchangeStep, PAGE_SIZE, StorageRange};

use crate::backing;
use crate::copy_page;
use crate::fault::{self, Point};
use crate::mapping::Mapping;
use crate::relocate::{RelocateError, nanos};
use crate::runs::{self, Run};
use crate::storage::{give_back, key_offset, keys_of};
use crate::window::{MapError, inside};

/// Phases of an exchange, as the record says them.
const BEGUN: u64 = 1;
const SWAPPED: u64 = 2;
const DONE: u64 = 3;

/// Offsets in the record.
const PHASE: usize = 0;
const STEPS: usize = 8;
const BOUNCE_KEY: usize = 16;
const BOUNCE: usize = PAGE_SIZE as usize;
const CONTENT: usize = 2 * PAGE_SIZE as usize;

/// What an exchange did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExchangeReport {
    /// Bytes of pages with content that were moved.
    pub bytes: u64,
    /// Nanoseconds for finding and swapping pages.
    pub nanos: u64,
}

/// An exchange, mapped and ready. Holds both partitions' storage mapped for as
/// long as it lives.
pub struct Exchange {
    plan: ExchangePlan,
    file: OwnedFd,
    // The two ranges before, then what the two ranges after have beside them.
    places: Vec<Place>,
    record: Mapping,
    // Of each side: pages that were holes before `prepare` brought them in.
    holes: [Vec<Range<u64>>; 2],
}

struct Place {
    range: StorageRange,
    storage: Mapping,
    keys: Mapping,
}

impl Place {
    fn map(
        storage: BorrowedFd<'_>,
        keys: BorrowedFd<'_>,
        range: StorageRange,
    ) -> Result<Self, RelocateError> {
        inside(storage, keys, range)?;
        let (offset, length) = keys_of(range);
        let host = MapError::Host;
        let storage = Mapping::of_file(storage, range.origin(), range.size() as usize);
        let keys = Mapping::of_file(keys, offset, length as usize);
        Ok(Self { range, storage: storage.map_err(host)?, keys: keys.map_err(host)? })
    }
}

/// A page and its key in this process.
#[derive(Clone, Copy)]
struct Page<'a> {
    storage: *mut u8,
    key: &'a AtomicU8,
}

impl Exchange {
    /// The file that an exchange's record is, made by whoever orders it.
    ///
    /// # Errors
    /// When the host refuses the memory.
    pub fn record(plan: &ExchangePlan) -> io::Result<OwnedFd> {
        let flags = rustix::fs::MemfdFlags::empty();
        backing::memfd("berth-exchange", record_size(plan), flags, false)
    }

    /// Maps everything and brings in the pages that will be needed. The guests
    /// may run. The caller has made sure, by the resource manager, that all
    /// four ranges are the two partitions'.
    ///
    /// # Errors
    /// [`RelocateError`]; nothing has happened then.
    pub fn prepare(
        storage: BorrowedFd<'_>,
        keys: BorrowedFd<'_>,
        record: BorrowedFd<'_>,
        plan: ExchangePlan,
    ) -> Result<Self, RelocateError> {
        let length = rustix::fs::fstat(record).map_err(|error| MapError::Host(error.into()))?;
        if u64::try_from(length.st_size) != Ok(record_size(&plan)) {
            return Err(MapError::Host(io::ErrorKind::InvalidInput.into()).into());
        }
        let record = Mapping::of_file(record, 0, record_size(&plan) as usize);
        let (a, b) = (plan.a(), plan.b());
        let beyond = [a.to(), b.to()].into_iter().flat_map(|to| {
            let without_b = move |part: StorageRange| part.without(b.from());
            to.without(a.from()).flat_map(without_b)
        });
        let ranges = [a.from(), b.from()].into_iter().chain(beyond);
        let places = ranges.map(|range| Place::map(storage, keys, range));
        let mut exchange = Self {
            plan,
            holes: [Vec::new(), Vec::new()],
            file: storage.try_clone_to_owned().map_err(MapError::Host)?,
            places: places.collect::<Result<_, _>>()?,
            record: record.map_err(MapError::Host)?,
        };
        // Whoever takes over is in a hurry, and may come when all is done.
        if !exchange.begun() {
            exchange.populate()?;
        }
        Ok(exchange)
    }

    /// Whether something was swapped already: then the exchange can only be
    /// finished.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.word(PHASE).load(Ordering::Acquire) != 0
    }

    /// Swaps everything, or what is left to swap. Both guests are stopped and
    /// all their I/O processors idle.
    ///
    /// # Errors
    /// [`RelocateError::Scan`]: nothing has happened.
    pub fn run(&self) -> Result<ExchangeReport, RelocateError> {
        let started = Instant::now();
        let phase = self.word(PHASE);
        if phase.load(Ordering::Acquire) == 0 {
            self.note_content()?;
            phase.store(BEGUN, Ordering::Release);
        }
        if phase.load(Ordering::Acquire) == BEGUN {
            self.swap().map_err(RelocateError::Remap)?;
            phase.store(SWAPPED, Ordering::Release);
        }
        if phase.load(Ordering::Acquire) == SWAPPED {
            self.clear_holes();
            phase.store(DONE, Ordering::Release);
        }
        let pages = [0, 1].map(|side| self.runs_of(side).iter().map(with_content).sum::<u64>());
        let bytes = pages.iter().sum::<u64>() * PAGE_SIZE;
        Ok(ExchangeReport { bytes, nanos: nanos(started) })
    }

    /// Brings in what will be read and what will be written, so that swapping
    /// meets no fault.
    fn populate(&mut self) -> Result<(), RelocateError> {
        let scanned = [self.scan(0)?, self.scan(1)?];
        let holes = |runs: &Vec<Run>| {
            runs.iter().filter(|run| !run.data).map(|run| run.pages.clone()).collect()
        };
        self.holes = scanned.each_ref().map(holes);
        for (runs, plan) in scanned.iter().zip([self.plan.a(), self.plan.b()]) {
            for run in runs.iter().filter(|run| run.data) {
                self.bring(plan.from(), &run.pages)?;
                self.bring(plan.to(), &run.pages)?;
            }
        }
        for place in &self.places {
            let keys = place.keys.length();
            place.keys.populate(0, keys, true).map_err(RelocateError::Populate)?;
        }
        Ok(())
    }

    /// Brings in `pages` of `range`, which may lie in several places.
    fn bring(&self, range: StorageRange, pages: &Range<u64>) -> Result<(), RelocateError> {
        let (start, end) =
            (range.origin() + pages.start * PAGE_SIZE, range.origin() + pages.end * PAGE_SIZE);
        for place in &self.places {
            let (from, to) = (start.max(place.range.origin()), end.min(place.range.end()));
            if from < to {
                let at = (from - place.range.origin()) as usize;
                let brought = place.storage.populate(at, (to - from) as usize, true);
                brought.map_err(RelocateError::Populate)?;
            }
        }
        Ok(())
    }

    /// Which pages of a side have content now: before anything was swapped.
    fn scan(&self, side: usize) -> Result<Vec<Run>, RelocateError> {
        let Some(place) = self.places.get(side) else { return Ok(Vec::new()) };
        let pages = 0..place.range.pages();
        runs::runs_mapped(self.file.as_fd(), place.range, &place.storage, pages)
            .map_err(RelocateError::Scan)
    }

    /// Writes into the record which pages have content.
    fn note_content(&self) -> Result<(), RelocateError> {
        let mut first = 0;
        for side in [0, 1] {
            for run in self.scan(side)?.iter().filter(|run| run.data) {
                for page in run.pages.clone().filter(|page| self.is_content(side, *page)) {
                    let bit = first + page;
                    self.bits(bit).fetch_or(1 << (bit % 8), Ordering::Relaxed);
                }
            }
            first += self.plan.a().from().pages();
        }
        Ok(())
    }

    /// Whether a page of a side that is there was not only brought in by us.
    fn is_content(&self, side: usize, page: u64) -> bool {
        let (Some(holes), Some(place)) = (self.holes.get(side), self.places.get(side)) else {
            return true;
        };
        let index = holes.partition_point(|hole| hole.end <= page);
        if !holes.get(index).is_some_and(|hole| hole.contains(&page)) {
            return true;
        }
        let words = PAGE_SIZE as usize / size_of::<u64>();
        // SAFETY: a page of a mapping that this value holds, read word by
        // word; the guests are stopped.
        let word = |index| unsafe {
            let page = place.storage.base().add((page * PAGE_SIZE) as usize);
            page.cast::<u64>().add(index).read_volatile()
        };
        (0..words).any(|index| word(index) != 0)
    }

    /// What [`Exchange::note_content`] noted of a side.
    fn runs_of(&self, side: usize) -> Vec<Run> {
        let (a, b) = (self.plan.a().from().pages(), self.plan.b().from().pages());
        let (first, pages) = if side == 0 { (0, a) } else { (a, b) };
        let mut all = Vec::new();
        for page in 0..pages {
            runs::append(&mut all, page..page + 1, self.noted(first + page));
        }
        all
    }

    fn noted(&self, bit: u64) -> bool {
        self.bits(bit).load(Ordering::Relaxed) >> (bit % 8) & 1 == 1
    }

    /// Whether the page at `offset` of main storage had content before.
    fn has_content(&self, offset: u64) -> bool {
        let (a, b) = (self.plan.a().from(), self.plan.b().from());
        let page = |range: StorageRange| (offset - range.origin()) / PAGE_SIZE;
        if a.contains(offset) {
            self.noted(page(a))
        } else {
            b.contains(offset) && self.noted(a.pages() + page(b))
        }
    }

    fn swap(&self) -> io::Result<()> {
        let steps = self.word(STEPS);
        let done = steps.load(Ordering::Acquire);
        // The bounce buffer is read again at once: it stays in the cache.
        let copy = copy_page::onto_cached();
        let bounce = Page { storage: self.at(BOUNCE), key: self.byte(BOUNCE_KEY) };
        let mut saved = false;
        for (step, number) in self.plan.steps().zip(1u64..) {
            let (from, to, content, copy) = match step {
                ExchangeStep::Save(from) => {
                    saved = self.has_content(from);
                    (self.page(from), Some(bounce), saved, copy_page::plain as copy_page::CopyPage)
                }
                ExchangeStep::Copy(step) => {
                    (self.page(step.from), self.page(step.to), self.has_content(step.from), copy)
                }
                ExchangeStep::Restore(to) => (Some(bounce), self.page(to), saved, copy),
            };
            if number <= done {
                continue;
            }
            // Every offset of the plan is in one of its places.
            let (Some(from), Some(to)) = (from, to) else { continue };
            to.key.store(from.key.load(Ordering::Relaxed), Ordering::Relaxed);
            if content {
                // SAFETY: two different pages of mappings that this value
                // holds; both guests are stopped, so nobody else uses them.
                unsafe { copy(from.storage, to.storage) };
            }
            // Where tests kill whoever swaps.
            fault::check(Point::Swap)?;
            steps.store(number, Ordering::Release);
        }
        copy_page::finish();
        Ok(())
    }

    /// Makes holes of the pages that get the content of holes.
    fn clear_holes(&self) {
        for (side, plan) in [self.plan.a(), self.plan.b()].into_iter().enumerate() {
            for run in self.runs_of(side).iter().filter(|run| !run.data) {
                let start = plan.to().origin() + run.pages.start * PAGE_SIZE;
                let length = (run.pages.end - run.pages.start) * PAGE_SIZE;
                if give_back(self.file.as_fd(), start, length).is_err() {
                    self.zero(start..start + length);
                }
            }
        }
    }

    /// What cannot be given back can still be made zero.
    fn zero(&self, bytes: Range<u64>) {
        let offsets = bytes.step_by(PAGE_SIZE as usize);
        for page in offsets.filter_map(|offset| self.page(offset)) {
            // SAFETY: a page of a mapping that this value holds; both guests
            // are stopped.
            unsafe { std::ptr::write_bytes(page.storage, 0, PAGE_SIZE as usize) };
        }
    }

    /// The page at `offset` of main storage.
    fn page(&self, offset: u64) -> Option<Page<'_>> {
        let place = self.places.iter().find(|place| place.range.contains(offset))?;
        let at = (offset - place.range.origin()) as usize;
        // SAFETY: inside the place's mappings of storage and keys, which live
        // as long as `self`; keys are only ever used as atomics.
        unsafe {
            let key = place.keys.base().add(key_offset(at / PAGE_SIZE as usize));
            Some(Page { storage: place.storage.base().add(at), key: AtomicU8::from_ptr(key) })
        }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.record.length());
        // SAFETY: callers name offsets of the record, whose size was checked.
        unsafe { self.record.base().add(offset) }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: aligned, inside the record, and only ever used atomically.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: inside the record, and only ever used atomically.
        unsafe { AtomicU8::from_ptr(self.at(offset)) }
    }

    fn bits(&self, bit: u64) -> &AtomicU8 {
        self.byte(CONTENT + (bit / 8) as usize)
    }
}

fn with_content(run: &Run) -> u64 {
    if run.data { run.pages.end - run.pages.start } else { 0 }
}

/// Bytes of a plan's record: words, bounce buffer, a bit for each page.
fn record_size(plan: &ExchangePlan) -> u64 {
    let pages = plan.a().from().pages() + plan.b().from().pages();
    (CONTENT as u64 + pages.div_ceil(8)).next_multiple_of(PAGE_SIZE)
}

#[cfg(test)]
mod tests;

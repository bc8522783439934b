//! Live relocation: the guest runs on while its storage slides, chunk by chunk.
//!
//! ```text
//! window.prepare() -> Prepared --slide()--> Slid --finish()--> SlideReport
//!   guest runs          |                    | undo() slides back; guest runs
//!                       v failed: slid back  v
//!                     the window shows the old range, contents intact
//! ```
//!
//! One chunk at a time is made read only in the window, copied, and replaced
//! there by its new place, page tables and all. Who stores into it meanwhile
//! waits (module `flight`); everybody else runs on. Its old page tables are set
//! aside first: then the kernel finds next to nothing to make read only and to
//! take down in the window, both of which it does page by page, while somebody
//! may wait. They are taken down together when everything has landed.
//!
//! A chunk is never longer than the distance, so its old place stays whole until
//! it is replaced, and the plan's direction makes sure that a chunk's new place
//! was left before.

use std::io;
use std::ops::{ControlFlow, Range};
use std::os::fd::AsFd;
use std::time::Instant;

use main_storage::{BLOCK_SIZE, Direction, MovePlan, PAGE_SIZE, PAGES_PER_BLOCK};

use crate::backing;
use crate::fault::{self, Point};
use crate::flight::Slot;
use crate::mapping::Mapping;
use crate::relocate::{Beside, Move, Populated, Prepared, Progress, RelocateError, nanos};
use crate::runs;
use crate::storage::{KEYS_PER_BLOCK, give_back, keys_of};
use crate::transfer::{Transfer, View};

/// Bytes that are in flight at once: what a store may have to wait for. As
/// long as one page table covers, so that page tables move as a whole. Half of
/// it halves the wait (0.25 ms on a small machine) and costs a quarter of the
/// throughput: see `benches/copy.rs`.
pub const CHUNK: u64 = 2 << 20;

/// Bytes of storage whose keys are in flight at once.
const KEYS_CHUNK: u64 = 64 << 20;

/// What a live relocation did while the guest ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlideReport {
    /// Bytes copied; holes are not.
    pub bytes: u64,
    /// Nanoseconds from the first chunk's departure to the last's landing.
    pub nanos: u64,
    /// The longest time that one chunk was in flight, in nanoseconds.
    pub longest_nanos: u64,
}

/// The window shows the new range; the guest has run all the time.
///
/// Dropped: finished, with nobody told if that fails.
#[must_use = "finish it, or undo it"]
pub struct Slid {
    // None only after `finish` or `undo` took it.
    relocation: Option<Move>,
    report: SlideReport,
}

/// One way of a slide: forth, or back.
struct Slide<'a> {
    relocation: &'a Move,
    plan: MovePlan,
    /// `plan.to()`, mapped beside the window.
    beside: &'a Beside,
    /// What is known to be there.
    populated: &'a Populated,
    /// The destination of a hole may have content outside the overlap too.
    stale: bool,
    slot: Slot,
    report: SlideReport,
}

impl Prepared {
    /// Moves everything to the destination while the guest runs. `progress`
    /// hears after each chunk how many pages are done; when it breaks, the
    /// relocation is given up.
    ///
    /// # Errors
    /// [`RelocateError`]; everything has slid back, and the window shows the
    /// old range, unless it is [`RelocateError::Lost`].
    pub fn slide(mut self, progress: Progress<'_>) -> Result<Slid, RelocateError> {
        // What can fail before anything is done leaves the undo to `drop`.
        let slot = Slot::claim().map_err(RelocateError::Remap)?;
        let page = match &self.inner {
            Some((relocation, _)) => page_of(relocation).map_err(RelocateError::Scan)?,
            None => return Err(RelocateError::Busy),
        };
        let Some((relocation, beside)) = self.inner.take() else { return Err(RelocateError::Busy) };
        let populated = std::mem::take(&mut self.populated);
        let plan = relocation.plan;
        let mut slide = Slide {
            relocation: &relocation,
            plan,
            beside: &beside,
            populated: &populated,
            stale: false,
            slot,
            report: SlideReport::default(),
        };
        let chunks = chunks(plan, page);
        let started = Instant::now();
        let mut done = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            let result = slide.step(chunk);
            done += chunk.pages();
            let result = match result {
                Ok(()) if progress(done).is_break() => Err((RelocateError::GivenUp, index + 1)),
                Ok(()) => Ok(()),
                Err(error @ RelocateError::Lost(_)) => return Err(error),
                Err(error) => Err((error, index)),
            };
            if let Err((error, moved)) = result {
                drop(slide);
                drop(beside);
                let moved = chunks.get(..moved).unwrap_or_default();
                slide_back(&relocation, moved)
                    .and_then(|()| empty(&relocation, &populated.filled))
                    .map_err(RelocateError::Lost)?;
                return Err(error);
            }
        }
        let report = SlideReport { nanos: nanos(started), ..slide.report };
        drop(slide);
        relocation.window.set_origin(plan.to().origin());
        Ok(Slid { relocation: Some(relocation), report })
    }
}

impl Slid {
    /// What was copied and how long it took.
    #[must_use]
    pub fn report(&self) -> SlideReport {
        self.report
    }

    /// Slides everything back. The guest may run.
    ///
    /// # Errors
    /// [`RelocateError::Lost`]: parts of the storage are in either range.
    pub fn undo(mut self) -> Result<(), RelocateError> {
        let Some(relocation) = self.relocation.take() else { return Ok(()) };
        relocation.window.set_origin(relocation.plan.from().origin());
        let page = page_of(&relocation).map_err(RelocateError::Lost)?;
        slide_back(&relocation, &chunks(relocation.plan, page)).map_err(RelocateError::Lost)
    }

    /// Gives what the new range does not cover of the old one back to the
    /// host. The guest may run.
    ///
    /// # Errors
    /// [`RelocateError::Discard`]: the relocation has happened, but the range
    /// that was left must not be given to anybody.
    pub fn finish(mut self) -> Result<SlideReport, RelocateError> {
        if let Some(relocation) = self.relocation.take() {
            let plan = relocation.plan;
            relocation.discard(plan.from(), plan.to()).map_err(RelocateError::Discard)?;
        }
        Ok(self.report)
    }
}

impl Drop for Slid {
    fn drop(&mut self) {
        if let Some(relocation) = self.relocation.take() {
            let _ = relocation.discard(relocation.plan.from(), relocation.plan.to());
        }
    }
}

/// Moves the chunks that were moved to the plan's destination back, the last
/// first, and gives the destination back.
fn slide_back(relocation: &Move, moved: &[Chunk]) -> io::Result<()> {
    let plan = relocation.plan.reversed();
    let beside = relocation.beside(plan.to())?;
    let slot = Slot::claim()?;
    let (populated, report) = (&Populated::default(), SlideReport::default());
    let mut slide =
        Slide { relocation, plan, beside: &beside, populated, stale: true, slot, report };
    for chunk in moved.iter().rev() {
        slide.step(chunk).map_err(io::Error::other)?;
    }
    drop(slide);
    drop(beside);
    let _ = relocation.discard(relocation.plan.to(), relocation.plan.from());
    Ok(())
}

/// Gives the pages of holes that were filled early back, unless somebody stored
/// there. The window shows the old range; the guest may run.
///
/// # Errors
/// A part of the window could not be made writable again.
pub(crate) fn empty(relocation: &Move, filled: &[Range<u64>]) -> io::Result<()> {
    if filled.is_empty() {
        return Ok(());
    }
    let slot = Slot::claim()?;
    let window = &relocation.window.storage;
    let file = relocation.storage.as_fd();
    let from = relocation.plan.from();
    for chunk in filled.iter().cloned().flat_map(|pages| pieces(pages, CHUNK / PAGE_SIZE)) {
        let part = bytes(&chunk);
        let base = window.base().addr();
        slot.depart(base + part.start..base + part.end);
        if window.protect(&part, false).is_ok() {
            // SAFETY: the chunk is read only.
            let runs = unsafe {
                let all = vec![runs::Run { pages: chunk.clone(), data: true }];
                runs::unfill(all, filled, window, |page| relocation.window.was_written(page))
            };
            for hole in runs.iter().filter(|run| !run.data) {
                let (start, end) = (hole.pages.start * PAGE_SIZE, hole.pages.end * PAGE_SIZE);
                // What cannot be given back costs memory.
                let _ = give_back(file, from.origin() + start, end - start);
            }
        }
        let shown = window.protect(&part, true);
        slot.land();
        shown?;
    }
    Ok(())
}

/// `pages` in pieces of at most `limit`.
fn pieces(pages: Range<u64>, limit: u64) -> impl Iterator<Item = Range<u64>> {
    let step = usize::try_from(limit).unwrap_or(usize::MAX);
    pages.clone().step_by(step).map(move |start| start..(start + limit).min(pages.end))
}

/// What is in flight at once. Keys fly apart from their pages: each trip has
/// a price, and the keys of many pages are small.
enum Chunk {
    Keys(Range<u64>),
    Pages(Range<u64>),
}

impl Chunk {
    fn pages(&self) -> u64 {
        match self {
            Self::Keys(_) => 0,
            Self::Pages(pages) => pages.end - pages.start,
        }
    }
}

/// Bytes of the host's pages that main storage is made of: a huge one flies as
/// a whole.
fn page_of(relocation: &Move) -> io::Result<u64> {
    backing::granularity(relocation.storage.as_fd())
}

/// The keys and pages of a plan in chunks of whole pages of `page` bytes, in
/// the plan's order.
fn chunks(plan: MovePlan, page: u64) -> Vec<Chunk> {
    let keys = cut(plan, KEYS_CHUNK.max(page)).into_iter().map(Chunk::Keys);
    keys.chain(cut(plan, CHUNK.max(page)).into_iter().map(Chunk::Pages)).collect()
}

/// The plan's pages in pieces of at most `limit` bytes of storage, none longer
/// than the distance.
fn cut(plan: MovePlan, limit: u64) -> Vec<Range<u64>> {
    let distance = plan.from().origin().abs_diff(plan.to().origin());
    let pages = (limit.min(distance) / BLOCK_SIZE).max(1) * PAGES_PER_BLOCK;
    let mut pieces: Vec<_> = pieces(0..plan.from().pages(), pages).collect();
    if plan.direction() == Direction::Down {
        pieces.reverse();
    }
    pieces
}

impl Slide<'_> {
    /// Moves one chunk. When it fails, the chunk is where it was, unless the
    /// error is [`RelocateError::Lost`].
    fn step(&mut self, chunk: &Chunk) -> Result<(), RelocateError> {
        let window = &self.relocation.window;
        let (mapping, part) = match chunk {
            Chunk::Keys(pages) => (&window.keys, key_bytes(pages)),
            Chunk::Pages(pages) => {
                self.populate(pages)?;
                (&window.storage, bytes(pages))
            }
        };
        let departed = Instant::now();
        let base = mapping.base().addr();
        self.slot.depart(base + part.start..base + part.end);
        // Who stores now stores into the page that is copied later. Where the
        // kernel cannot do this, the window's own page tables serve.
        let lent =
            matches!(chunk, Chunk::Pages(_)) && self.beside.spare.take_part(mapping, &part).is_ok();
        let protected = fault::check(Point::Protect).and_then(|()| mapping.protect(&part, false));
        let moved = protected.map_err(RelocateError::Remap).and_then(|()| match chunk {
            Chunk::Keys(pages) => self.move_keys(pages, &part),
            Chunk::Pages(pages) => self.move_pages(pages, &part, lent),
        });
        let shown = match &moved {
            Ok(_) => Ok(()),
            Err(_) => self.show_old(chunk, &part),
        };
        self.slot.land();
        shown.map_err(RelocateError::Lost)?;
        self.report.bytes += moved?;
        self.report.longest_nanos = self.report.longest_nanos.max(nanos(departed));
        Ok(())
    }

    /// Brings in the pages of the destination that the chunk's content needs,
    /// before anybody has to wait for it.
    fn populate(&self, chunk: &Range<u64>) -> Result<(), RelocateError> {
        if runs::missing(&self.populated.pages, chunk.clone()).is_empty() {
            return Ok(());
        }
        let window = &self.relocation.window.storage;
        for run in self.runs(window, chunk)?.iter().filter(|run| run.data) {
            let wanted = runs::missing(&self.populated.pages, run.pages.clone());
            // Most holes that were filled early are holes all the same.
            let filled = &self.populated.filled;
            for pages in wanted.into_iter().flat_map(|pages| runs::missing(filled, pages)) {
                let part = bytes(&pages);
                let populated = self.beside.storage.populate(part.start, part.len(), true);
                populated.map_err(RelocateError::Populate)?;
            }
        }
        Ok(())
    }

    /// Which pages have content; `old` shows the old range.
    fn runs(&self, old: &Mapping, chunk: &Range<u64>) -> Result<Vec<runs::Run>, RelocateError> {
        let file = self.relocation.storage.as_fd();
        let data = &self.populated.data;
        runs::runs_known(file, self.plan.from(), old, chunk.clone(), data)
            .map_err(RelocateError::Scan)
    }

    /// From `old`, which shows the old range as the window did.
    fn transfer(&self, old: &Mapping) -> Transfer<'_> {
        Transfer {
            plan: self.plan,
            from: View { storage: old.base(), keys: self.relocation.window.keys.base() },
            to: self.beside.view(),
            file: self.relocation.storage.as_fd(),
            stale: self.stale,
        }
    }

    /// Bytes copied. The old place is shown by the mapping aside if it was `lent`
    /// the page tables, else by the window.
    fn move_pages(
        &self,
        chunk: &Range<u64>,
        part: &Range<usize>,
        lent: bool,
    ) -> Result<u64, RelocateError> {
        let window = &self.relocation.window.storage;
        let old = if lent { &self.beside.spare } else { window };
        let runs = self.runs(old, chunk)?;
        // SAFETY: the chunk is read only in the window, and nobody else uses
        // what is aside.
        let runs = unsafe {
            let written = |page| self.relocation.window.was_written(page);
            runs::unfill(runs, &self.populated.filled, old, written)
        };
        let go_on = &mut |_| ControlFlow::Continue(());
        // SAFETY: in this chunk `old` shows the old place, which nobody can
        // change now, and `beside` shows all of the new range, writable.
        // The runs were just read. The destination is this partition's, and
        // was left by the chunk before if it is part of the old range.
        let done = unsafe { self.transfer(old).run_without_keys(&runs, chunk.clone(), go_on) };
        let shown = fault::check(Point::RemapStorage)
            .and_then(|()| window.take_part(&self.beside.storage, part))
            .or_else(|_| self.map_pages(self.plan, part))
            .and_then(|()| fault::check(Point::RemapStorageLate));
        shown.map_err(RelocateError::Remap)?;
        Ok(done.bytes)
    }

    /// No bytes of storage copied.
    fn move_keys(&self, chunk: &Range<u64>, part: &Range<usize>) -> Result<u64, RelocateError> {
        // SAFETY: as for pages; keys are mapped and left with their pages.
        unsafe { self.transfer(&self.relocation.window.storage).run_keys(chunk.clone()) };
        let window = &self.relocation.window.keys;
        let shown = fault::check(Point::RemapKeys)
            .and_then(|()| window.take_part(&self.beside.keys, part))
            .or_else(|_| self.map_keys(self.plan, part))
            .and_then(|()| fault::check(Point::RemapKeysLate));
        shown.map_err(RelocateError::Remap)?;
        Ok(0)
    }

    /// Shows a part of the window at the destination of `plan` by a new
    /// mapping, whose page tables are filled as pages are touched: what is
    /// left where the kernel cannot move page tables of this kind of memory.
    fn map_pages(&self, plan: MovePlan, part: &Range<usize>) -> io::Result<()> {
        let file = self.relocation.storage.as_fd();
        self.relocation.window.storage.map_part(file, plan.to().origin(), part)
    }

    /// The same for keys.
    fn map_keys(&self, plan: MovePlan, part: &Range<usize>) -> io::Result<()> {
        let file = self.relocation.keys.as_fd();
        self.relocation.window.keys.map_part(file, keys_of(plan.to()).0, part)
    }

    /// Shows the chunk where it was, writable.
    fn show_old(&self, chunk: &Chunk, part: &Range<usize>) -> io::Result<()> {
        match chunk {
            Chunk::Keys(_) => self.map_keys(self.plan.reversed(), part),
            Chunk::Pages(_) => self.map_pages(self.plan.reversed(), part),
        }
    }
}

fn bytes(pages: &Range<u64>) -> Range<usize> {
    (pages.start * PAGE_SIZE) as usize..(pages.end * PAGE_SIZE) as usize
}

/// The keys of a chunk, which begins and ends between two blocks.
fn key_bytes(chunk: &Range<u64>) -> Range<usize> {
    let block = |page: u64| (page.div_ceil(PAGES_PER_BLOCK) * KEYS_PER_BLOCK) as usize;
    block(chunk.start)..block(chunk.end)
}

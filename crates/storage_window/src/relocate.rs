//! Relocation of a window's storage: phases as types, each with its undo.
//!
//! The undo of a phase is its `drop`, so that no failure path can forget it.
//! Only [`Committed`] differs: its relocation has happened, so dropping it
//! finishes, and going back is a decision ([`Committed::undo`]).

use std::io;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use main_storage::{BLOCK_SIZE, MovePlan, PAGE_SIZE, StorageRange};

use crate::backing;
use crate::fault::{self, Point};
use crate::live;
use crate::mapping::Mapping;
use crate::runs::{self, Run};
use crate::storage::{discard, keys_of};
use crate::transfer::{Done, Transfer, View};
use crate::window::{MapError, StorageWindow, inside};

/// Hears how many pages are done; breaks to give the relocation up.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Why a relocation failed. But for [`RelocateError::Lost`] and
/// [`RelocateError::Discard`] the window shows the old range, contents intact.
#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    /// The plan does not begin where the window is. The host is to blame.
    #[error("the plan moves {from}, but the window shows storage from {origin:#x}")]
    NotHere {
        /// Where the plan begins.
        from: StorageRange,
        /// Where the window's storage begins, in bytes.
        origin: u64,
    },
    /// Another relocation of this window is under way. The host is to blame.
    #[error("the storage is being moved already; wait for the end of that")]
    Busy,
    /// The destination is not in main storage, or cannot be mapped.
    #[error("cannot map the destination")]
    Map(#[from] MapError),
    /// What was in the destination before could not be cleared.
    #[error("cannot clear the destination")]
    Clear(#[source] io::Error),
    /// The host has no memory for the destination.
    #[error("the host has no memory for the destination; free some and move again")]
    Populate(#[source] io::Error),
    /// The host cannot say which pages have content.
    #[error("cannot find out which pages have content")]
    Scan(#[source] io::Error),
    /// The caller's progress function gave up.
    #[error("the relocation was given up while copying")]
    GivenUp,
    /// The destination could not be mapped into the window.
    #[error("cannot map the destination into the window")]
    Remap(#[source] io::Error),
    /// The window shows neither range: the guest must not go on.
    #[error("the storage could not be mapped back; the partition must be started anew")]
    Lost(#[source] io::Error),
    /// The relocation has happened, but what was left could not be cleared.
    #[error("moved, but the host could not clear what was left; it must not be given to anybody")]
    Discard(#[source] io::Error),
}

/// What a relocation copied, and for how long the guest had to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyReport {
    /// Bytes copied; holes are not.
    pub bytes: u64,
    /// Nanoseconds for finding and copying pages.
    pub nanos: u64,
    /// Nanoseconds for mapping the new range into the window.
    pub remap_nanos: u64,
}

/// The claim on a window and all that every phase needs.
pub(crate) struct Move {
    pub(crate) window: Arc<StorageWindow>,
    pub(crate) plan: MovePlan,
    pub(crate) storage: OwnedFd,
    pub(crate) keys: OwnedFd,
}

/// Storage and keys of a range, mapped beside the window.
pub(crate) struct Beside {
    pub(crate) storage: Mapping,
    pub(crate) keys: Mapping,
    // Addresses for the window's old page tables: taking them down takes long,
    // and is done when nobody waits for it.
    pub(crate) spare: Mapping,
}

impl Beside {
    pub(crate) fn view(&self) -> View {
        View { storage: self.storage.base(), keys: self.keys.base() }
    }
}

impl Move {
    /// Claims `window` for `plan`, which begins where the window is.
    pub(crate) fn claim(
        window: &Arc<StorageWindow>,
        storage: BorrowedFd<'_>,
        keys: BorrowedFd<'_>,
        plan: &MovePlan,
    ) -> Result<Self, RelocateError> {
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(MapError::Host);
        let (storage, keys) = (own(storage)?, own(keys)?);
        if !window.claim() {
            return Err(RelocateError::Busy);
        }
        let relocation = Self { window: Arc::clone(window), plan: *plan, storage, keys };
        if !window.shows(plan.from()) {
            return Err(RelocateError::NotHere { from: plan.from(), origin: window.origin() });
        }
        Ok(relocation)
    }

    pub(crate) fn view(&self) -> View {
        View { storage: self.window.storage.base(), keys: self.window.keys.base() }
    }

    /// Maps `range` beside the window.
    pub(crate) fn beside(&self, range: StorageRange) -> io::Result<Beside> {
        fault::check(Point::MapDestination)?;
        let (offset, length) = keys_of(range);
        let storage =
            Mapping::of_file(self.storage.as_fd(), range.origin(), range.size() as usize)?;
        let keys = Mapping::of_file(self.keys.as_fd(), offset, length as usize)?;
        let spare = Mapping::reserve(storage.length())?;
        Ok(Beside { storage, keys, spare })
    }

    /// Gives the parts of `range` that are not in `kept` back to the host.
    pub(crate) fn discard(&self, range: StorageRange, kept: StorageRange) -> io::Result<()> {
        let mut parts = range.without(kept);
        parts.try_for_each(|part| discard(self.storage.as_fd(), self.keys.as_fd(), part))
    }

    /// Shows `range` in the window.
    pub(crate) fn show(&self, range: StorageRange) -> io::Result<()> {
        let (offset, length) = keys_of(range);
        let (storage, keys) = (self.storage.as_fd(), self.keys.as_fd());
        self.window.keys.map_file(keys, offset, length as usize)?;
        self.window.storage.map_file(storage, range.origin(), range.size() as usize)?;
        self.window.set_origin(range.origin());
        Ok(())
    }

    /// Puts back into the window's old range what copying to `beside`
    /// overwrote there.
    fn put_back(&self, beside: &Beside, runs: &[Run], done: &Range<u64>) {
        let Some(overlap) = self.plan.overlap() else { return };
        let from = self.plan.from().origin();
        let page = |offset: u64| (offset - from) / PAGE_SIZE;
        let start = page(overlap.origin()).max(done.start);
        let end = page(overlap.end()).min(done.end);
        if start >= end {
            return;
        }
        let plan = self.plan.reversed();
        let file = self.storage.as_fd();
        let back = Transfer { plan, from: beside.view(), to: self.view(), file, stale: false };
        // SAFETY: the window shows the old range, `beside` the new one, both
        // whole; the runs are those of the old range. The pages written are
        // those that the copy overwrote, in the opposite order.
        unsafe { back.run(runs, start..end, &mut |_| ControlFlow::Continue(())) };
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        self.window.release();
    }
}

/// The destination is mapped and populated; the guest may still be running.
///
/// Dropped: the destination is given back. Nothing has happened.
#[must_use = "dropping it gives the relocation up"]
pub struct Prepared {
    // None only after a later phase took it.
    pub(crate) inner: Option<(Move, Beside)>,
    pub(crate) populated: Populated,
}

/// What was brought in before the guest has to wait for it, ascending.
#[derive(Default)]
pub(crate) struct Populated {
    /// Pages of the destination.
    pub(crate) pages: Vec<Range<u64>>,
    /// Pages of the old range that had content then.
    pub(crate) data: Vec<Range<u64>>,
    /// Holes of the old range that the destination's content needs filled.
    /// They have content only if somebody stored there since.
    pub(crate) filled: Vec<Range<u64>>,
}

/// Every page and key is at the destination; the window shows the old range.
///
/// Dropped: what the copy overwrote in the old range is put back.
#[must_use = "dropping it gives the relocation up"]
pub struct Copied {
    // None only after a later phase took it.
    inner: Option<(Move, Beside)>,
    populated: Populated,
    runs: Vec<Run>,
    done: Done,
    nanos: u64,
}

/// The window shows the new range. The old one is still as the copy left it.
///
/// Dropped: finished, with nobody told if that fails.
#[must_use = "finish it once the guest runs again, or undo it"]
pub struct Committed {
    // None only after `finish` or `undo` took it. The mapping shows the old
    // range; nobody uses it.
    inner: Option<(Move, Option<Mapping>)>,
    runs: Vec<Run>,
    report: CopyReport,
}

impl StorageWindow {
    /// Maps and populates the destination of `plan` and clears what is in it
    /// outside the present range. The guest may run. The caller has made sure,
    /// by the resource manager, that the destination is this partition's.
    ///
    /// # Errors
    /// [`RelocateError`]; nothing has happened then.
    pub fn prepare(
        self: &Arc<Self>,
        storage_fd: BorrowedFd<'_>,
        keys_fd: BorrowedFd<'_>,
        plan: &MovePlan,
    ) -> Result<Prepared, RelocateError> {
        inside(storage_fd, keys_fd, plan.to())?;
        let relocation = Move::claim(self, storage_fd, keys_fd, plan)?;
        relocation.discard(plan.to(), plan.from()).map_err(RelocateError::Clear)?;
        let beside = relocation.beside(plan.to()).map_err(MapError::Host)?;
        let inner = Some((relocation, beside));
        let mut prepared = Prepared { inner, populated: Populated::default() };
        prepared.populate()?;
        Ok(prepared)
    }

    /// All phases at once, for a guest that is stopped anyway.
    ///
    /// # Errors
    /// [`RelocateError`].
    pub fn relocate(
        self: &Arc<Self>,
        storage_fd: BorrowedFd<'_>,
        keys_fd: BorrowedFd<'_>,
        plan: &MovePlan,
        progress: Progress<'_>,
    ) -> Result<CopyReport, RelocateError> {
        self.prepare(storage_fd, keys_fd, plan)?.copy(progress)?.commit()?.finish()
    }
}

impl Prepared {
    /// Where from, where to.
    #[must_use]
    pub fn plan(&self) -> Option<MovePlan> {
        self.inner.as_ref().map(|(relocation, _)| relocation.plan)
    }

    /// Brings in every page the copy will touch, so that it meets no fault.
    fn populate(&mut self) -> Result<(), RelocateError> {
        let Some((relocation, beside)) = &self.inner else { return Ok(()) };
        let plan = relocation.plan;
        let runs =
            runs::runs(relocation.storage.as_fd(), plan.from()).map_err(RelocateError::Scan)?;
        let bring = |mapping: &Mapping, pages: Range<u64>, write| {
            let (start, end) = (pages.start * PAGE_SIZE, pages.end * PAGE_SIZE);
            mapping
                .populate(start as usize, (end - start) as usize, write)
                .map_err(RelocateError::Populate)
        };
        for run in runs.iter().filter(|run| run.data) {
            bring(&relocation.window.storage, run.pages.clone(), false)?;
        }
        let data: Vec<_> = runs::data_shifted(&runs, 0, 0..u64::MAX).collect();
        let present: Vec<_> =
            runs::data_shifted(&runs, shift(plan), 0..plan.to().pages()).collect();
        let absent: Vec<_> =
            data.iter().flat_map(|pages| runs::missing(&present, pages.clone())).collect();
        let overlap = plan.overlap().map_or(0..0, |overlap| {
            let start = (overlap.origin() - plan.to().origin()) / PAGE_SIZE;
            start..start + overlap.pages()
        });
        let overlap = std::slice::from_ref(&overlap);
        let outside = absent.iter().flat_map(|pages| runs::missing(overlap, pages.clone()));
        let mut allocated: Vec<_> = outside.collect();
        // Parts of a huge page could not become holes again: see `runs::unfill`.
        if backing::granularity(relocation.storage.as_fd()).is_ok_and(|unit| unit == BLOCK_SIZE) {
            let filled = runs::common(&absent, overlap);
            self.populated.filled =
                filled.iter().filter_map(|pages| runs::shifted(pages, -shift(plan))).collect();
            allocated.extend(filled);
        }
        for pages in &allocated {
            bring(&beside.storage, pages.clone(), true)?;
        }
        // What is there already is mapped for reading, which takes many pages
        // at once; memory allows stores there all the same.
        let mapped = runs::common(&data, &present);
        for pages in &mapped {
            bring(&beside.storage, pages.clone(), false)?;
        }
        beside.keys.populate(0, beside.keys.length(), true).map_err(RelocateError::Populate)?;
        self.populated.pages = allocated;
        self.populated.pages.extend(mapped);
        self.populated.pages.sort_by_key(|pages| pages.start);
        self.populated.data = data;
        Ok(())
    }

    /// Copies every page and key to the destination, in the plan's order.
    ///
    /// All vCPUs of the partition are stopped and all its I/O processors idle,
    /// and stay so until [`Copied::commit`] returned or the relocation was
    /// given up: what they stored meanwhile could be lost.
    ///
    /// # Errors
    /// [`RelocateError::Scan`] or [`RelocateError::GivenUp`]; the window then
    /// shows the old range, contents intact.
    pub fn copy(mut self, progress: Progress<'_>) -> Result<Copied, RelocateError> {
        let started = Instant::now();
        let Some((relocation, beside)) = &self.inner else { return Err(RelocateError::Busy) };
        let plan = relocation.plan;
        let file = relocation.storage.as_fd();
        let window = &relocation.window.storage;
        let runs = runs::runs_mapped(file, plan.from(), window, 0..plan.from().pages())
            .map_err(RelocateError::Scan)?;
        // SAFETY: nobody stores into the window, by the contract of this function.
        let runs = unsafe {
            let written = |page| relocation.window.was_written(page);
            runs::unfill(runs, &self.populated.filled, window, written)
        };
        let transfer = {
            let (from, to) = (relocation.view(), beside.view());
            Transfer { plan, from, to, file, stale: false }
        };
        // SAFETY: the window shows the old range, `beside` the new one, both
        // whole and writable; the runs were just read from the old range. The
        // resource manager gave the destination to this partition alone.
        let done = unsafe { transfer.run(&runs, 0..plan.from().pages(), progress) };
        let nanos = nanos(started);
        let complete = done.complete;
        let populated = std::mem::take(&mut self.populated);
        let copied = Copied { inner: self.inner.take(), populated, runs, done, nanos };
        if complete { Ok(copied) } else { Err(RelocateError::GivenUp) }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some((relocation, beside)) = self.inner.take() {
            drop(beside);
            let _ = live::empty(&relocation, &self.populated.filled);
            // What stays there costs memory until the range is discarded by
            // whoever frees it or prepared for the next who gets it.
            let _ = relocation.discard(relocation.plan.to(), relocation.plan.from());
        }
    }
}

impl Copied {
    /// Maps the new range into the window, page tables and all, and its keys.
    ///
    /// # Errors
    /// [`RelocateError::Remap`]: the window shows the old range, contents
    /// intact. [`RelocateError::Lost`]: it shows neither.
    pub fn commit(mut self) -> Result<Committed, RelocateError> {
        let started = Instant::now();
        let Some((relocation, beside)) = self.inner.take() else { return Err(RelocateError::Busy) };
        let runs = std::mem::take(&mut self.runs);
        let window = &relocation.window;
        let old = window.storage.set_aside(beside.spare);
        let remapped = fault::check(Point::RemapKeys)
            .and_then(|()| window.keys.take(beside.keys))
            .and_then(|()| fault::check(Point::RemapStorage))
            .and_then(|()| late_failure(window))
            .and_then(|()| window.storage.take(beside.storage));
        if let Err(error) = remapped {
            take_back(&relocation, &runs).map_err(RelocateError::Lost)?;
            return Err(RelocateError::Remap(error));
        }
        window.set_origin(relocation.plan.to().origin());
        let report =
            CopyReport { bytes: self.done.bytes, nanos: self.nanos, remap_nanos: nanos(started) };
        Ok(Committed { inner: Some((relocation, old)), runs, report })
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if let Some((relocation, beside)) = self.inner.take() {
            relocation.put_back(&beside, &self.runs, &self.done.pages);
            let populated = std::mem::take(&mut self.populated);
            drop(Prepared { inner: Some((relocation, beside)), populated });
        }
    }
}

impl Committed {
    /// What was copied and how long it took.
    #[must_use]
    pub fn report(&self) -> CopyReport {
        self.report
    }

    /// Goes back to the old range, as if nothing had happened. The guest has
    /// not run since [`Prepared::copy`].
    ///
    /// # Errors
    /// [`RelocateError::Lost`]: the window shows neither range.
    pub fn undo(mut self) -> Result<(), RelocateError> {
        let Some((relocation, _old)) = self.inner.take() else { return Ok(()) };
        take_back(&relocation, &self.runs).map_err(RelocateError::Lost)
    }

    /// Gives what the new range does not cover of the old one back to the
    /// host. The guest may run.
    ///
    /// # Errors
    /// [`RelocateError::Discard`]: the relocation has happened, but the range
    /// that was left must not be given to anybody.
    pub fn finish(mut self) -> Result<CopyReport, RelocateError> {
        if let Some((relocation, old)) = self.inner.take() {
            drop(old);
            let plan = relocation.plan;
            relocation.discard(plan.from(), plan.to()).map_err(RelocateError::Discard)?;
        }
        Ok(self.report)
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        if let Some((relocation, old)) = self.inner.take() {
            drop(old);
            let _ = relocation.discard(relocation.plan.from(), relocation.plan.to());
        }
    }
}

/// Undoes a whole copy after the window may already show the new range.
fn take_back(relocation: &Move, runs: &[Run]) -> io::Result<()> {
    let plan = relocation.plan;
    // First a view of the new range: if that cannot be had, the window is left
    // as it is, and its content with it.
    let beside = relocation.beside(plan.to())?;
    relocation.show(plan.from())?;
    relocation.put_back(&beside, runs, &(0..plan.from().pages()));
    drop(beside);
    let _ = relocation.discard(plan.to(), plan.from());
    Ok(())
}

/// In tests: the window's old mapping goes, and then the remapping fails.
#[cfg_attr(
    not(test),
    expect(clippy::unnecessary_wraps, unused_variables, reason = "fails only in tests")
)]
fn late_failure(window: &StorageWindow) -> io::Result<()> {
    #[cfg(test)]
    if let Err(error) = fault::check(Point::RemapStorageLate) {
        window.storage.revoke();
        return Err(error);
    }
    Ok(())
}

/// How many pages after its place in the new range a page of the old one lies.
fn shift(plan: MovePlan) -> i64 {
    let (from, to) = (plan.from().origin() / PAGE_SIZE, plan.to().origin() / PAGE_SIZE);
    // Both are below 2^52, so the signed difference is exact.
    from.wrapping_sub(to) as i64
}

pub(crate) fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

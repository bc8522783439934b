//! How fast a relocation copies, beside plain `memcpy` in the same run.
//!
//! All three copy the same bytes between mappings of the same kind and state:
//! shared, populated before the clock starts.

mod exchange;
mod memcpy;

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use main_storage::{BLOCK_SIZE, MovePlan, PAGE_SIZE, PlanError, RangeError, StorageRange};

use crate::copy_page;
use crate::mapping::Mapping;
use crate::{Backing, CreateError, MainStorage, MapError, RelocateError, StorageWindow};

pub use exchange::{ExchangeBench, exchange};
pub use memcpy::Memcpy;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Size or distance are no multiples of a block, or zero.
    #[error("cannot measure such a move")]
    Range(#[from] RangeError),
    /// As above.
    #[error("cannot measure such a move")]
    Plan(#[from] PlanError),
    /// Not enough memory, most likely.
    #[error("cannot make main storage to measure in")]
    Create(#[from] CreateError),
    /// As above.
    #[error("cannot map main storage to measure in")]
    Map(#[from] MapError),
    /// As above.
    #[error("cannot map memory to compare with")]
    Host(#[from] io::Error),
    /// The move that was measured failed.
    #[error("the measured move failed")]
    Relocate(#[from] RelocateError),
}

/// Bytes per second and seconds, medians over the rounds; ratios are medians
/// of each round's own ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CopyBench {
    /// `memcpy` of the whole size at once, bytes per second.
    pub memcpy: f64,
    /// `memcpy` page by page, bytes per second.
    pub page_wise: f64,
    /// A relocation's copy, holes searched and keys included, bytes per second.
    pub relocation: f64,
    /// `relocation / memcpy`.
    pub relocation_vs_memcpy: f64,
    /// `page_wise / memcpy`.
    pub page_wise_vs_memcpy: f64,
    /// Copy and remap: what a guest waits for them, in microseconds.
    pub pause_us: f64,
    /// The remap alone, in microseconds.
    pub remap_us: f64,
}

/// Moves `size` bytes of content by `distance` bytes and back, `rounds` times
/// (at least once), each beside the two `memcpy`s. Takes three times `size` of
/// memory, and a distance below `size` makes the ranges overlap.
///
/// # Errors
/// [`BenchError`].
pub fn copy(size: u64, distance: u64, rounds: usize) -> Result<CopyBench, BenchError> {
    let low = StorageRange::new(0, size)?;
    let high = low.at(distance)?;
    let main = MainStorage::create(high.end(), Backing::Memfd)?;
    let window = StorageWindow::map(main.storage_fd(), main.keys_fd(), low, 0, size)?;
    fill(window.host_base(), size);
    let mut plain = Memcpy::new(size)?;

    let mut samples: [Vec<f64>; 7] = Default::default();
    for round in 0..rounds.max(1) {
        let memcpy = plain.run();
        let page_wise = plain.page_wise();
        let (from, to) = if round % 2 == 0 { (low, high) } else { (high, low) };
        let plan = MovePlan::new(from, to.origin())?;
        let report = window.relocate(main.storage_fd(), main.keys_fd(), &plan, &mut |_| {
            ControlFlow::Continue(())
        })?;
        let relocation = report.bytes as f64 / (report.nanos as f64 / 1e9);
        let pause = (report.nanos + report.remap_nanos) as f64 / 1e3;
        let values = [
            memcpy,
            page_wise,
            relocation,
            relocation / memcpy,
            page_wise / memcpy,
            pause,
            report.remap_nanos as f64 / 1e3,
        ];
        for (samples, value) in samples.iter_mut().zip(values) {
            samples.push(value);
        }
    }
    let [
        memcpy,
        page_wise,
        relocation,
        relocation_vs_memcpy,
        page_wise_vs_memcpy,
        pause_us,
        remap_us,
    ] = samples.map(median);
    Ok(CopyBench {
        memcpy,
        page_wise,
        relocation,
        relocation_vs_memcpy,
        page_wise_vs_memcpy,
        pause_us,
        remap_us,
    })
}

/// What a live relocation does beside `memcpy`, and what a thread that stores
/// all the time sees of it. Medians over the rounds, ratios of each round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlideBench {
    /// `memcpy` of the whole size at once, bytes per second.
    pub memcpy: f64,
    /// A slide of the whole size, bytes per second.
    pub slide: f64,
    /// `slide / memcpy`.
    pub slide_vs_memcpy: f64,
    /// The longest pause of the storing thread during a slide, microseconds.
    pub pause_us: f64,
    /// Its longest pause in as long a time without one, microseconds.
    pub floor_us: f64,
    /// The longest time that a chunk was in flight, microseconds.
    pub flight_us: f64,
}

/// Slides `size` bytes of content by `distance` bytes and back, `rounds` times
/// (at least once), under a thread that stores into every page in turn.
///
/// # Errors
/// [`BenchError`].
pub fn slide(size: u64, distance: u64, rounds: usize) -> Result<SlideBench, BenchError> {
    let low = StorageRange::new(0, size)?;
    let high = low.at(distance)?;
    let main = MainStorage::create(high.end(), Backing::Memfd)?;
    let window = StorageWindow::map(main.storage_fd(), main.keys_fd(), low, 0, size)?;
    fill(window.host_base(), size);
    let mut plain = Memcpy::new(size)?;

    let (stop, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut samples: [Vec<f64>; 6] = Default::default();
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| store_all_the_time(&window, &stop, &longest));
        let mut round = |round: usize| -> Result<(), BenchError> {
            let memcpy = plain.run();
            let (from, to) = if round % 2 == 0 { (low, high) } else { (high, low) };
            let plan = MovePlan::new(from, to.origin())?;
            let prepared = window.prepare(main.storage_fd(), main.keys_fd(), &plan)?;
            longest.store(0, Ordering::Relaxed);
            let slid = prepared.slide(&mut |_| ControlFlow::Continue(()))?;
            let pause = longest.swap(0, Ordering::Relaxed);
            let report = slid.report();
            std::thread::sleep(Duration::from_nanos(report.nanos));
            let floor = longest.load(Ordering::Relaxed);
            slid.finish()?;
            let speed = report.bytes as f64 / (report.nanos as f64 / 1e9);
            let us = |nanos: u64| nanos as f64 / 1e3;
            let values =
                [memcpy, speed, speed / memcpy, us(pause), us(floor), us(report.longest_nanos)];
            for (samples, value) in samples.iter_mut().zip(values) {
                samples.push(value);
            }
            Ok(())
        };
        let result = (0..rounds.max(1)).try_for_each(&mut round);
        stop.store(true, Ordering::Relaxed);
        // It cannot panic: it stores into a window and reads a clock.
        let _ = guest.join();
        result
    })?;
    let [memcpy, slide, slide_vs_memcpy, pause_us, floor_us, flight_us] = samples.map(median);
    Ok(SlideBench { memcpy, slide, slide_vs_memcpy, pause_us, floor_us, flight_us })
}

/// Stores into one page after the other and keeps the longest time between
/// two stores, in nanoseconds.
fn store_all_the_time(window: &StorageWindow, stop: &AtomicBool, longest: &AtomicU64) {
    let pages = window.size() / PAGE_SIZE;
    let mut last = Instant::now();
    for turn in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let offset = (turn % pages * PAGE_SIZE) as usize;
        // SAFETY: a word of the window; only this thread uses it.
        unsafe { window.host_base().add(offset).cast::<u64>().write_volatile(turn) };
        let now = Instant::now();
        let gap = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
        longest.fetch_max(gap, Ordering::Relaxed);
        last = now;
    }
}

fn page_wise(source: &Mapping, target: &Mapping, size: u64) {
    for page in 0..(size / PAGE_SIZE) as usize {
        let offset = page * PAGE_SIZE as usize;
        // SAFETY: pages of two mappings of `size` bytes that do not overlap.
        unsafe { copy_page::plain(source.base().add(offset), target.base().add(offset)) };
    }
}

/// Content that no page shares with another.
fn fill(base: *mut u8, size: u64) {
    for word in 0..size / 8 {
        // SAFETY: inside the mapping of `size` bytes; nobody else uses it.
        unsafe { base.cast::<u64>().add(word as usize).write_volatile(word ^ (BLOCK_SIZE << 32)) };
    }
}

fn rate(size: u64, body: impl FnOnce()) -> f64 {
    let started = Instant::now();
    body();
    size as f64 / started.elapsed().as_secs_f64()
}

/// The middle value; NaN of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

//! An exchange beside a bare loop that does the same to the pages.

use std::os::fd::AsFd;

use main_storage::{ExchangePlan, MovePlan, PAGE_SIZE, StorageRange};

use super::{BenchError, fill, median, rate};
use crate::copy_page;
use crate::mapping::Mapping;
use crate::{Backing, Exchange, MainStorage, StorageWindow};

/// Bytes per second, medians over the rounds; the ratio is the median of each
/// round's own. Bytes are counted once for each partition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExchangeBench {
    /// A loop over pairs of pages with a buffer of one page.
    pub bare_loop: f64,
    /// An exchange, with keys, search for holes and record.
    pub exchange: f64,
    /// `exchange / bare_loop`.
    pub exchange_vs_loop: f64,
    /// What the guests wait for it: swap and remap, in microseconds.
    pub pause_us: f64,
}

/// Exchanges two partitions of `size` bytes in a main storage that they fill,
/// `rounds` times (at least once).
///
/// # Errors
/// [`BenchError`].
pub fn exchange(size: u64, rounds: usize) -> Result<ExchangeBench, BenchError> {
    let main = MainStorage::create(2 * size, Backing::Memfd)?;
    let (storage, keys) = (main.storage_fd(), main.keys_fd());
    let mut ranges = [StorageRange::new(0, size)?, StorageRange::new(size, size)?];
    let windows = [
        StorageWindow::map(storage, keys, ranges[0], 0, size)?,
        StorageWindow::map(storage, keys, ranges[1], 0, size)?,
    ];
    windows.iter().for_each(|window| fill(window.host_base(), size));
    let other = MainStorage::create(2 * size, Backing::Memfd)?;
    let both = Mapping::of_file(other.storage_fd(), 0, 2 * size as usize)?;
    fill(both.base(), 2 * size);

    let mut samples: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds.max(1) {
        let bare = rate(2 * size, || bare_loop(&both, size));
        let plan = ExchangePlan::new(
            MovePlan::new(ranges[0], ranges[1].origin())?,
            MovePlan::new(ranges[1], ranges[0].origin())?,
        )?;
        let record = Exchange::record(&plan)?;
        let a = windows[0].prepare_adoption(storage, keys, &plan.a())?;
        let b = windows[1].prepare_adoption(storage, keys, &plan.b())?;
        let swap = Exchange::prepare(storage, keys, record.as_fd(), plan)?;
        let started = std::time::Instant::now();
        let report = swap.run()?;
        let adopted = (a.adopt()?, b.adopt()?);
        let pause = started.elapsed().as_secs_f64() * 1e6;
        drop(adopted);
        ranges.swap(0, 1);
        let speed = report.bytes as f64 / (report.nanos as f64 / 1e9);
        for (samples, value) in samples.iter_mut().zip([bare, speed, speed / bare, pause]) {
            samples.push(value);
        }
    }
    let [bare_loop, exchange, exchange_vs_loop, pause_us] = samples.map(median);
    Ok(ExchangeBench { bare_loop, exchange, exchange_vs_loop, pause_us })
}

fn bare_loop(both: &Mapping, size: u64) {
    let mut bounce = vec![0u8; PAGE_SIZE as usize];
    for page in 0..size / PAGE_SIZE {
        let at = (page * PAGE_SIZE) as usize;
        // SAFETY: pages of a mapping of `2 * size` bytes and a buffer of one
        // page, no two of them the same.
        unsafe {
            let (a, b) = (both.base().add(at), both.base().add(size as usize + at));
            copy_page::plain(a, bounce.as_mut_ptr());
            copy_page::plain(b, a);
            copy_page::plain(bounce.as_ptr(), b);
        }
    }
}

//! Guest time: the `time` CSR, from the host's monotonic clock.

use std::time::{Duration, Instant};

use engine::riscv::TIMEBASE_HZ;

const NANOS_PER_TICK: u128 = 1_000_000_000 / TIMEBASE_HZ as u128;

/// Counts ticks of [`TIMEBASE_HZ`] from when it was made. Copies count together:
/// all vCPUs of a machine hold copies of one.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
    /// What it showed then.
    start: u64,
}

impl Clock {
    /// A clock that shows 0 now.
    #[must_use]
    pub fn new() -> Self {
        Self::at(0)
    }

    /// A clock that shows `ticks` now.
    #[must_use]
    pub fn at(ticks: u64) -> Self {
        Self { epoch: Instant::now(), start: ticks }
    }

    /// What it shows, in ticks.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        let elapsed = self.epoch.elapsed();
        // Five hundred years of nanoseconds fit, whatever the division makes.
        let ticks = elapsed.as_secs() * TIMEBASE_HZ
            + u64::from(elapsed.subsec_nanos()) / NANOS_PER_TICK as u64;
        self.start.wrapping_add(ticks)
    }

    /// How long until the clock shows `ticks`; zero if it already did. A wait
    /// too long to express is a very long one.
    #[must_use]
    pub fn until(&self, ticks: u64) -> Duration {
        let left = u128::from(ticks.saturating_sub(self.now())) * NANOS_PER_TICK;
        Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

//! A disk that can be made slow: for tests and for injecting faults.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::DiskBackend;
use super::vectored::Buffers;

/// A disk whose requests its [`Hold`] can delay or stop. The I/O processor is
/// busy while one waits.
pub struct HoldableDisk {
    disk: Box<dyn DiskBackend>,
    hold: Hold,
}

/// The handle of a [`HoldableDisk`]. A held disk must be released before its
/// I/O processor can end.
#[derive(Clone, Default)]
pub struct Hold(Arc<Gate>);

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: bool,
    delay: Duration,
    waiting: bool,
}

impl HoldableDisk {
    /// `disk`, not held, and the handle to hold it with.
    #[must_use]
    pub fn new(disk: Box<dyn DiskBackend>) -> (Self, Hold) {
        let hold = Hold::default();
        (Self { disk, hold: hold.clone() }, hold)
    }
}

impl Hold {
    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_all();
    }

    /// Stops every request from now on at its beginning.
    pub fn hold(&self) {
        self.update(|state| state.held = true);
    }

    /// Lets the stopped request and those after it go on.
    pub fn release(&self) {
        self.update(|state| state.held = false);
    }

    /// Has every request from now on take `delay` longer.
    pub fn set_delay(&self, delay: Duration) {
        self.update(|state| state.delay = delay);
    }

    /// Waits until a request is stopped; `false` if none is at `deadline`.
    #[must_use]
    pub fn wait_for_request(&self, deadline: Instant) -> bool {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.waiting {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn pass(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.delay.is_zero() {
            let delay = state.delay;
            drop(state);
            std::thread::sleep(delay);
            state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        }
        while state.held {
            state.waiting = true;
            self.0.changed.notify_all();
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
    }
}

impl DiskBackend for HoldableDisk {
    fn length(&self) -> u64 {
        self.disk.length()
    }

    fn read_only(&self) -> bool {
        self.disk.read_only()
    }

    fn read(&self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        self.hold.pass();
        self.disk.read(offset, buffers)
    }

    fn write(&mut self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        self.hold.pass();
        self.disk.write(offset, buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hold.pass();
        self.disk.flush()
    }
}

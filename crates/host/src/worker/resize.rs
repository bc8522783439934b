//! A partition grows into the gap behind it, or gives back its end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_processors::{MEM_BLOCK, MemEnd, MemState};
use machine::Machine;
use main_storage::{BLOCK_SIZE, Size, StorageRange};
use storage_window::StorageWindow;

use super::hold::Held;
use crate::in_full;
use crate::link::ResizeReport;

/// How long a guest may take to use, or give back, what it is asked to.
const GUEST: Duration = Duration::from_secs(30);
/// A guest that did nothing for so long does nothing more.
const IDLE: Duration = Duration::from_secs(5);

/// The worker's part in a resize.
pub(super) struct Resize {
    pub(super) machine: Arc<Machine>,
    pub(super) window: Arc<StorageWindow>,
    /// Files of main storage and its keys.
    pub(super) files: [OwnedFd; 2],
    /// How long to wait for busy devices.
    pub(super) limit: Duration,
}

impl Resize {
    /// Gives the partition `size` bytes, as far as its guest goes along.
    pub(super) fn run(&self, size: u64) -> ResizeReport {
        let result = if size > self.window.size() { self.grow(size) } else { self.shrink(size) };
        result.unwrap_or_else(|reason| self.stayed(reason, Vec::new()))
    }

    fn stayed(&self, reason: String, busy_devices: Vec<String>) -> ResizeReport {
        ResizeReport::Stayed { size: self.window.size(), reason, busy_devices }
    }

    fn memory(&self) -> Result<&MemEnd, String> {
        let none = "its image has no driver for memory that comes later; build the image again \
                    (`berth image build`), which says what is missing, or restart the partition \
                    with another size";
        let memory = self.machine.memory().ok_or("its guest can reach no more storage")?;
        if memory.state().driver { Ok(memory) } else { Err(none.to_owned()) }
    }

    fn range(&self, size: u64) -> Result<StorageRange, String> {
        StorageRange::new(self.window.origin(), size).map_err(|error| error.to_string())
    }

    fn boot(&self) -> u64 {
        self.window.layout().boot_size()
    }

    fn grow(&self, size: u64) -> Result<ResizeReport, String> {
        let memory = self.memory()?;
        let (before, after) = (self.window.size(), self.range(size)?);
        let requested = memory.state().requested;
        let mut held = match Held::hold(&self.machine, self.limit) {
            Ok(held) => held,
            Err(error) => {
                let reason = error.to_string();
                return Ok(self.stayed(reason, error.busy_devices()));
            }
        };
        let [storage, keys] = &self.files;
        self.window.grow(storage.as_fd(), keys.as_fd(), after).map_err(|error| in_full(&error))?;
        let out_of_service = held.set_address_limits(after);
        let pause = held.pause();
        drop(held);
        let wanted = (size - self.boot()) / MEM_BLOCK * MEM_BLOCK;
        memory.request(wanted).map_err(|error| error.to_string())?;
        let state = self.wait(memory, |state| state.plugged >= wanted);
        if state.plugged < wanted {
            // All or nothing: what the guest took of it, it is asked to give back.
            memory.request(requested).map_err(|error| error.to_string())?;
            self.wait(memory, |state| state.plugged <= requested);
            self.give_back(before)?;
            let reason = format!(
                "its guest took only {} of {} more; look at its kernel's messages",
                Size(state.plugged.saturating_sub(requested)),
                Size(wanted - requested.min(wanted)),
            );
            return Ok(self.stayed(reason, Vec::new()));
        }
        Ok(self.resized(pause, out_of_service, 0))
    }

    fn shrink(&self, size: u64) -> Result<ResizeReport, String> {
        let wanted = size.max(self.boot());
        if wanted == self.window.size() {
            return Err(format!(
                "its guest booted in {}, which it cannot give back; `berth restart` gives it less \
                 once the partition is smaller",
                Size(self.boot())
            ));
        }
        let memory = self.memory()?;
        let target = (wanted - self.boot()) / MEM_BLOCK * MEM_BLOCK;
        memory.request(target).map_err(|error| error.to_string())?;
        self.wait(memory, |state| state.plugged <= target);
        let (pause, out_of_service) = self.give_back(wanted)?;
        let kept = self.window.size().saturating_sub(size);
        Ok(self.resized(pause, out_of_service, kept))
    }

    /// Takes from the window what the guest does not use, down to `wanted`
    /// bytes at most.
    fn give_back(&self, wanted: u64) -> Result<(Duration, Vec<String>), String> {
        let memory = self.memory()?;
        let mut held = Held::hold(&self.machine, self.limit).map_err(|error| error.to_string())?;
        // It may have taken something again until now.
        let used = self.boot() + memory.state().end.next_multiple_of(BLOCK_SIZE);
        let after = self.range(wanted.max(used))?;
        if after.size() < self.window.size() {
            self.window.shrink(after).map_err(|error| in_full(&error))?;
            self.machine.forget_translations();
        }
        let out_of_service = held.set_address_limits(after);
        Ok((held.pause(), out_of_service))
    }

    /// Waits until `enough`, or until the guest has stopped trying.
    fn wait(&self, memory: &MemEnd, enough: impl Fn(&MemState) -> bool) -> MemState {
        let deadline = Instant::now() + GUEST;
        let mut state = memory.state();
        loop {
            let before = state.plugged;
            let patience = deadline.min(Instant::now() + IDLE);
            state = memory.wait(patience, |state| enough(state) || state.plugged != before);
            let idle = state.plugged == before;
            if enough(&state) || idle || Instant::now() >= deadline {
                return state;
            }
        }
    }

    fn resized(&self, pause: Duration, out_of_service: Vec<String>, kept: u64) -> ResizeReport {
        let plugged = self.machine.memory().map_or(0, MemEnd::plugged);
        ResizeReport::Resized {
            size: self.window.size(),
            guest_bytes: self.boot() + plugged,
            kept,
            pause_us: u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
            out_of_service,
        }
    }
}

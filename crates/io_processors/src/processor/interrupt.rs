//! Interrupt status and the line it drives.

use std::sync::{Arc, Mutex, PoisonError};

/// An interrupt line of a device, given to it at its start; the interrupt
/// controller implements it.
pub trait InterruptLine: Send + Sync {
    /// The line's level: high for as long as the driver has something to
    /// acknowledge. Called with a level that it already has, too. Must not
    /// call back into the I/O processor.
    fn set_level(&self, level: bool);
}

/// The driver is to look at its used rings.
pub(crate) const USED_BUFFER: u32 = 1;
/// The driver is to look at status and configuration.
pub(crate) const CONFIGURATION: u32 = 2;

/// `InterruptStatus` and `InterruptACK` (4.2.2).
pub(crate) struct Interrupt {
    // The lock is held while the line is set, so that the line's last level
    // is that of the last change.
    status: Mutex<u32>,
    line: Arc<dyn InterruptLine>,
}

impl Interrupt {
    pub(crate) fn new(line: Arc<dyn InterruptLine>) -> Self {
        Self { status: Mutex::new(0), line }
    }

    pub(crate) fn status(&self) -> u32 {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the status `status` and the line that goes with it.
    pub(crate) fn set(&self, status: u32) {
        let mut held = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        *held = status;
        self.line.set_level(status != 0);
    }

    pub(crate) fn raise(&self, cause: u32) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        *status |= cause;
        self.line.set_level(true);
    }

    pub(crate) fn acknowledge(&self, causes: u32) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        *status &= !causes;
        if *status == 0 {
            self.line.set_level(false);
        }
    }
}

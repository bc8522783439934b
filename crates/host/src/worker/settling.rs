//! Whether a command is under way whose end a host that comes in the middle of
//! it must wait for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Default)]
pub(super) struct Settling(Arc<Inner>);

#[derive(Default)]
struct Inner {
    under_way: Mutex<usize>,
    changed: Condvar,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Such a command; it ends when this is dropped.
pub(super) struct UnderWay(Arc<Inner>);

impl Settling {
    /// A command begins.
    pub(super) fn begin(&self) -> UnderWay {
        *self.0.lock() += 1;
        UnderWay(Arc::clone(&self.0))
    }

    /// Waits until none is under way.
    pub(super) fn wait(&self) {
        let mut under_way = self.0.lock();
        while *under_way > 0 {
            under_way = self.0.changed.wait(under_way).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.changed.notify_all();
    }
}

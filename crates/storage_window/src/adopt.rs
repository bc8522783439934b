//! A window that takes over a range which somebody else has filled.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use main_storage::{MovePlan, PAGE_SIZE, StorageRange};

use crate::mapping::Mapping;
use crate::relocate::{Beside, Move, RelocateError};
use crate::runs;
use crate::window::{MapError, StorageWindow, inside};

/// The new range is mapped beside the window. The guest may be running.
///
/// Dropped: nothing has happened.
#[must_use = "dropping it gives the adoption up"]
pub struct Adoption {
    relocation: Move,
    beside: Beside,
}

/// The window shows its new range. Dropped once the guest runs again, it takes
/// down what is left of the old mapping.
#[must_use = "dropping it takes time, which the guest need not wait for"]
pub struct Adopted {
    _old: Option<Mapping>,
    _relocation: Move,
}

impl StorageWindow {
    /// Maps the destination of `plan`, whose content somebody else is about to
    /// put there. Nothing in it is changed.
    ///
    /// # Errors
    /// [`RelocateError`]; nothing has happened then.
    pub fn prepare_adoption(
        self: &Arc<Self>,
        storage: BorrowedFd<'_>,
        keys: BorrowedFd<'_>,
        plan: &MovePlan,
    ) -> Result<Adoption, RelocateError> {
        inside(storage, keys, plan.to())?;
        let relocation = Move::claim(self, storage, keys, plan)?;
        let beside = relocation.beside(plan.to()).map_err(MapError::Host)?;
        let adoption = Adoption { relocation, beside };
        adoption.populate()?;
        Ok(adoption)
    }
}

impl Adoption {
    /// Fills page tables for what has content already and will have some.
    fn populate(&self) -> Result<(), RelocateError> {
        let file = self.relocation.storage.as_fd();
        let from = self.relocation.plan.from();
        let window = &self.relocation.window.storage;
        let beside = &self.beside.storage;
        let data = |range: StorageRange, mapping: &Mapping| {
            let runs = runs::runs_mapped(file, range, mapping, 0..range.pages());
            let runs = runs.map_err(RelocateError::Scan)?;
            Ok::<_, RelocateError>(runs::data_shifted(&runs, 0, 0..u64::MAX).collect::<Vec<_>>())
        };
        // Only where there is memory already: it would stay if nothing came.
        let there = data(self.relocation.plan.to(), beside)?;
        for Range { start, end } in runs::common(&data(from, window)?, &there) {
            let (at, length) = ((start * PAGE_SIZE) as usize, ((end - start) * PAGE_SIZE) as usize);
            let populated = beside.populate(at, length, true);
            populated.map_err(RelocateError::Populate)?;
        }
        let keys = self.beside.keys.length();
        self.beside.keys.populate(0, keys, true).map_err(RelocateError::Populate)
    }

    /// Shows the new range in the window. The guest is stopped, its I/O
    /// processors are idle, and its content is there.
    ///
    /// # Errors
    /// [`RelocateError::Lost`]: the guest must not go on.
    pub fn adopt(self) -> Result<Adopted, RelocateError> {
        let Self { relocation, beside: Beside { storage, keys, spare } } = self;
        let window = &relocation.window;
        let old = window.storage.set_aside(spare);
        let taken = window.keys.take(keys).and_then(|()| window.storage.take(storage));
        taken.or_else(|_| relocation.show(relocation.plan.to())).map_err(RelocateError::Lost)?;
        window.set_origin(relocation.plan.to().origin());
        Ok(Adopted { _old: old, _relocation: relocation })
    }
}

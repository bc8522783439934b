//! Expanding a partition into the gap behind it, and shrinking it.

use super::{Change, Refusal, StorageMap};
use crate::{PartitionName, Size, StorageRange};

/// A partition's range before and after it gets another size. Both have the
/// same origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// Private because `to` has the origin of `from` and another size.
pub struct ResizePlan {
    from: StorageRange,
    to: StorageRange,
}

impl ResizePlan {
    /// The range it has.
    #[must_use]
    pub const fn from(self) -> StorageRange {
        self.from
    }

    /// The range it gets.
    #[must_use]
    pub const fn to(self) -> StorageRange {
        self.to
    }

    /// Whether the partition gets larger.
    #[must_use]
    pub const fn grows(self) -> bool {
        self.to.size() > self.from.size()
    }

    /// What it gets or gives back: the piece at the end that only one of the
    /// two ranges has.
    #[must_use]
    pub fn difference(self) -> StorageRange {
        let (large, small) = if self.grows() { (self.to, self.from) } else { (self.from, self.to) };
        // Two sizes that differ leave a piece; the larger range stands for the
        // impossible rest.
        StorageRange::between(small.end(), large.end()).unwrap_or(large)
    }
}

impl StorageMap {
    /// The plan of giving `name` a size of `size` bytes, larger or smaller
    /// than now, without doing anything. Its origin stays.
    ///
    /// # Errors
    /// [`Refusal`]: unknown, a change is under way, no such size, the size it
    /// has, past main storage, or [`Refusal::GapTooSmall`].
    pub fn plan_resize(&self, name: &PartitionName, size: u64) -> Result<ResizePlan, Refusal> {
        let from = self.idle(name)?.range;
        let to = StorageRange::new(from.origin(), size)?;
        if to == from {
            return Err(Refusal::SameSize { name: name.clone(), size: Size(size) });
        }
        let plan = ResizePlan { from, to };
        match self.check(name, to) {
            Ok(()) => Ok(plan),
            Err(Refusal::InTheWay { by, .. }) => Err(Refusal::GapTooSmall {
                name: name.clone(),
                wanted: Size(size),
                missing: Size(plan.difference().size()),
                gap: Size(self.gap(name).unwrap_or(0)),
                by,
            }),
            Err(refusal) => Err(refusal),
        }
    }

    /// Holds the new range. Ends with [`StorageMap::commit_resize`] or
    /// [`StorageMap::abandon_resize`]; until then the larger one is held.
    ///
    /// # Errors
    /// As for [`StorageMap::plan_resize`].
    pub fn begin_resize(&mut self, name: &PartitionName, size: u64) -> Result<ResizePlan, Refusal> {
        let plan = self.plan_resize(name, size)?;
        self.get_mut(name)?.change = Some(Change::Resize(plan.to));
        Ok(plan)
    }

    /// The partition has its new size; what it gave back is free.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::NotUnderWay`].
    pub fn commit_resize(&mut self, name: &PartitionName) -> Result<(), Refusal> {
        let to = self.end_resize(name)?;
        self.get_mut(name)?.range = to;
        Ok(())
    }

    /// The partition keeps its old size; what was held for it is free.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::NotUnderWay`].
    pub fn abandon_resize(&mut self, name: &PartitionName) -> Result<(), Refusal> {
        self.end_resize(name).map(|_| ())
    }

    /// Begins and commits a resize at once, for a partition that is not running.
    ///
    /// # Errors
    /// As for [`StorageMap::plan_resize`].
    pub fn resize(&mut self, name: &PartitionName, size: u64) -> Result<ResizePlan, Refusal> {
        let plan = self.begin_resize(name, size)?;
        self.commit_resize(name)?;
        Ok(plan)
    }

    fn end_resize(&mut self, name: &PartitionName) -> Result<StorageRange, Refusal> {
        let partition = self.get_mut(name)?;
        match partition.change {
            Some(Change::Resize(to)) => {
                partition.change = None;
                Ok(to)
            }
            _ => Err(Refusal::NotUnderWay { name: name.clone(), change: "resized" }),
        }
    }
}

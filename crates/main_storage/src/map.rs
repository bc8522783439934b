//! The resource manager's data: who has which range of main storage.

mod exchange;
mod partition;
mod refusal;
mod resize;

pub use partition::{Change, Partition};
pub use refusal::{Occupant, Refusal};
pub use resize::ResizePlan;

use crate::{BLOCK_SIZE, MovePlan, PartitionName, PlanError, RangeError, Size, StorageRange};

/// The map of main storage: its size and who has which range.
///
/// While a partition is moved, exchanged or resized (`begin_…`) it holds both
/// ranges, so that nobody is given the one before the other is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageMap {
    total: u64,
    // What origins and sizes are multiples of; a multiple of BLOCK_SIZE.
    unit: u64,
    // By ascending origin. All ranges held end within `total`, and none of one
    // partition overlaps one of another, save that two that are exchanged hold
    // (parts of) each other's.
    partitions: Vec<Partition>,
}

impl StorageMap {
    /// An empty main storage of `total` bytes.
    ///
    /// # Errors
    /// [`RangeError`] when `total` is not a positive number of blocks.
    pub fn new(total: u64) -> Result<Self, RangeError> {
        let all = StorageRange::new(0, total)?;
        Ok(Self { total: all.size(), unit: BLOCK_SIZE, partitions: Vec::new() })
    }

    /// The same, handed out in multiples of `unit` bytes: where pages of main
    /// storage are larger than a block, a range cannot begin inside one.
    ///
    /// # Errors
    /// [`RangeError`] when `total` or `unit` is not a positive number of blocks.
    pub fn in_units(total: u64, unit: u64) -> Result<Self, RangeError> {
        let unit = StorageRange::new(0, unit)?.size();
        Ok(Self { unit, ..Self::new(total)? })
    }

    /// What origins and sizes must be multiples of, in bytes.
    #[must_use]
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// Bytes of main storage.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.total
    }

    /// All partitions, by ascending origin.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The partition of this name.
    #[must_use]
    pub fn get(&self, name: &PartitionName) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.name == *name)
    }

    /// Everybody but `except` who holds a part of `range`, by ascending origin.
    #[must_use]
    pub fn in_the_way(&self, range: StorageRange, except: &[&PartitionName]) -> Vec<Occupant> {
        let mut by: Vec<_> = self
            .partitions
            .iter()
            .filter(|partition| !except.contains(&&partition.name))
            .filter_map(|partition| {
                let range = partition.held().find(|held| held.overlaps(range))?;
                Some(Occupant { name: partition.name.clone(), range })
            })
            .collect();
        by.sort_by_key(|occupant| occupant.range.origin());
        by
    }

    /// May `name` use `range`? What it holds itself is not in its way.
    ///
    /// # Errors
    /// [`Refusal::Unit`], [`Refusal::OutsideMainStorage`] or
    /// [`Refusal::InTheWay`].
    pub fn check(&self, name: &PartitionName, range: StorageRange) -> Result<(), Refusal> {
        self.check_for(&[name], range)
    }

    /// As [`StorageMap::check`], for several who may use it together.
    fn check_for(&self, who: &[&PartitionName], range: StorageRange) -> Result<(), Refusal> {
        if range.origin() % self.unit != 0 || range.size() % self.unit != 0 {
            return Err(Refusal::Unit { range, unit: Size(self.unit) });
        }
        if range.end() > self.total {
            return Err(Refusal::OutsideMainStorage { range, total: Size(self.total) });
        }
        let by = self.in_the_way(range, who);
        if by.is_empty() { Ok(()) } else { Err(Refusal::InTheWay { range, by }) }
    }

    /// Gives `range` to a new partition.
    ///
    /// # Errors
    /// [`Refusal::NameTaken`], or as for [`StorageMap::check`].
    pub fn assign(&mut self, name: PartitionName, range: StorageRange) -> Result<(), Refusal> {
        if self.get(&name).is_some() {
            return Err(Refusal::NameTaken(name));
        }
        self.check(&name, range)?;
        self.partitions.push(Partition { name, range, change: None });
        self.sort();
        Ok(())
    }

    /// Where `size` bytes fit best: at the start of the smallest gap that is
    /// large enough, the lowest of equals.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], [`Refusal::Unit`], or [`Refusal::Range`] for a size
    /// that is none.
    pub fn best_fit(&self, size: u64) -> Result<StorageRange, Refusal> {
        let wanted = StorageRange::new(0, size)?;
        if size % self.unit != 0 {
            return Err(Refusal::Unit { range: wanted, unit: Size(self.unit) });
        }
        let gaps = self.gaps();
        let best = gaps.iter().filter(|gap| gap.size() >= size).min_by_key(|gap| gap.size());
        match best {
            Some(gap) => Ok(wanted.at(gap.origin())?),
            None => {
                let largest = gaps.iter().map(|gap| gap.size()).max().unwrap_or(0);
                Err(Refusal::NoRoom { size: Size(size), largest: Size(largest) })
            }
        }
    }

    /// The plan of moving `name` to `origin` (bytes), without doing anything.
    ///
    /// # Errors
    /// [`Refusal`]: unknown, already moving, already there, outside or in
    /// somebody's way.
    pub fn plan_move(&self, name: &PartitionName, origin: u64) -> Result<MovePlan, Refusal> {
        let partition = self.idle(name)?;
        let plan =
            MovePlan::new(partition.range, origin).map_err(|error| refused(name, origin, error))?;
        self.check(name, plan.to())?;
        Ok(plan)
    }

    /// Holds the destination for a move. Ends with [`StorageMap::commit_move`]
    /// or [`StorageMap::abandon_move`].
    ///
    /// # Errors
    /// As for [`StorageMap::plan_move`].
    pub fn begin_move(&mut self, name: &PartitionName, origin: u64) -> Result<MovePlan, Refusal> {
        let plan = self.plan_move(name, origin)?;
        self.get_mut(name)?.change = Some(Change::Move(plan.to()));
        Ok(plan)
    }

    /// The partition is at its destination; its old range is free.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::NotMoving`].
    pub fn commit_move(&mut self, name: &PartitionName) -> Result<(), Refusal> {
        let to = self.end_move(name)?;
        self.get_mut(name)?.range = to;
        self.sort();
        Ok(())
    }

    /// The partition stays where it was; the destination is free.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::NotMoving`].
    pub fn abandon_move(&mut self, name: &PartitionName) -> Result<(), Refusal> {
        self.end_move(name).map(|_| ())
    }

    /// Begins and commits a move at once, for a partition that is not running.
    ///
    /// # Errors
    /// As for [`StorageMap::plan_move`].
    pub fn relocate(&mut self, name: &PartitionName, origin: u64) -> Result<MovePlan, Refusal> {
        let plan = self.begin_move(name, origin)?;
        self.commit_move(name)?;
        Ok(plan)
    }

    /// Takes the partition off the map and returns what it held: its range
    /// and, in the middle of a change, the range it would have got. One it was
    /// being exchanged with keeps what it holds until that is committed or
    /// abandoned.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn remove(&mut self, name: &PartitionName) -> Result<Partition, Refusal> {
        let index = self
            .partitions
            .iter()
            .position(|partition| partition.name == *name)
            .ok_or_else(|| Refusal::Unknown(name.clone()))?;
        Ok(self.partitions.remove(index))
    }

    /// Unassigned bytes between the end of `name` and whatever comes next: a
    /// range somebody holds, or the end of main storage. `None`: no such
    /// partition.
    #[must_use]
    pub fn gap(&self, name: &PartitionName) -> Option<u64> {
        let end = self.get(name)?.range.end();
        // A range that begins before `end` and reaches past it can only be the
        // partition's own destination.
        let next = self
            .partitions
            .iter()
            .flat_map(Partition::held)
            .filter(|held| held.end() > end)
            .map(|held| held.origin().max(end))
            .min()
            .unwrap_or(self.total);
        Some(next - end)
    }

    /// Every range that nobody holds, by ascending origin, as large as can be.
    #[must_use]
    pub fn gaps(&self) -> Vec<StorageRange> {
        let mut held = Vec::with_capacity(self.partitions.len() + 1);
        held.extend(self.partitions.iter().flat_map(Partition::held));
        held.sort_by_key(|range| range.origin());
        let mut gaps = Vec::with_capacity(held.len() + 1);
        let mut end = 0;
        for range in held {
            gaps.extend(StorageRange::between(end, range.origin()));
            end = end.max(range.end());
        }
        gaps.extend(StorageRange::between(end, self.total));
        gaps
    }

    /// The partition, if no change of it is under way.
    fn idle(&self, name: &PartitionName) -> Result<&Partition, Refusal> {
        let partition = self.get(name).ok_or_else(|| Refusal::Unknown(name.clone()))?;
        match &partition.change {
            None => Ok(partition),
            Some(change) => Err(Refusal::Busy { name: name.clone(), change: change.as_str() }),
        }
    }

    fn end_move(&mut self, name: &PartitionName) -> Result<StorageRange, Refusal> {
        let partition = self.get_mut(name)?;
        match partition.change {
            Some(Change::Move(to)) => {
                partition.change = None;
                Ok(to)
            }
            _ => Err(Refusal::NotUnderWay { name: name.clone(), change: "moved" }),
        }
    }

    fn get_mut(&mut self, name: &PartitionName) -> Result<&mut Partition, Refusal> {
        self.partitions
            .iter_mut()
            .find(|partition| partition.name == *name)
            .ok_or_else(|| Refusal::Unknown(name.clone()))
    }

    fn sort(&mut self) {
        self.partitions.sort_by_key(|partition| partition.range.origin());
    }
}

/// Why there is no plan that takes `name` to `origin`.
fn refused(name: &PartitionName, origin: u64, error: PlanError) -> Refusal {
    match error {
        PlanError::Range(error) => Refusal::Range(error),
        PlanError::AlreadyThere => {
            Refusal::AlreadyThere { name: name.clone(), origin: Size(origin) }
        }
        PlanError::Shared(range) => {
            Refusal::InTheWay { range, by: vec![Occupant { name: name.clone(), range }] }
        }
    }
}

#[cfg(test)]
mod tests;

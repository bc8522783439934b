//! The resource manager's data: who has which range of main storage.

use std::fmt;

use crate::{BLOCK_SIZE, MovePlan, PartitionName, PlanError, RangeError, Size, StorageRange};

/// A partition on the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    name: PartitionName,
    range: StorageRange,
    moving_to: Option<StorageRange>,
}

impl Partition {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &PartitionName {
        &self.name
    }

    /// The range it runs in.
    #[must_use]
    pub fn range(&self) -> StorageRange {
        self.range
    }

    /// The range held for it while a move is under way.
    #[must_use]
    pub fn moving_to(&self) -> Option<StorageRange> {
        self.moving_to
    }

    fn held(&self) -> impl Iterator<Item = StorageRange> + '_ {
        std::iter::once(self.range).chain(self.moving_to)
    }
}

/// Who is in the way, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// The partition.
    pub name: PartitionName,
    /// Its range that overlaps the wanted one.
    pub range: StorageRange,
}

/// Why the resource manager refused. Nothing has changed.
///
/// The operator is to blame (or the host file): each message names the cause
/// and what would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Empty or unaligned.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// It ends after main storage does.
    #[error(
        "{range} ends past main storage, which has {total}; choose a lower origin or a smaller size"
    )]
    OutsideMainStorage {
        /// What was wanted.
        range: StorageRange,
        /// Bytes of main storage.
        total: Size,
    },
    /// Main storage is handed out in larger units than blocks.
    #[error(
        "{range} is not in units of {unit}, the size of main storage's pages; choose multiples of it"
    )]
    Unit {
        /// What was wanted.
        range: StorageRange,
        /// Bytes of a unit.
        unit: Size,
    },
    /// Other partitions use it.
    #[error("{range} is not free: {} in the way; move it first or choose another origin", Occupants(.by))]
    InTheWay {
        /// What was wanted.
        range: StorageRange,
        /// Everybody who has a part of it, by ascending origin.
        by: Vec<Occupant>,
    },
    /// No gap is large enough.
    #[error("no gap of {size}: the largest is {largest}; move partitions together or ask for less")]
    NoRoom {
        /// What was wanted.
        size: Size,
        /// The largest gap.
        largest: Size,
    },
    /// There is no such partition.
    #[error("there is no partition \"{0}\" in main storage; `berth status` lists them")]
    Unknown(PartitionName),
    /// There already is one of this name.
    #[error("there already is a partition \"{0}\" in main storage; choose another name")]
    NameTaken(PartitionName),
    /// It is where it should go.
    #[error("\"{name}\" is already at {origin}; choose another origin")]
    AlreadyThere {
        /// The partition.
        name: PartitionName,
        /// Its origin.
        origin: Size,
    },
    /// A move of this partition is under way.
    #[error("\"{0}\" is being moved; try again when that has ended")]
    Moving(PartitionName),
    /// No move of this partition is under way. The host is to blame.
    #[error("\"{0}\" is not being moved")]
    NotMoving(PartitionName),
}

impl Refusal {
    /// The partitions in the way, if that is the reason.
    #[must_use]
    pub fn in_the_way(&self) -> &[Occupant] {
        match self {
            Self::InTheWay { by, .. } => by,
            _ => &[],
        }
    }
}

struct Occupants<'a>(&'a [Occupant]);

impl fmt::Display for Occupants<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, occupant) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}\"{}\" ({})", occupant.name, occupant.range)?;
        }
        f.write_str(if self.0.len() == 1 { " is" } else { " are" })
    }
}

/// The map of main storage: its size and who has which range.
///
/// While a partition is moved ([`StorageMap::begin_move`]) it holds both
/// ranges, so that nobody is given the one before the other is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageMap {
    total: u64,
    // What origins and sizes are multiples of; a multiple of BLOCK_SIZE.
    unit: u64,
    // By ascending origin; no range held by one is held by another, and all
    // end within `total`.
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
    pub fn in_the_way(&self, range: StorageRange, except: Option<&PartitionName>) -> Vec<Occupant> {
        let mut by: Vec<_> = self
            .partitions
            .iter()
            .filter(|partition| Some(&partition.name) != except)
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
        if range.origin() % self.unit != 0 || range.size() % self.unit != 0 {
            return Err(Refusal::Unit { range, unit: Size(self.unit) });
        }
        if range.end() > self.total {
            return Err(Refusal::OutsideMainStorage { range, total: Size(self.total) });
        }
        let by = self.in_the_way(range, Some(name));
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
        self.partitions.push(Partition { name, range, moving_to: None });
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
        let partition = self.get(name).ok_or_else(|| Refusal::Unknown(name.clone()))?;
        if partition.moving_to.is_some() {
            return Err(Refusal::Moving(name.clone()));
        }
        let plan = MovePlan::new(partition.range, origin).map_err(|error| match error {
            PlanError::Range(error) => Refusal::Range(error),
            PlanError::AlreadyThere => {
                Refusal::AlreadyThere { name: name.clone(), origin: Size(origin) }
            }
        })?;
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
        self.get_mut(name)?.moving_to = Some(plan.to());
        Ok(plan)
    }

    /// The partition is at its destination; its old range is free.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::NotMoving`].
    pub fn commit_move(&mut self, name: &PartitionName) -> Result<(), Refusal> {
        let partition = self.get_mut(name)?;
        let to = partition.moving_to.take().ok_or_else(|| Refusal::NotMoving(name.clone()))?;
        partition.range = to;
        self.sort();
        Ok(())
    }

    /// The partition stays where it was; the destination is free.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::NotMoving`].
    pub fn abandon_move(&mut self, name: &PartitionName) -> Result<(), Refusal> {
        let taken = self.get_mut(name)?.moving_to.take();
        taken.map(|_| ()).ok_or_else(|| Refusal::NotMoving(name.clone()))
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
    /// and, in the middle of a move, its destination.
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
        let mut held: Vec<_> = self.partitions.iter().flat_map(Partition::held).collect();
        held.sort_by_key(|range| range.origin());
        let mut gaps = Vec::new();
        let mut end = 0;
        for range in held {
            gaps.extend(StorageRange::between(end, range.origin()));
            end = end.max(range.end());
        }
        gaps.extend(StorageRange::between(end, self.total));
        gaps
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

#[cfg(test)]
mod tests;

//! How a partition gets from one range to another.

use std::iter::FusedIterator;

use crate::{PAGE_SIZE, RangeError, StorageRange};

/// In which order pages are copied, so that no page is overwritten before it
/// was read, even where the two ranges overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first page up: the move is to lower addresses.
    Up,
    /// From the last page down: the move is to higher addresses.
    Down,
}

impl Direction {
    /// `"up"` or `"down"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// The order that undoes this one.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// A move of one partition's storage: two different ranges of the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
// Private because `to` is of the size of `from` and elsewhere.
pub struct MovePlan {
    from: StorageRange,
    to: StorageRange,
}

/// Why there is no such move. Whoever chose the origin is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no range of that size at the wanted origin.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// It is where the storage already is.
    #[error("the storage is already there; choose another origin")]
    AlreadyThere,
    /// Two partitions of an exchange would be in one place, before or after it.
    #[error("{0} would be in two partitions; an exchange needs ranges apart from each other")]
    Shared(StorageRange),
}

/// One step of a move. Offsets in main storage, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageStep {
    /// Where the page is.
    pub from: u64,
    /// Where it goes.
    pub to: u64,
}

impl MovePlan {
    /// The move of `from` to the range at `origin` (bytes).
    ///
    /// # Errors
    /// [`PlanError`] when there is no such range, or `from` is already there.
    pub fn new(from: StorageRange, origin: u64) -> Result<Self, PlanError> {
        let to = from.at(origin)?;
        if to == from { Err(PlanError::AlreadyThere) } else { Ok(Self { from, to }) }
    }

    /// Where the storage is.
    #[must_use]
    pub const fn from(self) -> StorageRange {
        self.from
    }

    /// Where it goes.
    #[must_use]
    pub const fn to(self) -> StorageRange {
        self.to
    }

    /// The order in which pages are copied.
    #[must_use]
    pub const fn direction(self) -> Direction {
        if self.to.origin() > self.from.origin() { Direction::Down } else { Direction::Up }
    }

    /// The part of main storage that is in both ranges.
    #[must_use]
    pub fn overlap(self) -> Option<StorageRange> {
        self.from.intersection(self.to)
    }

    /// The plan that takes everything back.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }

    /// Every page, in the order in which it must be copied.
    #[must_use]
    pub fn steps(self) -> PageSteps {
        PageSteps { plan: self, pages: 0..self.from.pages() }
    }
}

/// The steps of a [`MovePlan`], see [`MovePlan::steps`].
#[derive(Debug, Clone)]
pub struct PageSteps {
    plan: MovePlan,
    pages: std::ops::Range<u64>,
}

impl Iterator for PageSteps {
    type Item = PageStep;

    fn next(&mut self) -> Option<PageStep> {
        let page = match self.plan.direction() {
            Direction::Up => self.pages.next(),
            Direction::Down => self.pages.next_back(),
        }?;
        let offset = page * PAGE_SIZE;
        Some(PageStep {
            from: self.plan.from.origin() + offset,
            to: self.plan.to.origin() + offset,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.pages.size_hint()
    }
}

impl FusedIterator for PageSteps {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BLOCK_SIZE as M;

    fn plan(from: u64, to: u64, size: u64) -> MovePlan {
        MovePlan::new(StorageRange::new(from * M, size * M).unwrap(), to * M).unwrap()
    }

    #[test]
    fn to_higher_addresses_goes_from_the_last_page_down() {
        let mut steps = plan(1, 2, 4).steps();
        assert_eq!(plan(1, 2, 4).direction(), Direction::Down);
        assert_eq!(steps.next(), Some(PageStep { from: 5 * M - 4096, to: 6 * M - 4096 }));
        assert_eq!(steps.last(), Some(PageStep { from: M, to: 2 * M }));
    }

    #[test]
    fn to_lower_addresses_goes_from_the_first_page_up() {
        let mut steps = plan(2, 1, 4).steps();
        assert_eq!(plan(2, 1, 4).direction(), Direction::Up);
        assert_eq!(steps.next(), Some(PageStep { from: 2 * M, to: M }));
        assert_eq!(steps.last(), Some(PageStep { from: 6 * M - 4096, to: 5 * M - 4096 }));
    }

    #[test]
    fn a_move_to_where_it_is_is_none() {
        let here = StorageRange::new(M, M).unwrap();
        assert_eq!(MovePlan::new(here, M), Err(PlanError::AlreadyThere));
        assert_eq!(
            MovePlan::new(here, M + 4096),
            Err(PlanError::Range(RangeError::OriginUnaligned(crate::Size(M + 4096))))
        );
    }

    #[test]
    fn the_overlap_is_what_both_have() {
        assert_eq!(plan(128, 192, 256).overlap(), StorageRange::new(192 * M, 192 * M).ok());
        assert_eq!(plan(0, 4, 4).overlap(), None);
    }

    proptest::proptest! {
        /// Model: a vector with one number per page of main storage.
        #[test]
        fn copying_in_plan_order_moves_the_content(from in 0u64..24, to in 0u64..24, size in 1u64..8) {
            proptest::prop_assume!(from != to);
            let plan = plan(from, to, size);
            let index = |offset: u64| usize::try_from(offset / PAGE_SIZE).unwrap();
            let before: Vec<usize> = (0..index(32 * M)).collect();
            let mut storage = before.clone();
            for step in plan.steps() {
                storage[index(step.to)] = storage[index(step.from)];
            }
            let pages = |range: StorageRange| index(range.origin())..index(range.end());
            proptest::prop_assert_eq!(&storage[pages(plan.to())], &before[pages(plan.from())]);
            for page in 0..before.len() {
                proptest::prop_assert!(storage[page] == before[page] || pages(plan.to()).contains(&page));
            }
        }
    }
}

//! Making one large gap of many: which partitions to move where, in which
//! order, at the least copying.
//!
//! The cost of a plan is the bytes of all partitions it moves, each counted
//! once for every time it is moved. Two searches find plans:
//!
//! - [`spans`] looks at every run of neighbours between two that stay. All of
//!   the run make way: into gaps elsewhere where they fit, or by sliding
//!   together within the run. It takes the cheapest run that works. One plan
//!   is always among those it looks at: the best that keeps everybody's order,
//!   so no answer is worse than that. It is quick for thousands.
//! - [`exact`] looks at every sequence of moves, also those that move one twice
//!   or lift one over others, for at most [`exact::MOST`] partitions that may
//!   be moved, and none is cheaper than what it finds. (In general this is bin
//!   packing, which nobody can do exactly for many.) It gives up after a fixed
//!   amount of work, reached where sizes are many and all free storage is to be
//!   one range; then the best answer so far stands.
//!
//! Both see main storage as a [`Line`] of blocks.

mod exact;
mod line;
mod spans;

use crate::{
    BLOCK_SIZE, MovePlan, Partition, PartitionName, Refusal, Size, StorageMap, StorageRange,
};
use line::{Goal, Item, Line, Solution};

/// One move of a [`CompactPlan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// The partition that is moved.
    pub name: PartitionName,
    /// From where to where.
    pub plan: MovePlan,
}

/// Moves that yield a free range, in order: each is legal once those before it
/// are done. Empty when the range is free already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactPlan {
    moves: Vec<PlannedMove>,
    free: StorageRange,
    is_least: bool,
}

impl CompactPlan {
    /// The moves, in order.
    #[must_use]
    pub fn moves(&self) -> &[PlannedMove] {
        &self.moves
    }

    /// The free range there is when all is done.
    #[must_use]
    pub fn free(&self) -> StorageRange {
        self.free
    }

    /// Bytes that are copied in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.moves.iter().map(|planned| planned.plan.from().size()).sum()
    }

    /// Whether it is proven that no plan copies less. For many partitions it
    /// is the best that was found.
    #[must_use]
    pub fn is_least(&self) -> bool {
        self.is_least
    }
}

impl StorageMap {
    /// The moves that yield one free range of at least `free` bytes, or without
    /// a size one range of all that is free. Partitions of the names in
    /// `fixed` are not moved, nor is one with a change under way.
    ///
    /// # Errors
    /// [`Refusal`]: no such size, [`Refusal::TooLittleFree`], or
    /// [`Refusal::Fixed`] when those that may not be moved leave no way.
    pub fn plan_compact(
        &self,
        free: Option<u64>,
        fixed: &[PartitionName],
    ) -> Result<CompactPlan, Refusal> {
        let all: u64 = self.gaps().iter().map(|gap| gap.size()).sum();
        let size = StorageRange::new(0, free.unwrap_or(all.max(BLOCK_SIZE)))?.size();
        if size > all {
            return Err(Refusal::TooLittleFree { size: Size(size), free: Size(all) });
        }
        self.plan_free(size, None, fixed)
    }

    /// The moves of others after which [`StorageMap::resize`] can give `name`
    /// the larger size `size`. Its neighbours make way; it stays itself, and so
    /// do partitions of the names in `fixed` and those with a change under way.
    ///
    /// # Errors
    /// [`Refusal`] as for [`StorageMap::plan_resize`] but for a gap that is too
    /// small, and as for [`StorageMap::plan_compact`].
    pub fn plan_make_room(
        &self,
        name: &PartitionName,
        size: u64,
        fixed: &[PartitionName],
    ) -> Result<CompactPlan, Refusal> {
        match self.plan_resize(name, size) {
            Ok(plan) if plan.grows() => {}
            Ok(plan) => {
                let range = plan.difference();
                return Ok(CompactPlan { moves: Vec::new(), free: range, is_least: true });
            }
            Err(Refusal::GapTooSmall { missing, .. }) => {
                let all: u64 = self.gaps().iter().map(|gap| gap.size()).sum();
                if missing.0 > all {
                    return Err(Refusal::TooLittleFree { size: missing, free: Size(all) });
                }
            }
            Err(refusal) => return Err(refusal),
        }
        let Some(partition) = self.get(name) else { return Err(Refusal::Unknown(name.clone())) };
        self.plan_free(size - partition.range().size(), Some(partition), fixed)
    }

    fn plan_free(
        &self,
        size: u64,
        behind: Option<&Partition>,
        fixed: &[PartitionName],
    ) -> Result<CompactPlan, Refusal> {
        let stays = |partition: &&Partition| {
            partition.change().is_some()
                || fixed.contains(partition.name())
                || behind.is_some_and(|behind| behind == *partition)
        };
        let goal = Goal {
            size: size / BLOCK_SIZE,
            at: behind.map(|partition| partition.range().end() / BLOCK_SIZE),
        };
        let line = self.line(stays);
        let Some((solution, is_least)) = solve(&line, goal) else {
            let fixed = self.partitions().iter().filter(stays).map(|one| one.name().clone());
            return Err(Refusal::Fixed { size: Size(size), fixed: fixed.collect() });
        };
        self.follow(&solution, is_least)
    }

    fn line(&self, stays: impl Fn(&&Partition) -> bool) -> Line {
        let items = self.partitions().iter().flat_map(|partition| {
            let is_fixed = stays(&partition);
            partition.held().map(move |range| Item {
                at: range.origin() / BLOCK_SIZE,
                size: range.size() / BLOCK_SIZE,
                is_fixed,
            })
        });
        Line::new(self.size() / BLOCK_SIZE, items.collect())
    }

    /// Carries the moves out on a copy of the map, which says who is moved and
    /// that each move is legal.
    fn follow(&self, solution: &Solution, is_least: bool) -> Result<CompactPlan, Refusal> {
        let mut map = self.clone();
        let mut moves = Vec::new();
        for step in &solution.steps {
            let from = step.from * BLOCK_SIZE;
            let at = |partition: &&Partition| partition.range().origin() == from;
            let Some(name) = map.partitions().iter().find(at).map(|one| one.name().clone()) else {
                continue;
            };
            let plan = map.relocate(&name, step.to * BLOCK_SIZE)?;
            moves.push(PlannedMove { name, plan });
        }
        let at = solution.free_at * BLOCK_SIZE;
        let gap = map.gaps().into_iter().find(|gap| gap.contains(at));
        let free = gap.map_or_else(|| StorageRange::new(at, BLOCK_SIZE), Ok)?;
        Ok(CompactPlan { moves, free, is_least })
    }
}

/// The cheapest way found, and whether it is proven that none is cheaper.
fn solve(line: &Line, goal: Goal) -> Option<(Solution, bool)> {
    let quick = spans::solve(line, goal);
    let bound = quick.as_ref().map(|solution| solution.cost);
    let (better, is_least) = match exact::solve(line, goal, bound) {
        exact::Outcome::Better(solution) => (Some(solution), true),
        exact::Outcome::NoBetter => (None, true),
        exact::Outcome::Unknown(best) => (best, bound == Some(0)),
    };
    better.or(quick).map(|solution| (solution, is_least))
}

#[cfg(test)]
mod tests;

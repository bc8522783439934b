//! Two partitions change places.

use super::{Change, Refusal, StorageMap, refused};
use crate::{ExchangePlan, MovePlan, PartitionName, StorageRange};

impl StorageMap {
    /// The plan of letting `a` and `b` change places, without doing anything.
    ///
    /// Each takes the other's origin; of equal size, that is all. Otherwise
    ///
    /// - the larger one must fit into the free range there is around the
    ///   smaller one once both are lifted off. Where it would reach past that
    ///   range's end it is put lower by as little as necessary;
    /// - the smaller one goes into the larger one's old range. Where the larger
    ///   one now covers its place it is put higher by as little as necessary:
    ///   directly behind it.
    ///
    /// Neighbours can so always be exchanged, also in a full main storage.
    ///
    /// # Errors
    /// [`Refusal`]: the same partition twice, unknown, a change is under way,
    /// past main storage, or others in the way of the larger one.
    pub fn plan_exchange(
        &self,
        a: &PartitionName,
        b: &PartitionName,
    ) -> Result<ExchangePlan, Refusal> {
        if a == b {
            return Err(Refusal::WithItself(a.clone()));
        }
        let (a_from, b_from) = (self.idle(a)?.range, self.idle(b)?.range);
        let (a_to, b_to) = if a_from.size() >= b_from.size() {
            self.exchanged(&[a, b], a_from, b_from)?
        } else {
            let (b_to, a_to) = self.exchanged(&[a, b], b_from, a_from)?;
            (a_to, b_to)
        };
        let plan = |name, from, to: StorageRange| {
            MovePlan::new(from, to.origin()).map_err(|error| refused(name, to.origin(), error))
        };
        ExchangePlan::new(plan(a, a_from, a_to)?, plan(b, b_from, b_to)?)
            .map_err(|error| refused(a, a_to.origin(), error))
    }

    /// Holds both ranges for both partitions. Ends with
    /// [`StorageMap::commit_exchange`] or [`StorageMap::abandon_exchange`].
    ///
    /// # Errors
    /// As for [`StorageMap::plan_exchange`].
    pub fn begin_exchange(
        &mut self,
        a: &PartitionName,
        b: &PartitionName,
    ) -> Result<ExchangePlan, Refusal> {
        let plan = self.plan_exchange(a, b)?;
        self.get_mut(a)?.change = Some(Change::Exchange { to: plan.a().to(), with: b.clone() });
        self.get_mut(b)?.change = Some(Change::Exchange { to: plan.b().to(), with: a.clone() });
        Ok(plan)
    }

    /// `name` and the one it is exchanged with are at their destinations. One
    /// of the two may have been removed meanwhile.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::NotUnderWay`].
    pub fn commit_exchange(&mut self, name: &PartitionName) -> Result<(), Refusal> {
        for (name, to) in self.end_exchange(name)? {
            self.get_mut(&name)?.range = to;
        }
        self.sort();
        Ok(())
    }

    /// `name` and the one it is exchanged with stay where they were. One of
    /// the two may have been removed meanwhile.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::NotUnderWay`].
    pub fn abandon_exchange(&mut self, name: &PartitionName) -> Result<(), Refusal> {
        self.end_exchange(name).map(|_| ())
    }

    /// Begins and commits an exchange at once, for partitions that do not run.
    ///
    /// # Errors
    /// As for [`StorageMap::plan_exchange`].
    pub fn exchange(
        &mut self,
        a: &PartitionName,
        b: &PartitionName,
    ) -> Result<ExchangePlan, Refusal> {
        let plan = self.begin_exchange(a, b)?;
        self.commit_exchange(a)?;
        Ok(plan)
    }

    /// Takes the exchange off both, and says where each would go.
    fn end_exchange(
        &mut self,
        name: &PartitionName,
    ) -> Result<Vec<(PartitionName, StorageRange)>, Refusal> {
        let Some(Change::Exchange { with, .. }) = self.get_mut(name)?.change.clone() else {
            return Err(Refusal::NotUnderWay { name: name.clone(), change: "exchanged" });
        };
        let mut ended = Vec::new();
        for (one, other) in [(name, &with), (&with, name)] {
            let Ok(partition) = self.get_mut(one) else { continue };
            if let Some(Change::Exchange { to, with }) = &partition.change {
                if with == other {
                    ended.push((one.clone(), *to));
                    partition.change = None;
                }
            }
        }
        Ok(ended)
    }

    /// Where the larger and the smaller one go.
    fn exchanged(
        &self,
        both: &[&PartitionName],
        large: StorageRange,
        small: StorageRange,
    ) -> Result<(StorageRange, StorageRange), Refusal> {
        let wanted = large.at(small.origin())?;
        let hole = self.hole_around(small, both);
        if hole.size() < large.size() {
            self.check_for(both, wanted)?;
        }
        let large_to = large.at(small.origin().min(hole.end() - large.size().min(hole.size())))?;
        self.check_for(both, large_to)?;
        let small_to = small.at(large.origin())?;
        let small_to =
            if small_to.overlaps(large_to) { small.at(large_to.end())? } else { small_to };
        Ok((large_to, small_to))
    }

    /// The largest range around `range` that nobody but `except` holds.
    fn hole_around(&self, range: StorageRange, except: &[&PartitionName]) -> StorageRange {
        let others = || {
            self.partitions
                .iter()
                .filter(|partition| !except.contains(&&partition.name))
                .flat_map(super::Partition::held)
        };
        let below = others().map(StorageRange::end).filter(|end| *end <= range.origin()).max();
        let above = others().map(StorageRange::origin).filter(|at| *at >= range.end()).min();
        StorageRange::between(below.unwrap_or(0), above.unwrap_or(self.total)).unwrap_or(range)
    }
}

//! Main storage as a picture shows it.

use crate::{Change, Partition, PartitionName, StorageMap, StorageRange};

/// Who has a piece of main storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A partition runs in it.
    Partition(PartitionName),
    /// A partition is being moved or expanded to it; nobody else gets it.
    Reserved(PartitionName),
    /// Nobody.
    Gap,
}

/// A piece of main storage with one owner. Neighbours have different owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its first byte.
    pub origin: u64,
    /// Its bytes.
    pub size: u64,
    /// Who has it.
    pub owner: Owner,
}

impl StorageMap {
    /// Every byte of main storage exactly once, by ascending origin.
    #[must_use]
    pub fn picture(&self) -> Vec<Segment> {
        let mut taken: Vec<(StorageRange, Owner)> = Vec::new();
        for partition in self.partitions() {
            let name = partition.name();
            // The other one of an exchange still runs in what is held for this one.
            let partner = match partition.change() {
                Some(Change::Exchange { with, .. }) => self.get(with),
                _ => None,
            };
            let reserved = partition.change().into_iter().flat_map(|change| {
                change.to().without(partition.range()).flat_map(move |piece| {
                    match partner.map(Partition::range) {
                        Some(range) => piece.without(range).collect(),
                        None => vec![piece],
                    }
                })
            });
            taken.extend(reserved.map(|range| (range, Owner::Reserved(name.clone()))));
            taken.push((partition.range(), Owner::Partition(name.clone())));
        }
        taken.sort_by_key(|(range, _)| range.origin());
        let mut segments = Vec::new();
        let mut end = 0;
        let gap = |origin, next: u64| {
            (origin < next).then(|| Segment { origin, size: next - origin, owner: Owner::Gap })
        };
        for (range, owner) in taken {
            segments.extend(gap(end, range.origin()));
            segments.push(Segment { origin: range.origin(), size: range.size(), owner });
            end = range.end();
        }
        segments.extend(gap(end, self.size()));
        segments
    }
}

//! A partition on the map, and what is under way with it.

use crate::{PartitionName, StorageRange};

/// What a command is doing with a partition. Until it is committed or
/// abandoned the partition holds its range and the one named here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is moved to this range.
    Move(StorageRange),
    /// It changes places with another partition.
    Exchange {
        /// Where it goes.
        to: StorageRange,
        /// The other partition.
        with: PartitionName,
    },
    /// It is expanded or shrunk to this range, which has the same origin.
    Resize(StorageRange),
}

impl Change {
    /// The range the partition has once this is committed.
    #[must_use]
    pub const fn to(&self) -> StorageRange {
        match self {
            Self::Move(to) | Self::Exchange { to, .. } | Self::Resize(to) => *to,
        }
    }

    /// What is done to the partition, as a word: `moved`, `exchanged` or `resized`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Move(_) => "moved",
            Self::Exchange { .. } => "exchanged",
            Self::Resize(_) => "resized",
        }
    }
}

/// A partition on the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub(super) name: PartitionName,
    pub(super) range: StorageRange,
    pub(super) change: Option<Change>,
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

    /// What is under way with it.
    #[must_use]
    pub fn change(&self) -> Option<&Change> {
        self.change.as_ref()
    }

    /// The range held for it while a move or an exchange is under way.
    #[must_use]
    pub fn moving_to(&self) -> Option<StorageRange> {
        match &self.change {
            Some(Change::Move(to) | Change::Exchange { to, .. }) => Some(*to),
            Some(Change::Resize(_)) | None => None,
        }
    }

    /// Every range it holds: its own and, in the middle of a change, the one
    /// it changes to. The two may overlap.
    pub fn held(&self) -> impl Iterator<Item = StorageRange> + '_ {
        std::iter::once(self.range).chain(self.change.as_ref().map(Change::to))
    }
}

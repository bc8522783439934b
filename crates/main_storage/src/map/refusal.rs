//! Why the resource manager says no.

use std::fmt;

use crate::{PartitionName, RangeError, Size, StorageRange};

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
    /// A change of this partition is under way.
    #[error("\"{name}\" is being {change}; try again when that has ended")]
    Busy {
        /// The partition.
        name: PartitionName,
        /// What is done to it: `moved`, `exchanged` or `resized`.
        change: &'static str,
    },
    /// No such change of this partition is under way. The host is to blame.
    #[error("\"{name}\" is not being {change}")]
    NotUnderWay {
        /// The partition.
        name: PartitionName,
        /// What is not done to it.
        change: &'static str,
    },
    /// It should be exchanged with itself.
    #[error("\"{0}\" cannot be exchanged with itself; name two partitions")]
    WithItself(PartitionName),
    /// It has that size.
    #[error("\"{name}\" already has {size}; choose another size")]
    SameSize {
        /// The partition.
        name: PartitionName,
        /// Its size.
        size: Size,
    },
    /// The gap behind it is too small.
    #[error(
        "\"{name}\" cannot grow to {wanted}: the gap behind it has {gap} of the {missing} it needs, \
         then {} in the way; make room there first or ask for less",
        Occupants(.by)
    )]
    GapTooSmall {
        /// The partition.
        name: PartitionName,
        /// The size it should get.
        wanted: Size,
        /// How much more than now that is.
        missing: Size,
        /// Bytes of the gap behind it.
        gap: Size,
        /// Everybody who has a part of what it needs, by ascending origin.
        by: Vec<Occupant>,
    },
    /// All gaps together have less.
    #[error("{size} are not free: all gaps together have {free}; ask for less")]
    TooLittleFree {
        /// What was wanted.
        size: Size,
        /// All that is free.
        free: Size,
    },
    /// No moves were found; moving one that may not be moved would help.
    #[error(
        "found no moves that give one free range of {size} without moving {}; try again when they may be moved, \
         or ask for less",
        Names(.fixed)
    )]
    Fixed {
        /// What was wanted.
        size: Size,
        /// Those that may not be moved, by ascending origin.
        fixed: Vec<PartitionName>,
    },
}

impl Refusal {
    /// The partitions in the way, if that is the reason.
    #[must_use]
    pub fn in_the_way(&self) -> &[Occupant] {
        match self {
            Self::InTheWay { by, .. } | Self::GapTooSmall { by, .. } => by,
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

struct Names<'a>(&'a [PartitionName]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}\"{name}\"")?;
        }
        if self.0.is_empty() { f.write_str("anybody") } else { Ok(()) }
    }
}

//! What is asked of the host. What is not known is refused.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DatabaseLogin, FileGrant, FileRevoke, NewSpace, SpaceBounds};

/// A change, as an operation keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Make a partition.
    Create {
        /// What it is to be.
        partition: NewPartition,
    },
    /// Delete a partition that does not run, with its data disk.
    Delete {
        /// The partition.
        name: String,
    },
    /// Start a partition.
    Start {
        /// The partition.
        name: String,
    },
    /// Stop a partition.
    Stop {
        /// The partition.
        name: String,
        /// Do not ask its guest.
        now: bool,
    },
    /// Stop a partition and start it anew.
    Restart {
        /// The partition.
        name: String,
        /// Do not ask its guest.
        now: bool,
    },
    /// Move a partition.
    Move {
        /// The partition.
        name: String,
        /// Its new origin.
        to: u64,
        /// Whether its guest runs meanwhile.
        mode: MoveMode,
    },
    /// Let two partitions change places.
    Exchange {
        /// One partition.
        a: String,
        /// The other one.
        b: String,
    },
    /// Give a partition more storage.
    Expand {
        /// The partition.
        name: String,
        /// Its new size; or else `by` says how much more.
        to: Option<u64>,
        /// How much more.
        by: Option<u64>,
        /// Move neighbours out of the way first.
        make_room: bool,
    },
    /// Take storage from a partition.
    Shrink {
        /// The partition.
        name: String,
        /// Its new size.
        to: u64,
    },
    /// Move partitions together.
    Compact {
        /// Bytes of the free range; without, all that is free.
        free: Option<u64>,
    },
    /// Let a pool that stopped building try again.
    PoolResume {
        /// The pool.
        name: String,
    },
    /// Give a pool other bounds.
    PoolResize {
        /// The pool.
        name: String,
        /// Machines that are kept ready.
        min: u16,
        /// Machines that there can be.
        max: u16,
    },
    /// Have a space for users' files.
    FilesAdd {
        /// Which.
        space: NewSpace,
    },
    /// Let somebody reach a space of users' files.
    FilesGrant {
        /// The space.
        space: String,
        /// Who, and what of it.
        grant: FileGrant,
    },
    /// Take that back.
    FilesRevoke {
        /// The space.
        space: String,
        /// From whom, and what of it.
        revoke: FileRevoke,
    },
    /// Bound a space of users' files.
    FilesQuota {
        /// The space.
        space: String,
        /// By what.
        bounds: SpaceBounds,
    },
    /// Give somebody a login to a database, in the place of what they had.
    DatabaseGrant {
        /// To whom, as what.
        login: DatabaseLogin,
    },
    /// Take it back.
    DatabaseRevoke {
        /// From whom: `user:ID` or `group:NAME`.
        from: String,
    },
    /// Wait until every partition that starts with the host serves commands.
    Await,
    /// End every partition, then the host.
    Down,
}

impl Command {
    /// Whether it ends early when it is cancelled.
    #[must_use]
    pub const fn can_be_cancelled(&self) -> bool {
        matches!(self, Self::Expand { .. } | Self::Compact { .. } | Self::Await)
    }

    /// What it is called in metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Delete { .. } => "delete",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Move { .. } => "move",
            Self::Exchange { .. } => "exchange",
            Self::Expand { .. } => "expand",
            Self::Shrink { .. } => "shrink",
            Self::Compact { .. } => "compact",
            Self::PoolResume { .. } => "pool_resume",
            Self::PoolResize { .. } => "pool_resize",
            Self::FilesAdd { .. } => "files_add",
            Self::FilesGrant { .. } => "files_grant",
            Self::FilesRevoke { .. } => "files_revoke",
            Self::FilesQuota { .. } => "files_quota",
            Self::DatabaseGrant { .. } => "database_grant",
            Self::DatabaseRevoke { .. } => "database_revoke",
            Self::Await => "await",
            Self::Down => "down",
        }
    }
}

fn minimal() -> String {
    "minimal".to_owned()
}

const fn one() -> u8 {
    1
}

/// A partition to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPartition {
    /// Its name: a-z, 0-9 and -.
    #[schema(min_length = 1, max_length = 63, example = "ci")]
    pub name: String,
    /// Its bytes.
    #[schema(example = 134_217_728)]
    pub size: u64,
    /// Bytes before it; the best fit without.
    pub origin: Option<u64>,
    /// Its guest's image, which is built.
    #[serde(default = "minimal")]
    #[schema(default = "minimal")]
    pub image: String,
    /// Its vCPUs.
    #[serde(default = "one")]
    #[schema(default = 1, minimum = 1, maximum = 8)]
    pub vcpus: u8,
    /// Bytes of its data disk.
    pub disk: Option<u64>,
    /// Start it too.
    #[serde(default)]
    pub start: bool,
}

/// How a partition is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Do not ask the guest: pull its plug.
    #[serde(default)]
    pub now: bool,
}

/// How a partition is moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MoveMode {
    /// The guest runs while its storage is copied, and is stopped for a moment
    /// at the end.
    #[default]
    Live,
    /// The guest is stopped while its storage is copied.
    Stop,
}

/// Where a partition is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Relocate {
    /// Its new origin.
    #[schema(example = 201_326_592)]
    pub to: u64,
    /// Whether its guest runs meanwhile.
    #[serde(default)]
    pub mode: MoveMode,
}

/// Two partitions that change places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// One partition.
    pub a: String,
    /// The other one.
    pub b: String,
}

/// How large a partition should be: either `to` or `by`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Expand {
    /// Its new size, which is more than now.
    pub to: Option<u64>,
    /// How much more.
    pub by: Option<u64>,
    /// Move neighbours out of the way first.
    #[serde(default)]
    pub make_room: bool,
}

/// How small a partition should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Shrink {
    /// Its new size, which is less than now.
    pub to: u64,
}

/// What a compaction is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Compact {
    /// Bytes of the free range; without, all that is free.
    pub free: Option<u64>,
}

/// Bounds of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolBounds {
    /// Machines that are kept ready.
    #[schema(maximum = 65_535)]
    pub min: u16,
    /// Machines that there can be; at most what the host file says.
    #[schema(maximum = 65_535)]
    pub max: u16,
}

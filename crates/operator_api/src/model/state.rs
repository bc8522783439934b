//! What there is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Everything the operator sees at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct State {
    /// Main storage and who is in it.
    pub host: HostState,
    /// The pools, in the order of the host file.
    pub pools: Vec<Pool>,
    /// Claims that wait for a machine, the oldest first; not all, if there are
    /// very many.
    pub waiting: Vec<Waiting>,
}

/// Main storage and who is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostState {
    /// The program's version.
    pub version: String,
    /// Bytes of main storage.
    pub main_storage: u64,
    /// Bytes of it that nobody has.
    pub free: u64,
    /// Origins and sizes are multiples of this.
    pub unit: u64,
    /// The host is ending: it takes no more commands.
    pub ending: bool,
    /// By ascending origin.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Bytes before it.
    pub origin: u64,
    /// Its bytes.
    pub size: u64,
    /// Unassigned bytes behind it.
    pub gap: u64,
    /// What it is doing.
    pub state: PartitionState,
    /// Its vCPUs.
    pub vcpus: u8,
    /// What executes its instructions.
    pub engine: String,
    /// Name of its guest's image.
    pub image: String,
    /// Whether its guest serves commands.
    pub ready: bool,
    /// Why it failed or stopped, if there is more to say.
    pub reason: Option<String>,
    /// The pool it is a machine of.
    pub pool: Option<String>,
    /// The change of its range that is under way.
    pub change: Option<Change>,
}

/// A change of a partition's range that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Which.
    pub kind: ChangeKind,
    /// Its origin then.
    pub origin: u64,
    /// Its size then.
    pub size: u64,
    /// The partition it changes places with.
    pub with: Option<String>,
    /// Bytes copied, as far as is known.
    pub done: u64,
    /// Bytes to copy; 0 before that is known.
    pub total: u64,
}

/// How a range changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is moved.
    Move,
    /// It changes places with another one.
    Exchange,
    /// It grows or shrinks.
    Resize,
}

/// What a partition is doing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// Its guest runs.
    Running,
    /// It is being relocated.
    Moving,
    /// Nothing runs; its range is kept for it.
    Stopped,
    /// Its guest or worker ended as it should not; its range is kept.
    Failed,
}

impl PartitionState {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Running, Self::Moving, Self::Stopped, Self::Failed];

    /// As JSON has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Moving => "moving",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Machines that are kept ready.
    pub min: u16,
    /// Machines that there can be.
    pub max: u16,
    /// Machines that there can be at most, as the host file says.
    pub limit: u16,
    /// Claims that wait for one.
    pub waiting: u32,
    /// Why it builds no more machines, if so.
    pub alarm: Option<String>,
    /// Its machines, by number.
    pub members: Vec<PoolMember>,
}

/// A machine of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolMember {
    /// Its primary id, which is its partition's name.
    pub name: String,
    /// What it is doing.
    pub state: MemberState,
    /// Whether somebody used it by its primary id: it is put back before it
    /// serves a conversation.
    pub visited: bool,
    /// The program it serves.
    pub tpn: Option<String>,
    /// The alternate user id it wears.
    pub user: Option<String>,
    /// The conversation.
    pub conversation: Option<String>,
    /// Since when it is in this state, to the second.
    pub since: u64,
    /// How often it was put back since the host started.
    pub put_back_times: u64,
    /// Microseconds that the last time took.
    pub put_back_micros: Option<u64>,
    /// Bytes that were put back then, those that are zero again included.
    pub put_back_bytes: Option<u64>,
    /// Microseconds that it had taken in the conversation before that, from its
    /// waking to its program's first output. The rest of what its user waited for was
    /// the host's part.
    #[serde(default)]
    pub first_output_micros: Option<u64>,
}

/// What a machine of a pool is doing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It is being made.
    Building,
    /// It is as captured and waits for a user.
    Free,
    /// It was given to a conversation and has not accepted yet.
    Assigned,
    /// It wears a user's id.
    InUse,
    /// It is being put back to what was captured.
    Cleaning,
    /// It must not be used; it is to be rebuilt.
    Broken,
    /// It is being destroyed and will not come back.
    Leaving,
}

impl MemberState {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::Building,
        Self::Free,
        Self::Assigned,
        Self::InUse,
        Self::Cleaning,
        Self::Broken,
        Self::Leaving,
    ];

    /// As JSON has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Free => "free",
            Self::Assigned => "assigned",
            Self::InUse => "in_use",
            Self::Cleaning => "cleaning",
            Self::Broken => "broken",
            Self::Leaving => "leaving",
        }
    }
}

/// A claim that waits for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// Who.
    pub user: String,
    /// The program.
    pub tpn: String,
    /// The pool, if one was named.
    pub pool: Option<String>,
    /// Since when.
    pub since: u64,
}

//! What the journal holds, as it is written: schema version 1.
//!
//! These types are the format. They are not derived from the types the host
//! works with, so that those can change without it; `golden` in the tests
//! holds every one of them as text.

use std::collections::BTreeMap;
use std::path::PathBuf;

use main_storage::PartitionName;
use serde::{Deserialize, Serialize};

/// The schema these records are of. Raised with every change that an older
/// program could not read.
pub(crate) const SCHEMA: &str = "1";

/// Main storage as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MainStorageRecord {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) backing: BackingRecord,
    pub(crate) numa_node: Option<u32>,
}

/// What main storage is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BackingRecord {
    #[serde(rename = "memfd")]
    Memfd,
    #[serde(rename = "reserved")]
    Reserved,
    #[serde(rename = "hugetlb-2M")]
    Huge2M,
    #[serde(rename = "hugetlb-1G")]
    Huge1G,
    #[serde(rename = "file")]
    File(PathBuf),
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartitionRecord {
    /// Bytes before it.
    pub(crate) origin: u64,
    /// Its bytes.
    pub(crate) size: u64,
    pub(crate) image: String,
    pub(crate) vcpus: u8,
    pub(crate) cpus: CpusRecord,
    /// Bytes of its data disk.
    pub(crate) disk: Option<u64>,
    pub(crate) autostart: bool,
    pub(crate) engine: EngineRecord,
    /// Access keys of I/O processors, by name.
    pub(crate) io_keys: BTreeMap<String, u8>,
    pub(crate) state: StateRecord,
}

/// Host CPUs of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CpusRecord {
    Floating,
    Exclusive(Vec<usize>),
    TimeShared(Vec<usize>),
}

/// What executes its instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EngineRecord {
    Soft,
}

/// What a partition was doing when nothing was being done to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StateRecord {
    /// A worker runs in it.
    Running,
    /// Nothing runs; why, if there is more to say.
    Stopped(Option<String>),
    /// It ended as it should not.
    Failed(String),
}

/// A command in flight. Its phases are records that take each other's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CommandRecord {
    /// A worker is being started.
    Start { name: PartitionNameRecord },
    /// The guest is being ended.
    Stop { name: PartitionNameRecord },
    /// The same, and it is started anew then: becomes `Start`.
    Restart { name: PartitionNameRecord },
    /// The worker relocates; it holds both ranges. Origins in bytes.
    Move { name: PartitionNameRecord, from: u64, to: u64 },
    /// Two partitions change places; each holds both ranges of its own.
    /// Origins before and after, in bytes.
    Exchange {
        name: PartitionNameRecord,
        from: u64,
        to: u64,
        with: PartitionNameRecord,
        with_from: u64,
        with_to: u64,
    },
    /// The worker grows or shrinks. Sizes in bytes.
    Resize { name: PartitionNameRecord, from: u64, to: u64 },
    /// Range and disk are cleared, and the partition goes.
    Delete { name: PartitionNameRecord },
}

/// A partition's name; checked when it is read.
pub(crate) type PartitionNameRecord = String;

impl CommandRecord {
    /// Whether it is about the partition `name`.
    pub(crate) fn is_about(&self, other: &PartitionName) -> bool {
        let other = other.as_str();
        match self {
            Self::Start { name }
            | Self::Stop { name }
            | Self::Restart { name }
            | Self::Move { name, .. }
            | Self::Resize { name, .. }
            | Self::Delete { name } => name == other,
            Self::Exchange { name, with, .. } => name == other || with == other,
        }
    }
}

/// Number of a command in flight.
pub(crate) type CommandId = u64;

/// One step of what changes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Main storage was made.
    MainStorage(MainStorageRecord),
    /// A partition is there, or is now so.
    Partition(PartitionName, PartitionRecord),
    /// A partition is there no more.
    Gone(PartitionName),
    /// A command begins, or enters its next phase.
    Command(CommandId, CommandRecord),
    /// A command has ended.
    Ended(CommandId),
    /// The host ends with all its guests, and its journal with it.
    Ending,
}

/// Everything in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) main_storage: Option<MainStorageRecord>,
    pub(crate) partitions: BTreeMap<PartitionName, PartitionRecord>,
    pub(crate) commands: BTreeMap<CommandId, CommandRecord>,
    pub(crate) ending: bool,
}

#[cfg(test)]
impl State {
    /// What the journal is after these changes: the model it is tested by.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes.iter().cloned() {
            match change {
                Change::MainStorage(record) => self.main_storage = Some(record),
                Change::Partition(name, record) => drop(self.partitions.insert(name, record)),
                Change::Gone(name) => drop(self.partitions.remove(&name)),
                Change::Command(id, record) => drop(self.commands.insert(id, record)),
                Change::Ended(id) => drop(self.commands.remove(&id)),
                Change::Ending => self.ending = true,
            }
        }
    }
}

//! What the host knows: the map, and every partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use main_storage::{Change, PartitionName, StorageMap, StorageRange};
use operator_api::model::PartitionState;

use super::process::Process;
use super::{Shared, records};
use crate::host_file::{CpuAssignment, PartitionSpec};
use crate::in_full;
use crate::journal::{CommandId, JournalError, PartitionRecord};

/// The resource manager's map and the partitions on it.
pub(super) struct Board {
    pub(super) map: StorageMap,
    pub(super) partitions: BTreeMap<PartitionName, Partition>,
    /// The host is ending: no new command.
    pub(super) closing: bool,
    /// Those whose guests `berth up` waits for.
    pub(super) awaited: Vec<PartitionName>,
    /// Whether those are all of them.
    pub(super) begun: bool,
}

pub(super) struct Partition {
    pub(super) spec: PartitionSpec,
    pub(super) run: Run,
    /// The command it is under.
    pub(super) busy: Option<Command>,
    /// Why it stopped or failed.
    pub(super) reason: Option<String>,
}

/// What runs in a partition.
pub(super) enum Run {
    Stopped,
    Failed,
    Running(Arc<Process>),
}

/// What is being done to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Start,
    Stop,
    Move,
    Delete,
    Exchange,
    Resize,
}

impl Command {
    const fn participle(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Move => "moved",
            Self::Delete => "deleted",
            Self::Exchange => "exchanged",
            Self::Resize => "resized",
        }
    }
}

/// Why a command was refused. Nothing has changed. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("there is no partition \"{name}\"; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("\"{name}\" is being {doing} by another command; try again when that has ended")]
    Busy { name: PartitionName, doing: &'static str },
    #[error("the host is ending; start it again with `berth up`")]
    Closing,
    #[error("\"{0}\" is running already; `berth restart {0}` starts it anew")]
    Running(PartitionName),
    #[error("\"{name}\" is {state}{reason}; start it with `berth start {name}`")]
    NotRunning { name: PartitionName, state: &'static str, reason: String },
    #[error("\"{name}\" could not be started: {reason}")]
    Start { name: PartitionName, reason: String },
    #[error("\"{name}\" did not end: {reason}")]
    Stop { name: PartitionName, reason: String },
    #[error(
        "the guest in \"{name}\" does not serve commands after {seconds} s; look at `berth console {name}`"
    )]
    NotReady { name: PartitionName, seconds: u64 },
    #[error("the worker of \"{name}\" cannot be reached: {source}")]
    Worker { name: PartitionName, source: std::io::Error },
    #[error("nothing was done: {}", in_full(.0))]
    Journal(JournalError),
    #[error("partition \"{name}\" cannot be made: {reason}")]
    Create { name: String, reason: String },
    #[error("\"{0}\" is running; stop it first with `berth stop {0}`")]
    StillRunning(PartitionName),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Missing(String),
    #[error("the guest in \"{0}\" is still starting")]
    Starting(PartitionName),
    #[error("\"{name}\" could not be deleted: {reason}; try again")]
    Delete { name: PartitionName, reason: String },
}

impl Board {
    /// Nobody on it yet.
    pub(super) fn new(map: StorageMap) -> Self {
        let (partitions, awaited) = (BTreeMap::new(), Vec::new());
        Self { map, partitions, closing: false, awaited, begun: false }
    }

    /// Host CPUs that somebody has exclusively.
    pub(super) fn exclusive_cpus(&self) -> Vec<usize> {
        let each = self.partitions.values().flat_map(|partition| match &partition.spec.cpus {
            CpuAssignment::Exclusive(cpus) => cpus.as_slice(),
            CpuAssignment::Floating | CpuAssignment::TimeShared(_) => &[],
        });
        each.copied().collect()
    }

    /// What the journal must say of a partition; `None` for one that is gone.
    pub(super) fn record(&self, name: &PartitionName) -> Option<PartitionRecord> {
        let (partition, on_map) = (self.partitions.get(name)?, self.map.get(name)?);
        Some(records::partition(&partition.spec, on_map.range(), records::state(partition)))
    }

    /// The name, if it is a partition's.
    pub(super) fn find(&self, name: &str) -> Result<PartitionName, CommandError> {
        let known = || {
            let names: Vec<_> = self.partitions.keys().map(PartitionName::as_str).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        self.partitions
            .keys()
            .find(|known| known.as_str() == name)
            .cloned()
            .ok_or_else(|| CommandError::Unknown { name: name.to_owned(), known: known() })
    }

    pub(super) fn get(&mut self, name: &str) -> Result<&mut Partition, CommandError> {
        let found = self.find(name)?;
        self.partitions
            .get_mut(&found)
            .ok_or_else(|| CommandError::Unknown { name: name.to_owned(), known: String::new() })
    }

    /// Partitions under a command, which must not be moved.
    pub(super) fn busy_partitions(&self) -> Vec<PartitionName> {
        let busy = self.partitions.iter().filter(|(_, partition)| partition.busy.is_some());
        busy.map(|(name, _)| name.clone()).collect()
    }

    /// Ends a partition's resize with `size` bytes, whatever was planned.
    pub(super) fn settle_size(&mut self, name: &PartitionName, size: u64) {
        // It is not under way if the partition ended meanwhile, or did not run.
        let _ = self.map.abandon_resize(name);
        // The size it has is refused, which is as good.
        let _ = self.map.resize(name, size);
    }

    /// Ends whatever change of a partition's range was under way when its
    /// worker ended. An exchange goes on for the other one, and whoever
    /// ordered it ends it. Ranges that nobody else has now.
    pub(super) fn settle_change(&mut self, name: &PartitionName) -> Vec<StorageRange> {
        let Some(on_map) = self.map.get(name) else { return Vec::new() };
        let held = on_map.held().collect();
        match on_map.change() {
            Some(Change::Exchange { .. }) => return Vec::new(),
            Some(Change::Move(_)) => drop(self.map.abandon_move(name)),
            Some(Change::Resize(_)) => drop(self.map.abandon_resize(name)),
            None => {}
        }
        held
    }
}

impl Partition {
    pub(super) fn process(&self) -> Option<&Process> {
        match &self.run {
            Run::Running(process) => Some(process),
            Run::Stopped | Run::Failed => None,
        }
    }

    pub(super) fn state(&self) -> PartitionState {
        match (&self.run, self.busy) {
            (Run::Running(_), Some(Command::Move | Command::Exchange)) => PartitionState::Moving,
            (Run::Running(_), _) => PartitionState::Running,
            (Run::Stopped, _) => PartitionState::Stopped,
            (Run::Failed, _) => PartitionState::Failed,
        }
    }

    pub(super) fn running(&self) -> Result<Arc<Process>, CommandError> {
        match &self.run {
            Run::Running(process) => Ok(Arc::clone(process)),
            Run::Stopped | Run::Failed => Err(CommandError::NotRunning {
                name: self.spec.name.clone(),
                state: self.state().as_str(),
                reason: self.reason.as_ref().map_or(String::new(), |text| format!(" ({text})")),
            }),
        }
    }
}

/// A command's claim on a partition; ends when dropped.
pub(super) struct Busy<'a> {
    shared: &'a Shared,
    pub(super) name: PartitionName,
    /// The command's number in the journal.
    pub(super) id: CommandId,
}

impl<'a> Busy<'a> {
    /// Claims the partition `name` for `command`.
    pub(super) fn claim(
        shared: &'a Shared,
        board: &mut Board,
        name: &str,
        command: Command,
    ) -> Result<Self, CommandError> {
        if board.closing {
            return Err(CommandError::Closing);
        }
        Self::claim_while_closing(shared, board, name, command)
    }

    /// As [`Busy::claim`], for the end of the host itself.
    pub(super) fn claim_while_closing(
        shared: &'a Shared,
        board: &mut Board,
        name: &str,
        command: Command,
    ) -> Result<Self, CommandError> {
        let partition = board.get(name)?;
        let name = partition.spec.name.clone();
        if let Some(busy) = partition.busy {
            return Err(CommandError::Busy { name, doing: busy.participle() });
        }
        partition.busy = Some(command);
        Ok(Self { shared, name, id: shared.journal.number() })
    }

    /// The claim of a command that an earlier host began, already on the board.
    pub(super) fn resumed(shared: &'a Shared, name: PartitionName, id: CommandId) -> Self {
        Self { shared, name, id }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(partition) = self.shared.board().partitions.get_mut(&self.name) {
            partition.busy = None;
        }
        self.shared.changed.notify_all();
    }
}

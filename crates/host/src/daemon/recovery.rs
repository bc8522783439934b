//! What becomes of partitions and interrupted commands when a host comes back:
//! decided here, and nowhere else.
//!
//! | command in flight | its worker lives | it died alone | nothing lives any more |
//! |---|---|---|---|
//! | none | adopted | as its last word says, else failed | started, if it ran |
//! | start | adopted: it has started | begun anew | begun anew |
//! | stop | adopted, and the stop repeated | stopped | stopped |
//! | restart | adopted, and the restart repeated | started | started |
//! | move, resize | adopted where it says | as none, where it was | as none, where it was |
//! | exchange | adopted where it says | as none, where the other's word leaves it | as none, where it was |
//! | delete | adopted: undone | finished | finished |
//!
//! A start is finished because nothing can be lost by it: no guest has run. A
//! move, exchange or resize is the worker's: it alone knows how far it is, and
//! finishes it or stays where it was before it says where it is. A stop is
//! finished because the guest may be half down already. "Nothing lives any
//! more" is when the keeper is gone too, as after the machine was restarted:
//! then the host starts again what ran.

use std::collections::BTreeMap;

use main_storage::{PartitionName, Refusal, StorageMap, StorageRange};

use super::records;
use crate::host_file::{HostFile, PartitionSpec};
use crate::journal::{Change, CommandId, CommandRecord, State, StateRecord};
use crate::link::Ended;

/// What is done with a partition next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it is so.
    Rest(StateRecord),
    /// Its worker is taken over.
    Adopt,
    /// And stopped.
    AdoptAndStop(CommandId),
    /// And started anew.
    AdoptAndRestart(CommandId),
    /// It is started.
    Start(CommandId),
    /// It is deleted.
    Delete(CommandId),
}

/// One partition as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recovered {
    pub(super) spec: PartitionSpec,
    pub(super) next: Next,
}

/// The map, everybody on it, and what the journal must say before anything is
/// done.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) map: StorageMap,
    pub(super) partitions: Vec<Recovered>,
    pub(super) changes: Vec<Change>,
}

/// Why a host cannot go on from what is there. The operator is to blame, but
/// for strangers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Contradiction {
    #[error(
        "the host file wants another main storage than the one that is here; put its \
         [main_storage] back, or end everything with `berth down` first"
    )]
    MainStorage,
    #[error(
        "the host file adds partition \"{name}\", which has no place here: {refusal}; change its \
         origin or size, or leave it out"
    )]
    NoPlace { name: PartitionName, refusal: Refusal },
    #[error("the partitions here and in the host file do not go together: {0}")]
    Together(String),
    #[error(
        "\"{name}\" cannot be where it says it is: {refusal}; end everything with `berth down`"
    )]
    Impossible { name: PartitionName, refusal: Refusal },
    #[error(
        "a guest runs in \"{0}\" that the journal does not know; end everything with `berth down`"
    )]
    Stranger(PartitionName),
}

/// What there is beside the journal.
pub(super) struct Remains {
    /// Where workers that live say they are.
    pub(super) found: BTreeMap<PartitionName, StorageRange>,
    /// Last words of those that do not.
    pub(super) ended: BTreeMap<PartitionName, Ended>,
    /// Whether main storage is still the one that the journal speaks of.
    pub(super) survived: bool,
}

/// Decides. `unit` is main storage's, `number` gives out numbers of commands.
pub(super) fn recover(
    file: &HostFile,
    state: &State,
    remains: &Remains,
    unit: u64,
    mut number: impl FnMut() -> CommandId,
) -> Result<Recovery, Contradiction> {
    let wanted = records::main_storage(file).map_err(Contradiction::Together)?;
    if state.main_storage.as_ref().is_some_and(|here| *here != wanted) {
        return Err(Contradiction::MainStorage);
    }
    if let Some(name) = remains.found.keys().find(|name| !state.partitions.contains_key(*name)) {
        return Err(Contradiction::Stranger(name.clone()));
    }
    let map = StorageMap::in_units(file.main_storage, unit);
    let map = map.map_err(|error| Contradiction::Together(error.to_string()))?;
    let changes = vec![Change::MainStorage(wanted)];
    let mut recovery = Recovery { map, partitions: Vec::new(), changes };
    for name in state.partitions.keys() {
        let command = state.commands.iter().find(|(_, one)| one.is_about(name));
        let command = command.map(|(id, command)| (*id, command));
        recovery.take_over(state, name, command, remains, &mut number)?;
    }
    // Of partitions that are gone.
    for (id, command) in &state.commands {
        if !state.partitions.keys().any(|name| command.is_about(name)) {
            recovery.changes.push(Change::Ended(*id));
        }
    }
    recovery.add_new(file, state, &mut number)?;
    let partitions = recovery.partitions.iter().map(|one| one.spec.clone()).collect();
    HostFile { partitions, ..file.clone() }
        .check_sharing()
        .map_err(|error| Contradiction::Together(error.to_string()))?;
    Ok(recovery)
}

impl Recovery {
    /// A partition of the journal.
    fn take_over(
        &mut self,
        state: &State,
        name: &PartitionName,
        command: Option<(CommandId, &CommandRecord)>,
        remains: &Remains,
        number: &mut impl FnMut() -> CommandId,
    ) -> Result<(), Contradiction> {
        let Some(record) = state.partitions.get(name) else { return Ok(()) };
        let found = remains.found.get(name);
        let impossible =
            |refusal: Refusal| Contradiction::Impossible { name: name.clone(), refusal };
        let mut spec = records::spec(name, record).map_err(|error| impossible(error.into()))?;
        // A worker's word about where its storage is wins.
        spec.range = match found {
            Some(range) => *range,
            None => left_by(name, spec.range, command, remains),
        };
        self.map.assign(name.clone(), spec.range).map_err(impossible)?;
        let next = match found {
            Some(_) => adopt(command),
            None => {
                let ended = remains.survived.then(|| remains.ended.get(name));
                without_worker(&record.state, command, ended, number)
            }
        };
        self.note(&spec, &next, command.map(|(id, _)| id));
        self.partitions.push(Recovered { spec, next });
        Ok(())
    }

    /// What the journal must say of a partition and its command.
    fn note(&mut self, spec: &PartitionSpec, next: &Next, command: Option<CommandId>) {
        let name = spec.name.to_string();
        let (state, going_on) = match next {
            Next::Rest(state) => (state.clone(), None),
            Next::Adopt => (StateRecord::Running, None),
            Next::AdoptAndStop(id) => {
                (StateRecord::Running, Some((*id, CommandRecord::Stop { name })))
            }
            Next::AdoptAndRestart(id) => {
                (StateRecord::Running, Some((*id, CommandRecord::Restart { name })))
            }
            Next::Start(id) => {
                (StateRecord::Stopped(None), Some((*id, CommandRecord::Start { name })))
            }
            Next::Delete(id) => {
                (StateRecord::Stopped(None), Some((*id, CommandRecord::Delete { name })))
            }
        };
        let record = records::partition(spec, spec.range, state);
        self.changes.push(Change::Partition(spec.name.clone(), record));
        if let Some(id) =
            command.filter(|id| going_on.as_ref().is_none_or(|(other, _)| id != other))
        {
            self.changes.push(Change::Ended(id));
        }
        self.changes.extend(going_on.map(|(id, command)| Change::Command(id, command)));
    }

    /// Partitions of the host file that are not here yet. Of those that are,
    /// the journal's word counts.
    fn add_new(
        &mut self,
        file: &HostFile,
        state: &State,
        number: &mut impl FnMut() -> CommandId,
    ) -> Result<(), Contradiction> {
        let new = |declared: bool| {
            let new = file.partitions.iter();
            new.filter(move |spec| {
                spec.declared == declared && !state.partitions.contains_key(&spec.name)
            })
        };
        for spec in new(true).chain(new(false)) {
            let mut spec = spec.clone();
            let place = match spec.declared {
                true => Ok(spec.range),
                // What fitted best in the file may be somebody else's here.
                false => self.map.best_fit(spec.range.size()),
            };
            let placed = place.and_then(|range| {
                self.map.assign(spec.name.clone(), range)?;
                Ok(range)
            });
            let name = spec.name.clone();
            spec.range = placed.map_err(|refusal| Contradiction::NoPlace { name, refusal })?;
            let next = match spec.autostart {
                true => Next::Start(number()),
                false => Next::Rest(StateRecord::Stopped(None)),
            };
            self.note(&spec, &next, None);
            self.partitions.push(Recovered { spec, next });
        }
        Ok(())
    }
}

/// Where a partition without a worker is. Only in an exchange whose other
/// partition lives that depends on more than the journal: both went, or none.
fn left_by(
    name: &PartitionName,
    recorded: StorageRange,
    command: Option<(CommandId, &CommandRecord)>,
    remains: &Remains,
) -> StorageRange {
    let Some((_, CommandRecord::Exchange { name: a, to, with: b, with_to, .. })) = command else {
        return recorded;
    };
    let (other, other_to, own_to) =
        if name.as_str() == a { (b, *with_to, *to) } else { (a, *to, *with_to) };
    let other = remains.found.iter().find(|(found, _)| found.as_str() == other);
    match other.filter(|(_, range)| range.origin() == other_to) {
        Some(_) => recorded.at(own_to).unwrap_or(recorded),
        None => recorded,
    }
}

/// For a partition whose worker lives.
fn adopt(command: Option<(CommandId, &CommandRecord)>) -> Next {
    match command {
        Some((id, CommandRecord::Stop { .. })) => Next::AdoptAndStop(id),
        Some((id, CommandRecord::Restart { .. })) => Next::AdoptAndRestart(id),
        Some((
            _,
            CommandRecord::Start { .. }
            | CommandRecord::Move { .. }
            | CommandRecord::Exchange { .. }
            | CommandRecord::Resize { .. }
            | CommandRecord::Delete { .. },
        ))
        | None => Next::Adopt,
    }
}

/// For a partition that has no worker. `ended` is its last word, if it had one,
/// or `None` when everything is gone.
fn without_worker(
    state: &StateRecord,
    command: Option<(CommandId, &CommandRecord)>,
    ended: Option<Option<&Ended>>,
    number: &mut impl FnMut() -> CommandId,
) -> Next {
    match command {
        Some((id, CommandRecord::Start { .. } | CommandRecord::Restart { .. })) => Next::Start(id),
        Some((_, CommandRecord::Stop { .. })) => Next::Rest(StateRecord::Stopped(None)),
        Some((id, CommandRecord::Delete { .. })) => Next::Delete(id),
        Some((
            _,
            CommandRecord::Move { .. }
            | CommandRecord::Exchange { .. }
            | CommandRecord::Resize { .. },
        ))
        | None => match (state, ended) {
            (StateRecord::Running, None) => Next::Start(number()),
            (StateRecord::Running, Some(word)) => alone(word, number),
            (rest, _) => Next::Rest(rest.clone()),
        },
    }
}

/// For a guest that ended while there was no host.
fn alone(word: Option<&Ended>, number: &mut impl FnMut() -> CommandId) -> Next {
    Next::Rest(match word {
        Some(Ended::Reboot) => return Next::Start(number()),
        Some(Ended::PowerOff) => {
            StateRecord::Stopped(Some("the guest powered itself off".to_owned()))
        }
        Some(Ended::ShutDown) => StateRecord::Stopped(None),
        Some(Ended::Failed { reason }) => StateRecord::Failed(reason.clone()),
        None => StateRecord::Failed(
            "its worker process ended while there was no host, nobody knows how".to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests;

//! What is there when a host begins: its journal, main storage in its keeper,
//! and workers.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use main_storage::{PartitionName, StorageRange};
use storage_window::MainStorage;

use super::HostError;
use super::board::{Board, Command, Partition, Run};
use super::process::{Process, last_word};
use super::recovery::{Next, Recovered, Recovery, Remains, recover};
use crate::host_file::HostFile;
use crate::in_full;
use crate::journal::{Journal, State, StateRecord};
use crate::keeper::{Keeper, end_keeper_of};
use crate::link::{Introduction, Link, Order, Report};
use crate::state_dir::{Lock, StateDir};

/// How long a worker may take to say who it is and where. It may be making its
/// machine, or in the middle of a command that waits for its guest or another.
const HELLO: Duration = Duration::from_secs(300);
/// How long guests of a host that was ending may take to power off.
const POWER_OFF: Duration = Duration::from_secs(10);

/// All that a host begins with.
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) storage: MainStorage,
    pub(super) keeper: Keeper,
    pub(super) board: Board,
    pub(super) next: Vec<(PartitionName, Next)>,
}

type Workers = BTreeMap<PartitionName, (Process, Introduction)>;

/// Finds what an earlier host left, or makes main storage anew, and decides
/// what to do with it. No guest notices.
pub(super) fn open(file: &HostFile, dir: &StateDir, lock: &Lock) -> Result<Opened, HostError> {
    let (journal, state) = open_journal(dir, lock)?;
    let workers = find_workers(dir)?;
    let kept = find_storage(dir, &state, workers.is_empty())?;
    if kept.is_none() && !workers.is_empty() {
        return Err(HostError::Leftovers(workers.values().map(|one| guest(&one.0)).collect()));
    }
    let survived = kept.is_some();
    let (keeper, storage) = match kept {
        Some((keeper, storage)) => (Some(keeper), storage),
        None => (None, make_storage(file)?),
    };
    let found = workers.iter().map(|(name, (_, said))| Ok((name.clone(), place(name, said)?)));
    let found = found.collect::<Result<BTreeMap<_, _>, HostError>>()?;
    let dead = state.partitions.keys().filter(|name| !found.contains_key(*name));
    let ended = dead.filter_map(|name| Some((name.clone(), last_word(&dir.worker_log(name))?)));
    let remains = Remains { ended: ended.collect(), found, survived };
    let number = || journal.number();
    let Recovery { map, partitions, changes } =
        recover(file, &state, &remains, storage.granularity(), number)
            .map_err(|error| HostError::Recovery(error.to_string()))?;
    let keeper = match keeper {
        Some(keeper) => keeper,
        None => Keeper::start(dir, &storage).map_err(|source| HostError::System {
            what: "a process to keep main storage",
            source,
        })?,
    };
    journal.record(&changes).map_err(|error| HostError::Recovery(in_full(&error)))?;
    let mut board = Board::new(map);
    let next = settle(&mut board, partitions, workers);
    clear(&storage, &board);
    tracing::info!(keeper = keeper.pid(), survived, "main storage is kept");
    Ok(Opened { journal, storage, keeper, board, next })
}

/// The journal. A host that was ending when it was killed is ended first.
fn open_journal(dir: &StateDir, lock: &Lock) -> Result<(Journal, State), HostError> {
    let open =
        || Journal::open(&dir.journal()).map_err(|error| HostError::Recovery(in_full(&error)));
    let (journal, state) = open()?;
    if !state.ending {
        return Ok((journal, state));
    }
    drop(journal);
    tracing::info!("an earlier host was ending when it was killed; finishing that");
    clean_up(dir, lock, POWER_OFF, &mut |_| {})
        .map_err(|source| HostError::System { what: "to end what an earlier host left", source })?;
    open()
}

fn make_storage(file: &HostFile) -> Result<MainStorage, HostError> {
    MainStorage::create_on(file.main_storage, &file.backing, file.numa_node)
        .map_err(|error| HostError::Storage(in_full(&error)))
}

/// Main storage in its keeper, if it is the one that the journal speaks of.
fn find_storage(
    dir: &StateDir,
    state: &State,
    unused: bool,
) -> Result<Option<(Keeper, MainStorage)>, HostError> {
    let system = |source| HostError::System { what: "to talk to the keeper of storage", source };
    let Some((mut keeper, storage)) = Keeper::find(dir).map_err(system)? else { return Ok(None) };
    match &state.main_storage {
        Some(record) if record.size == storage.size() => Ok(Some((keeper, storage))),
        Some(_) => Err(HostError::Recovery(
            "the main storage that is kept here is not the journal's; end everything with \
             `berth down`"
                .to_owned(),
        )),
        // Made, but its host was killed before anybody got a part of it.
        None if unused => keeper.end().map(|()| None).map_err(system),
        None => Ok(Some((keeper, storage))),
    }
}

/// Every worker that lives and answers.
fn find_workers(dir: &StateDir) -> Result<Workers, HostError> {
    let names = dir.worker_sockets();
    let adopted: Vec<_> = std::thread::scope(|scope| {
        let each = names.iter().map(|name| scope.spawn(|| Process::adopt(dir, name, HELLO)));
        let threads: Vec<_> = each.collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut workers = Workers::new();
    for (name, adopted) in names.into_iter().zip(adopted) {
        let adopted = adopted.unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
        match adopted {
            Ok(Some(worker)) => drop(workers.insert(name, worker)),
            // Nobody listens: a dead worker's, or one that had no guest yet.
            Ok(None) => drop(std::fs::remove_file(dir.worker_socket(&name))),
            Err(error) => {
                return Err(HostError::Recovery(format!(
                    "the worker of \"{name}\" does not say who it is ({error}); end everything \
                     with `berth down`, with the program that started it if this one is another"
                )));
            }
        }
    }
    Ok(workers)
}

/// Where a worker says that its storage is.
fn place(name: &PartitionName, said: &Introduction) -> Result<StorageRange, HostError> {
    let range = StorageRange::try_from(said.range);
    range.ok().filter(|_| said.name == name.as_str()).ok_or_else(|| {
        HostError::Recovery(format!(
            "the worker of \"{name}\" says that it is {} in {:?}; end everything with `berth down`",
            said.name, said.range
        ))
    })
}

/// Gives back the memory of everything that no worker has: what a host that
/// was killed did not come to.
fn clear(storage: &MainStorage, board: &Board) {
    if !storage.is_lazy() {
        return;
    }
    let runs = |on_map: &&main_storage::Partition| {
        board.partitions.get(on_map.name()).is_some_and(|one| one.process().is_some())
    };
    let idle = board.map.partitions().iter().filter(|on_map| !runs(on_map));
    for range in idle.map(main_storage::Partition::range).chain(board.map.gaps()) {
        if let Err(error) = storage.discard(range) {
            // It is tried again before the range is used.
            tracing::error!(error = in_full(&error), "memory not given back");
        }
    }
}

/// Puts everybody on the board, under the commands that go on.
fn settle(
    board: &mut Board,
    partitions: Vec<Recovered>,
    mut workers: Workers,
) -> Vec<(PartitionName, Next)> {
    let mut all = Vec::new();
    for Recovered { spec, next } in partitions {
        let name = spec.name.clone();
        let (busy, awaited) = match next {
            Next::Rest(_) => (None, false),
            Next::Adopt => (None, true),
            Next::AdoptAndStop(_) => (Some(Command::Stop), false),
            Next::AdoptAndRestart(_) => (Some(Command::Stop), true),
            Next::Start(_) => (Some(Command::Start), true),
            Next::Delete(_) => (Some(Command::Delete), false),
        };
        let (run, reason) = match (workers.remove(&name), &next) {
            (Some((process, _)), _) => (Run::Running(Arc::new(process)), None),
            (None, Next::Rest(StateRecord::Failed(why))) => (Run::Failed, Some(why.clone())),
            (None, Next::Rest(StateRecord::Stopped(why))) => (Run::Stopped, why.clone()),
            (None, _) => (Run::Stopped, None),
        };
        board.awaited.extend(awaited.then(|| name.clone()));
        board.partitions.insert(name.clone(), Partition { spec, run, busy, reason });
        all.push((name, next));
    }
    all
}

/// Names of the images that partitions here use, as an earlier host left them.
///
/// # Errors
/// [`HostError::Recovery`] when its journal cannot be read.
pub fn images_in_use(dir: &StateDir, _lock: &Lock) -> Result<Vec<String>, HostError> {
    if !dir.journal().exists() {
        return Ok(Vec::new());
    }
    let (_, state) =
        Journal::open(&dir.journal()).map_err(|error| HostError::Recovery(in_full(&error)))?;
    let mut images: Vec<_> = match state.ending {
        true => Vec::new(),
        false => state.partitions.into_values().map(|partition| partition.image).collect(),
    };
    images.sort();
    images.dedup();
    Ok(images)
}

/// A guest that runs on although its host died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its partition.
    pub name: PartitionName,
    /// Its worker's process id.
    pub pid: u32,
}

fn guest(process: &Process) -> Leftover {
    Leftover { name: process.name.clone(), pid: process.pid() }
}

/// Ends everything that an earlier host left: its guests, which are asked and
/// made to after `wait`, its keeper and its journal. Whether there was anything.
/// `hear` is told of each guest.
///
/// # Errors
/// When a worker can be neither reached nor killed, or a file not removed.
pub fn clean_up(
    dir: &StateDir,
    _lock: &Lock,
    wait: Duration,
    hear: &mut dyn FnMut(&Leftover),
) -> io::Result<bool> {
    let mut any = dir.journal().exists();
    for name in dir.worker_sockets() {
        match Link::connect(&dir.worker_socket(&name)) {
            Ok(link) => {
                let Some(pid) = link.peer_pid() else { continue };
                let leftover = Leftover { name, pid: pid.unsigned_abs() };
                hear(&leftover);
                leftover.end(dir, link, wait)?;
                any = true;
            }
            // Nobody listens: a dead worker's.
            Err(_) => drop(std::fs::remove_file(dir.worker_socket(&name))),
        }
    }
    end_keeper_of(dir)?;
    for path in [dir.journal(), dir.keeper_socket(), dir.api_socket()] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(any)
}

impl Leftover {
    fn end(&self, dir: &StateDir, link: Link, wait: Duration) -> io::Result<()> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        link.send(&Order::PowerOff { wait_ms }, &[])?;
        let deadline = std::time::Instant::now() + wait + Duration::from_secs(5);
        let gone = loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match link.receive_within::<Report>(left) {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => break false,
                // What it says is not understood; that it says it means that it lives.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => break false,
            }
        };
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let (false, Some(pid)) = (gone, pid) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        let _ = std::fs::remove_file(dir.worker_socket(&self.name));
        Ok(())
    }
}

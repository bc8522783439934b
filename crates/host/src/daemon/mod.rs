//! The host: owns main storage, answers clients, keeps workers.
//!
//! ```text
//! mod        Host: life cycle
//! open       what is there when a host begins: journal, keeper, workers
//! recovery   what becomes of it; pure
//! resume     goes on with it
//! board      what the host knows: the map and every partition, under one lock
//! commands   start, stop, move: what changes the board
//! create     create and delete
//! memory     whether the host has what it promises
//! exchange   two partitions change places
//! resize     expand, shrink, compact
//! pools      the machines of service pools
//! files      which machine has whose files
//! database   and which has whose database
//! process    one worker process and what it reports
//! records    partitions as the journal holds them
//! station    what operators see and do
//! ```
//!
//! Invariant: a partition is under at most one command at a time
//! ([`board::Busy`]); a second one is refused, never queued.

mod board;
mod commands;
mod console;
mod create;
mod database;
mod exchange;
mod files;
mod memory;
mod open;
mod pools;
mod process;
mod records;
mod recovery;
mod resize;
mod resume;
mod station;
mod telemetry;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use identity::{AuditLog, Flush, Signer};
use main_storage::PartitionName;
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use storage_window::MainStorage;

use crate::host_file::{HostFile, HostFileError};
use crate::in_full;
use crate::journal::Journal;
use crate::keeper::{Keeper, end_keeper_of};
use crate::state_dir::{Lock, StateDir, StateDirError};
use board::Board;
use database::Databases;
use files::Files;
use open::Opened;
use pools::{CaptureFiles, Input, Pools, TurnedAway};
use recovery::Next;
use station::Telling;
use telemetry::Telemetry;

pub use open::{Leftover, clean_up, images_in_use};

/// Files of a guest image, as a worker needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// An uncompressed riscv64 Linux kernel image.
    pub kernel: PathBuf,
    /// Its initial ramdisk.
    pub initrd: PathBuf,
    /// The root file system, read only.
    pub root: PathBuf,
    /// The empty file system that data disks begin as; none is larger.
    pub scratch: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
}

/// Where a host finds its guests' images.
pub trait Images: std::fmt::Debug + Send + Sync {
    /// The image of this name, which is built.
    ///
    /// # Errors
    /// Cause and remedy.
    fn find(&self, name: &str) -> Result<GuestImage, String>;
}

/// What a host is made of.
#[derive(Debug)]
pub struct HostConfig {
    /// What the operator declared.
    pub file: HostFile,
    /// Every image that the file names, and those that come later.
    pub images: Box<dyn Images>,
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The host file does not suit this host.
    #[error(transparent)]
    HostFile(#[from] HostFileError),
    /// Guests run on this state directory, but nobody kept main storage.
    #[error(
        "guests of an earlier host still run here: {}; the process that kept main storage for \
         them is gone, so they cannot be taken over. End them with `berth down`, or choose another \
         directory with --state-dir",
        list(.0)
    )]
    Leftovers(Vec<Leftover>),
    /// What is here cannot be gone on with.
    #[error("{0}")]
    Recovery(String),
    /// Main storage could not be had.
    #[error("{0}")]
    Storage(String),
    /// The signing key or the audit log cannot be used.
    #[error("{0}")]
    Identity(String),
    /// The operator's interface could not be started.
    #[error("the operator's interface: {0}")]
    Api(String),
    /// Traces cannot be sent.
    #[error("traces: {0}")]
    Telemetry(String),
    /// The gateway could not be started.
    #[error("the gateway: {0}")]
    Gateway(String),
    /// The kernel refused something else.
    #[error("the system refused {what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn list(leftovers: &[Leftover]) -> String {
    let each = leftovers.iter().map(|one| format!("{} (process {})", one.name, one.pid));
    each.collect::<Vec<_>>().join(", ")
}

/// The host of one state directory. See [`Host::run`].
pub struct Host {
    shared: Arc<Shared>,
    keeper: Keeper,
    /// What the pools hear.
    inputs: Receiver<Input>,
    /// Where their users come in, until it is dropped.
    gateway: Option<gateway::Running>,
    /// Where its operators come in.
    api: operator_api::Running,
    /// What is done with each partition first.
    next: Vec<(PartitionName, Next)>,
    /// Ends [`Host::run`] when something arrives.
    stop: UnixStream,
    // Last, so that the directory is free only when nothing uses it any more.
    _lock: Lock,
}

struct Shared {
    config: HostConfig,
    dir: StateDir,
    storage: MainStorage,
    journal: Journal,
    /// Held while a partition is promised its memory.
    admission: Mutex<()>,
    /// Host CPUs that this process may use.
    online: Vec<usize>,
    board: Mutex<Board>,
    /// Something on the board has changed.
    changed: Condvar,
    stopper: UnixStream,
    pools: Pools,
    files: Files,
    databases: Databases,
    /// Signs what machines say of themselves.
    signer: Signer,
    audit_log: Mutex<AuditLog>,
    turned_away: Mutex<TurnedAway>,
    /// Machines that are being destroyed or made anew: their end is no news.
    rebuilding: Mutex<BTreeSet<PartitionName>>,
    /// Captures of pools, by their names. One is locked while it is made.
    captures: Mutex<HashMap<String, Arc<Mutex<Option<CaptureFiles>>>>>,
    /// What operators are told.
    telling: Telling,
    telemetry: Telemetry,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        // Every change of the board is whole before its guard is dropped.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` says something about the board, or until `deadline`.
    fn wait_for<T>(
        &self,
        deadline: Instant,
        mut ready: impl FnMut(&mut Board) -> Option<T>,
    ) -> Option<T> {
        let mut board = self.board();
        loop {
            if let Some(found) = ready(&mut board) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(board, left);
            board = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes [`Host::run`] return.
    fn stop(&self) {
        // Full means that it was told already.
        let _ = (&self.stopper).write(&[1]);
    }
}

/// The host's signing key and its audit log. The public keys are put beside it.
fn identities(dir: &StateDir, issuer: &str) -> Result<(Signer, AuditLog), HostError> {
    let failed = |what: String| HostError::Identity(what);
    let signer = Signer::open(&dir.token_key(), issuer).map_err(|error| failed(in_full(&error)))?;
    std::fs::write(dir.jwks(), signer.jwks())
        .map_err(|error| failed(format!("{}: {error}", dir.jwks().display())))?;
    let log = AuditLog::open(&dir.audit_log(), Flush::BySystem);
    Ok((signer, log.map_err(|error| failed(in_full(&error)))?))
}

/// Host CPUs that this process may use.
///
/// # Errors
/// [`HostError::System`].
pub fn online_cpus() -> Result<Vec<usize>, HostError> {
    let set = rustix::thread::sched_getaffinity(None).map_err(|error| HostError::System {
        what: "the list of its CPUs",
        source: error.into(),
    })?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

impl Host {
    /// Takes the state directory, takes over what an earlier host left there
    /// or makes main storage, and listens for operators. Nothing is done to any
    /// guest before [`Host::run`].
    ///
    /// # Errors
    /// [`HostError`]; nothing has happened then.
    pub fn open(config: HostConfig, dir: StateDir) -> Result<Self, HostError> {
        let online = online_cpus()?;
        config.file.check_host(&online)?;
        let lock = dir.lock()?;
        let Opened { journal, storage, keeper, board, next } =
            open::open(&config.file, &dir, &lock)?;
        let system = |what| move |source| HostError::System { what, source };
        let (stop, stopper) = UnixStream::pair().map_err(system("a pair of sockets"))?;
        stopper.set_nonblocking(true).map_err(system("a pair of sockets"))?;
        for signal in [SIGINT, SIGTERM] {
            stopper
                .try_clone()
                .and_then(|pipe| signal_hook::low_level::pipe::register(signal, pipe))
                .map_err(system("to hear signals"))?;
        }
        let (pools, inputs) = Pools::new();
        let (signer, audit_log) = identities(&dir, &config.file.gateway.issuer)?;
        let telemetry = Telemetry::start(config.file.telemetry.clone());
        let telemetry = telemetry.map_err(HostError::Telemetry)?;
        let shared = Arc::new(Shared {
            config,
            dir,
            storage,
            journal,
            admission: Mutex::default(),
            online,
            board: Mutex::new(board),
            changed: Condvar::new(),
            stopper,
            pools,
            files: Files::default(),
            databases: Databases::default(),
            signer,
            audit_log: Mutex::new(audit_log),
            turned_away: Mutex::default(),
            rebuilding: Mutex::default(),
            captures: Mutex::default(),
            telling: Telling::default(),
            telemetry,
        });
        let gateway = if shared.config.file.pools.is_empty() {
            None
        } else {
            Some(pools::gateway::start(&shared).map_err(HostError::Gateway)?)
        };
        let api = station::start(&shared).map_err(HostError::Api)?;
        Ok(Self { shared, keeper, next, inputs, gateway, api, stop, _lock: lock })
    }

    /// Goes on with what was taken over, starts the partitions that start with
    /// the host, and lives until SIGINT, SIGTERM or an operator ends it; then ends
    /// every partition. Connections of operators stay open until the process ends,
    /// which is how they know.
    ///
    /// # Errors
    /// [`HostError::System`] when it cannot wait.
    pub fn run(mut self) -> Result<(), HostError> {
        let shared = Arc::clone(&self.shared);
        for (name, next) in std::mem::take(&mut self.next) {
            shared.resume(&name, next);
        }
        shared.await_pools();
        shared.board().begun = true;
        shared.changed.notify_all();
        let (stop, inputs) = (&self.stop, self.inputs);
        let gateway = self.gateway.take();
        let result = std::thread::scope(|scope| {
            let keeper = &mut self.keeper;
            scope.spawn(|| pools::run(&shared, inputs));
            scope.spawn(|| shared.keep_kept(keeper));
            scope.spawn(|| shared.keep_files());
            scope.spawn(|| shared.keep_database());
            scope.spawn(|| shared.keep_telling());
            let result = await_stop(stop);
            tracing::info!("ending: every guest is asked to power off");
            drop(gateway);
            shared.pools.tell(Input::End);
            shared.end_all();
            shared.end_file_manager();
            shared.end_database_manager();
            shared.end_telling();
            // Only now: guests may still have been moving.
            if let Err(error) = end_keeper_of(&shared.dir) {
                tracing::error!(%error, "the keeper of main storage cannot be told to end");
            }
            result
        });
        self.api.leave();
        let dir = &self.shared.dir;
        for path in [dir.journal(), dir.keeper_socket()] {
            let _ = std::fs::remove_file(path);
        }
        tracing::info!("ended");
        result
    }
}

/// Waits until somebody says that the host is to end.
fn await_stop(stop: &UnixStream) -> Result<(), HostError> {
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let source = error.into();
                return Err(HostError::System { what: "to wait for its end", source });
            }
            Ok(_) => {
                let _ = (&*stop).read(&mut [0; 16]);
                return Ok(());
            }
        }
    }
}

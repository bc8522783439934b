//! The host: owns main storage, answers clients, keeps workers.
//!
//! ```text
//! mod        Host: life cycle, the control socket
//! board      what the host knows: the map and every partition, under one lock
//! commands   start, stop, move: what changes the board
//! exchange   two partitions change places
//! resize     expand, shrink, compact
//! process    one worker process and what it reports
//! serve      one client's connection
//! ```
//!
//! Invariant: a partition is under at most one command at a time
//! ([`board::Busy`]); a second one is refused, never queued.

mod board;
mod commands;
mod exchange;
mod process;
mod resize;
mod serve;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use main_storage::PartitionName;
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use storage_window::MainStorage;

use crate::host_file::{HostFile, HostFileError};
use crate::in_full;
use crate::link::{Link, Order, Report};
use crate::state_dir::{Lock, StateDir, StateDirError};
use board::Board;

/// Clients at once; the next is told to come again.
const MAX_CLIENTS: usize = 128;

/// Files of a guest image, as a worker needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// An uncompressed riscv64 Linux kernel image.
    pub kernel: PathBuf,
    /// Its initial ramdisk.
    pub initrd: PathBuf,
    /// The root file system, read only.
    pub root: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
}

/// What a host is made of.
#[derive(Debug)]
pub struct HostConfig {
    /// What the operator declared.
    pub file: HostFile,
    /// Every image that the file names.
    pub images: BTreeMap<String, GuestImage>,
    /// For every partition with a data disk, the empty file system it begins as.
    pub disks: BTreeMap<PartitionName, PathBuf>,
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
    /// Guests of a host that died still run on this state directory.
    #[error(
        "guests of an earlier host still run here: {}; end them with `berth down`, or choose \
         another directory with --state-dir",
        list(.0)
    )]
    Leftovers(Vec<Leftover>),
    /// Main storage could not be had.
    #[error("{0}")]
    Storage(String),
    /// The control socket could not be made.
    #[error("cannot listen on {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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

/// A guest that runs on although its host died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its partition.
    pub name: PartitionName,
    /// Its worker's process id.
    pub pid: i32,
}

/// Finds guests of an earlier host. Only for whoever holds the lock: a worker
/// serves one host at a time.
#[must_use]
pub fn leftovers(dir: &StateDir, _lock: &Lock) -> Vec<Leftover> {
    let mut found = Vec::new();
    for name in dir.worker_sockets() {
        let path = dir.worker_socket(&name);
        match Link::connect(&path) {
            Ok(link) => found.extend(link.peer_pid().map(|pid| Leftover { name, pid })),
            // Nobody listens: a dead worker's.
            Err(_) => drop(std::fs::remove_file(path)),
        }
    }
    found
}

impl Leftover {
    /// Ends the guest: asks it, and kills its worker if it takes longer than
    /// `wait`.
    ///
    /// # Errors
    /// When the worker can be neither reached nor killed.
    pub fn end(&self, dir: &StateDir, wait: Duration) -> io::Result<()> {
        let link = Arc::new(Link::connect(&dir.worker_socket(&self.name))?);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        link.send(&Order::PowerOff { wait_ms }, &[])?;
        let (gone, is_gone) = std::sync::mpsc::channel();
        let reader = Arc::clone(&link);
        std::thread::Builder::new().name("leftover".into()).spawn(move || {
            while let Ok(Some(_)) = reader.receive::<Report>() {}
            let _ = gone.send(());
        })?;
        if is_gone.recv_timeout(wait + Duration::from_secs(5)).is_err() {
            if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            }
            link.hang_up();
        }
        let _ = std::fs::remove_file(dir.worker_socket(&self.name));
        Ok(())
    }
}

/// The host of one state directory. See [`Host::run`].
pub struct Host {
    shared: Arc<Shared>,
    listener: UnixListener,
    /// Ends [`Host::run`] when something arrives.
    stop: UnixStream,
    // Last, so that the directory is free only when nothing uses it any more.
    _lock: Lock,
}

struct Shared {
    config: HostConfig,
    dir: StateDir,
    storage: MainStorage,
    /// Host CPUs that this process may use.
    online: Vec<usize>,
    board: Mutex<Board>,
    /// Something on the board has changed.
    changed: Condvar,
    clients: AtomicUsize,
    stopper: UnixStream,
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
    /// Takes the state directory, makes main storage and listens for clients.
    /// Nothing runs before [`Host::run`].
    ///
    /// # Errors
    /// [`HostError`]; nothing has happened then.
    pub fn open(config: HostConfig, dir: StateDir) -> Result<Self, HostError> {
        let online = online_cpus()?;
        config.file.check_host(&online)?;
        let lock = dir.lock()?;
        let running = leftovers(&dir, &lock);
        if !running.is_empty() {
            return Err(HostError::Leftovers(running));
        }
        let HostFile { main_storage, backing, numa_node, .. } = &config.file;
        let storage = MainStorage::create_on(*main_storage, backing, *numa_node)
            .map_err(|error| HostError::Storage(in_full(&error)))?;
        let board = Board::new(&config.file).map_err(|e| HostError::Storage(e.to_string()))?;
        let listener = listen(dir.control_socket())?;
        let system = |what| move |source| HostError::System { what, source };
        let (stop, stopper) = UnixStream::pair().map_err(system("a pair of sockets"))?;
        stopper.set_nonblocking(true).map_err(system("a pair of sockets"))?;
        for signal in [SIGINT, SIGTERM] {
            stopper
                .try_clone()
                .and_then(|pipe| signal_hook::low_level::pipe::register(signal, pipe))
                .map_err(system("to hear signals"))?;
        }
        let shared = Arc::new(Shared {
            config,
            dir,
            storage,
            online,
            board: Mutex::new(board),
            changed: Condvar::new(),
            clients: AtomicUsize::new(0),
            stopper,
        });
        Ok(Self { shared, listener, stop, _lock: lock })
    }

    /// Starts the partitions that start with the host and answers clients
    /// until SIGINT, SIGTERM or [`Request::Down`](crate::control::Request::Down);
    /// then ends every partition.
    ///
    /// # Errors
    /// [`HostError::System`] when it can wait for clients no more.
    pub fn run(self) -> Result<(), HostError> {
        self.shared.start_all();
        let result = self.accept_clients();
        tracing::info!("ending: every guest is asked to power off");
        self.shared.end_all();
        let _ = std::fs::remove_file(self.shared.dir.control_socket());
        tracing::info!("ended");
        result
    }

    fn accept_clients(&self) -> Result<(), HostError> {
        loop {
            let mut waited = [
                PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            ];
            match poll(&mut waited, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    let source = error.into();
                    return Err(HostError::System { what: "to wait for clients", source });
                }
                Ok(_) => {}
            }
            if !waited[0].revents().is_empty() {
                let _ = (&self.stop).read(&mut [0; 16]);
                return Ok(());
            }
            match self.listener.accept() {
                Ok((client, _)) => self.admit(client),
                Err(error) => {
                    tracing::warn!(%error, "a client could not be accepted");
                    // Out of file descriptors, most likely: not in a busy loop.
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn admit(&self, client: UnixStream) {
        let place = ClientPlace(Arc::clone(&self.shared));
        if self.shared.clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            serve::turn_away(&client);
            return;
        }
        let thread = std::thread::Builder::new().name("client".into());
        if let Err(error) = thread.spawn(move || serve::serve(&place.0, client)) {
            tracing::warn!(%error, "no thread for a client");
        }
    }
}

/// Counts one client; dropped when its connection is done with.
struct ClientPlace(Arc<Shared>);

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

fn listen(path: PathBuf) -> Result<UnixListener, HostError> {
    // We hold the lock, so whatever is there is a dead host's.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        // A client may leave between poll and accept.
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| HostError::Socket { path, source })
}

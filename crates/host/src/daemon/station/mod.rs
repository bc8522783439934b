//! What operators see and do: the host's side of `operator_api`.
//!
//! A thread tells the station what there is whenever the board or the pools
//! change, so that whoever looks asks nobody here.

mod audit;
mod convert;
mod news;
mod operator;
mod wait_up;
mod ways_in;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use main_storage::PartitionName;
use operator_api::{Changes, Quantity, Running, Settings, Station, Tcp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Shared;
use super::board::Board;
use crate::in_full;
use news::About;
use operator::Host;

/// Shortest time between two tellings.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest time between two looks, should a change not be announced.
const LOOK: Duration = Duration::from_secs(1);
/// Files that this process would like to have open at once.
const FILES: u64 = 16_384;
/// Files that connections of the interface leave to everything else.
const SPARE: u64 = 512;
/// The local socket, the network, and the loopback for browsers.
const LISTENERS: u64 = 3;
/// Most connections of each of its listeners.
const CONNECTIONS: usize = 2048;

/// What operators are told, and how.
#[derive(Debug, Default)]
pub(super) struct Telling {
    station: Arc<Station>,
    /// How far copies are, by partition: bytes done and in all.
    copying: Mutex<BTreeMap<PartitionName, (u64, u64)>>,
    pools_changed: AtomicBool,
    /// Held from looking to telling, so that the last told is the last seen.
    turn: Mutex<()>,
    over: AtomicBool,
}

/// Starts the interface.
pub(super) fn start(shared: &Arc<Shared>) -> Result<Running, String> {
    let spec = &shared.config.file.api;
    let tcp = match spec.listen {
        None => None,
        Some(address) => {
            let authorities = spec.client_authorities.as_deref();
            let tls = match (&spec.certificate, &spec.key) {
                (Some(certificate), Some(key)) => gateway::tls::load(certificate, key, authorities),
                _ => {
                    let mut names = vec!["localhost".to_owned(), address.ip().to_string()];
                    names.extend(spec.names.iter().cloned());
                    gateway::tls::load_or_make_as(shared.dir.path(), "api", &names, authorities)
                }
            };
            Some(Tcp { address, tls: tls.map_err(|error| in_full(&error))? })
        }
    };
    let mut settings = Settings::local(shared.dir.api_socket(), shared.dir.api_tokens());
    settings.tcp = tcp;
    settings.names.clone_from(&spec.names);
    settings.clients.clone_from(&spec.clients);
    settings.jwks = shared.signer.jwks();
    settings.connections = connections();
    settings.streams = settings.streams.min(settings.connections.saturating_sub(64));
    shared.tell();
    let host = Arc::new(Host(Arc::clone(shared)));
    let running = Running::start(settings, Arc::clone(shared.station()), host);
    running.map_err(|error| in_full(&error))
}

/// Connections that leave enough files for guests. Raises the number of files
/// as far as this process may.
fn connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(FILES, |most| most.min(FILES));
    let mut files = current.unwrap_or(FILES);
    if files < wanted {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
            Ok(()) => files = wanted,
            Err(error) => tracing::debug!(%error, "no more files than before"),
        }
    }
    let most = usize::try_from(files.saturating_sub(SPARE) / LISTENERS).unwrap_or(CONNECTIONS);
    most.clamp(64, CONNECTIONS)
}

impl Shared {
    /// What operators look at.
    pub(super) fn station(&self) -> &Arc<Station> {
        &self.telling.station
    }

    /// Tells operators what there is now.
    pub(super) fn tell(&self) {
        self.tell_about(About::All);
    }

    fn tell_about(&self, about: About<'_>) {
        let _turn = self.telling.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = self.look(&self.board(), about);
        self.say(changes);
    }

    /// What is different from what was told last, pools aside.
    fn look(&self, board: &Board, about: About<'_>) -> Changes {
        let told = self.station().snapshot();
        // Dropped then: what nobody looks at need not be copied to be changed.
        news::changes(self, board, &told.state().host, about)
    }

    fn say(&self, mut changes: Changes) {
        // Nobody runs the pools before the host does, or without any.
        if !self.config.file.pools.is_empty() && self.pools.are_run() {
            let pools = convert::pools(self, self.pools.status());
            changes.pools = Some((pools, self.pools.waiting()));
        }
        self.station().amend(changes);
    }

    /// Tells operators of every change, until [`Shared::end_telling`].
    pub(super) fn keep_telling(&self) {
        let telling = &self.telling;
        let mut waited = true;
        loop {
            let turn = telling.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let board = self.board();
            let over = telling.over.load(Ordering::Relaxed);
            let changes = self.look(&board, About::All);
            let pools = telling.pools_changed.swap(false, Ordering::Relaxed);
            if changes.is_empty() && !(pools || waited || over) {
                drop(turn);
                // Whatever it is that wakes it, looking is what telling begins with.
                drop(self.changed.wait_timeout(board, LOOK));
                waited = true;
                continue;
            }
            drop(board);
            self.say(changes);
            drop(turn);
            if over {
                return;
            }
            // What changes meanwhile is told at once afterwards, as one.
            std::thread::sleep(PAUSE);
            waited = false;
        }
    }

    pub(super) fn end_telling(&self) {
        self.telling.over.store(true, Ordering::Relaxed);
        self.wake_telling();
    }

    /// Something about the pools has changed.
    pub(super) fn pools_changed(&self) {
        self.telling.pools_changed.store(true, Ordering::Relaxed);
        self.wake_telling();
    }

    fn wake_telling(&self) {
        // With the board's lock, so that it is either before its look or waits.
        let _board = self.board();
        self.changed.notify_all();
    }

    /// How far the copy of a partition is.
    pub(super) fn note_copying(&self, name: &PartitionName, done: u64, total: u64) {
        let mut copying = self.telling.copying.lock().unwrap_or_else(PoisonError::into_inner);
        copying.insert(name.clone(), (done, total));
        drop(copying);
        self.changed.notify_all();
    }

    /// Its copy has ended, however it did.
    pub(super) fn forget_copying(&self, name: &PartitionName) {
        let mut copying = self.telling.copying.lock().unwrap_or_else(PoisonError::into_inner);
        copying.remove(name);
    }

    /// A partition was copied, and its guest stood still for a moment.
    pub(super) fn measure_copy(
        &self,
        name: &PartitionName,
        bytes: u64,
        per_second: u64,
        pause_us: u64,
    ) {
        self.station().metrics.copied(bytes, per_second);
        self.measure_pause(name, pause_us);
    }

    pub(super) fn measure_pause(&self, name: &PartitionName, pause_us: u64) {
        if pause_us > 0 {
            self.station().measured(Quantity::Pause, name.as_str(), pause_us as f64 / 1e6);
        }
    }
}

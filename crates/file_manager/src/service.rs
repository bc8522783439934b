//! Sessions at work: each has a stream and a thread of its own, so that none waits
//! for another.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service_pool::{Group, UserId};

use crate::manager::{FileManager, ManagerError};
use crate::session::Session;
use crate::wire::{Reply, Request};

/// Sessions at once.
const MAX_SESSIONS: usize = 4096;
/// How long the last request of a session may take when that ends.
const LAST_REQUEST: Duration = Duration::from_secs(5);

/// Why a session did not begin. The host is to blame, or the operator.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The user can have no space.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// There are too many.
    #[error("there are {MAX_SESSIONS} sessions already")]
    TooMany,
    /// The system gave no thread or no random numbers.
    #[error("no session to be had: {0}")]
    Host(#[from] io::Error),
}

/// The sessions of a file manager, by the machine they are for.
pub struct Service {
    manager: Arc<FileManager>,
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    stream: UnixStream,
    /// Says nothing, and is closed when the thread has ended.
    ended: Receiver<()>,
}

impl Service {
    /// No session yet.
    #[must_use]
    pub fn new(manager: Arc<FileManager>) -> Self {
        Self { manager, running: Mutex::default() }
    }

    /// The file manager.
    #[must_use]
    pub fn manager(&self) -> &Arc<FileManager> {
        &self.manager
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session of a user, or of nobody, for a machine: it is whoever has
    /// the other end of `stream`. One that the machine has had is ended first.
    ///
    /// # Errors
    /// [`BeginError`]; the stream is closed then.
    pub fn begin(
        &self,
        machine: &str,
        who: Option<(UserId, Vec<Group>)>,
        stream: UnixStream,
    ) -> Result<(), BeginError> {
        self.end(machine);
        if let Some((user, _)) = &who {
            self.manager.welcome(user)?;
        }
        let mut session = Session::new(Arc::clone(&self.manager), who)?;
        let mut running = self.running();
        if running.len() >= MAX_SESSIONS {
            return Err(BeginError::TooMany);
        }
        let mut its_stream = stream.try_clone()?;
        let (alive, ended) = sync_channel(0);
        let (name, thread) = (machine.to_owned(), format!("files-{machine}"));
        std::thread::Builder::new().name(thread).spawn(move || {
            if let Err(error) = serve(&mut session, &mut its_stream) {
                tracing::debug!(machine = name, %error, "the stream of a session broke");
            }
            // Whoever is at the other end learns of it, also after an error.
            let _ = its_stream.shutdown(Shutdown::Both);
            drop((session, alive));
        })?;
        running.insert(machine.to_owned(), Running { stream, ended });
        Ok(())
    }

    /// Ends a machine's session. No request of it is begun after that, and the one
    /// in hand has ended; false if that takes too long.
    pub fn end(&self, machine: &str) -> bool {
        let Some(running) = self.running().remove(machine) else { return true };
        // One that ended by itself has no stream any more.
        let _ = running.stream.shutdown(Shutdown::Both);
        let waited = running.ended.recv_timeout(LAST_REQUEST);
        waited != Err(std::sync::mpsc::RecvTimeoutError::Timeout)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for running in self.running().values() {
            let _ = running.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Answers one request after the other until the stream ends.
fn serve(session: &mut Session, stream: &mut UnixStream) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    while let Some(Request { tag, room, bytes }) = Request::read(&mut requests)? {
        let bytes = session.answer(&bytes, room as usize);
        Reply { tag, bytes }.write(stream)?;
    }
    Ok(())
}

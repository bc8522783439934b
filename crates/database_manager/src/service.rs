//! Sessions at work: each has a socket and a thread of its own, which hands out
//! connections; the connections are served by the runtime.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use service_pool::{Group, UserId};
use tokio::runtime::Handle;

use crate::broker::{Broker, Session, Used, lock};
use crate::connection::{Place, serve};
use crate::registry::Who;
use crate::spare::prepare;
use crate::wire;

/// Sessions at once.
const MAX_SESSIONS: usize = 4096;

/// Why a session did not begin. The host is to blame.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There are too many.
    #[error("there are {MAX_SESSIONS} sessions already")]
    TooMany,
    /// The system gave no thread.
    #[error("no session to be had: {0}")]
    Host(#[from] io::Error),
    /// A connection of the machine's last session is still there.
    #[error(transparent)]
    Lingers(#[from] Lingers),
}

/// The sessions of a broker, by the machine they are for.
pub struct Service {
    broker: Arc<Broker>,
    runtime: Handle,
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    session: Arc<Session>,
    socket: OwnedFd,
    /// The thread that hands out connections.
    thread: std::thread::JoinHandle<()>,
}

impl Service {
    /// No session yet. Connections are served by `runtime`, which has its clock and
    /// its sockets enabled.
    #[must_use]
    pub fn new(broker: Arc<Broker>, runtime: Handle) -> Self {
        Self { broker, runtime, running: Mutex::default() }
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Begins a session of a user, or of nobody, for a machine: it is whoever has
    /// the other end of `socket`. One that the machine has had is ended first.
    ///
    /// # Errors
    /// [`BeginError`]; the socket is closed then.
    pub fn begin(
        &self,
        machine: &str,
        who: Option<(UserId, Vec<Group>)>,
        socket: OwnedFd,
    ) -> Result<(), BeginError> {
        self.end(machine)?;
        let who = who.map(|(user, groups)| Who { user, groups });
        let session = Arc::new(self.broker.session(who));
        let mut running = lock(&self.running);
        if running.len() >= MAX_SESSIONS {
            return Err(BeginError::TooMany);
        }
        let its_socket = socket.try_clone()?;
        let (broker, its_session) = (Arc::clone(&self.broker), Arc::clone(&session));
        let (runtime, name) = (self.runtime.clone(), machine.to_owned());
        let thread = std::thread::Builder::new().name(format!("db-{machine}"));
        let thread = thread.spawn(move || {
            if let Err(error) = hand_out(&broker, &runtime, &its_session, &its_socket) {
                tracing::debug!(machine = name, %error, "the socket of a session broke");
            }
            wire::shut(its_socket);
        })?;
        self.runtime.spawn(prepare(Arc::clone(&self.broker), Arc::clone(&session)));
        running.insert(machine.to_owned(), Running { session, socket, thread });
        Ok(())
    }

    /// Ends a machine's session: no guest has a part in a connection of it after
    /// that. What was used of it, if there was one; an error if a connection lingers.
    ///
    /// # Errors
    /// [`Lingers`].
    pub fn end(&self, machine: &str) -> Result<Option<Used>, Lingers> {
        let Some(running) = lock(&self.running).remove(machine) else { return Ok(None) };
        let Running { session, socket, thread } = running;
        wire::shut(socket);
        // It waits for nothing but the socket.
        let _ = thread.join();
        if self.broker.end(&session) { Ok(Some(session.used())) } else { Err(Lingers) }
    }
}

/// A connection of a session that was ended is still there. The host is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a connection of the session does not end")]
pub struct Lingers;

impl Drop for Service {
    fn drop(&mut self) {
        for running in lock(&self.running).values() {
            wire::shut(&running.socket);
        }
    }
}

/// Gives a connection to whoever asks at the socket, until it ends.
fn hand_out(
    broker: &Arc<Broker>,
    runtime: &Handle,
    session: &Arc<Session>,
    socket: &OwnedFd,
) -> io::Result<()> {
    while let Some(number) = wire::question(socket.as_fd())? {
        let Some(place) = Place::new(broker, session) else {
            wire::answer(socket.as_fd(), number, None)?;
            continue;
        };
        // Made here and not by the machine's process: what that does to its end is
        // nothing to this one.
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let session = Arc::clone(session);
        runtime.spawn(async move {
            match tokio::net::UnixStream::from_std(ours) {
                Ok(stream) => serve(place, session, stream).await,
                Err(error) => tracing::error!(%error, "a connection cannot be served"),
            }
        });
        wire::answer(socket.as_fd(), number, Some(theirs.as_fd()))?;
    }
    Ok(())
}

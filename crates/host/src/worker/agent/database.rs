//! Connections of the guest's programs to their user's database.
//!
//! The guest begins each by itself, on a stream of its own numbers, and may send at
//! once; the worker asks the database manager for the other end, which knows whose
//! it is by the session.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::{FIRST_GUEST_STREAM, MAX_CONNECTIONS};
use database_manager::Client;

use super::conversation::Conversation;
use super::{Agent, Peer, Stream, lock};

/// How long the database manager may take to give a connection.
const CONNECT: Duration = Duration::from_secs(5);

impl Agent {
    /// The guest's database is this session's from now on, or nobody's.
    pub(crate) fn use_database(&self, session: Option<OwnedFd>) {
        *lock(&self.database) = session.map(|socket| Arc::new(Client::new(socket)));
    }

    /// A program of the guest's connects.
    pub(super) fn connect(self: &Arc<Self>, stream: Stream) {
        // Now and not later: what this session of the channel says is for the
        // database of this session's user.
        let database = lock(&self.database).clone();
        let connection = Arc::new(Conversation::of_database());
        if !self.admit_connection(stream, &connection) {
            tracing::debug!(stream = stream.id, "the guest's agent connects out of order");
            return;
        }
        let (agent, its) = (Arc::clone(self), Arc::clone(&connection));
        let thread = std::thread::Builder::new().name("database".to_owned());
        let started = thread.spawn(move || {
            if let Err(error) = agent.serve_connection(stream, &its, database.as_deref()) {
                tracing::debug!(%error, "no connection to the database");
                agent.refuse(stream, &its);
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for a connection");
            self.refuse(stream, &connection);
        }
    }

    /// Whether the guest may begin this stream. An agent in order begins none twice,
    /// and not more than it may.
    fn admit_connection(&self, stream: Stream, connection: &Arc<Conversation>) -> bool {
        let mut state = lock(&self.state);
        let open = state.peers.keys().chain(&state.closing);
        let guests = open.filter(|id| **id >= FIRST_GUEST_STREAM).count();
        let known = state.peers.contains_key(&stream.id) || state.closing.contains(&stream.id);
        let current = state.session == stream.session && !state.parked;
        if !current || known || guests >= MAX_CONNECTIONS || state.ready.is_none() {
            return false;
        }
        state.peers.insert(stream.id, Peer::Conversation(Arc::clone(connection)));
        true
    }

    /// Joins a connection to the database and passes on what that says.
    fn serve_connection(
        self: &Arc<Self>,
        stream: Stream,
        connection: &Arc<Conversation>,
        database: Option<&Client>,
    ) -> io::Result<()> {
        let database = database.ok_or(io::ErrorKind::NotConnected)?;
        connection.join(database.connect(CONNECT)?)?;
        connection.write_now(self, stream);
        let (agent, out) = (Arc::clone(self), Arc::clone(connection));
        let thread = std::thread::Builder::new().name("database-out".to_owned());
        thread.spawn(move || out.write_out(&agent, stream))?;
        connection.read_in(self, stream);
        Ok(())
    }

    fn refuse(&self, stream: Stream, connection: &Conversation) {
        connection.cut_off("there is no connection to the database");
        self.give_up(stream);
    }
}

//! What all sessions share: the identity table, the server, the connections.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::registry::{Registry, Who};
use crate::server::{Server, ServerError, ServerSpec};
use crate::spare::{Spare, Spares};
use crate::table::{LoginTable, TableError, TableFileError};

/// How long a connection that is to end may take to do so.
const ENDS: Duration = Duration::from_secs(5);

/// The database manager's data cannot be used. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The table's file cannot be used.
    #[error(transparent)]
    File(#[from] TableFileError),
    /// The table cannot be changed so.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The server cannot be used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The table is changed, but a connection that it does not give any more
    /// lingers.
    #[error("the table is changed, but a connection does not end; start the host again")]
    Lingers,
}

/// The database manager: the table of who is which role, kept in a file, and the
/// way to the server.
pub struct Broker {
    table_file: PathBuf,
    table: RwLock<Arc<LoginTable>>,
    /// Held while the table is changed and written.
    changing: Mutex<()>,
    sessions: AtomicU64,
    pub(crate) registry: Registry,
    pub(crate) server: Server,
    pub(crate) spares: Spares,
}

impl Broker {
    /// A broker to this server, with the table in `table_file`.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub fn open(server: ServerSpec, table_file: &Path) -> Result<Self, BrokerError> {
        Ok(Self {
            table_file: table_file.to_owned(),
            table: RwLock::new(Arc::new(LoginTable::load(table_file)?)),
            changing: Mutex::new(()),
            sessions: AtomicU64::new(0),
            registry: Registry::default(),
            server: Server::new(server)?,
            spares: Spares::default(),
        })
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Arc<LoginTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the table: when this returns the file has it, and no guest has a
    /// connection any more that the new one does not give.
    ///
    /// # Errors
    /// [`BrokerError`]; the table is as before, unless [`BrokerError::Lingers`].
    pub fn change(
        &self,
        change: impl FnOnce(&mut LoginTable) -> Result<(), TableError>,
    ) -> Result<(), BrokerError> {
        let _one = lock(&self.changing);
        let before = self.table();
        let mut table = LoginTable::clone(&before);
        change(&mut table)?;
        if table == *before {
            return Ok(());
        }
        table.save(&self.table_file)?;
        let table = Arc::new(table);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&table);
        self.spares.drop_all();
        if self.registry.hold_against(&table, ENDS) { Ok(()) } else { Err(BrokerError::Lingers) }
    }

    /// A session of a user's, or of nobody's.
    pub(crate) fn session(&self, who: Option<Who>) -> Session {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        Session { number, who, used: Mutex::default(), spare: Mutex::default() }
    }

    /// Ends a session's connections; false if one lingers.
    pub(crate) fn end(&self, session: &Session) -> bool {
        lock(&session.spare).end();
        self.registry.end(session.number, ENDS)
    }
}

/// One machine for as long as one user has it.
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) who: Option<Who>,
    used: Mutex<Used>,
    pub(crate) spare: Mutex<Spare>,
}

/// What was used of the databases in a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Used {
    /// As which roles of which databases, each with the number of connections.
    pub logins: Vec<UsedLogin>,
    /// Connections that were refused.
    pub refused: u64,
}

/// See [`Used`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedLogin {
    /// The database.
    pub database: String,
    /// The role.
    pub role: String,
    /// How many connections.
    pub connections: u64,
}

/// Logins that a session remembers; more than one takes a change of the table.
const MAX_USED: usize = 8;

impl Session {
    /// A connection was made as this.
    pub(crate) fn note_login(&self, login: &crate::table::Login) {
        let mut used = lock(&self.used);
        let (database, role) = (login.database.as_str(), login.role.as_str());
        let same = |one: &&mut UsedLogin| one.database == database && one.role == role;
        if let Some(one) = used.logins.iter_mut().find(same) {
            one.connections += 1;
        } else if used.logins.len() < MAX_USED {
            let (database, role) = (database.to_owned(), role.to_owned());
            used.logins.push(UsedLogin { database, role, connections: 1 });
        }
    }

    /// One was refused.
    pub(crate) fn note_refused(&self) {
        lock(&self.used).refused += 1;
    }

    pub(crate) fn used(&self) -> Used {
        lock(&self.used).clone()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

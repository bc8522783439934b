//! What all sessions share: the access identity table and the spaces in use.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::io::Errno;
use service_pool::{Group, UserId};

use crate::access::{AccessError, AccessTable, Quota, TableFileError, View};
use crate::names::SpaceName;
use crate::space::{Space, Usage};

/// Spaces that are kept open, so that they need not be counted again, beside those
/// in use.
const MAX_IDLE: usize = 256;

/// The file managers' data cannot be used. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The directory of the spaces cannot be made.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel cannot follow paths in it safely.
    #[error(
        "files in {} cannot be served: {source}; it takes a kernel, and a container, with openat2 \
         (Linux 5.6)",
        path.display()
    )]
    NoOpenat2 {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The table's file cannot be used.
    #[error(transparent)]
    Table(#[from] TableFileError),
    /// The table cannot be changed so.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A space cannot be used.
    #[error("the space {name} cannot be used: {source}")]
    Space {
        /// Its name.
        name: SpaceName,
        /// Why not.
        source: io::Error,
    },
}

/// The file manager: the table of who may reach what, kept in a file, and the
/// spaces themselves. Sessions look at its version on every request.
pub struct FileManager {
    folder: PathBuf,
    table_file: PathBuf,
    default_quota: Quota,
    table: RwLock<Arc<AccessTable>>,
    /// Counts the tables: another one, another number.
    version: AtomicU64,
    /// Held while the table is changed and written.
    changing: Mutex<()>,
    spaces: Mutex<HashMap<SpaceName, Arc<Slot>>>,
}

/// A space that was asked for; whoever is first opens and counts it, and only who
/// asks for the same one waits for that.
#[derive(Default)]
struct Slot(Mutex<Option<Arc<Space>>>);

impl Slot {
    fn is_used(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|space| Arc::strong_count(space) > 1)
    }
}

impl FileManager {
    /// A file manager of the spaces in `folder`, which is made if it is not there,
    /// with the table in `table_file`.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub fn open(
        folder: &Path,
        table_file: &Path,
        default_quota: Quota,
    ) -> Result<Self, ManagerError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| ManagerError::Directory { path: folder.to_owned(), source })?;
        // Without it nothing is served: no other call follows paths as safely.
        let probed = std::fs::File::open(folder).and_then(|open| {
            let none: [&[u8]; 0] = [];
            crate::space::beneath::handle(open.as_fd(), &none).map_err(io::Error::from)
        });
        probed.map_err(|source| ManagerError::NoOpenat2 { path: folder.to_owned(), source })?;
        Ok(Self {
            folder: folder.to_owned(),
            table_file: table_file.to_owned(),
            default_quota,
            table: RwLock::new(Arc::new(AccessTable::load(table_file)?)),
            version: AtomicU64::new(1),
            changing: Mutex::new(()),
            spaces: Mutex::new(HashMap::new()),
        })
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Arc<AccessTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the table: when this returns the file has it, and no session does
    /// anything by the old one any more but end the request in hand.
    ///
    /// # Errors
    /// [`ManagerError`]; the table is as before.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut AccessTable) -> Result<T, AccessError>,
    ) -> Result<T, ManagerError> {
        let _one = lock(&self.changing);
        let before = self.table();
        let mut table = AccessTable::clone(&before);
        let done = change(&mut table)?;
        if table != *before {
            table.save(&self.table_file)?;
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
            self.version.fetch_add(1, Ordering::Release);
        }
        Ok(done)
    }

    /// Has a space that is the user's own.
    ///
    /// # Errors
    /// [`ManagerError`] when a space of that name is another's.
    pub fn welcome(&self, user: &UserId) -> Result<(), ManagerError> {
        let name = SpaceName::of_user(user);
        if self.table().space(&name).is_some_and(|space| space.owner.as_ref() == Some(user)) {
            return Ok(());
        }
        self.change(|table| table.add_space(&name, Some(user)).map(drop))
    }

    /// What a space holds.
    ///
    /// # Errors
    /// [`ManagerError`] when there is no such space or it cannot be used.
    pub fn usage(&self, name: &SpaceName) -> Result<(Usage, Quota), ManagerError> {
        let table = self.table();
        let entry = table.space(name).ok_or_else(|| AccessError::NoSpace(name.clone()))?;
        let space = self
            .space(name)
            .map_err(|error| ManagerError::Space { name: name.clone(), source: error.into() })?;
        Ok((space.usage(), entry.quota.unwrap_or(self.default_quota)))
    }

    pub(crate) fn default_quota(&self) -> Quota {
        self.default_quota
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The table's version, and what a session sees of it.
    pub(crate) fn view(&self, user: &UserId, groups: &[Group]) -> (u64, View) {
        // The number first: if the table is another by then, it is asked for again.
        let version = self.version();
        (version, View::new(&self.table(), user, groups))
    }

    fn slot(&self, name: &SpaceName) -> Arc<Slot> {
        let mut spaces = lock(&self.spaces);
        if spaces.len() >= MAX_IDLE && !spaces.contains_key(name) {
            // Who uses one has it, or is about to and holds the slot.
            spaces.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.is_used());
        }
        Arc::clone(spaces.entry(name.clone()).or_default())
    }

    /// A space of the table, opened and counted when it is first asked for.
    pub(crate) fn space(&self, name: &SpaceName) -> Result<Arc<Space>, Errno> {
        let slot = self.slot(name);
        let mut place = lock(&slot.0);
        if let Some(space) = &*place {
            return Ok(Arc::clone(space));
        }
        let space = Arc::new(Space::open(&self.folder, name)?);
        *place = Some(Arc::clone(&space));
        Ok(space)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

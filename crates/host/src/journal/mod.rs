//! The journal: what a host that comes later must know.
//!
//! A file in the state directory, kept by `redb`: a change is in it as a whole
//! or not at all, whatever happens to this process or the machine. Every change
//! of the map is recorded before it is acted on, and closed after.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `schema` | the version of everything else, now `1` |
//! | `meta` | `main_storage` | JSON of [`MainStorageRecord`] |
//! | `meta` | `ending` | present from the beginning of the host's end |
//! | `partitions` | name | JSON of [`PartitionRecord`] |
//! | `commands` | number | JSON of [`CommandRecord`], while it is in flight |
//!
//! The journal goes when the host ends by command.
#![expect(clippy::result_large_err, reason = "the store's own error, in calls that write to disk")]

mod record;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use main_storage::PartitionName;
use redb::{Database, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use record::{
    BackingRecord, Change, CommandId, CommandRecord, CpusRecord, EngineRecord, MainStorageRecord,
    PartitionRecord, SCHEMA, State, StateRecord,
};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const PARTITIONS: TableDefinition<'_, &str, &str> = TableDefinition::new("partitions");
const COMMANDS: TableDefinition<'_, CommandId, &str> = TableDefinition::new("commands");

/// Why the journal cannot be used. The host is to blame, or its disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// It cannot be read or written.
    #[error("the journal {path} cannot be used; free space on its disk")]
    Store { path: PathBuf, source: Box<redb::Error> },
    /// It was written by another version of the program.
    #[error(
        "the journal {path} has schema {found}, and this program knows {SCHEMA}; use the program \
         that wrote it, or end what it describes with `berth down`"
    )]
    Schema { path: PathBuf, found: String },
    /// What is in it is not a record.
    #[error("the journal {path} is damaged ({what}); `berth down` ends what runs and removes it")]
    Damaged { path: PathBuf, what: String },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// None after a failed write, until it can be opened again: the store
    /// trusts nothing then that it has not read back.
    store: Mutex<Option<Database>>,
    /// The number of the next command.
    next: AtomicU64,
}

impl Journal {
    /// Opens or makes the journal at `path`, and reads it.
    pub(crate) fn open(path: &Path) -> Result<(Self, State), JournalError> {
        let broken =
            |source| JournalError::Store { path: path.to_owned(), source: Box::new(source) };
        let store = open_file(path).map_err(broken)?;
        Self::of(path, store)
    }

    fn of(path: &Path, store: Database) -> Result<(Self, State), JournalError> {
        let store = Mutex::new(Some(store));
        let journal = Self { path: path.to_owned(), store, next: AtomicU64::new(0) };
        journal.write(prepare)?;
        let state = journal.read()?;
        let last = state.commands.last_key_value().map_or(0, |(id, _)| id + 1);
        journal.next.store(last, Ordering::Relaxed);
        Ok((journal, state))
    }

    /// A number for a new command.
    pub(crate) fn number(&self) -> CommandId {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes all of `changes`, or, when it fails, none.
    pub(crate) fn record(&self, changes: &[Change]) -> Result<(), JournalError> {
        self.write(|transaction| {
            changes.iter().try_for_each(|change| write_change(transaction, change))
        })
    }

    fn write(
        &self,
        changes: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), JournalError> {
        let written = self.with_store(|store| {
            // Dropped without a commit it has not happened.
            let transaction = store.begin_write()?;
            changes(&transaction)?;
            Ok(transaction.commit()?)
        });
        if written.is_err() {
            *self.store() = None;
        }
        written
    }

    fn store(&self) -> MutexGuard<'_, Option<Database>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_store<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, JournalError> {
        let mut store = self.store();
        let done = match &*store {
            Some(store) => work(store),
            None => open_file(&self.path).and_then(|opened| work(store.insert(opened))),
        };
        done.map_err(|source| JournalError::Store {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }

    fn read(&self) -> Result<State, JournalError> {
        let text = self.with_store(text)?;
        if text.schema != SCHEMA {
            return Err(JournalError::Schema { path: self.path.clone(), found: text.schema });
        }
        text.parse().map_err(|what| JournalError::Damaged { path: self.path.clone(), what })
    }
}

fn open_file(path: &Path) -> Result<Database, redb::Error> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(redb::Error::Io)?;
    open_on(redb::backends::FileBackend::new(file)?)
}

fn open_on(backend: impl StorageBackend) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    // Small, and the format that later versions of the store read too.
    builder.set_cache_size(1 << 20).create_with_file_format_v3(true);
    Ok(builder.create_with_backend(backend)?)
}

fn text(store: &Database) -> Result<Text, redb::Error> {
    let transaction = store.begin_read()?;
    let meta = transaction.open_table(META)?;
    let get = |key| -> Result<_, redb::Error> {
        Ok(meta.get(key)?.map(|value| value.value().to_owned()))
    };
    let mut text = Text {
        schema: get("schema")?.unwrap_or_default(),
        main_storage: get("main_storage")?,
        ending: get("ending")?.is_some(),
        ..Text::default()
    };
    for entry in transaction.open_table(PARTITIONS)?.iter()? {
        let (name, record) = entry?;
        text.partitions.push((name.value().to_owned(), record.value().to_owned()));
    }
    for entry in transaction.open_table(COMMANDS)?.iter()? {
        let (id, record) = entry?;
        text.commands.push((id.value(), record.value().to_owned()));
    }
    Ok(text)
}

/// Everything in the journal, unread.
#[derive(Default)]
struct Text {
    schema: String,
    main_storage: Option<String>,
    ending: bool,
    partitions: Vec<(String, String)>,
    commands: Vec<(CommandId, String)>,
}

impl Text {
    fn parse(self) -> Result<State, String> {
        let mut state = State { ending: self.ending, ..State::default() };
        state.main_storage = self.main_storage.as_deref().map(from_json).transpose()?;
        for (name, record) in &self.partitions {
            let name = PartitionName::new(name).map_err(|error| error.to_string())?;
            state.partitions.insert(name, from_json(record)?);
        }
        for (id, record) in &self.commands {
            state.commands.insert(*id, from_json(record)?);
        }
        Ok(state)
    }
}

/// Makes the tables of a new journal.
fn prepare(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let new = meta.get("schema")?.is_none();
    if new {
        meta.insert("schema", SCHEMA)?;
    }
    transaction.open_table(PARTITIONS)?;
    transaction.open_table(COMMANDS)?;
    Ok(())
}

fn write_change(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::MainStorage(record) => {
            transaction.open_table(META)?.insert("main_storage", to_json(record)?.as_str())?;
        }
        Change::Partition(name, record) => {
            let mut table = transaction.open_table(PARTITIONS)?;
            table.insert(name.as_str(), to_json(record)?.as_str())?;
        }
        Change::Gone(name) => drop(transaction.open_table(PARTITIONS)?.remove(name.as_str())?),
        Change::Command(id, record) => {
            transaction.open_table(COMMANDS)?.insert(id, to_json(record)?.as_str())?;
        }
        Change::Ended(id) => drop(transaction.open_table(COMMANDS)?.remove(id)?),
        Change::Ending => drop(transaction.open_table(META)?.insert("ending", "1")?),
    }
    Ok(())
}

fn to_json(record: &impl Serialize) -> Result<String, redb::Error> {
    let wrong = |error| redb::Error::Io(std::io::Error::other(error));
    serde_json::to_string(record).map_err(|error: serde_json::Error| wrong(error))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;

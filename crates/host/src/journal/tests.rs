//! The journal against a trivial model, with the disk failing at every write
//! and the machine losing what was not made durable.

use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

/// A disk that can fail, and forgets what was not synced.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last sync: offset and bytes; no bytes sets a length.
    since: Vec<(u64, Vec<u8>)>,
    /// Calls until everything fails.
    left: Option<u32>,
}

impl Platter {
    fn call(&mut self) -> io::Result<()> {
        match &mut self.left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("injected")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + data.len());
        if data.is_empty() {
            bytes.resize(start, 0);
        } else {
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(data);
        }
    }
}

impl Disk {
    /// What is there after a crash that kept those unsynced writes which
    /// `kept` says.
    fn after_crash(&self, mut kept: impl FnMut(usize) -> bool) -> Self {
        let platter = self.0.lock().unwrap();
        let mut bytes = platter.durable.clone();
        for (index, (offset, data)) in platter.since.iter().enumerate() {
            if data.is_empty() || kept(index) {
                Platter::put(&mut bytes, *offset, data);
            }
        }
        let (durable, now) = (bytes.clone(), bytes);
        Self(Arc::new(Mutex::new(Platter { now, durable, ..Platter::default() })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let platter = self.0.lock().unwrap();
        let bytes = platter.now.get(offset as usize..offset as usize + len);
        bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.call()?;
        platter.now.resize(len as usize, 0);
        platter.since.push((len, Vec::new()));
        Ok(())
    }

    fn sync_data(&self, _eventual: bool) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.call()?;
        platter.durable = platter.now.clone();
        platter.since.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.call()?;
        Platter::put(&mut platter.now, offset, data);
        platter.since.push((offset, data.to_vec()));
        Ok(())
    }
}

fn open(disk: &Disk) -> (Journal, State) {
    let store = open_on(disk.clone()).unwrap();
    Journal::of(Path::new("/no/such/directory/journal"), store).unwrap()
}

fn partition(origin: u64, state: StateRecord) -> PartitionRecord {
    PartitionRecord {
        origin,
        size: 1 << 20,
        image: "minimal".into(),
        vcpus: 2,
        cpus: CpusRecord::TimeShared(vec![0, 3]),
        disk: Some(64 << 20),
        autostart: true,
        engine: EngineRecord::Soft,
        io_keys: [("rng".to_owned(), 3)].into(),
        state,
    }
}

fn change() -> impl Strategy<Value = Change> {
    let name = || "[a-c]";
    let part = |name: String| PartitionName::new(&name).unwrap();
    let state = prop_oneof![
        Just(StateRecord::Running),
        any::<Option<String>>().prop_map(StateRecord::Stopped),
        ".{0,300}".prop_map(StateRecord::Failed),
    ];
    prop_oneof![
        (0u64..9, any::<Option<u32>>()).prop_map(|(size, numa_node)| {
            let backing = BackingRecord::File("/x".into());
            Change::MainStorage(MainStorageRecord { size, backing, numa_node })
        }),
        (name(), any::<u64>(), state)
            .prop_map(move |(name, at, state)| Change::Partition(part(name), partition(at, state))),
        name().prop_map(move |name| Change::Gone(part(name))),
        (0u64..4, name(), any::<u64>(), any::<u64>()).prop_map(|(id, name, from, to)| {
            Change::Command(id, CommandRecord::Move { name, from, to })
        }),
        (0u64..4, name())
            .prop_map(|(id, name)| Change::Command(id, CommandRecord::Delete { name })),
        (0u64..4).prop_map(Change::Ended),
        Just(Change::Ending),
    ]
}

fn commands() -> impl Strategy<Value = Vec<Vec<Change>>> {
    prop::collection::vec(prop::collection::vec(change(), 1..4), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn it_agrees_with_the_model_after_every_command(commands in commands()) {
        let disk = Disk::default();
        let mut model = State::default();
        let (mut journal, _) = open(&disk);
        for changes in commands {
            journal.record(&changes).unwrap();
            model.apply(&changes);
            prop_assert_eq!(journal.read().unwrap(), model.clone());
            // Killed: nothing is closed, nothing flushed.
            std::mem::forget(journal);
            let found;
            (journal, found) = open(&disk.after_crash(|_| true));
            prop_assert_eq!(found, model.clone());
            journal = { drop(journal); open(&disk).0 };
        }
    }

    #[test]
    fn killed_anywhere_it_is_as_before_or_after_the_command(
        commands in commands(),
        calls in 0u32..160,
        kept: u64,
    ) {
        let disk = Disk::default();
        let (journal, mut before) = open(&disk);
        disk.0.lock().unwrap().left = Some(calls);
        let mut after = before.clone();
        for changes in &commands {
            after.apply(changes);
            if journal.record(changes).is_err() {
                break;
            }
            before = after.clone();
        }
        std::mem::forget(journal);
        // The process dies: what it wrote is there. The machine dies: any part
        // of what was not synced is.
        for crashed in [disk.after_crash(|_| true), disk.after_crash(|i| kept >> (i % 64) & 1 == 1)] {
            let (_, found) = open(&crashed);
            prop_assert!(found == before || found == after, "{:?} is neither {:?} nor {:?}", found, before, after);
        }
    }
}

#[test]
fn the_format_is_the_golden_one() {
    let name = || "lpar1".to_owned();
    let text = |record: &dyn erased::Record| record.text();
    let main = |backing| MainStorageRecord { size: 1 << 30, backing, numa_node: Some(1) };
    let states = [
        StateRecord::Running,
        StateRecord::Stopped(None),
        StateRecord::Stopped(Some("why".into())),
        StateRecord::Failed("why".into()),
    ];
    let mut all = vec![
        text(&main(BackingRecord::Memfd)),
        text(&main(BackingRecord::Reserved)),
        text(&main(BackingRecord::Huge2M)),
        text(&main(BackingRecord::Huge1G)),
        text(&main(BackingRecord::File("/dev/dax0.0".into()))),
    ];
    all.extend(states.map(|state| text(&partition(5 << 20, state))));
    let floating = PartitionRecord {
        cpus: CpusRecord::Floating,
        disk: None,
        ..partition(0, StateRecord::Running)
    };
    let exclusive = PartitionRecord { cpus: CpusRecord::Exclusive(vec![1]), ..floating.clone() };
    all.extend([text(&floating), text(&exclusive)]);
    all.extend([
        text(&CommandRecord::Start { name: name() }),
        text(&CommandRecord::Stop { name: name() }),
        text(&CommandRecord::Restart { name: name() }),
        text(&CommandRecord::Move { name: name(), from: 1, to: 2 }),
        text(&CommandRecord::Exchange {
            name: name(),
            from: 1,
            to: 2,
            with: "lpar2".into(),
            with_from: 3,
            with_to: 4,
        }),
        text(&CommandRecord::Resize { name: name(), from: 1, to: 2 }),
        text(&CommandRecord::Delete { name: name() }),
    ]);
    let golden = include_str!("golden-1.txt");
    assert_eq!(SCHEMA, "1", "a new schema needs a golden file of its own");
    assert_eq!(all.join("\n") + "\n", golden);
}

/// One way to write records of several kinds.
mod erased {
    pub(super) trait Record {
        fn text(&self) -> String;
    }
    impl<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug> Record for T {
        fn text(&self) -> String {
            let text = serde_json::to_string(self).unwrap();
            assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *self, "it is read as written");
            text
        }
    }
}

#[test]
fn numbers_of_commands_go_on_after_those_in_flight() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    let id = journal.number();
    journal.record(&[Change::Command(id + 7, CommandRecord::Start { name: "a".into() })]).unwrap();
    drop(journal);
    assert_eq!(open(&disk).0.number(), id + 8);
}

#[test]
fn a_failed_write_is_none_and_the_next_can_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (journal, _) = Journal::open(&path).unwrap();
    journal.record(&[Change::Ending]).unwrap();
    // As after a full disk: what is open cannot be trusted.
    *journal.store() = None;
    journal.record(&[Change::Command(1, CommandRecord::Stop { name: "a".into() })]).unwrap();
    drop(journal);
    let (_, state) = Journal::open(&path).unwrap();
    assert!(state.ending && state.commands.len() == 1);
}

#[test]
fn what_cannot_be_read_is_said_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    std::fs::write(&path, "not a store").unwrap();
    let error = crate::in_full(&Journal::open(&path).unwrap_err());
    assert!(error.contains(path.to_str().unwrap()), "{error}");

    let disk = Disk::default();
    let (journal, _) = open(&disk);
    let put = |table: TableDefinition<'_, &str, &str>, key, value| {
        let insert = |transaction: &WriteTransaction| {
            transaction.open_table(table)?.insert(key, value)?;
            Ok(())
        };
        journal.write(insert).unwrap();
    };
    put(PARTITIONS, "a", "{}");
    assert!(matches!(journal.read(), Err(JournalError::Damaged { .. })));
    put(META, "schema", "2");
    let error = journal.read().unwrap_err().to_string();
    assert!(error.contains("schema 2") && error.contains("berth down"), "{error}");
}

//! What is different on the board from what operators were told last.
//!
//! Every command ends with a telling, and most partitions are as they were:
//! words are made only for those that are not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use main_storage::{Change as MapChange, PartitionName, StorageRange};
use operator_api::Changes;
use operator_api::model::{Change, ChangeKind, Command, HostState, Partition, PartitionState};

use crate::daemon::Shared;
use crate::daemon::board::Board;
use crate::daemon::process::Process;

/// Which partitions are looked at.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    /// All of them.
    All,
    /// Those that a command was on, and whoever is at another place, or has another gap
    /// behind it, than was told: the rest is as it was, or is told of a moment later.
    Only(&'a Command),
}

impl About<'_> {
    /// Whether this one, which is where it was, need not be looked at.
    fn leaves_out(self, name: &str) -> bool {
        match self {
            Self::All => false,
            Self::Only(Command::Move { name: moved, .. }) => name != moved,
            Self::Only(Command::Exchange { a, b }) => name != a && name != b,
            // These are seldom, or change more than their partition.
            Self::Only(_) => false,
        }
    }
}

/// What is different from `told`, pools aside.
pub(super) fn changes(
    shared: &Shared,
    board: &Board,
    told: &HostState,
    about: About<'_>,
) -> Changes {
    let on_map = board.map.partitions();
    let copying = shared.telling.copying.lock().unwrap_or_else(PoisonError::into_inner);
    let mut known = Known { told: &told.partitions, by_name: None, found: 0 };
    let mut partitions = Vec::new();
    let gaps = board.map.gaps();
    for (place, on) in on_map.iter().enumerate() {
        if about.leaves_out(on.name().as_str()) && known.is_there(place, on, &gaps) {
            continue;
        }
        let Some(seen) = look(shared, board, on, &gaps, &copying) else { continue };
        if !known.find(place, seen.name).is_some_and(|was| seen.is(was)) {
            partitions.push(seen.said());
        }
    }
    let gone = if known.found == told.partitions.len() {
        Vec::new()
    } else {
        let names: BTreeSet<&str> = on_map.iter().map(|on| on.name().as_str()).collect();
        let names = told.partitions.iter().filter(|was| !names.contains(was.name.as_str()));
        names.map(|was| was.name.clone()).collect()
    };
    Changes { host: host(board, &gaps, told), gone, partitions, pools: None }
}

/// Main storage and the host, without partitions, if they are different.
fn host(board: &Board, gaps: &[StorageRange], told: &HostState) -> Option<HostState> {
    let version = env!("CARGO_PKG_VERSION");
    let free = gaps.iter().map(|gap| gap.size()).sum();
    let (main_storage, unit, ending) = (board.map.size(), board.map.unit(), board.closing);
    let HostState { version: v, main_storage: m, free: f, unit: u, ending: e, partitions: _ } =
        told;
    let same = v == version && (*m, *f, *u, *e) == (main_storage, free, unit, ending);
    let partitions = Vec::new();
    let now =
        || HostState { version: version.to_owned(), main_storage, free, unit, ending, partitions };
    (!same).then(now)
}

/// What was told of partitions, in the order of the map as it was.
struct Known<'a> {
    told: &'a [Partition],
    /// Made when the order is another one.
    by_name: Option<BTreeMap<&'a str, &'a Partition>>,
    /// How many were found.
    found: usize,
}

impl<'a> Known<'a> {
    /// Whether somebody was told to be at this place, as it is. If that was somebody else,
    /// a look at all of them tells a moment later.
    fn is_there(
        &mut self,
        place: usize,
        on: &main_storage::Partition,
        gaps: &[StorageRange],
    ) -> bool {
        let range = on.range();
        let there = self.told.get(place).is_some_and(|was| {
            (was.origin, was.size, was.gap)
                == (range.origin(), range.size(), gap(gaps, range.end()))
        });
        self.found += usize::from(there);
        there
    }

    /// What was told of this partition, which is at this place now.
    fn find(&mut self, place: usize, name: &str) -> Option<&'a Partition> {
        let told = self.told;
        let here = told.get(place).filter(|was| was.name == name);
        let was = here.or_else(|| {
            let all = || told.iter().map(|was| (was.name.as_str(), was)).collect();
            self.by_name.get_or_insert_with(all).get(name).copied()
        });
        self.found += usize::from(was.is_some());
        was
    }
}

/// A partition as it is now.
struct Seen<'a> {
    name: &'a str,
    origin: u64,
    size: u64,
    gap: u64,
    state: PartitionState,
    vcpus: u8,
    engine: &'a str,
    image: &'a str,
    ready: bool,
    reason: Option<&'a str>,
    pool: Option<&'a str>,
    change: Option<Change>,
}

/// Bytes that nobody holds behind `end`.
fn gap(gaps: &[StorageRange], end: u64) -> u64 {
    let found = gaps.binary_search_by_key(&end, |gap| gap.origin());
    found.ok().and_then(|place| gaps.get(place)).map_or(0, |gap| gap.size())
}

fn look<'a>(
    shared: &'a Shared,
    board: &'a Board,
    on: &'a main_storage::Partition,
    gaps: &[StorageRange],
    copying: &BTreeMap<PartitionName, (u64, u64)>,
) -> Option<Seen<'a>> {
    let partition = board.partitions.get(on.name())?;
    let change = on.change().map(|change| {
        let (kind, with) = match change {
            MapChange::Move(_) => (ChangeKind::Move, None),
            MapChange::Exchange { with, .. } => (ChangeKind::Exchange, Some(with.to_string())),
            MapChange::Resize(_) => (ChangeKind::Resize, None),
        };
        let (origin, size) = (change.to().origin(), change.to().size());
        let (done, total) = copying.get(on.name()).copied().unwrap_or_default();
        Change { kind, origin, size, with, done, total }
    });
    Some(Seen {
        name: on.name().as_str(),
        origin: on.range().origin(),
        size: on.range().size(),
        gap: gap(gaps, on.range().end()),
        state: partition.state(),
        vcpus: partition.spec.vcpus,
        engine: partition.spec.engine.as_str(),
        image: &partition.spec.image,
        ready: partition.process().is_some_and(Process::is_ready),
        reason: partition.reason.as_deref(),
        pool: shared.config.file.pool_of(on.name()).map(|pool| pool.config.name.as_str()),
        change,
    })
}

impl Seen<'_> {
    /// Whether this is what was told.
    fn is(&self, told: &Partition) -> bool {
        let Partition {
            name,
            origin,
            size,
            gap,
            state,
            vcpus,
            engine,
            image,
            ready,
            reason,
            pool,
            change,
        } = told;
        (self.origin, self.size, self.gap, self.state) == (*origin, *size, *gap, *state)
            && (self.vcpus, self.ready) == (*vcpus, *ready)
            && (self.name, self.engine, self.image) == (name, engine, image)
            && (self.reason, self.pool) == (reason.as_deref(), pool.as_deref())
            && self.change == *change
    }

    /// In the words of the interface.
    fn said(self) -> Partition {
        Partition {
            name: self.name.to_owned(),
            origin: self.origin,
            size: self.size,
            gap: self.gap,
            state: self.state,
            vcpus: self.vcpus,
            engine: self.engine.to_owned(),
            image: self.image.to_owned(),
            ready: self.ready,
            reason: self.reason.map(str::to_owned),
            pool: self.pool.map(str::to_owned),
            change: self.change,
        }
    }
}

//! Exchanges of two windows against two vectors of bytes, killed at any step.

use std::sync::Arc;

use main_storage::{BLOCK_SIZE as M, MovePlan, PartitionName, StorageMap};
use proptest::prelude::*;

use super::*;
use crate::fault::{Point, once, with};
use crate::{Backing, MainStorage, StorageWindow};

const BLOCKS: u64 = 12;

/// A partition and what it must look like.
struct Side {
    window: Arc<StorageWindow>,
    content: Vec<u8>,
    keys: Vec<u8>,
}

fn range(origin: u64, size: u64) -> StorageRange {
    StorageRange::new(origin * M, size * M).unwrap()
}

impl Side {
    fn new(main: &MainStorage, range: StorageRange, seed: u64, sparse: u64) -> Self {
        let (storage, keys) = (main.storage_fd(), main.keys_fd());
        let window = StorageWindow::map(storage, keys, range, 0, range.size()).unwrap();
        let mut side = Self { window, content: vec![0; range.size() as usize], keys: Vec::new() };
        for page in 0..range.pages() {
            let key = (page * 7 + seed) as u8;
            side.window.key_cell(page as usize).store(key, Ordering::Relaxed);
            side.keys.push(key);
            if page / 5 % (sparse + 1) != 0 {
                continue;
            }
            let start = (page * PAGE_SIZE) as usize;
            for at in (start..start + PAGE_SIZE as usize).step_by(64) {
                let byte = (at / 64) as u8 ^ seed as u8 | 1;
                side.content[at] = byte;
                // SAFETY: a byte of the window, used by this thread only.
                unsafe { side.window.host_base().add(at).write_volatile(byte) };
            }
        }
        side
    }

    fn check(&self, range: StorageRange, main: &MainStorage) {
        assert_eq!((self.window.origin(), self.window.size()), (range.origin(), range.size()));
        let with_content = self.content.chunks(PAGE_SIZE as usize).filter(|page| page[0] != 0);
        assert_eq!(main.resident(range).unwrap(), with_content.count() as u64 * PAGE_SIZE);
        for (at, byte) in self.content.iter().enumerate().step_by(64) {
            // SAFETY: a byte of the window.
            let seen = unsafe { self.window.host_base().add(at).read_volatile() };
            assert_eq!(seen, *byte, "byte {at}");
        }
        for (page, key) in self.keys.iter().enumerate() {
            assert_eq!(self.window.key_cell(page).load(Ordering::Relaxed), *key, "key {page}");
        }
    }
}

fn plan(a: StorageRange, b: StorageRange) -> Option<ExchangePlan> {
    let mut map = StorageMap::new(BLOCKS * M).unwrap();
    let names: [PartitionName; 2] = ["a", "b"].map(|name| name.parse().unwrap());
    map.assign(names[0].clone(), a).ok()?;
    map.assign(names[1].clone(), b).ok()?;
    map.plan_exchange(&names[0], &names[1]).ok()
}

/// Exchanges two partitions; `kills` are the steps after which whoever swaps
/// dies and the next one takes over.
fn exchange(a: StorageRange, b: StorageRange, sparse: u64, kills: &[u32]) {
    let Some(plan) = plan(a, b) else { return };
    let main = MainStorage::create(BLOCKS * M, Backing::Memfd).unwrap();
    let (storage, keys) = (main.storage_fd(), main.keys_fd());
    let sides = [Side::new(&main, a, 3, sparse), Side::new(&main, b, 90, sparse / 2)];
    let record = Exchange::record(&plan).unwrap();
    let moves: [MovePlan; 2] = [plan.a(), plan.b()];
    let adoptions: Vec<_> = sides
        .iter()
        .zip(&moves)
        .map(|(side, plan)| side.window.prepare_adoption(storage, keys, plan).unwrap())
        .collect();
    let prepare = || Exchange::prepare(storage, keys, record.as_fd(), plan).unwrap();
    let mut swapping = prepare();
    assert!(with(Some(Point::Scan), || swapping.run()).is_err() && !swapping.begun());
    for kill in kills {
        let (result, killed) = once(Point::Swap, *kill, || swapping.run());
        assert_eq!(result.is_err(), killed);
        swapping = prepare();
        assert!(swapping.begun());
    }
    let report = swapping.run().unwrap();
    let pages = sides.iter().flat_map(|side| side.content.chunks(PAGE_SIZE as usize));
    let with_content = pages.filter(|page| page[0] != 0).count() as u64;
    assert_eq!(report.bytes, with_content * PAGE_SIZE);
    for (adoption, (side, plan)) in adoptions.into_iter().zip(sides.iter().zip(&moves)) {
        drop(adoption.adopt().unwrap());
        side.check(plan.to(), &main);
    }
}

#[test]
fn equal_partitions_change_places_in_a_full_main_storage() {
    exchange(range(0, 6), range(6, 6), 0, &[]);
    exchange(range(0, 6), range(6, 6), 2, &[]);
}

#[test]
fn partitions_of_different_size_change_places() {
    exchange(range(0, 3), range(3, 9), 0, &[]);
    exchange(range(1, 7), range(8, 2), 3, &[]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whoever_is_killed_at_whatever_step_nothing_is_lost(
        (a, b) in ((0u64..8, 1u64..7), (0u64..11, 1u64..7)),
        sparse in 0u64..5,
        kills in prop::collection::vec(0u32..3000, 0..4),
    ) {
        let inside = |(origin, size): (u64, u64)| origin + size <= BLOCKS;
        prop_assume!(inside(a) && inside(b) && !range(a.0, a.1).overlaps(range(b.0, b.1)));
        exchange(range(a.0, a.1), range(b.0, b.1), sparse, &kills);
    }
}

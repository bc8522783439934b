//! The window and its relocation against a vector of bytes, with the host
//! failing at every point and the operator giving up at every block.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use main_storage::{
    BLOCK_SIZE as M, MovePlan, PAGE_SIZE, PAGES_PER_BLOCK, StorageKey, StorageRange,
};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use crate::fault::{Point, once, with};
use crate::{
    Backing, Committed, Copied, MainStorage, MapError, RelocateError, ResizeError, Slid,
    SlideReport, StorageWindow,
};

const BASE: u64 = 0x8000_0000;
const REACH: u64 = 16 * M;
/// Blocks of main storage; the first and last belong to neighbours.
const BLOCKS: u64 = 14;
const KEY_PAGE: usize = PAGE_SIZE as usize;

fn range(origin: u64, size: u64) -> StorageRange {
    StorageRange::new(origin * M, size * M).unwrap()
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn map(main: &MainStorage, range: StorageRange) -> Arc<StorageWindow> {
    StorageWindow::map(main.storage_fd(), main.keys_fd(), range, BASE, REACH).unwrap()
}

/// Reads the file, which (unlike a mapping) leaves holes alone.
fn read(file: std::os::fd::BorrowedFd<'_>, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut at = 0;
    while at < length {
        let count = rustix::io::pread(file, &mut bytes[at..], offset + at as u64).unwrap();
        assert!(count > 0);
        at += count;
    }
    bytes
}

fn noise(seed: u64, bytes: &mut [u8]) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 24) as u8;
    }
}

/// A partition between two neighbours, and what it must look like.
struct World {
    main: MainStorage,
    window: Arc<StorageWindow>,
    at: StorageRange,
    content: Vec<u8>,
    keys: Vec<u8>,
    written: Vec<bool>,
    neighbours: [Vec<u8>; 4],
    /// A hole could not be punched, so more memory than needed may be used.
    inflated: bool,
}

impl World {
    fn new(origin: u64, size: u64) -> Self {
        let main = MainStorage::create(BLOCKS * M, Backing::Memfd).unwrap();
        for (seed, origin) in [(1, 0), (2, BLOCKS - 1)] {
            let neighbour = map(&main, range(origin, 1));
            let mut bytes = vec![0; M as usize];
            noise(seed, &mut bytes);
            neighbour.memory().write_slice(&bytes, GuestAddress(BASE)).unwrap();
            for (page, key) in bytes.iter().take(PAGES_PER_BLOCK as usize).enumerate() {
                neighbour.key_cell(page).store(*key, Ordering::Relaxed);
            }
        }
        let at = range(origin, size);
        let window = map(&main, at);
        let pages = at.pages() as usize;
        let neighbours = Self::neighbours(&main);
        let content = vec![0; at.size() as usize];
        let (keys, written) = (vec![0; pages], vec![false; pages]);
        Self { main, window, at, content, keys, written, neighbours, inflated: false }
    }

    fn neighbours(main: &MainStorage) -> [Vec<u8>; 4] {
        let last = BLOCKS - 1;
        let keys = KEY_PAGE as u64;
        [
            read(main.storage_fd(), 0, M as usize),
            read(main.storage_fd(), last * M, M as usize),
            read(main.keys_fd(), 0, KEY_PAGE),
            read(main.keys_fd(), last * keys, KEY_PAGE),
        ]
    }

    /// Guest physical address of the byte at window offset `offset`.
    fn address(&self, offset: usize) -> GuestAddress {
        let (layout, offset) = (self.window.layout(), offset as u64);
        GuestAddress(match offset.checked_sub(layout.boot_size()) {
            Some(behind) => layout.hot_plug_base() + behind,
            None => layout.base() + offset,
        })
    }

    /// As an I/O processor writes it; the key as a vCPU sets it.
    fn write(&mut self, page: usize, seed: u64) {
        let page = page % self.written.len();
        let bytes = page * PAGE_SIZE as usize..(page + 1) * PAGE_SIZE as usize;
        noise(seed, &mut self.content[bytes.clone()]);
        let address = self.address(bytes.start);
        self.window.write_slice(&self.content[bytes], address).unwrap();
        self.written[page] = true;
        self.keys[page] |= StorageKey::DIRTY;
        self.set_key(page, seed as u8 | 2);
    }

    /// Nobody but the host clears its own bit.
    fn set_key(&mut self, page: usize, key: u8) {
        let page = page % self.keys.len();
        let key = key | self.keys[page] & StorageKey::DIRTY;
        self.keys[page] = key;
        self.window.key_cell(page).store(key, Ordering::Relaxed);
    }

    fn fill(&mut self) {
        for page in 0..self.written.len() {
            if page % 3 != 1 {
                self.write(page, page as u64 + 5);
            }
        }
    }

    fn plan(&self, origin: u64) -> MovePlan {
        MovePlan::new(self.at, origin * M).unwrap()
    }

    fn prepare(&self, plan: &MovePlan) -> Result<crate::Prepared, RelocateError> {
        self.window.prepare(self.main.storage_fd(), self.main.keys_fd(), plan)
    }

    fn copied(&self, plan: &MovePlan) -> Copied {
        self.prepare(plan).unwrap().copy(&mut go_on).unwrap()
    }

    fn committed(&self, plan: &MovePlan) -> Committed {
        self.copied(plan).commit().unwrap()
    }

    fn slid(&self, plan: &MovePlan) -> Slid {
        self.prepare(plan).unwrap().slide(&mut go_on).unwrap()
    }

    /// Every byte and key of main storage is what it must be.
    fn check(&self) {
        assert_eq!(self.window.origin(), self.at.origin());
        let length = self.at.size() as usize;
        let file = self.main.storage_fd();
        let resident = self.main.resident(self.at).unwrap();
        let written = self.written.iter().filter(|written| **written).count() as u64 * PAGE_SIZE;
        assert!(resident == written || self.inflated && resident > written);
        assert!(read(file, self.at.origin(), length) == self.content, "content");
        for (page, key) in self.keys.iter().enumerate() {
            assert_eq!(self.window.key_cell(page).load(Ordering::Relaxed), *key, "key of {page}");
        }
        // Through the window, where holes may be touched only by reading what
        // was written.
        for page in (0..self.written.len()).filter(|page| self.written[*page]) {
            let bytes = page * PAGE_SIZE as usize..(page + 1) * PAGE_SIZE as usize;
            let mut seen = vec![0; PAGE_SIZE as usize];
            self.window.read_slice(&mut seen, self.address(bytes.start)).unwrap();
            assert!(seen == self.content[bytes], "page {page}");
        }
        // Not even a pointer is made to what is behind the end.
        let end = self.address(length - 1).0 + 1;
        for outside in [end - 1, end, end + M, end + 100 * M, u64::MAX - 1] {
            assert!(self.window.write_slice(&[1, 2], GuestAddress(outside)).is_err());
        }
        self.window.key_cell(self.keys.len()).store(0xff, Ordering::Relaxed);
        assert!(Self::neighbours(&self.main) == self.neighbours, "neighbours");
        for free in range(1, BLOCKS - 2).without(self.at) {
            assert_eq!(self.main.resident(free).unwrap(), 0, "{free}");
            let blocks = (free.size() / M) as usize;
            let keys = read(self.main.keys_fd(), free.origin() / M * PAGE_SIZE, blocks * KEY_PAGE);
            assert!(keys.iter().all(|key| *key == 0), "keys of {free}");
        }
    }
}

#[test]
fn a_window_shows_its_range_and_nothing_else() {
    let mut world = World::new(3, 4);
    world.fill();
    world.check();
    let window = &world.window;
    assert_eq!((window.size(), window.layout().base()), (4 * M, BASE));
    for outside in [BASE - 1, BASE + 4 * M, 0, u64::MAX] {
        assert!(window.write_slice(&[1], GuestAddress(outside)).is_err());
    }
    assert!(window.write_slice(&[1, 2], GuestAddress(BASE + 4 * M - 1)).is_err());
    window.key_cell(usize::MAX).store(0xff, Ordering::Relaxed);
    // SAFETY: the first byte of a mapped window.
    let first = unsafe { window.host_base().read_volatile() };
    assert_eq!(first, world.content[0]);
}

#[test]
fn what_does_not_fit_is_not_mapped() {
    let main = MainStorage::create(8 * M, Backing::Memfd).unwrap();
    let (storage, keys) = (main.storage_fd(), main.keys_fd());
    let far = StorageWindow::map(storage, keys, range(6, 4), BASE, REACH);
    assert!(matches!(far, Err(MapError::Outside { .. })));
    let large = StorageWindow::map(storage, keys, range(0, 4), BASE, 2 * M);
    assert!(matches!(large, Err(MapError::Reach { .. })));
    let wraps = StorageWindow::map(storage, keys, range(0, 4), u64::MAX - M, REACH);
    assert!(matches!(wraps, Err(MapError::Reach { .. })));
    assert!(StorageWindow::map(storage, keys, range(0, 4), BASE, u64::MAX).is_err());
    assert!(MainStorage::create(5, Backing::Memfd).is_err());
}

#[test]
fn a_discarded_range_is_zero_and_costs_nothing() {
    let mut world = World::new(3, 4);
    world.fill();
    world.main.discard(range(4, 2)).unwrap();
    let middle = M as usize..3 * M as usize;
    world.content[middle].fill(0);
    let pages = PAGES_PER_BLOCK as usize..3 * PAGES_PER_BLOCK as usize;
    world.keys[pages.clone()].fill(0);
    world.written[pages].fill(false);
    world.check();
    assert!(world.main.discard(range(BLOCKS - 1, 2)).is_err());
    world.check();
}

#[test]
fn pointers_stay_valid_through_every_move() {
    let mut world = World::new(1, 4);
    world.fill();
    let (base, memory) = (world.window.host_base(), world.window.memory().clone());
    for origin in [2, 6, 5, 1, 9, 7] {
        let plan = world.plan(origin);
        let report = world
            .window
            .relocate(world.main.storage_fd(), world.main.keys_fd(), &plan, &mut go_on)
            .unwrap();
        world.at = plan.to();
        let written = world.written.iter().filter(|written| **written).count() as u64;
        assert_eq!(report.bytes, written * PAGE_SIZE);
        world.check();
        assert_eq!(world.window.host_base(), base);
        memory.write_slice(&[origin as u8; 16], GuestAddress(BASE)).unwrap();
        world.content[..16].fill(origin as u8);
        world.check();
    }
}

#[test]
fn the_phases_can_be_left_at_any_point() {
    for (origin, to) in [(2, 5), (5, 2), (1, 8), (8, 1), (4, 5)] {
        let mut world = World::new(origin, 5);
        world.fill();
        let plan = world.plan(to);
        drop(world.prepare(&plan).unwrap());
        world.check();
        drop(world.copied(&plan));
        world.check();
        world.committed(&plan).undo().unwrap();
        world.check();
        for blocks in 1..=5 {
            let mut count = 0;
            let mut give_up = |pages| {
                count += 1;
                if count == blocks * 40 {
                    assert!(pages > 0);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            };
            let result = world.prepare(&plan).unwrap().copy(&mut give_up);
            assert!(matches!(result, Err(RelocateError::GivenUp)));
            world.check();
        }
        drop(world.committed(&plan));
        world.at = plan.to();
        world.check();
    }
}

#[test]
fn what_the_guest_writes_while_the_move_is_prepared_is_moved() {
    let mut world = World::new(2, 4);
    world.fill();
    let plan = world.plan(4);
    let prepared = world.prepare(&plan).unwrap();
    for page in (0..4 * PAGES_PER_BLOCK as usize).step_by(7) {
        world.write(page, 1000 + page as u64);
    }
    prepared.copy(&mut go_on).unwrap().commit().unwrap().finish().unwrap();
    world.at = plan.to();
    world.check();
}

#[test]
fn one_move_at_a_time_and_only_from_where_it_is() {
    let world = World::new(2, 4);
    let plan = world.plan(4);
    let first = world.prepare(&plan).unwrap();
    assert!(matches!(world.prepare(&plan), Err(RelocateError::Busy)));
    drop(first);
    let elsewhere = MovePlan::new(range(3, 4), 2 * M).unwrap();
    assert!(matches!(world.prepare(&elsewhere), Err(RelocateError::NotHere { .. })));
    let outside = world.plan(BLOCKS - 2);
    assert!(matches!(world.prepare(&outside), Err(RelocateError::Map(_))));
    drop(world.prepare(&plan).unwrap());
    world.check();
}

#[test]
fn a_window_grows_where_its_guest_sees_it_and_shrinks_again() {
    let mut world = World::new(3, 4);
    world.fill();
    world.grow(6, None);
    let hot = world.window.layout().hot_plug_base();
    assert_eq!(hot, BASE + crate::HOT_PLUG_ALIGNMENT);
    world.write(5 * PAGES_PER_BLOCK as usize, 77);
    world.check();
    let mut seen = [0; 64];
    world.window.read_slice(&mut seen, GuestAddress(hot + M)).unwrap();
    assert_eq!(seen, world.content[5 * M as usize..5 * M as usize + 64]);
    assert!(world.window.read_slice(&mut seen, GuestAddress(BASE + 4 * M - 8)).is_err(), "a gap");
    world.shrink(5);
    world.check();
    world.grow(6, None);
    world.check();
}

#[test]
fn a_window_changes_its_size_only_within_its_bounds() {
    let world = World::new(3, 4);
    let grow = |main: &MainStorage, after| {
        world.window.grow(main.storage_fd(), main.keys_fd(), after).unwrap_err()
    };
    assert!(matches!(grow(&world.main, range(4, 6)), ResizeError::NotThis { .. }));
    assert!(matches!(grow(&world.main, range(3, 3)), ResizeError::NotThis { .. }));
    let outside = grow(&world.main, range(3, BLOCKS - 2));
    assert!(matches!(outside, ResizeError::Map(MapError::Outside { .. })));
    let large = MainStorage::create(4 * BLOCKS * M, Backing::Memfd).unwrap();
    let far = grow(&large, range(3, REACH / M + 1));
    assert!(matches!(far, ResizeError::Map(MapError::Reach { .. })));
    let shrink = |after| world.window.shrink(after).unwrap_err();
    assert!(matches!(shrink(range(3, 3)), ResizeError::Boot { .. }));
    assert!(matches!(shrink(range(3, 5)), ResizeError::NotThis { .. }));
    let moving = world.prepare(&world.plan(8)).unwrap();
    assert!(matches!(grow(&world.main, range(3, 5)), ResizeError::Busy));
    assert!(matches!(shrink(range(3, 4)), ResizeError::Busy));
    drop(moving);
    world.check();
}

#[test]
fn what_is_discarded_reads_as_zero_even_if_the_host_keeps_it() {
    for (failing, moving) in [(None, false), (Some(Point::Punch), false), (None, true)] {
        let mut world = World::new(3, 4);
        world.fill();
        let plan = world.plan(5);
        let prepared = moving.then(|| world.prepare(&plan).unwrap());
        let pages = 100..300;
        let count = pages.len() as u64 * PAGE_SIZE;
        with(failing, || world.window.discard(100 * PAGE_SIZE, count));
        world.window.discard(4 * M - PAGE_SIZE, 2 * PAGE_SIZE);
        world.window.discard(5, PAGE_SIZE);
        world.window.discard(u64::MAX - PAGE_SIZE + 1, PAGE_SIZE);
        world.content[100 * KEY_PAGE..300 * KEY_PAGE].fill(0);
        world.keys[pages.clone()].fill(0);
        world.written[pages].fill(false);
        world.inflated = failing.is_some() || moving;
        drop(prepared);
        world.check();
    }
}

#[test]
fn main_storage_that_keeps_its_pages_keeps_those_that_are_discarded() {
    let main = MainStorage::create(4 * M, Backing::Reserved).unwrap();
    let window = map(&main, range(1, 2));
    window.write_slice(&[7; KEY_PAGE], GuestAddress(BASE + M)).unwrap();
    let blocks = || rustix::fs::fstat(main.storage_fd()).unwrap().st_blocks;
    let before = blocks();
    window.discard(M, M);
    assert_eq!(blocks(), before);
    assert!(read(main.storage_fd(), 2 * M, KEY_PAGE).iter().all(|byte| *byte == 0));
}

#[test]
fn a_failure_with_no_way_back_is_said() {
    let mut world = World::new(2, 4);
    world.fill();
    let committed = world.committed(&world.plan(4));
    let result = with(Some(Point::MapDestination), || committed.undo());
    assert!(matches!(result, Err(RelocateError::Lost(_))));
}

#[test]
fn memory_that_outlives_its_window_stays_mapped() {
    let mut world = World::new(2, 2);
    world.fill();
    let memory = world.window.memory().clone();
    let expected = world.content[..64].to_vec();
    drop(world);
    let mut seen = vec![0; 64];
    memory.read_slice(&mut seen, GuestAddress(BASE)).unwrap();
    assert_eq!(seen, expected);
}

/// A key that was counted up `rounds` times.
fn counted(rounds: u64) -> u8 {
    (rounds as u8).wrapping_mul(2) | StorageKey::DIRTY
}

/// A thread that is a guest: it counts up in words and keys of its own, and
/// every word always holds what it wrote last. As of a vCPU, the key has the
/// host's own bit before the first store.
fn count_up(window: &StorageWindow, first: usize, stop: &AtomicBool) -> u64 {
    let pages = window.size() as usize / PAGE_SIZE as usize;
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        for page in (first..pages).step_by(4) {
            // SAFETY: a word of a page of the window, which only this thread
            // stores into.
            let word = unsafe {
                AtomicU64::from_ptr(window.host_base().add(page * PAGE_SIZE as usize).cast())
            };
            let key = window.key_cell(page);
            if round == 0 {
                key.fetch_or(StorageKey::DIRTY, Ordering::SeqCst);
            }
            assert_eq!(word.load(Ordering::Relaxed), round, "page {page}");
            word.store(round + 1, Ordering::Relaxed);
            assert_eq!(key.load(Ordering::Relaxed), counted(round), "key of page {page}");
            key.fetch_add(2, Ordering::Relaxed);
        }
        round += 1;
    }
    round
}

#[test]
fn a_guest_that_writes_all_the_time_loses_nothing_while_it_slides() {
    let mut world = World::new(2, 5);
    let stop = AtomicBool::new(false);
    let window = Arc::clone(&world.window);
    let rounds: Vec<u64> = std::thread::scope(|scope| {
        let guests: Vec<_> = (0..2)
            .map(|first| {
                scope.spawn({
                    let (window, stop) = (&window, &stop);
                    move || count_up(window, first, stop)
                })
            })
            .collect();
        for to in [5, 4, 7, 2, 8, 1, 3, 2].into_iter().cycle().take(64) {
            let plan = world.plan(to);
            let slid = world.slid(&plan);
            if to == 8 {
                slid.undo().unwrap();
                continue;
            }
            slid.finish().unwrap();
            world.at = plan.to();
        }
        stop.store(true, Ordering::Relaxed);
        guests.into_iter().map(|guest| guest.join().unwrap()).collect()
    });
    for (first, rounds) in rounds.iter().enumerate() {
        for page in (first..world.written.len()).step_by(4) {
            world.content[page * PAGE_SIZE as usize..][..8].copy_from_slice(&rounds.to_le_bytes());
            world.keys[page] = counted(*rounds);
            world.written[page] = true;
        }
    }
    world.check();
}

#[test]
fn a_slide_can_be_given_up_after_any_chunk_and_taken_back() {
    for (origin, to) in [(2, 5), (5, 2), (1, 8), (8, 1), (4, 5), (5, 4)] {
        let mut world = World::new(origin, 5);
        world.fill();
        let plan = world.plan(to);
        world.slid(&plan).undo().unwrap();
        world.check();
        for chunks in 1..=5 {
            let mut count = 0;
            let mut give_up = |_| {
                count += 1;
                if count == chunks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match world.prepare(&plan).unwrap().slide(&mut give_up) {
                Err(error) => assert!(matches!(error, RelocateError::GivenUp)),
                Ok(slid) => slid.undo().unwrap(),
            }
            world.check();
        }
        let report: SlideReport = world.slid(&plan).finish().unwrap();
        let written = world.written.iter().filter(|written| **written).count() as u64;
        assert_eq!(report.bytes, written * PAGE_SIZE);
        world.at = plan.to();
        world.check();
    }
}

#[derive(Debug, Clone)]
enum Operation {
    /// To where, and what fails after how many passes.
    Slide(u64, Option<(Point, u32)>),
    /// To where, and after how many chunks it is given up.
    SlideAndGiveUp(u64, u64),
    SlideAndUndo(u64),
    Write(usize, u64),
    Key(usize, u8),
    /// To where, and in which phase what fails.
    Move(u64, usize, Option<Point>),
    GiveUp(u64, u64),
    Undo(u64),
    Grow(u64, Option<Point>),
    Shrink(u64),
}

fn slide_fault() -> impl Strategy<Value = Option<(Point, u32)>> {
    let points = vec![
        Point::Populate,
        Point::Scan,
        Point::Protect,
        Point::RemapKeysLate,
        Point::RemapStorageLate,
        // A kernel that does not move page tables: not a failure.
        Point::RemapKeys,
        Point::RemapStorage,
    ];
    prop::option::of((prop::sample::select(points), 0u32..8))
}

fn operation() -> impl Strategy<Value = Operation> {
    let point = prop_oneof![
        4 => Just(None),
        6 => prop::sample::select(vec![
            Point::MapDestination,
            Point::Populate,
            Point::Scan,
            Point::Punch,
            Point::RemapKeys,
            Point::RemapStorage,
            Point::RemapStorageLate,
        ]).prop_map(Some),
    ];
    prop_oneof![
        6 => (any::<usize>(), any::<u64>()).prop_map(|(page, seed)| Operation::Write(page, seed)),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(page, key)| Operation::Key(page, key)),
        4 => (1..BLOCKS, 0usize..4, point).prop_map(|(to, phase, p)| Operation::Move(to, phase, p)),
        1 => (1..BLOCKS, 1u64..40).prop_map(|(to, after)| Operation::GiveUp(to, after)),
        1 => (1..BLOCKS).prop_map(Operation::Undo),
        4 => (1..BLOCKS, slide_fault()).prop_map(|(to, fault)| Operation::Slide(to, fault)),
        1 => (1..BLOCKS, 1u64..6).prop_map(|(to, after)| Operation::SlideAndGiveUp(to, after)),
        1 => (1..BLOCKS).prop_map(Operation::SlideAndUndo),
        2 => (1u64..6, prop::sample::select(vec![None, None, Some(Point::Punch), Some(Point::MapTail)]))
            .prop_map(|(by, point)| Operation::Grow(by, point)),
        2 => (1u64..6).prop_map(Operation::Shrink),
    ]
}

impl World {
    fn legal(&self, origin: u64) -> Option<MovePlan> {
        let plan = MovePlan::new(self.at, origin * M).ok()?;
        (plan.to().end() < BLOCKS * M).then_some(plan)
    }

    fn relocate(&mut self, plan: &MovePlan, phase: usize, point: Option<Point>) {
        let fault = |now| if phase == now { point } else { None };
        let result = with(fault(0), || self.prepare(plan))
            .and_then(|prepared| with(fault(1), || prepared.copy(&mut go_on)))
            .and_then(|copied| with(fault(2), || copied.commit()))
            .and_then(|committed| with(fault(3), || committed.finish()));
        self.inflated |= point == Some(Point::Punch);
        let fails = match point {
            None => false,
            Some(Point::MapDestination | Point::Populate) => phase == 0,
            Some(Point::Scan) => phase <= 1,
            Some(Point::Punch) => phase == 0,
            Some(_) => phase == 2,
        };
        match result {
            Ok(_) => assert!(!fails),
            // As the daemon does: the range is cleared before anybody gets it.
            Err(RelocateError::Discard(_)) => {
                assert!(phase == 3 && point == Some(Point::Punch));
                for left in plan.from().without(plan.to()) {
                    self.main.discard(left).unwrap();
                }
            }
            Err(error) => {
                assert!(fails, "{error:?}");
                return;
            }
        }
        self.at = plan.to();
    }

    fn slide(&mut self, plan: &MovePlan, fault: Option<(Point, u32)>) {
        let prepared = self.prepare(plan).unwrap();
        let (result, failed) = match fault {
            Some((point, after)) => once(point, after, || prepared.slide(&mut go_on)),
            None => (prepared.slide(&mut go_on), false),
        };
        match result {
            Ok(slid) => {
                let remap = [Point::RemapKeys, Point::RemapStorage];
                assert!(!failed || fault.is_some_and(|(point, _)| remap.contains(&point)));
                slid.finish().unwrap();
                self.at = plan.to();
            }
            Err(error) => assert!(failed, "{error:?}"),
        }
    }

    fn resize(&mut self, after: StorageRange) {
        let pages = after.pages() as usize;
        self.content.resize(after.size() as usize, 0);
        self.keys.resize(pages, 0);
        self.written.resize(pages, false);
        self.at = after;
    }

    fn grow(&mut self, blocks: u64, point: Option<Point>) {
        let after = range(self.at.origin() / M, blocks);
        let (storage, keys) = (self.main.storage_fd(), self.main.keys_fd());
        let result = with(point, || self.window.grow(storage, keys, after));
        assert_eq!(result.is_ok(), point.is_none(), "{result:?}");
        if result.is_ok() {
            self.resize(after);
        }
    }

    fn shrink(&mut self, blocks: u64) {
        let after = range(self.at.origin() / M, blocks);
        self.window.shrink(after).unwrap();
        for left in self.at.without(after) {
            self.main.discard(left).unwrap();
        }
        self.resize(after);
    }

    fn step(&mut self, operation: &Operation) {
        match *operation {
            Operation::Write(page, seed) => self.write(page, seed),
            Operation::Key(page, key) => self.set_key(page, key),
            Operation::Move(to, phase, point) => {
                let Some(plan) = self.legal(to) else { return };
                self.relocate(&plan, phase, point);
            }
            Operation::GiveUp(to, after) => {
                let Some(plan) = self.legal(to) else { return };
                let mut left = after;
                let mut progress = |_| {
                    left = left.saturating_sub(1);
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                drop(self.prepare(&plan).unwrap().copy(&mut progress));
            }
            Operation::Slide(to, fault) => {
                let Some(plan) = self.legal(to) else { return };
                self.slide(&plan, fault);
            }
            Operation::SlideAndGiveUp(to, after) => {
                let Some(plan) = self.legal(to) else { return };
                let mut left = after;
                let mut progress = |_| {
                    left -= 1;
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                match self.prepare(&plan).unwrap().slide(&mut progress) {
                    Ok(slid) => slid.undo().unwrap(),
                    Err(error) => assert!(matches!(error, RelocateError::GivenUp)),
                }
            }
            Operation::SlideAndUndo(to) => {
                let Some(plan) = self.legal(to) else { return };
                self.slid(&plan).undo().unwrap();
            }
            Operation::Undo(to) => {
                let Some(plan) = self.legal(to) else { return };
                self.committed(&plan).undo().unwrap();
            }
            Operation::Grow(by, point) => {
                let blocks = self.at.size() / M + by;
                if self.at.origin() / M + blocks < BLOCKS {
                    self.grow(blocks, point);
                }
            }
            Operation::Shrink(by) => {
                let boot = self.window.layout().boot_size() / M;
                let blocks = (self.at.size() / M).saturating_sub(by).max(boot);
                if blocks < self.at.size() / M {
                    self.shrink(blocks);
                }
            }
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn it_agrees_with_a_vector_of_bytes_whatever_fails(
        size in 1u64..7,
        dense in any::<bool>(),
        operations in prop::collection::vec(operation(), 20..60),
    ) {
        let mut world = World::new(2, size);
        if dense {
            world.fill();
        }
        for operation in &operations {
            world.step(operation);
        }
    }
}

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use main_storage::{MovePlan, StorageRange};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{MainStorage, StorageWindow};

const M: u64 = 1 << 20;
const SIZE: u64 = 16 * M;

fn range(origin: u64, size: u64) -> StorageRange {
    StorageRange::new(origin * M, size * M).unwrap()
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// What every backing must do: hold a partition, move it down and up over
/// itself with its keys, and give zeros to the next.
fn holds_moves_and_clears(main: &MainStorage) {
    let (storage, keys) = (main.storage_fd(), main.keys_fd());
    main.discard(range(0, 16)).unwrap();
    let window = StorageWindow::map(storage, keys, range(4, 8), 0, SIZE).unwrap();
    let mut content = noise(8 << 20);
    // Some of it was never touched.
    content[1 << 20..3 << 20].fill(0);
    let untouched = (1 << 20)..(3 << 20);
    for at in (0..content.len()).step_by(4096).filter(|at| !untouched.contains(at)) {
        window.memory().write_slice(&content[at..at + 4096], GuestAddress(at as u64)).unwrap();
    }
    window.key_cell(2047).store(0x5a, Ordering::Relaxed);
    let mut at = range(4, 8);
    let go_on = &mut |_| ControlFlow::Continue(());
    for (to, live) in
        [6, 2, 8, 0].into_iter().zip([false, true].repeat(2)).chain([(2, true), (0, false)])
    {
        let plan = MovePlan::new(at, to * M).unwrap();
        if live {
            let prepared = window.prepare(storage, keys, &plan).unwrap();
            prepared.slide(go_on).unwrap().finish().unwrap();
        } else {
            window.relocate(storage, keys, &plan, go_on).unwrap();
        }
        at = plan.to();
        let mut found = vec![0; content.len()];
        window.memory().read_slice(&mut found, GuestAddress(0)).unwrap();
        assert!(found == content, "after the move to {to}M");
        assert_eq!(window.key_cell(2047).load(Ordering::Relaxed), 0x5a);
    }
    drop(window);
    main.discard(at).unwrap();
    // What was left behind on the way is clear too.
    let all = StorageWindow::map(storage, keys, range(0, 16), 0, SIZE).unwrap();
    let mut found = vec![1; SIZE as usize];
    all.memory().read_slice(&mut found, GuestAddress(0)).unwrap();
    assert!(found.iter().all(|byte| *byte == 0));
    assert_eq!(all.key_cell(2047).load(Ordering::Relaxed), 0);
}

fn allocated(main: &MainStorage) -> u64 {
    u64::try_from(rustix::fs::fstat(main.storage_fd()).unwrap().st_blocks).unwrap() * 512
}

#[test]
fn memory_on_demand_is_taken_at_first_touch_and_given_back() {
    let main = MainStorage::create(SIZE, Backing::Memfd).unwrap();
    assert!(main.is_lazy() && allocated(&main) == 0);
    holds_moves_and_clears(&main);
}

#[test]
fn reserved_memory_is_there_from_the_start_and_stays() {
    let main = MainStorage::create(SIZE, Backing::Reserved).unwrap();
    assert!(!main.is_lazy());
    assert_eq!(allocated(&main), SIZE);
    holds_moves_and_clears(&main);
    assert_eq!(allocated(&main), SIZE, "a guest never finds its memory missing");
}

#[test]
fn a_file_is_reserved_locked_and_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("storage");
    std::fs::write(&path, noise(3 << 20)).unwrap();
    let main = MainStorage::create(SIZE, Backing::Path(path.clone())).unwrap();
    assert!(allocated(&main) >= SIZE);
    holds_moves_and_clears(&main);
    let second = MainStorage::create(SIZE, Backing::Path(path.clone())).unwrap_err();
    assert!(second.to_string().contains("locked"), "{second}");
    drop(main);
    let node = MainStorage::create_on(SIZE, &Backing::Path(path), Some(0)).unwrap_err();
    assert!(node.to_string().contains("numa_node"), "{node}");
}

#[test]
fn what_is_neither_file_nor_devdax_is_refused() {
    for (path, why) in [("/dev/null", "devdax"), ("/", "open"), ("/no/such/file", "open")] {
        let error = MainStorage::create(SIZE, Backing::Path(path.into())).unwrap_err();
        assert!(error.to_string().contains(why) && error.to_string().contains(path), "{error}");
    }
}

#[test]
fn main_storage_made_before_is_known_by_its_files() {
    for backing in [Backing::Memfd, Backing::Reserved] {
        let main = MainStorage::create(SIZE, backing).unwrap();
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let again = MainStorage::of(own(main.storage_fd()), own(main.keys_fd())).unwrap();
        assert_eq!(
            (again.size(), again.granularity(), again.is_lazy()),
            (main.size(), main.granularity(), main.is_lazy())
        );
    }
}

#[test]
fn memory_comes_from_the_node_that_was_named_whoever_maps_it() {
    let main = MainStorage::create_on(SIZE, &Backing::Memfd, Some(0)).unwrap();
    let mapping = Mapping::of_file(main.storage_fd(), 0, SIZE as usize).unwrap();
    let address = format!("{:x} ", mapping.base() as usize);
    let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
    let line = maps.lines().find(|line| line.trim_start_matches('0').starts_with(&address));
    assert!(line.is_some_and(|line| line.contains("bind:0")), "{line:?}");
    for node in [63, 64, u32::MAX] {
        let error = MainStorage::create_on(SIZE, &Backing::Memfd, Some(node)).unwrap_err();
        assert!(error.to_string().contains(&format!("node {node}")), "{error}");
    }
}

/// Sets huge pages aside and gives them back; `None` where that is not allowed
/// or there is no room.
struct Pages {
    file: String,
    before: u64,
}

impl Pages {
    fn set_aside(page: HugePage, count: u64) -> Option<Self> {
        let kib = page.bytes() >> 10;
        let file = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages");
        let read = || std::fs::read_to_string(&file).ok()?.trim().parse::<u64>().ok();
        let before = read()?;
        std::fs::write(&file, (before + count).to_string()).ok()?;
        let enough = read()? >= before + count;
        let pages = Self { file, before };
        enough.then_some(pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.file, self.before.to_string());
    }
}

#[test]
fn huge_pages_are_held_to_their_units_and_missing_ones_are_named() {
    let odd = MainStorage::create(3 * M, Backing::HugePages(HugePage::M2)).unwrap_err();
    assert!(odd.to_string().contains("multiple of 2M"), "{odd}");
    // No host has so many.
    let many = MainStorage::create(1 << 50, Backing::HugePages(HugePage::M2)).unwrap_err();
    assert!(many.to_string().contains("nr_hugepages"), "{many}");

    let Some(_pages) = Pages::set_aside(HugePage::M2, SIZE / (2 * M)) else {
        eprintln!("skipped: this host lets nobody set huge pages aside here");
        return;
    };
    let main = MainStorage::create(SIZE, Backing::HugePages(HugePage::M2)).unwrap();
    assert!(!main.is_lazy() && main.granularity() == 2 * M);
    holds_moves_and_clears(&main);
    assert!(keeps_pages(main.storage_fd().as_fd()).unwrap());
}

#[test]
fn pages_of_1g_move_as_a_whole() {
    const G: u64 = 1 << 30;
    let Some(_pages) = Pages::set_aside(HugePage::G1, 2) else {
        eprintln!("skipped: this host has no room for two pages of 1G, or lets nobody have them");
        return;
    };
    let main = MainStorage::create(2 * G, Backing::HugePages(HugePage::G1)).unwrap();
    assert_eq!(main.granularity(), G);
    let (storage, keys) = (main.storage_fd(), main.keys_fd());
    let window = StorageWindow::map(storage, keys, range(0, 1024), 0, 2 * G).unwrap();
    let go_on = &mut |_| ControlFlow::Continue(());
    let places = [0, G / 2 - 4096, G - 8];
    for at in places {
        window.memory().write_obj(at ^ 0x55, GuestAddress(at)).unwrap();
    }
    let there = MovePlan::new(range(0, 1024), G).unwrap();
    window.prepare(storage, keys, &there).unwrap().slide(go_on).unwrap().finish().unwrap();
    window.relocate(storage, keys, &there.reversed(), go_on).unwrap();
    for at in places {
        assert_eq!(window.memory().read_obj::<u64>(GuestAddress(at)).unwrap(), at ^ 0x55);
    }
}

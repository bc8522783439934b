//! Storage keys as a guest without an operating system sees them, by calls of
//! its firmware.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "no test uses all of the assembler; tests may give up"
)]

#[path = "../../engine_soft/tests/support/asm.rs"]
mod asm;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use asm::*;
use machine::{Machine, MachineConfig, MachineEnd, MachineError, memory_map::STORAGE_BASE};
use main_storage::{AccessKey, BLOCK_SIZE, StorageRange};
use storage_window::{Backing, MainStorage, StorageWindow};
use vm_memory::{Bytes, GuestAddress};

/// The page whose key the guests play with.
const PAGE: u64 = STORAGE_BASE + 0x8_0000;
/// Where the second hart counts.
const COUNTER: u64 = STORAGE_BASE + 0x9_0000;
/// Where error and value of each call go.
const RESULTS: u64 = STORAGE_BASE + 0xa_0000;
const SIZE: u64 = 2 * BLOCK_SIZE;

const KEYS: u64 = 0x0800_534B;
const A6: u32 = 16;
const A7: u32 = 17;

/// A call of the firmware; its error and value are appended to the results.
fn call(extension: u64, function: u64, a0: u64, a1: u64) -> Vec<u32> {
    let store = [ecall(), sd(A0, S0, 0), sd(A1, S0, 8), addi(S0, S0, 16)];
    [&li(A7, extension)[..], &li(A6, function), &li(A0, a0), &li(A1, a1), &store].concat()
}

fn iske() -> Vec<u32> {
    call(KEYS, 0, PAGE, 0)
}

fn sske(key: u64) -> Vec<u32> {
    call(KEYS, 1, PAGE, key)
}

fn rrbe() -> Vec<u32> {
    call(KEYS, 2, PAGE, 0)
}

fn power_off() -> Vec<u32> {
    call(0x5352_5354, 0, 0, 0)
}

/// A kernel image that runs `program`.
fn image(program: &[u32]) -> Vec<u8> {
    let mut image = vec![0; 64];
    image[..4].copy_from_slice(&jal(ZERO, 64).to_le_bytes());
    image[16..24].copy_from_slice(&0x4_0000u64.to_le_bytes());
    image[56..60].copy_from_slice(b"RSC\x05");
    image.extend(bytes(program));
    assert!(image.len() < 0x4_0000, "the program reaches into the results");
    image
}

/// Where instruction `index` of the program is.
fn address(index: usize) -> u64 {
    STORAGE_BASE + 64 + 4 * index as u64
}

fn machine(vcpus: u8, program: &[u32], io_keys: &[(&str, u8)]) -> Result<Started, MachineError> {
    let storage = MainStorage::create(SIZE, Backing::Memfd).unwrap();
    let range = StorageRange::new(0, SIZE).unwrap();
    let (data, keys) = (storage.storage_fd(), storage.keys_fd());
    let window = StorageWindow::map(data, keys, range, STORAGE_BASE, SIZE).unwrap();
    let kernel = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kernel.path(), image(program)).unwrap();
    let key = |(name, key): &(&str, u8)| (name.to_string(), AccessKey::new(*key).unwrap());
    let config = MachineConfig {
        compile: true,
        name: "keys".into(),
        vcpus,
        host_cpus: None,
        kernel: kernel.path().into(),
        initrd: None,
        command_line: String::new(),
        disks: Vec::new(),
        files: false,
        io_keys: io_keys.iter().map(key).collect::<BTreeMap<_, _>>(),
    };
    Ok(Started { machine: Machine::new(&config, &window)?, window })
}

struct Started {
    machine: Machine,
    window: Arc<StorageWindow>,
}

impl Started {
    /// Runs the guest until it powers itself off.
    fn run(&self) {
        let (done, finished) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            // A guest that hangs is a failed test, not a hung one.
            scope.spawn(move || {
                if finished.recv_timeout(Duration::from_secs(30)).is_err() {
                    self.machine.shut_down();
                }
            });
            self.machine.start();
            assert_eq!(self.machine.wait(), MachineEnd::PowerOff);
            let _ = done.send(());
        });
    }

    /// Error and value of call `index`.
    fn result(&self, index: u64) -> (i64, u64) {
        let read = |at| self.window.memory().read_obj::<u64>(GuestAddress(at)).unwrap();
        let at = RESULTS + 16 * index;
        (read(at) as i64, read(at + 8))
    }
}

/// Runs `pieces`, each of which makes one call, and returns what they got.
fn results(pieces: &[Vec<u32>]) -> Vec<(i64, u64)> {
    let start = [li(S0, RESULTS), li(A3, PAGE)].concat();
    let program = [start, pieces.concat(), power_off()].concat();
    let started = machine(1, &program, &[]).unwrap();
    started.run();
    (0..pieces.len() as u64).map(|index| started.result(index)).collect()
}

/// A load from the page, a store to it, and then its key.
fn after_load() -> Vec<u32> {
    [vec![ld(A4, A3, 0)], iske()].concat()
}

fn after_store() -> Vec<u32> {
    [vec![sd(A4, A3, 8)], iske()].concat()
}

#[test]
fn the_cpu_notes_accesses_again_after_each_reset() {
    let expected = [
        (call(0x10, 3, KEYS, 0), (0, 1)),
        (sske(0x30), (0, 0)),
        (iske(), (0, 0x30)),
        (after_load(), (0, 0x34)),
        (rrbe(), (0, 2)),
        (iske(), (0, 0x30)),
        (rrbe(), (0, 0)),
        (after_load(), (0, 0x34)),
        (after_store(), (0, 0x36)),
        (rrbe(), (0, 3)),
        (rrbe(), (0, 1)),
        (after_load(), (0, 0x36)),
        (sske(0xf8), (0, 0)),
        (iske(), (0, 0xf8)),
        (after_store(), (0, 0xfe)),
        // Reference and change can be set as well as cleared.
        (sske(0x06), (0, 0)),
        (iske(), (0, 0x06)),
    ];
    let (pieces, expected): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
    assert_eq!(results(&pieces), expected);
}

#[test]
fn what_is_no_page_or_no_key_is_an_error() {
    let pieces = [
        sske(0x31),
        sske(0x130),
        call(KEYS, 0, STORAGE_BASE - 1, 0),
        call(KEYS, 1, STORAGE_BASE + SIZE, 0x30),
        call(KEYS, 2, u64::MAX, 0),
        call(KEYS, 3, PAGE, 0),
        iske(),
    ];
    let errors: Vec<_> = results(&pieces).into_iter().map(|(error, _)| error).collect();
    assert_eq!(errors, [-3, -3, -5, -5, -5, -2, 0]);
}

/// A guest of two harts: the first runs `first` once the second runs `second`.
fn on_two_harts(first: &[u32], second: &[u32]) -> Started {
    let second = [&li(S0, RESULTS + 0x1_0000), &li(A3, PAGE), &li(A4, COUNTER), second].concat();
    let first = |entry: u64| {
        let start = [li(S0, RESULTS), li(A4, COUNTER), call(0x48_534D, 0, 1, entry)].concat();
        let wait = [ld(T0, A4, 0), beq(T0, ZERO, -4)];
        [&start[..], &wait, first, &power_off()].concat()
    };
    let entry = address(first(0).len());
    let program = [first(entry), second].concat();
    let started = machine(2, &program, &[]).unwrap();
    started.run();
    started
}

/// Stores to the page and counts, without end.
fn store_and_count() -> Vec<u32> {
    vec![addi(T1, T1, 1), sd(T1, A3, 0), sd(T1, A4, 0), jal(ZERO, -12)]
}

/// Waits until the other hart has stored to the page at least once more.
fn until_stored() -> Vec<u32> {
    vec![ld(T0, A4, 0), ld(T1, A4, 0), beq(T1, T0, -4), ld(T2, A4, 0), beq(T2, T1, -4)]
}

#[test]
fn another_harts_stores_are_noted_again_after_each_reset() {
    let rounds = 30;
    let round = [sske(0x30), until_stored(), iske(), rrbe(), until_stored(), iske()].concat();
    let started = on_two_harts(&round.repeat(rounds), &store_and_count());
    for round in 0..rounds as u64 {
        // Call 0 was the start of the second hart.
        let results: Vec<_> = (1..=4).map(|call| started.result(4 * round + call)).collect();
        assert_eq!(results, [(0, 0), (0, 0x36), (0, 3), (0, 0x36)], "round {round}");
    }
}

#[test]
fn harts_that_reset_at_the_same_time_both_come_through() {
    // Each touches the page and resets it, so that each has the other forget.
    let touch = [sd(T1, A3, 0), addi(S0, S0, -16)];
    let body = [&rrbe()[..], &touch].concat();
    let back = |words: &[u32]| -4 * i32::try_from(words.len()).unwrap();
    let counted = [&body[..], &[addi(S1, S1, -1)]].concat();
    let first =
        [li(A3, PAGE), li(S1, 300), [&counted[..], &[bne(S1, ZERO, back(&counted))]].concat()]
            .concat();
    let alive = [addi(T1, T1, 1), sd(T1, A4, 0)];
    let looped = [&alive[..], &body].concat();
    let second = [&looped[..], &[jal(ZERO, back(&looped))]].concat();
    on_two_harts(&first, &second);
}

#[test]
fn an_access_key_for_nobody_is_refused_by_name() {
    assert!(machine(1, &power_off(), &[("rng", 3)]).is_ok());
    let Err(error) = machine(1, &power_off(), &[("blk7", 3)]) else { panic!("a machine") };
    assert_eq!(
        error.to_string(),
        "the machine has no I/O processor \"blk7\" to give an access key; \
         it has console, agent, rng"
    );
}

//! A guest that watches itself: proves from inside that it never stopped and
//! that nothing of its memory, its disk or its clock was lost.
//!
//! The agent's program under another name, `/run/berth/self-check [MEBIBYTES
//! [FILE]]`; runs until its standard input ends.
//! It keeps rewriting and checking a stretch of memory and a file, and wakes
//! every millisecond to look for gaps in time. Once a second, and at its end,
//! it prints one line of JSON; the exit status is 1 if anything was wrong.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;
/// Pages looked at per wake-up: little enough not to be a gap itself.
const PAGES_PER_WAKE: usize = 4;
const WAKE: Duration = Duration::from_millis(1);
/// Blocks of the file.
const BLOCKS: u64 = 256;
/// `O_DIRECT` of Linux on riscv64 and x86-64: past the page cache, so that
/// what is read back was on the disk.
const O_DIRECT: i32 = 0o40_000;

/// What has been looked at so far.
#[derive(Default)]
struct Tally {
    pages: AtomicU64,
    blocks: AtomicU64,
    errors: AtomicU64,
}

/// A well-mixed word for a place and a generation (splitmix64's finaliser).
fn mix(place: u64, generation: u64) -> u64 {
    let mut z = place.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(generation);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Memory whose every word is known.
struct Memory {
    words: Vec<u64>,
    generations: Vec<u64>,
    next: usize,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        let pages = (bytes / PAGE).max(1);
        let mut memory =
            Self { words: vec![0; pages * WORDS], generations: vec![0; pages], next: 0 };
        for page in 0..pages {
            memory.fill(page);
        }
        memory
    }

    fn fill(&mut self, page: usize) {
        let generation = self.generations[page];
        for (index, word) in self.words[page * WORDS..][..WORDS].iter_mut().enumerate() {
            *word = mix((page * WORDS + index) as u64, generation);
        }
    }

    /// Checks the next page and writes it anew; says how many words were wrong.
    fn step(&mut self) -> u64 {
        let page = self.next;
        self.next = (page + 1) % self.generations.len();
        let generation = self.generations[page];
        let wrong = self.words[page * WORDS..][..WORDS]
            .iter()
            .enumerate()
            .filter(|(index, word)| **word != mix((page * WORDS + index) as u64, generation))
            .count();
        self.generations[page] += 1;
        self.fill(page);
        wrong as u64
    }
}

/// One block, aligned as `O_DIRECT` wants it.
#[repr(align(4096))]
struct Block([u8; PAGE]);

impl Block {
    fn fill(&mut self, block: u64, generation: u64) {
        for (index, word) in self.0.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&mix(block << 16 | index as u64, generation).to_le_bytes());
        }
    }
}

fn open(path: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    // Not every file system can; then the page cache is checked instead.
    options.clone().custom_flags(O_DIRECT).open(path).or_else(|_| options.open(path))
}

/// Writes and reads blocks back until told to stop.
fn check_file(file: &File, tally: &Tally, stop: &AtomicBool) -> io::Result<()> {
    let mut generations = vec![0u64; BLOCKS as usize];
    let mut expected = Box::new(Block([0; PAGE]));
    let mut found = Box::new(Block([0; PAGE]));
    for turn in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let block = mix(turn, 0) % BLOCKS;
        let generation = &mut generations[block as usize];
        if *generation > 0 {
            file.read_exact_at(&mut found.0, block * PAGE as u64)?;
            expected.fill(block, *generation);
            if found.0 != expected.0 {
                tally.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        *generation += 1;
        expected.fill(block, *generation);
        file.write_all_at(&expected.0, block * PAGE as u64)?;
        tally.blocks.fetch_add(1, Ordering::Relaxed);
        thread::sleep(WAKE);
    }
    Ok(())
}

/// Seconds since boot, from the kernel.
fn uptime() -> String {
    std::fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|text| text.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(|| "0".into())
}

fn report(tally: &Tally, longest: Duration, recent: Duration, drift: Duration) {
    let line = format!(
        "{{\"pid\":{},\"uptime\":{},\"pages_checked\":{},\"blocks_checked\":{},\"errors\":{},\
         \"longest_gap_us\":{},\"gap_us\":{},\"clock_drift_us\":{}}}\n",
        std::process::id(),
        uptime(),
        tally.pages.load(Ordering::Relaxed),
        tally.blocks.load(Ordering::Relaxed),
        tally.errors.load(Ordering::Relaxed),
        longest.as_micros(),
        recent.as_micros(),
        drift.as_micros(),
    );
    // Nobody listening is no reason to stop checking.
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
}

/// How far the two clocks have run apart since the start.
fn clock_drift(started: (Instant, SystemTime)) -> Duration {
    let monotonic = started.0.elapsed();
    let real = started.1.elapsed().unwrap_or_default();
    monotonic.abs_diff(real)
}

fn watch(memory: &mut Memory, tally: &Tally, stop: &AtomicBool) {
    let started = (Instant::now(), SystemTime::now());
    let (mut longest, mut recent) = (Duration::ZERO, Duration::ZERO);
    let mut last = Instant::now();
    let mut reported = last;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(WAKE);
        let now = Instant::now();
        let gap = now.duration_since(last).saturating_sub(WAKE);
        last = now;
        recent = recent.max(gap);
        longest = longest.max(gap);
        for _ in 0..PAGES_PER_WAKE {
            tally.errors.fetch_add(memory.step(), Ordering::Relaxed);
            tally.pages.fetch_add(1, Ordering::Relaxed);
        }
        if now.duration_since(reported) >= Duration::from_secs(1) {
            report(tally, longest, recent, clock_drift(started));
            (reported, recent) = (now, Duration::ZERO);
        }
    }
    report(tally, longest, recent, clock_drift(started));
}

/// Runs with the arguments after the program's name.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> io::Result<()> {
    let mebibytes = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(16usize);
    let file = arguments.next().map(|path| open(&path)).transpose()?;
    let tally = Arc::new(Tally::default());
    let stop = Arc::new(AtomicBool::new(false));

    let disk = file.map(|file| {
        let (tally, stop) = (Arc::clone(&tally), Arc::clone(&stop));
        thread::spawn(move || check_file(&file, &tally, &stop))
    });
    let ended = Arc::clone(&stop);
    thread::spawn(move || {
        let mut sink = [0; 64];
        while io::stdin().read(&mut sink).is_ok_and(|count| count > 0) {}
        ended.store(true, Ordering::Relaxed);
    });

    watch(&mut Memory::new(mebibytes << 20), &tally, &stop);
    if let Some(disk) = disk {
        disk.join().map_err(|_| io::Error::other("the disk check panicked"))??;
    }
    if tally.errors.load(Ordering::Relaxed) > 0 {
        return Err(io::Error::other("something was lost"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_word_is_found_once() {
        let mut memory = Memory::new(2 * PAGE);
        assert_eq!(memory.step(), 0);
        memory.words[WORDS + 3] ^= 1;
        assert_eq!(memory.step(), 1);
        assert_eq!((memory.step(), memory.step()), (0, 0), "written anew");
    }
}

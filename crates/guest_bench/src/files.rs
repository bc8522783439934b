//! Files of the host's, by virtio-fs: written, read and made as programs do it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::programs::{Random, mix};
use crate::{sys, words};

/// The word on the kernel's command line.
const WORD: &str = "bench=files";
/// By which name the host's device is mounted.
const TAG: &std::ffi::CStr = c"berth";
const MOUNTED: &std::ffi::CStr = c"/files";
/// Where in it: the first user's own files, if there are users.
const SPACES: &str = "/files";
/// Bytes of the file that is read and written.
const SIZE: usize = 16 << 20;
/// Bytes in a sequential read or write.
const LARGE: usize = 64 << 10;
/// Bytes in one at a random place.
const SMALL: usize = 4 << 10;
/// How many of the latter.
const PLACES: usize = 1000;
/// Files made, looked at, renamed and removed.
const FILES: usize = 200;

type Program = fn(&Path) -> io::Result<u64>;

/// Names and programs, in the order they run: each finds what the one before left.
pub(crate) const ALL: [(&str, Program); 5] = [
    ("write_64k", write_large),
    ("read_64k", read_large),
    ("read_4k", read_small),
    ("write_4k", write_small),
    ("metadata", metadata),
];

/// Whether they are to be run.
pub(crate) fn wanted() -> bool {
    words::of_kernel().split_whitespace().any(|word| word == WORD)
}

/// Runs them and says how long each took.
pub(crate) fn run(console: &sys::Console) -> io::Result<()> {
    sys::load_modules("/modules/order")?;
    sys::mount_new(TAG, MOUNTED, c"virtiofs")?;
    let folder = match fs::read_dir(SPACES)?.next() {
        Some(space) => space?.path(),
        None => SPACES.into(),
    };
    for (name, program) in ALL {
        let start = Instant::now();
        let checksum = program(&folder)?;
        let nanoseconds = start.elapsed().as_nanos();
        console.say(&format!("BENCH {name} {nanoseconds} {checksum:016x}"));
    }
    Ok(())
}

fn content(index: usize) -> u8 {
    (index % 251) as u8
}

fn data(folder: &Path) -> std::path::PathBuf {
    folder.join("data")
}

fn write_large(folder: &Path) -> io::Result<u64> {
    let piece: Vec<u8> = (0..LARGE).map(content).collect();
    let file = File::create(data(folder))?;
    for at in (0..SIZE).step_by(LARGE) {
        file.write_all_at(&piece, at as u64)?;
    }
    Ok(file.metadata()?.len())
}

fn read_large(folder: &Path) -> io::Result<u64> {
    let (file, mut piece) = (File::open(data(folder))?, vec![0; LARGE]);
    let mut sum = 0;
    for at in (0..SIZE).step_by(LARGE) {
        file.read_exact_at(&mut piece, at as u64)?;
        sum = mix(sum, u64::from(piece[at / LARGE % LARGE]));
    }
    Ok(sum)
}

/// Places of whole small pieces, the same ones every time.
fn places() -> impl Iterator<Item = u64> {
    let mut random = Random(0x5eed);
    (0..PLACES).map(move |_| random.next() % (SIZE / SMALL) as u64 * SMALL as u64)
}

fn read_small(folder: &Path) -> io::Result<u64> {
    let (file, mut piece) = (File::open(data(folder))?, [0; SMALL]);
    let mut sum = 0;
    for at in places() {
        file.read_exact_at(&mut piece, at)?;
        sum = mix(sum, u64::from(piece[at as usize % 97]));
    }
    Ok(sum)
}

fn write_small(folder: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(data(folder))?;
    for at in places() {
        file.write_all_at(&[at as u8; SMALL], at)?;
    }
    let mut last = [0; 1];
    file.read_exact_at(&mut last, places().last().unwrap_or_default())?;
    Ok(mix(file.metadata()?.len(), u64::from(last[0])))
}

fn metadata(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for number in 0..FILES {
        let (name, other) = (folder.join(format!("f{number}")), folder.join(format!("g{number}")));
        drop(File::create_new(&name)?);
        sum = mix(sum, fs::metadata(&name)?.len());
        fs::rename(&name, &other)?;
    }
    let mut names: Vec<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<Result<_, _>>()?;
    names.sort();
    for number in 0..FILES {
        fs::remove_file(folder.join(format!("g{number}")))?;
    }
    Ok(mix(sum, names.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_says_the_same_twice_and_leaves_one_file() {
        let folder = std::env::temp_dir().join(format!("guest-bench-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let once = || ALL.map(|(name, program)| (name, program(&folder).unwrap()));
        assert_eq!(once(), once());
        let left: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert_eq!(left.len(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}

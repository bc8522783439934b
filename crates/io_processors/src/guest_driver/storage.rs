//! Storage, a line and a disk that live in the test's own memory.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::BASE;
use crate::{Buffers, DiskBackend, GuestStorage, InterruptLine};

/// Guest storage with keys, beginning at [`BASE`].
pub struct TestStorage {
    memory: GuestMemoryMmap,
    keys: Vec<AtomicU8>,
}

impl TestStorage {
    /// `size` bytes of zeros with keys of zero; `size` in whole pages.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), size)])
            .expect("memory for the test");
        Self { memory, keys: (0..size / 4096).map(|_| AtomicU8::new(0)).collect() }
    }

    /// The key of the page at guest physical `address`.
    #[must_use]
    pub fn key_at(&self, address: u64) -> u8 {
        self.keys[((address - BASE) / 4096) as usize].load(Ordering::Relaxed)
    }

    /// Sets the key of the page at guest physical `address`.
    pub fn set_key(&self, address: u64, key: u8) {
        self.keys[((address - BASE) / 4096) as usize].store(key, Ordering::Relaxed);
    }

    /// Sets all keys to zero.
    pub fn clear_keys(&self) {
        self.set_all_keys(0);
    }

    /// Sets all keys.
    pub fn set_all_keys(&self, to: u8) {
        for key in &self.keys {
            key.store(to, Ordering::Relaxed);
        }
    }
}

impl GuestStorage for TestStorage {
    fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    fn key_cell(&self, page: usize) -> &AtomicU8 {
        &self.keys[page]
    }
}

/// A line that remembers.
#[derive(Default)]
pub struct TestLine {
    level: Mutex<bool>,
    rises: AtomicU64,
}

impl TestLine {
    /// The level now.
    #[must_use]
    pub fn level(&self) -> bool {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the level rose.
    #[must_use]
    pub fn rises(&self) -> u64 {
        self.rises.load(Ordering::Relaxed)
    }
}

impl InterruptLine for TestLine {
    fn set_level(&self, level: bool) {
        let mut before = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if level && !*before {
            self.rises.fetch_add(1, Ordering::Relaxed);
        }
        *before = level;
    }
}

/// A disk in memory.
pub struct MemoryDisk {
    bytes: Vec<u8>,
    /// Fail every request, as a broken medium does.
    pub broken: bool,
}

impl MemoryDisk {
    /// A disk with these contents.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, broken: false }
    }

    fn check(&self) -> io::Result<()> {
        if self.broken { Err(io::Error::other("the medium is broken")) } else { Ok(()) }
    }
}

impl DiskBackend for MemoryDisk {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        self.check()?;
        buffers.copy_from(&self.bytes[offset as usize..]);
        Ok(())
    }

    fn write(&mut self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        self.check()?;
        let end = offset + buffers.length();
        buffers.copy_to(&mut self.bytes[offset as usize..end as usize]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()
    }
}

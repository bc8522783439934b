//! Storage, a line and a disk that live in the test's own memory.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use storage_window::GuestLayout;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::BASE;
use crate::{Buffers, DiskBackend, GuestStorage, InterruptLine};

/// Guest storage with keys, beginning at [`BASE`].
pub struct TestStorage {
    memory: GuestMemoryMmap,
    layout: GuestLayout,
    size: AtomicU64,
    keys: Vec<AtomicU8>,
}

impl TestStorage {
    /// `size` bytes of zeros with keys of zero; `size` in whole pages.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self::with_reach(size, size)
    }

    /// The same, and storage up to `reach` bytes for
    /// [`set_size`](Self::set_size).
    #[must_use]
    pub fn with_reach(size: usize, reach: usize) -> Self {
        let layout = GuestLayout::new(BASE, size as u64, reach as u64).expect("a layout");
        let mut ranges = vec![(GuestAddress(BASE), size)];
        if reach > size {
            ranges.push((GuestAddress(layout.hot_plug_base()), reach - size));
        }
        let memory = GuestMemoryMmap::from_ranges(&ranges).expect("memory for the test");
        let keys = (0..reach / 4096).map(|_| AtomicU8::new(0)).collect();
        Self { memory, layout, size: AtomicU64::new(size as u64), keys }
    }

    /// Grows or shrinks.
    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// The key of the page at guest physical `address`.
    #[must_use]
    pub fn key_at(&self, address: u64) -> u8 {
        let offset = self.layout.offset(address, 1, self.layout.reach()).expect("storage");
        self.keys[(offset / 4096) as usize].load(Ordering::Relaxed)
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

    fn layout(&self) -> GuestLayout {
        self.layout
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn key_cell(&self, page: usize) -> &AtomicU8 {
        &self.keys[page]
    }

    fn discard(&self, offset: u64, count: u64) {
        assert!(offset + count <= self.size());
        let address = match offset.checked_sub(self.layout.boot_size()) {
            Some(behind) => self.layout.hot_plug_base() + behind,
            None => BASE + offset,
        };
        self.memory.write_slice(&vec![0; count as usize], GuestAddress(address)).expect("storage");
        for page in offset / 4096..(offset + count) / 4096 {
            self.key_cell(page as usize).store(0, Ordering::Relaxed);
        }
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

//! What the tests of this crate share: a hart with some storage.
#![allow(dead_code, clippy::unwrap_used, reason = "no test uses all of it; tests may give up")]

pub(crate) mod asm;

use std::sync::Arc;

use engine::{Bus, BusError};
use engine_soft::{Compiler, CompilerConfig, SoftConfig};
use main_storage::StorageRange;
use storage_window::{Backing, MainStorage, StorageWindow};
use vm_memory::{Bytes, GuestAddress};

/// Guest physical address of the storage's first byte.
pub(crate) const BASE: u64 = 0x8000_0000;

/// A window of `size` bytes (a multiple of 1 MiB) at [`BASE`].
pub(crate) fn window(size: u64) -> Arc<StorageWindow> {
    let storage = MainStorage::create(size, Backing::Memfd).unwrap();
    let range = StorageRange::new(0, size).unwrap();
    StorageWindow::map(storage.storage_fd(), storage.keys_fd(), range, BASE, size).unwrap()
}

/// Main storage and a window of its first `size` bytes that may grow over all
/// its `reach` bytes.
pub(crate) fn growing_window(size: u64, reach: u64) -> (MainStorage, Arc<StorageWindow>) {
    let storage = MainStorage::create(reach, Backing::Memfd).unwrap();
    let range = StorageRange::new(0, size).unwrap();
    let (data, keys) = (storage.storage_fd(), storage.keys_fd());
    let window = StorageWindow::map(data, keys, range, BASE, reach).unwrap();
    (storage, window)
}

/// Writes bytes at a guest physical address.
pub(crate) fn put(window: &StorageWindow, address: u64, bytes: &[u8]) {
    window.memory().write_slice(bytes, GuestAddress(address)).unwrap();
}

/// Reads a doubleword at a guest physical address.
pub(crate) fn get(window: &StorageWindow, address: u64) -> u64 {
    window.memory().read_obj(GuestAddress(address)).unwrap()
}

/// How the harts of these tests execute: in the test binary `compiled`, which
/// has the same tests, everything is compiled before it is executed first.
pub(crate) fn soft_config() -> SoftConfig {
    let compiled = module_path!().starts_with("compiled");
    SoftConfig { compiler: compiled.then(|| eager_compiler(true)), ..SoftConfig::default() }
}

/// A compiler that takes everything and makes the guest wait; with `whole` it
/// takes what was not executed, too.
pub(crate) fn eager_compiler(whole: bool) -> Arc<Compiler> {
    Compiler::start(CompilerConfig { threshold: 1, wait: true, whole }).unwrap()
}

/// No devices anywhere.
pub(crate) struct NoDevices;

impl Bus for NoDevices {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), BusError> {
        Err(BusError { address })
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), BusError> {
        Err(BusError { address })
    }
}

//! The guest's storage keys as the guest reads and sets them: ISKE, SSKE and
//! RRBE of System/370, by SBI calls or by the storage key unit.
//!
//! A vCPU notes references and changes when a translation enters its TLB, not
//! at each access. So whoever takes a reference or change bit away must have
//! every vCPU forget its translations: [`Cleared`] says when.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use engine::{BusError, Fence, FenceTicket, VcpuHandle};
use main_storage::{PAGE_SIZE, StorageKey};
use storage_window::StorageWindow;

use crate::memory_map::{KEY_UNIT_PAGES, KEY_UNIT_PENDING, KEY_UNIT_RESET, KEY_UNIT_SET};

/// What every vCPU has to carry out when a bit was [`Cleared`].
pub(crate) const FORGET: Fence = Fence::Translations { start: 0, size: u64::MAX };

/// Whether a reference or change bit was taken away: then the next access is
/// noted only by vCPUs that carried out [`FORGET`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Cleared(pub(crate) bool);

/// See the module. Addresses are guest physical ones of any byte of a page;
/// `None`: no storage is there.
#[derive(Debug, Clone)]
pub(crate) struct StorageKeys {
    window: Arc<StorageWindow>,
}

impl StorageKeys {
    pub(crate) fn new(window: Arc<StorageWindow>) -> Self {
        Self { window }
    }

    fn cell(&self, address: u64) -> Option<&AtomicU8> {
        let offset = self.window.layout().offset(address, 1, self.window.size())?;
        Some(self.window.key_cell(usize::try_from(offset / PAGE_SIZE).ok()?))
    }

    /// Insert storage key extended: the key as it is.
    pub(crate) fn insert(&self, address: u64) -> Option<StorageKey> {
        Some(StorageKey::from_byte(self.cell(address)?.load(Ordering::SeqCst)))
    }

    /// Set storage key extended: all of it, reference and change as well.
    pub(crate) fn set(&self, address: u64, key: StorageKey) -> Option<Cleared> {
        // The host's own bit stays as it is.
        let set = |old| Some(old & StorageKey::DIRTY | key.byte());
        let cell = self.cell(address)?;
        let old = cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set).unwrap_or_default();
        let noted = StorageKey::REFERENCE | StorageKey::CHANGE;
        Some(Cleared(old & !key.byte() & noted != 0))
    }

    /// Reset reference bit extended: returns the condition code, reference and
    /// change as they were, as a number of two bits.
    pub(crate) fn reset_reference(&self, address: u64) -> Option<(u8, Cleared)> {
        let old = self.cell(address)?.fetch_and(!StorageKey::REFERENCE, Ordering::SeqCst);
        let old = StorageKey::from_byte(old);
        let code = u8::from(old.referenced()) << 1 | u8::from(old.changed());
        Some((code, Cleared(old.referenced())))
    }
}

/// The storage key unit: keys as device registers, for programs in the guest
/// that cannot call the firmware. Register `n` of either table belongs to the
/// page of guest physical address `n * PAGE_SIZE`; each is a byte.
///
/// A load or store does not wait for the vCPUs to forget: the guest polls
/// [`KEY_UNIT_PENDING`] until that is 0.
pub(crate) struct KeyUnit {
    keys: StorageKeys,
    vcpus: Vec<Arc<dyn VcpuHandle>>,
    /// The last fence asked of each vCPU.
    asked: Mutex<Vec<FenceTicket>>,
}

impl KeyUnit {
    pub(crate) fn new(keys: StorageKeys, vcpus: Vec<Arc<dyn VcpuHandle>>) -> Self {
        Self { keys, vcpus, asked: Mutex::default() }
    }

    /// A load from `address`; `None` if that is not of the unit.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) -> Option<Result<(), BusError>> {
        let value = match register(address)? {
            Register::Pending => Some(u8::from(self.is_pending())),
            Register::Key(page) => self.keys.insert(page).map(StorageKey::byte),
            Register::Reset(page) => self.keys.reset_reference(page).map(|(code, cleared)| {
                self.ask(cleared);
                code
            }),
        };
        Some(match (data, value) {
            ([byte], Some(value)) => {
                *byte = value;
                Ok(())
            }
            _ => Err(BusError { address }),
        })
    }

    /// A store to `address`; `None` if that is not of the unit.
    pub(crate) fn write(&self, address: u64, data: &[u8]) -> Option<Result<(), BusError>> {
        let cleared = match (register(address)?, data) {
            (Register::Key(page), [byte]) => self.keys.set(page, StorageKey::from_byte(*byte)),
            _ => None,
        };
        Some(cleared.map(|cleared| self.ask(cleared)).ok_or(BusError { address }))
    }

    fn ask(&self, cleared: Cleared) {
        if cleared.0 {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            // A fence done means that those asked before are done.
            *asked = self.vcpus.iter().map(|vcpu| vcpu.request_fence(FORGET)).collect();
        }
    }

    fn is_pending(&self) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.vcpus.iter().zip(&*asked).any(|(vcpu, ticket)| !vcpu.fence_done(*ticket))
    }
}

enum Register {
    Pending,
    /// The key of the page at this address.
    Key(u64),
    /// Its reference bit.
    Reset(u64),
}

fn register(address: u64) -> Option<Register> {
    let page = |table: u64| {
        let index = address.checked_sub(table)?;
        (index < KEY_UNIT_PAGES).then_some(index * PAGE_SIZE)
    };
    if address == KEY_UNIT_PENDING {
        return Some(Register::Pending);
    }
    page(KEY_UNIT_SET).map(Register::Key).or_else(|| page(KEY_UNIT_RESET).map(Register::Reset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use main_storage::StorageRange;
    use storage_window::{Backing, MainStorage};

    use crate::memory_map::STORAGE_BASE;

    const PAGE: u64 = STORAGE_BASE + 0x5000;

    fn keys() -> StorageKeys {
        let storage = MainStorage::create(1 << 20, Backing::Memfd).unwrap();
        let range = StorageRange::new(0, 1 << 20).unwrap();
        let (data, keys) = (storage.storage_fd(), storage.keys_fd());
        StorageKeys::new(StorageWindow::map(data, keys, range, STORAGE_BASE, 1 << 20).unwrap())
    }

    #[test]
    fn a_key_is_set_whole_and_inserted_as_it_is() {
        let keys = keys();
        assert_eq!(keys.set(PAGE, StorageKey::from_byte(0xfe)), Some(Cleared(false)));
        assert_eq!(keys.insert(PAGE + 0xfff).map(StorageKey::byte), Some(0xfe));
        assert_eq!(keys.insert(PAGE + 0x1000).map(StorageKey::byte), Some(0));
        assert_eq!(keys.set(PAGE, StorageKey::from_byte(0x34)), Some(Cleared(true)));
        assert_eq!(keys.set(PAGE, StorageKey::from_byte(0x44)), Some(Cleared(false)));
    }

    #[test]
    fn the_condition_code_is_reference_and_change_as_they_were() {
        let keys = keys();
        for (byte, code) in [(0x30, 0), (0x32, 1), (0x34, 2), (0x36, 3)] {
            let _ = keys.set(PAGE, StorageKey::from_byte(byte)).unwrap();
            assert_eq!(keys.reset_reference(PAGE), Some((code, Cleared(code >= 2))));
            assert_eq!(keys.insert(PAGE).map(StorageKey::byte), Some(byte & !4));
        }
    }

    #[test]
    fn there_are_no_keys_where_there_is_no_storage() {
        let keys = keys();
        for address in [0, STORAGE_BASE - 1, STORAGE_BASE + (1 << 20), u64::MAX] {
            assert_eq!(keys.insert(address), None);
            assert_eq!(keys.set(address, StorageKey::default()), None);
            assert_eq!(keys.reset_reference(address), None);
        }
    }

    #[test]
    fn the_unit_has_a_register_of_one_byte_for_each_page() {
        let unit = KeyUnit::new(keys(), Vec::new());
        let index = PAGE / PAGE_SIZE;
        assert_eq!(unit.write(KEY_UNIT_SET + index, &[0x37]), Some(Ok(())));
        let load = |address| {
            let mut byte = [0xaa];
            unit.read(address, &mut byte).map(|result| result.map(|()| byte[0]))
        };
        assert_eq!(load(KEY_UNIT_SET + index), Some(Ok(0x36)));
        assert_eq!(load(KEY_UNIT_RESET + index), Some(Ok(3)));
        assert_eq!(load(KEY_UNIT_SET + index), Some(Ok(0x32)));
        assert_eq!(load(KEY_UNIT_PENDING), Some(Ok(0)));
        assert!(matches!(load(KEY_UNIT_SET), Some(Err(BusError { address: KEY_UNIT_SET }))));
        assert!(matches!(unit.write(KEY_UNIT_SET + index, &[0; 2]), Some(Err(_))));
        assert!(matches!(unit.write(KEY_UNIT_RESET + index, &[0]), Some(Err(_))));
        assert!(load(KEY_UNIT_SET - 2).is_none() && load(STORAGE_BASE).is_none());
    }
}

//! Guest storage as the CPU reaches it.
//!
//! The only module that dereferences addresses of guest storage. The guest's
//! other vCPUs and I/O processors use the same bytes at the same time, so
//! every access is an atomic one.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
};

use riscv::mmu::{PAGE_SIZE, PhysicalMemory};
use storage_window::{GuestLayout, StorageWindow};

/// Storage key bits (see crate `main_storage`).
pub(crate) const REFERENCE: u8 = 0x04;
/// What a store sets: the change bit, and the host's own that goes with it.
pub(crate) const CHANGE: u8 = 0x02 | 0x01;

/// An address in this process of a byte of guest storage, valid for as long as
/// the window that [`Ram`] holds and until it shrinks: whoever keeps one gives
/// it up at a fence of all translations. Made by [`Ram::host`] only, or by
/// adding an offset within the same page.
pub(crate) type Host = usize;

/// A value the guest loads and stores in one piece.
pub(crate) trait Width: Copy {
    /// Bytes.
    const SIZE: u64;

    /// # Safety
    /// `host` is aligned and all bytes are guest storage.
    unsafe fn load(host: Host) -> Self;

    /// # Safety
    /// As for [`Width::load`].
    unsafe fn store(host: Host, value: Self);

    /// Zero-extended.
    fn widen(self) -> u64;

    /// The low bits.
    fn narrow(value: u64) -> Self;
}

macro_rules! width {
    ($int:ty, $atomic:ty) => {
        impl Width for $int {
            const SIZE: u64 = size_of::<$int>() as u64;

            #[inline(always)]
            unsafe fn load(host: Host) -> Self {
                // SAFETY: the caller's promise; mapped storage has exposed
                // provenance (see `Ram::new`) and is only used atomically.
                unsafe {
                    <$atomic>::from_ptr(ptr::with_exposed_provenance_mut(host))
                        .load(Ordering::Relaxed)
                }
            }

            #[inline(always)]
            unsafe fn store(host: Host, value: Self) {
                // SAFETY: as for `load`.
                unsafe {
                    <$atomic>::from_ptr(ptr::with_exposed_provenance_mut(host))
                        .store(value, Ordering::Relaxed);
                }
            }

            #[inline(always)]
            fn widen(self) -> u64 {
                u64::from(self)
            }

            #[inline(always)]
            fn narrow(value: u64) -> Self {
                // The guest's store keeps the low bits.
                value as $int
            }
        }
    };
}

width!(u8, AtomicU8);
width!(u16, AtomicU16);
width!(u32, AtomicU32);
width!(u64, AtomicU64);

macro_rules! cell {
    ($(#[$doc:meta])* $name:ident, $atomic:ty) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As for [`Width::load`].
        #[inline(always)]
        pub(crate) unsafe fn $name<'a>(host: Host) -> &'a $atomic {
            // SAFETY: the caller's promise; see `width!`.
            unsafe { <$atomic>::from_ptr(ptr::with_exposed_provenance_mut(host)) }
        }
    };
}

cell!(
    /// A word for an AMO or `sc`.
    word, AtomicU32
);
cell!(
    /// A doubleword for an AMO or `sc`.
    double, AtomicU64
);
cell!(
    /// A word for a signed AMO.
    word_signed, AtomicI32
);
cell!(
    /// A doubleword for a signed AMO.
    double_signed, AtomicI64
);

unsafe extern "C" {
    /// Of the C library that `std` links: eight times as fast on a page as a
    /// loop over atomics, and most pages looked at after `fence.i` are as they
    /// were.
    fn memcmp(a: *const c_void, b: *const c_void, bytes: usize) -> c_int;
}

/// The partition's storage, by guest physical address.
#[derive(Debug)]
pub(crate) struct Ram {
    window: Arc<StorageWindow>,
    base: usize,
    layout: GuestLayout,
}

impl Ram {
    pub(crate) fn new(window: Arc<StorageWindow>) -> Self {
        let base = window.host_base().expose_provenance();
        Self { base, layout: window.layout(), window }
    }

    /// Where the byte at guest physical address `physical` is; `None` where
    /// there is no storage. The rest of its page is there too.
    #[inline]
    pub(crate) fn host(&self, physical: u64) -> Option<Host> {
        Some(self.base + self.offset(physical)? as usize)
    }

    /// Offset in the window of the byte at guest physical address `physical`.
    #[inline]
    fn offset(&self, physical: u64) -> Option<u64> {
        self.layout.offset(physical, 1, self.window.size())
    }

    /// Sets storage key bits of the page around `physical`.
    pub(crate) fn mark(&self, physical: u64, bits: u8) {
        let Some(offset) = self.offset(physical) else { return };
        let key = self.window.key_cell((offset / PAGE_SIZE) as usize);
        if key.load(Ordering::Relaxed) & bits != bits {
            key.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// Copies the page at `physical` (a multiple of the page size) out.
    pub(crate) fn copy_page(&self, physical: u64, into: &mut [u8; PAGE_SIZE as usize]) -> bool {
        let Some(host) = self.host(physical) else { return false };
        for (index, chunk) in into.chunks_exact_mut(8).enumerate() {
            // SAFETY: `index * 8 + 8` does not exceed a page, and the page is
            // storage, page aligned.
            let bytes = unsafe { u64::load(host + index * 8) };
            chunk.copy_from_slice(&bytes.to_le_bytes());
        }
        true
    }

    /// Whether the page at `physical` (a multiple of the page size) holds
    /// `bytes`. A store that races with the look may be seen or not.
    pub(crate) fn page_equals(&self, physical: u64, bytes: &[u8; PAGE_SIZE as usize]) -> bool {
        let Some(host) = self.host(physical) else { return false };
        let page = ptr::with_exposed_provenance(host);
        // SAFETY: both are a page long. The C library's function compares raw
        // bytes that may change meanwhile; each is read as it is or was, and
        // no reference to guest storage comes into being.
        unsafe { memcmp(page, bytes.as_ptr().cast(), bytes.len()) == 0 }
    }

    /// Whether anybody stored into the page around `physical` since the partition was
    /// made or put back. Asked after the page was read: who stores says so before.
    pub(crate) fn was_written(&self, physical: u64) -> bool {
        fence(Ordering::Acquire);
        self.offset(physical).is_none_or(|offset| self.window.was_written(offset / PAGE_SIZE))
    }

    /// The 16-bit parcel at `physical`, which is even.
    pub(crate) fn parcel(&self, physical: u64) -> Option<u16> {
        let host = self.host(physical & !1)?;
        // SAFETY: even address in a page of storage.
        Some(unsafe { u16::load(host) })
    }
}

impl PhysicalMemory for Ram {
    fn read_entry(&self, address: u64) -> Option<u64> {
        let host = self.host(address & !7)?;
        self.mark(address, REFERENCE);
        // SAFETY: aligned, in a page of storage.
        Some(unsafe { u64::load(host) })
    }

    fn replace_entry(&self, address: u64, old: u64, new: u64) -> Option<bool> {
        let host = self.host(address & !7)?;
        self.mark(address, REFERENCE | CHANGE);
        // SAFETY: aligned, in a page of storage.
        let entry = unsafe { double(host) };
        Some(entry.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }
}

//! Where a guest of the riscv64 machine finds things: guest physical addresses.

/// First byte of storage.
pub const STORAGE_BASE: u64 = 0x8000_0000;

/// Platform-level interrupt controller.
pub const PLIC_BASE: u64 = 0x0c00_0000;
/// Size of the PLIC's registers, as the PLIC specification lays them out.
pub const PLIC_SIZE: u64 = 0x0400_0000;

/// First virtio-mmio slot; slot `n` is at `VIRTIO_BASE + n * VIRTIO_STRIDE`.
pub const VIRTIO_BASE: u64 = 0x1000_1000;
/// Distance from one virtio-mmio slot to the next, and the size of each.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// At most this many I/O processors.
pub const VIRTIO_SLOTS: usize = 16;

/// Of the storage key unit, a byte: 1 while a vCPU still has to forget
/// translations made before a reference or change bit was cleared.
pub const KEY_UNIT_PENDING: u64 = KEY_UNIT_SET - 1;
/// A byte for each page, by its guest physical page number: its storage key.
pub const KEY_UNIT_SET: u64 = 0x2000_0000;
/// A byte for each page as well: a load clears the reference bit and returns
/// reference and change as they were (0 to 3).
pub const KEY_UNIT_RESET: u64 = KEY_UNIT_SET + KEY_UNIT_PAGES;
/// Bytes of each of the two tables: the pages below 1 TiB.
pub const KEY_UNIT_PAGES: u64 = 1 << 28;

/// PLIC source of the I/O processor in slot `slot`. Source 0 does not exist.
#[must_use]
pub fn interrupt_of_slot(slot: usize) -> u32 {
    slot as u32 + 1
}

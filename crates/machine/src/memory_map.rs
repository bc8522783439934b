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

/// PLIC source of the I/O processor in slot `slot`. Source 0 does not exist.
#[must_use]
pub fn interrupt_of_slot(slot: usize) -> u32 {
    slot as u32 + 1
}

//! The guest's side of a device, for tests and fuzzing: storage, an interrupt
//! line and a driver that writes split rings as a guest does, or as a hostile
//! guest might.
#![expect(clippy::expect_used, reason = "a test helper: what cannot go on fails the test")]

mod exercise;
mod storage;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use exercise::exercise;
pub use storage::{MemoryDisk, TestLine, TestStorage};
use vm_memory::{Bytes, GuestAddress};

use crate::transport::{offset, status};
use crate::{AddressLimits, IoProcessor, Processor, VirtioDevice};

/// Guest physical address of the storage's first byte.
pub const BASE: u64 = 0x8000_0000;
/// Where buffers may be put: behind the rings.
pub const BUFFERS: u64 = BASE + 0x10_0000;
/// Bytes from one queue's rings to the next's.
const RINGS: u64 = 0x1_0000;
/// Bytes from a queue's descriptors to its available ring, and on to its used.
const RING: u64 = 0x4000;

/// `VIRTIO_F_VERSION_1`.
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_EVENT_IDX`.
pub const EVENT_IDX: u64 = 1 << 29;

/// Descriptor flag: another one follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device may write the buffer.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// How long anything may take before it counts as never happening.
#[must_use]
pub fn patience() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A buffer of a chain: guest physical address, length, device-writable.
pub type Buffer = (u64, u32, bool);

/// A driver with a device of its own.
pub struct Driver {
    /// The device's I/O processor.
    pub processor: Processor,
    /// The guest's storage.
    pub storage: Arc<TestStorage>,
    /// The device's interrupt line.
    pub line: Arc<TestLine>,
    queue_sizes: Vec<u16>,
    next_descriptor: Vec<u16>,
    seen_used: Vec<u16>,
}

impl Driver {
    /// Starts the I/O processor of `device` on storage of 4 MiB.
    #[must_use]
    pub fn start(device: impl VirtioDevice + 'static) -> Self {
        Self::start_on(device, Arc::new(TestStorage::new(4 << 20)))
    }

    /// Starts the I/O processor of `device` on `storage`.
    #[must_use]
    pub fn start_on(device: impl VirtioDevice + 'static, storage: Arc<TestStorage>) -> Self {
        let queue_sizes = device.queue_sizes().to_vec();
        let queues = queue_sizes.len();
        let line = Arc::new(TestLine::default());
        let (its_storage, its_line) = (Arc::clone(&storage), Arc::clone(&line));
        let processor =
            Processor::start("test", device, its_storage, its_line).expect("the processor starts");
        let (next_descriptor, seen_used) = (vec![0; queues], vec![0; queues]);
        Self { processor, storage, line, queue_sizes, next_descriptor, seen_used }
    }

    /// As [`start`](Self::start), with the device ready for use.
    #[must_use]
    pub fn ready(device: impl VirtioDevice + 'static, features: u64) -> Self {
        let mut driver = Self::start(device);
        driver.initialise(features);
        driver
    }

    /// Loads a register.
    #[must_use]
    pub fn load(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.processor.mmio_read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Stores to a register.
    pub fn store(&self, at: u64, value: u32) {
        self.processor.mmio_write(at, &value.to_le_bytes());
    }

    /// Guest physical address of queue `index`'s descriptor table.
    #[must_use]
    pub fn descriptors(index: usize) -> u64 {
        BASE + index as u64 * RINGS
    }

    /// Guest physical address of its available ring.
    #[must_use]
    pub fn available(index: usize) -> u64 {
        Self::descriptors(index) + RING
    }

    /// Guest physical address of its used ring.
    #[must_use]
    pub fn used(index: usize) -> u64 {
        Self::available(index) + RING
    }

    /// Does what 3.1.1 prescribes, with every queue at its largest size and
    /// those of `features` that the device offers.
    pub fn initialise(&mut self, features: u64) {
        self.negotiate(features | VERSION_1);
        for index in 0..self.next_descriptor.len() {
            self.set_up_queue(index);
        }
        self.store(offset::STATUS, self.load(offset::STATUS) | status::DRIVER_OK);
    }

    /// The part of it before the queues.
    pub fn negotiate(&self, features: u64) {
        self.store(offset::STATUS, 0);
        self.store(offset::STATUS, status::ACKNOWLEDGE);
        self.store(offset::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for half in 0..2 {
            self.store(offset::DEVICE_FEATURES_SEL, half);
            let offered = self.load(offset::DEVICE_FEATURES);
            self.store(offset::DRIVER_FEATURES_SEL, half);
            let wanted = (features >> (32 * half)) as u32;
            self.store(offset::DRIVER_FEATURES, offered & wanted);
        }
        let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.store(offset::STATUS, agreed);
        assert_eq!(self.load(offset::STATUS), agreed, "the device takes its own features");
    }

    fn set_up_queue(&mut self, index: usize) {
        self.next_descriptor[index] = 0;
        self.seen_used[index] = 0;
        self.fill(Self::descriptors(index), 0, RINGS as usize);
        self.store(offset::QUEUE_SEL, index as u32);
        self.store(offset::QUEUE_NUM, self.load(offset::QUEUE_NUM_MAX));
        for (low, address) in [
            (offset::QUEUE_DESC_LOW, Self::descriptors(index)),
            (offset::QUEUE_DRIVER_LOW, Self::available(index)),
            (offset::QUEUE_DEVICE_LOW, Self::used(index)),
        ] {
            self.store(low, address as u32);
            self.store(low + 4, (address >> 32) as u32);
        }
        self.store(offset::QUEUE_READY, 1);
    }

    /// Puts a value into storage.
    pub fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory().write_obj(value, GuestAddress(at)).expect("the address is storage");
    }

    /// Puts bytes into storage.
    pub fn put_bytes(&self, at: u64, bytes: &[u8]) {
        self.memory().write_slice(bytes, GuestAddress(at)).expect("the address is storage");
    }

    /// Sets `count` bytes of storage to `value`.
    pub fn fill(&self, at: u64, value: u8, count: usize) {
        self.put_bytes(at, &vec![value; count]);
    }

    /// Gets a value from storage.
    #[must_use]
    pub fn get<T: vm_memory::ByteValued>(&self, at: u64) -> T {
        self.memory().read_obj(GuestAddress(at)).expect("the address is storage")
    }

    /// Gets bytes from storage.
    #[must_use]
    pub fn get_bytes(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory().read_slice(&mut bytes, GuestAddress(at)).expect("the address is storage");
        bytes
    }

    fn memory(&self) -> &vm_memory::GuestMemoryMmap {
        crate::GuestStorage::memory(&*self.storage)
    }

    /// Writes descriptor `slot` of the table at `table`.
    pub fn descriptor(&self, table: u64, slot: u16, buffer: (u64, u32), flags: u16, next: u16) {
        let at = table + u64::from(slot) * 16;
        self.put(at, buffer.0);
        self.put(at + 8, buffer.1);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Makes a chain of `buffers` available without a notification; returns
    /// its head.
    pub fn offer(&mut self, index: usize, buffers: &[Buffer]) -> u16 {
        let size = 32;
        let head = self.next_descriptor[index];
        for (position, (address, length, writable)) in buffers.iter().enumerate() {
            let slot = self.next_descriptor[index];
            self.next_descriptor[index] = (slot + 1) % size;
            let last = position + 1 == buffers.len();
            let flags = if last { 0 } else { NEXT } | if *writable { WRITE } else { 0 };
            let next = self.next_descriptor[index];
            self.descriptor(Self::descriptors(index), slot, (*address, *length), flags, next);
        }
        self.offer_head(index, head);
        head
    }

    /// Makes the chain that begins at descriptor `head` available.
    pub fn offer_head(&self, index: usize, head: u16) {
        let size = self.queue_sizes[index];
        let available = Self::available(index);
        let position: u16 = self.get(available + 2);
        self.put(available + 4 + u64::from(position % size) * 2, head);
        self.put(available + 2, position.wrapping_add(1));
    }

    /// Notifies the device of queue `index`.
    pub fn notify(&self, index: usize) {
        self.store(offset::QUEUE_NOTIFY, index as u32);
    }

    /// [`offer`](Self::offer), and notifies.
    pub fn submit(&mut self, index: usize, buffers: &[Buffer]) -> u16 {
        let head = self.offer(index, buffers);
        self.notify(index);
        head
    }

    /// Chains that the device has given back and `take_used` has not taken.
    #[must_use]
    pub fn used_count(&self, index: usize) -> u16 {
        let used: u16 = self.get(Self::used(index) + 2);
        used.wrapping_sub(self.seen_used[index])
    }

    /// Waits for the next used chain: its head and the bytes written.
    pub fn take_used(&mut self, index: usize) -> (u16, u32) {
        self.wait_for("a used buffer", |driver| driver.used_count(index) > 0);
        let size = self.queue_sizes[index];
        let at = Self::used(index) + 4 + u64::from(self.seen_used[index] % size) * 8;
        self.seen_used[index] = self.seen_used[index].wrapping_add(1);
        (self.get::<u32>(at) as u16, self.get(at + 4))
    }

    /// Waits until the device has said that it needs a reset.
    pub fn wait_needs_reset(&self) {
        self.wait_for("the need for a reset", |driver| {
            driver.load(offset::STATUS) & status::NEEDS_RESET != 0
        });
    }

    /// Waits until the device has done what it was notified of.
    pub fn wait_idle(&self) {
        assert!(self.processor.wait_idle(patience()), "the device becomes idle");
    }

    /// Waits until `condition` holds; fails the test if it never does.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = patience();
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// How many queues the device has.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queue_sizes.len()
    }

    /// The address limits of its storage if that lay at `origin`.
    #[must_use]
    pub fn limits(origin: u64) -> AddressLimits {
        AddressLimits { origin, size: 4 << 20 }
    }
}

//! A guest that does anything: the body of the fuzz target and of a property
//! test.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use main_storage::AccessKey;

use super::{BASE, BUFFERS, Driver, MemoryDisk, TestStorage, patience};
use crate::{
    AddressLimits, AgentChannel, Blk, ChannelEnd, Console, ConsoleEnd, Fs, FsEnd, FsRequest,
    GuestStorage as _, IoProcessor, MEM_BLOCK, Mem, MemEnd, Rng,
};

/// The host's end of whatever device is exercised.
enum End {
    None,
    Console(ConsoleEnd),
    Channel(ChannelEnd),
    Mem(MemEnd),
    Fs(FsEnd, Receiver<FsRequest>),
}

/// Takes `data` as what a hostile guest does to a device, and does it: stores
/// to registers in any order, rings and descriptors full of nonsense, storage
/// keys that forbid anything, resets in the middle. Whatever it is, the device must become idle when quiesced,
/// acknowledge new address limits, and work again after a reset.
///
/// # Panics
/// If it does not.
pub fn exercise(data: &[u8]) {
    let mut input = Input(data);
    let (mut driver, end) = match input.byte() % 6 {
        0 => (Driver::start(Rng), End::None),
        1 => {
            let disk = Box::new(MemoryDisk::new(vec![7; 64 * 512]));
            (Driver::start(Blk::new(disk, "fuzz")), End::None)
        }
        2 => {
            let (console, end) = Console::new();
            (Driver::start(console), End::Console(end))
        }
        3 => {
            let (channel, end) = AgentChannel::new();
            (Driver::start(channel), End::Channel(end))
        }
        4 => memory(),
        _ => {
            let (device, end) = Fs::new("fuzz");
            let (tell, told) = channel();
            end.serve(move |request| drop(tell.send(request)));
            (Driver::start(device), End::Fs(end, told))
        }
    };
    driver.initialise(u64::from(input.byte()) << 24 | 0xff);
    while !input.0.is_empty() {
        step(&mut input, &mut driver, &end);
    }
    driver.processor.quiesce();
    assert!(driver.processor.wait_idle(patience()), "a quiesced device becomes idle");
    let limits = AddressLimits { origin: 1 << 20, size: driver.storage.size() };
    let acknowledged = driver.processor.set_address_limits(limits);
    assert_eq!(acknowledged.map(|word| word.limits), Ok(limits));
    driver.processor.resume();
    driver.processor.set_access_key(AccessKey::default());
    driver.initialise(0);
    assert!(driver.processor.wait_idle(patience()), "a reset device becomes idle");
}

fn step(input: &mut Input<'_>, driver: &mut Driver, end: &End) {
    match input.byte() % 9 {
        0 => {
            let at = u64::from(input.half()) % 0x120;
            let bytes = input.word().to_le_bytes();
            let width = [1, 2, 4, 4, 4, 4, 4, 4][usize::from(input.byte() % 8)];
            driver.processor.mmio_write(at, &bytes[..width]);
        }
        1 => {
            let mut bytes = [0; 8];
            let at = u64::from(input.half()) % 0x200;
            let width = [1, 2, 4, 8][usize::from(input.byte() % 4)];
            driver.processor.mmio_read(at, &mut bytes[..width]);
        }
        2 => {
            let at = BASE + u64::from(input.word()) % 0x8_0000;
            let value = input.word();
            driver.put(at, value);
        }
        3 => descriptor(input, driver),
        4 => {
            let index = usize::from(input.byte()) % driver.queues();
            driver.offer_head(index, u16::from(input.byte() % 40));
            driver.notify(index);
        }
        5 => {
            // An index that jumps.
            let at = Driver::available(usize::from(input.byte() % 4)) + 2;
            driver.put(at, input.half());
        }
        6 => {
            driver.processor.quiesce();
            assert!(driver.processor.wait_idle(patience()), "a quiesced device becomes idle");
            driver.processor.resume();
        }
        7 => host(input, driver, end),
        _ => {
            let page = BASE + u64::from(input.half()) % 1024 * 4096;
            driver.storage.set_key(page, input.byte() & 0xfe);
            if let Some(key) = AccessKey::new(input.byte()) {
                driver.processor.set_access_key(key);
            }
        }
    }
}

/// A memory device with less storage than it offers.
fn memory() -> (Driver, End) {
    let storage = Arc::new(TestStorage::with_reach(4 << 20, (4 << 20) + 8 * MEM_BLOCK as usize));
    storage.set_size((4 << 20) + 5 * MEM_BLOCK);
    let (device, end) = Mem::new(storage.layout()).expect("room for memory");
    (Driver::start_on(device, storage), End::Mem(end))
}

/// A request to a memory device that makes sense more often than random bytes
/// do, and a chain for it.
fn memory_request(input: &mut Input<'_>, driver: &mut Driver, end: &MemEnd) {
    let block = u64::from(input.byte() % 12);
    let count = u64::from(input.byte() % 6);
    driver.put(BUFFERS, u64::from(input.byte() % 5));
    driver.put(BUFFERS + 8, end.region().0 + block * MEM_BLOCK);
    driver.put(BUFFERS + 16, count);
    driver.submit(0, &[(BUFFERS, 24, false), (BUFFERS + 0x1000, 10, true)]);
}

/// A descriptor that makes sense more often than random bytes do.
fn descriptor(input: &mut Input<'_>, driver: &Driver) {
    let index = usize::from(input.byte() % 4);
    let slot = u16::from(input.byte() % 40);
    let offset = u64::from(input.word());
    let address =
        BASE.wrapping_add(if input.byte() % 4 == 0 { offset } else { offset % (4 << 20) });
    let length = match input.byte() % 4 {
        0 => input.word(),
        1 => 16,
        2 => 512,
        _ => u32::from(input.byte()),
    };
    let flags = u16::from(input.byte() % 8);
    let next = u16::from(input.byte() % 40);
    driver.descriptor(Driver::descriptors(index), slot, (address, length), flags, next);
}

fn host(input: &mut Input<'_>, driver: &mut Driver, end: &End) {
    let bytes = input.word().to_le_bytes();
    match end {
        End::None => {}
        End::Console(end) => {
            end.input(&bytes);
        }
        End::Channel(end) => {
            // A deadline in the past: whatever can be done at once.
            let now = Some(std::time::Instant::now());
            let _ = end.write_until(&bytes, now);
            let _ = end.read_until(&mut [0; 64], now);
        }
        End::Fs(end, told) => {
            let reply = vec![bytes[0]; usize::from(bytes[1]) * 8];
            let number = told.try_recv().map_or(u64::from(bytes[2]), |request| request.number);
            end.reply(number, Some(reply).filter(|_| bytes[3] < 200));
        }
        End::Mem(end) => {
            let _ = end.request(u64::from(bytes[0] % 16) * MEM_BLOCK);
            memory_request(input, driver, end);
            assert!(end.plugged() <= 5 * MEM_BLOCK, "no more is plugged than there is");
        }
    }
}

/// Bytes, and zeros when there are no more.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn word(&mut self) -> u32 {
        u32::from(self.half()) | u32::from(self.half()) << 16
    }
}

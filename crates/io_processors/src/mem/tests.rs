//! A driver's conversation with the device, and random requests against a
//! trivial model.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::blocks::{Allowed, Blocks};
use super::request::{Extent, Request, Response};
use super::{F_UNPLUGGED_INACCESSIBLE, MEM_BLOCK, Mem, MemEnd, MemRequestError};
use crate::guest_driver::{BUFFERS, Driver, TestStorage, patience};
use crate::transport::offset;
use crate::{AddressLimits, GuestStorage, IoProcessor};

const BOOT: u64 = 4 << 20;
/// Blocks behind boot storage that can ever be storage.
const BLOCKS: u64 = 8;

const PLUG: u64 = 0;
const UNPLUG: u64 = 1;
const UNPLUG_ALL: u64 = 2;
const STATE: u64 = 3;

const ACK: [u8; 10] = [0; 10];
const NACK: [u8; 10] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const BUSY: [u8; 10] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ERROR: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const UNPLUGGED: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const MIXED: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0, 2, 0];

/// A driver on storage with `blocks` blocks behind what it booted in.
fn ready(blocks: u64, features: u64) -> (Driver, MemEnd) {
    let storage = TestStorage::with_reach(BOOT as usize, (BOOT + BLOCKS * MEM_BLOCK) as usize);
    storage.set_size(BOOT + blocks * MEM_BLOCK);
    let (device, end) = Mem::new(storage.layout()).expect("room for memory");
    let mut driver = Driver::start_on(device, Arc::new(storage));
    driver.initialise(features);
    driver.wait_idle();
    (driver, end)
}

/// The response to a request about `count` blocks from `address`.
fn ask(driver: &mut Driver, kind: u64, address: u64, count: u64) -> [u8; 10] {
    driver.put(BUFFERS, kind);
    driver.put(BUFFERS + 8, address);
    driver.put(BUFFERS + 16, count);
    driver.submit(0, &[(BUFFERS, 24, false), (BUFFERS + 0x1000, 10, true)]);
    assert_eq!(driver.take_used(0).1, 10);
    driver.get(BUFFERS + 0x1000)
}

/// Field `index` of the configuration, in double words.
fn config(driver: &Driver, index: u64) -> u64 {
    let mut bytes = [0; 8];
    driver.processor.mmio_read(offset::CONFIG + 8 * index, &mut bytes);
    u64::from_le_bytes(bytes)
}

#[test]
fn a_guest_takes_what_the_host_asks_for_and_gives_it_back() {
    let (mut driver, end) = ready(BLOCKS, F_UNPLUGGED_INACCESSIBLE);
    let (address, size) = end.region();
    assert_eq!((config(&driver, 0), config(&driver, 1)), (MEM_BLOCK, 0));
    assert_eq!((config(&driver, 2), config(&driver, 3)), (address, size));
    assert_eq!((address % (128 << 20), size), (0, 128 << 20));
    assert_eq!(ask(&mut driver, PLUG, address, 1), ERROR, "nothing is usable yet");

    driver.store(offset::INTERRUPT_ACK, u32::MAX);
    end.request(4 * MEM_BLOCK).expect("a request");
    assert_eq!(driver.load(offset::INTERRUPT_STATUS), 2, "the driver is told");
    assert_eq!((config(&driver, 4), config(&driver, 6)), (128 << 20, 4 * MEM_BLOCK));
    assert_eq!(ask(&mut driver, PLUG, address + MEM_BLOCK, 3), ACK);
    assert_eq!(ask(&mut driver, PLUG, address + 4 * MEM_BLOCK, 2), NACK, "more than requested");
    assert_eq!(ask(&mut driver, PLUG, address, 2), ERROR, "one of them is plugged");
    assert_eq!(ask(&mut driver, STATE, address, 2), MIXED);
    assert_eq!(ask(&mut driver, STATE, address + MEM_BLOCK, 3), ACK);
    assert_eq!(config(&driver, 5), 3 * MEM_BLOCK);
    let state = end.state();
    assert_eq!((state.plugged, state.end, state.driver), (3 * MEM_BLOCK, 4 * MEM_BLOCK, true));

    end.request(0).expect("a request");
    assert_eq!(ask(&mut driver, UNPLUG, address + 2 * MEM_BLOCK, 2), ACK);
    assert_eq!(ask(&mut driver, UNPLUG, address + MEM_BLOCK, 2), ERROR, "one is not plugged");
    assert_eq!(end.wait(patience(), |state| state.plugged == MEM_BLOCK).end, 2 * MEM_BLOCK);
    assert_eq!(ask(&mut driver, UNPLUG_ALL, 0, 0), ACK);
    assert_eq!(end.plugged(), 0);
    assert_eq!(ask(&mut driver, STATE, address, 1), ERROR, "nothing is usable any more");
    assert_eq!(ask(&mut driver, 7, address, 1), ERROR);
}

#[test]
fn what_is_unplugged_is_forgotten() {
    let (mut driver, end) = ready(BLOCKS, F_UNPLUGGED_INACCESSIBLE);
    let (address, _) = end.region();
    end.request(3 * MEM_BLOCK).expect("a request");
    assert_eq!(ask(&mut driver, PLUG, address, 3), ACK);
    driver.fill(address, 0x5a, 3 * MEM_BLOCK as usize);
    driver
        .storage
        .key_cell(((BOOT + MEM_BLOCK) / 4096) as usize)
        .store(0x36, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(ask(&mut driver, UNPLUG, address + MEM_BLOCK, 1), ACK);
    let content = |at: u64| driver.get_bytes(address + at * MEM_BLOCK, MEM_BLOCK as usize);
    assert!(content(1).iter().all(|byte| *byte == 0));
    assert_eq!(driver.storage.key_at(address + MEM_BLOCK), 0);
    assert!(content(0).iter().chain(&content(2)).all(|byte| *byte == 0x5a));
    assert_eq!(ask(&mut driver, UNPLUG_ALL, 0, 0), ACK);
    assert!(driver.get_bytes(address, 3 * MEM_BLOCK as usize).iter().all(|byte| *byte == 0));
}

#[test]
fn a_block_without_storage_is_not_plugged() {
    let (mut driver, end) = ready(2, F_UNPLUGGED_INACCESSIBLE);
    let (address, _) = end.region();
    end.request(3 * MEM_BLOCK).expect("the region is large enough");
    assert_eq!(ask(&mut driver, PLUG, address, 3), BUSY);
    assert_eq!(ask(&mut driver, PLUG, address, 2), ACK);
    assert_eq!(ask(&mut driver, PLUG, address + 2 * MEM_BLOCK, 1), BUSY);
    driver.storage.set_size(BOOT + 3 * MEM_BLOCK);
    assert_eq!(ask(&mut driver, PLUG, address + 2 * MEM_BLOCK, 1), BUSY, "the limits are old");
    let set_limits = |driver: &Driver| {
        driver.processor.quiesce();
        driver.wait_idle();
        let limits = AddressLimits { origin: 0, size: driver.storage.size() };
        assert!(driver.processor.set_address_limits(limits).is_ok());
        driver.processor.resume();
    };
    set_limits(&driver);
    assert_eq!(ask(&mut driver, PLUG, address + 2 * MEM_BLOCK, 1), ACK);
    // Taken away from a guest that still uses it: it can only give it up.
    driver.storage.set_size(BOOT + MEM_BLOCK);
    set_limits(&driver);
    assert_eq!(ask(&mut driver, UNPLUG, address + MEM_BLOCK, 2), ACK);
    assert_eq!(end.state().end, MEM_BLOCK);
}

#[test]
fn a_driver_that_reads_what_is_unplugged_gets_nothing() {
    let (mut driver, end) = ready(BLOCKS, 0);
    let (address, _) = end.region();
    end.request(MEM_BLOCK).expect("a request");
    assert_eq!(ask(&mut driver, PLUG, address, 1), ERROR);
    assert_eq!(ask(&mut driver, STATE, address, 1), UNPLUGGED);
}

#[test]
fn a_reset_leaves_blocks_plugged_for_the_next_driver_to_unplug() {
    let (mut driver, end) = ready(BLOCKS, F_UNPLUGGED_INACCESSIBLE);
    let (address, _) = end.region();
    end.request(2 * MEM_BLOCK).expect("a request");
    assert_eq!(ask(&mut driver, PLUG, address, 2), ACK);
    driver.store(offset::STATUS, 0);
    assert_eq!((end.plugged(), end.state().driver), (2 * MEM_BLOCK, false));
    driver.initialise(F_UNPLUGGED_INACCESSIBLE);
    assert_eq!(config(&driver, 5), 2 * MEM_BLOCK);
    assert_eq!(ask(&mut driver, UNPLUG_ALL, 0, 0), ACK);
    assert_eq!(end.plugged(), 0);
}

#[test]
fn half_a_request_needs_a_reset() {
    for buffers in [
        [(BUFFERS, 23, false), (BUFFERS + 0x1000, 10, true)],
        [(BUFFERS, 24, false), (BUFFERS + 0x1000, 9, true)],
    ] {
        let (mut driver, _end) = ready(BLOCKS, F_UNPLUGGED_INACCESSIBLE);
        driver.submit(0, &buffers);
        driver.wait_needs_reset();
    }
}

#[test]
fn requests_of_the_host_are_whole_blocks_inside_the_region() {
    let (_driver, end) = ready(BLOCKS, 0);
    let (_, size) = end.region();
    assert_eq!(end.request(5), Err(MemRequestError::Granularity { bytes: 5 }));
    let bytes = size + MEM_BLOCK;
    assert_eq!(end.request(bytes), Err(MemRequestError::TooLarge { bytes, size }));
    assert!(end.request(size).is_ok());
    assert_eq!(end.wait(Instant::now(), |state| state.plugged > 0).requested, size);
    let none = storage_window::GuestLayout::new(0, BOOT, BOOT).expect("a layout");
    assert!(Mem::new(none).is_none(), "no room, no device");
}

const ADDRESS: u64 = 1 << 40;

fn request() -> impl Strategy<Value = Request> {
    let address = prop_oneof![
        8 => (0..14u64).prop_map(|block| ADDRESS + block * MEM_BLOCK),
        1 => (0..14u64).prop_map(|block| ADDRESS + block * MEM_BLOCK + 4096),
        1 => any::<u64>(),
        1 => (0..4u64).prop_map(|block| ADDRESS - block * MEM_BLOCK),
    ];
    let blocks = prop_oneof![6 => 0..6u16, 1 => any::<u16>()];
    let extent = (address, blocks).prop_map(|(address, blocks)| Extent { address, blocks });
    (0..12, extent).prop_map(|(kind, extent)| match kind {
        0..5 => Request::Plug(extent),
        5..9 => Request::Unplug(extent),
        9 => Request::UnplugAll,
        10 => Request::State(extent),
        _ => Request::Unknown,
    })
}

/// The answer by the letter of the standard, from a list of plugged blocks.
fn expected(plugged: &mut Vec<u64>, request: Request, allowed: Allowed, backed: u64) -> Response {
    let usable = |extent: Extent| {
        let bytes = u128::from(extent.blocks) * u128::from(MEM_BLOCK);
        let inside = extent.address >= ADDRESS
            && u128::from(extent.address - ADDRESS) + bytes <= u128::from(allowed.usable);
        let first = extent.address.wrapping_sub(ADDRESS) / MEM_BLOCK;
        (inside && extent.address % MEM_BLOCK == 0 && extent.blocks > 0)
            .then(|| first..first + u64::from(extent.blocks))
    };
    let used = |plugged: &[u64], range: &Range<u64>| {
        plugged.iter().filter(|block| range.contains(block)).count() as u64
    };
    match request {
        Request::Plug(extent) => match usable(extent) {
            Some(range) if used(plugged, &range) == 0 => {
                let count = range.end - range.start;
                if (plugged.len() as u64 + count) * MEM_BLOCK > allowed.requested {
                    Response::Refused
                } else if range.end > backed {
                    Response::Busy
                } else {
                    plugged.extend(range);
                    Response::Acknowledged
                }
            }
            _ => Response::Error,
        },
        Request::Unplug(extent) => match usable(extent) {
            Some(range) if used(plugged, &range) == range.end - range.start => {
                plugged.retain(|block| !range.contains(block));
                Response::Acknowledged
            }
            _ => Response::Error,
        },
        Request::UnplugAll => {
            plugged.clear();
            Response::Acknowledged
        }
        Request::State(extent) => match usable(extent) {
            None => Response::Error,
            Some(range) => match used(plugged, &range) {
                0 => Response::Unplugged,
                all if all == range.end - range.start => Response::Plugged,
                _ => Response::Mixed,
            },
        },
        Request::Unknown => Response::Error,
    }
}

proptest! {
    #[test]
    fn blocks_agree_with_a_list(
        steps in proptest::collection::vec((request(), 0..13u64, 0..13u64), 1..60),
        backed in 0..11u64,
    ) {
        let mut blocks = Blocks::new(ADDRESS, 10 * MEM_BLOCK);
        let mut list = Vec::new();
        for (request, usable, requested) in steps {
            let before = list.clone();
            let allowed = Allowed {
                usable: usable.min(10) * MEM_BLOCK,
                requested: requested * MEM_BLOCK,
            };
            let answer = blocks.answer(request, allowed, |address, bytes| {
                (address - ADDRESS + bytes) <= backed * MEM_BLOCK
            });
            prop_assert_eq!(answer.response, expected(&mut list, request, allowed, backed));
            prop_assert_eq!(blocks.plugged(), list.len() as u64 * MEM_BLOCK);
            let end = list.iter().map(|block| block + 1).max().unwrap_or(0);
            prop_assert_eq!(blocks.end(), end * MEM_BLOCK);
            let mut freed: Vec<u64> = answer
                .freed
                .iter()
                .flat_map(|range| range.start / MEM_BLOCK..range.end / MEM_BLOCK)
                .collect();
            let mut gone: Vec<u64> =
                before.into_iter().filter(|block| !list.contains(block)).collect();
            freed.sort_unstable();
            gone.sort_unstable();
            prop_assert_eq!(freed, gone, "exactly what was unplugged is forgotten");
        }
    }
}

//! File system device (5.11): a guest's FUSE requests on their way to whoever serves
//! them, and the replies on their way back.
//!
//! The device does not know what it carries. Requests are handed over as they come,
//! several at a time; replies come in any order, from any thread. One that comes
//! while the processor is quiesced waits until it is resumed.

mod end;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value;

use crate::chain::Chain;
use crate::console::read_all;
use crate::device::{VirtioDevice, Waker};
use crate::ring::{QueueFault, Ring};
use end::Desk;
pub use end::{FsEnd, FsRequest};

/// `VIRTIO_ID_FS` (5).
const DEVICE_ID: u32 = 26;
/// Bytes of a tag (5.11.4).
const TAG_BYTES: usize = 36;
/// The queues (5.11.2): one for what must not wait, one for requests.
const QUEUE_SIZES: [u16; 2] = [128, 128];
/// Requests in hand. More wait in their queue.
const MOST_IN_HAND: usize = 64;
/// Longest request and reply: 128 KiB of data and what belongs to them.
const MOST: u64 = (128 << 10) + 4096;
/// Length of the header of a reply, and where it says whose it is; a request has that
/// at the same place.
const REPLY_HEADER: usize = 16;
const UNIQUE: std::ops::Range<usize> = 8..16;
/// `EIO` in a guest.
const IO_ERROR: i32 = 5;

/// The file system device.
pub struct Fs {
    tag: [u8; TAG_BYTES],
    desk: Desk,
    waker: Option<Waker>,
    in_hand: HashMap<u64, InHand>,
    /// The number of the next request. Never used twice, also not after a reset:
    /// a reply that comes late is nobody's.
    next: u64,
    /// Queues that were left while too much was in hand, a bit each.
    left: u64,
}

/// A request that has no reply yet.
struct InHand {
    chain: Chain,
    unique: [u8; 8],
}

impl Fs {
    /// A file system device that the guest mounts by the first 36 bytes of `tag`, and
    /// the host's end of it.
    #[must_use]
    pub fn new(tag: &str) -> (Self, FsEnd) {
        let mut bytes = [0; TAG_BYTES];
        for (target, byte) in bytes.iter_mut().zip(tag.bytes()) {
            *target = byte;
        }
        let desk = Desk::default();
        let end = desk.end();
        let in_hand = HashMap::new();
        (Self { tag: bytes, desk, waker: None, in_hand, next: 0, left: 0 }, end)
    }

    /// Gives back the requests of queue `index` that have replies.
    fn give_back(&mut self, index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        for (number, reply) in self.desk.take(index) {
            let Some(InHand { chain, unique }) = self.in_hand.remove(&number) else { continue };
            let written = match reply {
                // One without a reply, as the guest expects it.
                Some(reply) if reply.is_empty() => 0,
                Some(reply) if fits(&reply, &chain) => chain.write(ring.access(), &reply),
                _ => {
                    ring.count_failure();
                    fail(&chain, unique, ring)
                }
            };
            ring.complete(&chain, written)?;
        }
        Ok(())
    }

    /// Hands over requests of queue `index` as long as not too many are in hand.
    fn take_in(&mut self, index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        while self.in_hand.len() < MOST_IN_HAND {
            let Some(chain) = ring.take()? else { return Ok(()) };
            let mut bytes = Vec::new();
            read_all(&chain, ring, MOST, &mut bytes)?;
            let mut unique = [0; 8];
            if let Some(its) = bytes.get(UNIQUE) {
                unique.copy_from_slice(its);
            }
            let room = u32::try_from(chain.writable_bytes().min(MOST)).unwrap_or(0);
            let number = self.next;
            self.next += 1;
            self.in_hand.insert(number, InHand { chain, unique });
            self.desk.hand_over(index, FsRequest { number, bytes, room });
        }
        self.left |= 1 << index;
        Ok(())
    }

    /// Nothing in hand is of interest any more.
    fn drop_all(&mut self) {
        self.desk.clear();
        self.in_hand.clear();
        self.left = 0;
    }
}

fn fits(reply: &[u8], chain: &Chain) -> bool {
    reply.len() >= REPLY_HEADER && reply.len() as u64 <= chain.writable_bytes().min(MOST)
}

/// Answers that the request failed, if there is room for that.
fn fail(chain: &Chain, unique: [u8; 8], ring: &Ring<'_>) -> u32 {
    if chain.writable_bytes() < REPLY_HEADER as u64 {
        return 0;
    }
    let length = REPLY_HEADER as u32;
    let reply = [&length.to_le_bytes()[..], &(-IO_ERROR).to_le_bytes(), &unique].concat();
    chain.write(ring.access(), &reply)
}

impl VirtioDevice for Fs {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    /// `struct virtio_fs_config` (5.11.4); notifications are not offered.
    fn config_space(&self) -> Vec<u8> {
        let mut config = self.tag.to_vec();
        config.extend([1_u32, 0].map(u32::to_le_bytes).concat());
        config
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn attach(&mut self, waker: Waker) {
        self.desk.attach(waker.clone());
        self.waker = Some(waker);
    }

    fn process(&mut self, index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        self.give_back(index, ring)?;
        self.take_in(index, ring)?;
        if let Some(waker) = &self.waker
            && self.in_hand.len() < MOST_IN_HAND
        {
            let left = std::mem::take(&mut self.left);
            (0..QUEUE_SIZES.len()).filter(|queue| left & 1 << queue != 0).for_each(|queue| {
                waker.wake(queue);
            });
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.drop_all();
    }

    /// There is nothing to keep: what the guest knows of its files is whoever's who
    /// serves them.
    fn save(&self) -> Result<Value, String> {
        if self.in_hand.is_empty() {
            return Ok(Value::Null);
        }
        Err("file requests of the guest are under way".to_owned())
    }

    fn restore(&mut self, _state: &Value) -> Result<(), String> {
        self.drop_all();
        Ok(())
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        self.desk.close();
    }
}

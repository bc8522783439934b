//! Memory device (5.15, virtio-mem): storage that a guest takes and gives back
//! while it runs.
//!
//! The host asks for a size ([`MemEnd::request`]); the driver plugs or unplugs
//! blocks of its choice until so much is plugged, or as near to it as it can.
//! What is unplugged is forgotten at once: nobody ever reads it again.

mod blocks;
mod end;
mod request;
#[cfg(test)]
mod tests;

use storage_window::{GuestLayout, HOT_PLUG_ALIGNMENT};
use vm_memory::GuestAddress;

use crate::device::{VirtioDevice, Waker};
use crate::ring::{QueueFault, Ring};
pub use blocks::BLOCK as MEM_BLOCK;
use blocks::Blocks;
use end::Hub;
pub use end::{MemEnd, MemRequestError, MemState};
use request::{REQUEST, RESPONSE, Request, Response};

/// `VIRTIO_ID_MEM` (5).
const DEVICE_ID: u32 = 24;
/// The only queue.
const QUEUE_SIZES: [u16; 1] = [64];
/// `VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE` (5.15.3): the driver touches nothing
/// that is not plugged, not even to read.
const F_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// The memory device.
pub struct Mem {
    hub: Hub,
    blocks: Blocks,
    /// The driver knows to leave unplugged blocks alone.
    careful: bool,
}

impl Mem {
    /// A device for all that is behind `layout`'s boot storage and the host's
    /// end of it; `None` if nothing can ever be there.
    #[must_use]
    pub fn new(layout: GuestLayout) -> Option<(Self, MemEnd)> {
        let size = layout.reach() - layout.boot_size();
        // A guest uses no piece that the region holds only a part of. Where
        // storage ends is checked block by block.
        let size = size.checked_next_multiple_of(HOT_PLUG_ALIGNMENT).filter(|size| *size > 0)?;
        let address = layout.hot_plug_base();
        address.checked_add(size)?;
        let hub = Hub::new(address, size);
        let end = hub.end();
        Some((Self { hub, blocks: Blocks::new(address, size), careful: false }, end))
    }

    fn answer(&mut self, request: Request, ring: &Ring<'_>) -> Response {
        if matches!(request, Request::Plug(_)) && !self.careful {
            return Response::Error;
        }
        let access = ring.access();
        let backed = |address, count| access.contains(GuestAddress(address), count);
        let answer = self.blocks.answer(request, self.hub.allowed(), backed);
        for range in answer.freed {
            let address = GuestAddress(self.hub.address() + range.start);
            access.discard(address, range.end - range.start);
        }
        if request == Request::UnplugAll {
            self.hub.unplugged_all();
        }
        self.hub.set_plugged(self.blocks.plugged(), self.blocks.end());
        answer.response
    }
}

impl VirtioDevice for Mem {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        F_UNPLUGGED_INACCESSIBLE
    }

    fn config_space(&self) -> Vec<u8> {
        self.hub.config()
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn attach(&mut self, waker: Waker) {
        self.hub.attach(waker);
    }

    fn activate(&mut self, features: u64) {
        self.careful = features & F_UNPLUGGED_INACCESSIBLE != 0;
        self.hub.set_driver(true);
    }

    fn process(&mut self, _index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        while let Some(chain) = ring.take()? {
            let mut bytes = [0; REQUEST];
            if chain.read(ring.access(), &mut bytes) < REQUEST {
                return Err(QueueFault::Incomplete("a whole memory request"));
            }
            if chain.writable_bytes() < RESPONSE as u64 {
                return Err(QueueFault::Incomplete("room for the response to a memory request"));
            }
            let response = self.answer(Request::parse(&bytes), ring);
            if response == Response::Error {
                ring.count_guest_error();
            }
            let written = chain.write(ring.access(), &response.bytes());
            ring.complete(&chain, written)?;
        }
        Ok(())
    }

    /// Blocks stay as they are (5.15.6.1): a new driver unplugs what it does
    /// not know.
    fn reset(&mut self) {
        self.careful = false;
        self.hub.set_driver(false);
    }
}

//! Console device (5.3) with one port: the guest's `hvc0`.

mod end;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::device::{VirtioDevice, Waker};
use crate::ring::{QueueFault, Ring};
use end::Hub;
pub use end::{ClientRead, ConsoleClient, ConsoleEnd};

/// `VIRTIO_ID_CONSOLE` (5).
pub(crate) const DEVICE_ID: u32 = 3;
/// Host to guest (5.3.2).
const RECEIVE: usize = 0;
/// Guest to host.
const TRANSMIT: usize = 1;
const QUEUE_SIZES: [u16; 2] = [128, 128];
/// Bytes one buffer of output may have. Linux sends at most a few pages.
const MOST: u64 = 1 << 20;
/// Bytes of input handed over at once.
const INPUT_PIECE: u64 = 4096;

/// The console device.
pub struct Console {
    hub: Hub,
    scratch: Vec<u8>,
}

impl Console {
    /// A console and the host's end of it.
    #[must_use]
    pub fn new() -> (Self, ConsoleEnd) {
        let hub = Hub::default();
        let end = hub.end();
        (Self { hub, scratch: Vec::new() }, end)
    }

    fn receive(&self, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        while self.hub.has_input() {
            let Some(chain) = ring.take()? else { break };
            let room = chain.writable_bytes().min(INPUT_PIECE) as usize;
            if room == 0 {
                ring.count_guest_error();
            }
            let written = chain.write(ring.access(), &self.hub.take_input(room));
            ring.complete(&chain, written)?;
        }
        Ok(())
    }

    fn transmit(&mut self, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        while let Some(chain) = ring.take()? {
            read_all(&chain, ring, MOST, &mut self.scratch)?;
            self.hub.output(&self.scratch);
            ring.complete(&chain, 0)?;
        }
        Ok(())
    }
}

/// Copies all readable bytes of `chain`, at most `most`, into `target`.
pub(crate) fn read_all(
    chain: &crate::Chain,
    ring: &Ring<'_>,
    most: u64,
    target: &mut Vec<u8>,
) -> Result<(), QueueFault> {
    let length = chain.readable_bytes();
    if length > most {
        return Err(QueueFault::TooLong(length));
    }
    target.resize(length as usize, 0);
    let count = chain.read(ring.access(), target);
    target.truncate(count);
    Ok(())
}

impl VirtioDevice for Console {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    /// `struct virtio_console_config` (5.3.4); no field of it is offered.
    fn config_space(&self) -> Vec<u8> {
        vec![0; 12]
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn attach(&mut self, waker: Waker) {
        self.hub.attach(waker);
    }

    fn process(&mut self, index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        if index == TRANSMIT { self.transmit(ring) } else { self.receive(ring) }
    }

    fn restore(&mut self, _state: &Value) -> Result<(), String> {
        self.hub.forget();
        Ok(())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.hub.close();
    }
}

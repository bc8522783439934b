//! Entropy device (5.4): the host's random numbers for the guest.

use crate::chain::Chain;
use crate::device::VirtioDevice;
use crate::ring::{QueueFault, Ring};

#[cfg(test)]
mod tests;

/// `VIRTIO_ID_RNG` (5).
const DEVICE_ID: u32 = 4;
/// The only queue.
const QUEUE_SIZES: [u16; 1] = [64];
/// Bytes one request gets at most; the device may use less of a buffer than
/// there is (5.4.6.2).
const MOST: usize = 64 * 1024;

/// The entropy device. It has no state.
#[derive(Debug, Default)]
pub struct Rng;

impl Rng {
    /// Fills the start of `chain`; returns how much. Nothing was written if
    /// the host has no random numbers.
    fn fill(chain: &Chain, ring: &Ring<'_>) -> u32 {
        let mut bytes = vec![0; usize::try_from(chain.writable_bytes()).unwrap_or(MOST).min(MOST)];
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => rest = &mut rest[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    ring.count_failure();
                    return 0;
                }
            }
        }
        chain.write(ring.access(), &bytes)
    }
}

impl VirtioDevice for Rng {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn process(&mut self, _index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        while let Some(chain) = ring.take()? {
            // 5.4.6.1: the driver must not place readable buffers.
            if chain.writable_bytes() == 0 || chain.readable_bytes() != 0 {
                ring.count_guest_error();
            }
            let written = Self::fill(&chain, ring);
            ring.complete(&chain, written)?;
        }
        Ok(())
    }
}

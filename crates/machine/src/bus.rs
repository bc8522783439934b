//! Device registers as the vCPUs see them: the PLIC, the virtio slots
//! and the storage key unit.

use std::sync::Arc;

use engine::BusError;
use io_processors::IoProcessor;

use crate::memory_map::{PLIC_BASE, PLIC_SIZE, VIRTIO_BASE, VIRTIO_STRIDE};
use crate::plic::Plic;
use crate::storage_keys::KeyUnit;

pub(crate) struct Bus {
    pub(crate) plic: Arc<Plic>,
    pub(crate) io_processors: Vec<Arc<dyn IoProcessor>>,
    pub(crate) keys: KeyUnit,
}

/// A device and the offset into its registers.
enum Target<'a> {
    Plic(u64),
    IoProcessor(&'a dyn IoProcessor, u64),
}

impl Bus {
    fn target(&self, address: u64) -> Result<Target<'_>, BusError> {
        let nobody = BusError { address };
        if let Some(offset) = address.checked_sub(VIRTIO_BASE) {
            let slot = usize::try_from(offset / VIRTIO_STRIDE).map_err(|_| nobody)?;
            let device = self.io_processors.get(slot).ok_or(nobody)?;
            return Ok(Target::IoProcessor(&**device, offset % VIRTIO_STRIDE));
        }
        match address.checked_sub(PLIC_BASE) {
            Some(offset) if offset < PLIC_SIZE => Ok(Target::Plic(offset)),
            _ => Err(nobody),
        }
    }
}

impl engine::Bus for Bus {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), BusError> {
        if let Some(done) = self.keys.read(address, data) {
            return done;
        }
        match self.target(address)? {
            Target::Plic(offset) => self.plic.read(offset, data),
            Target::IoProcessor(device, offset) => device.mmio_read(offset, data),
        }
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), BusError> {
        if let Some(done) = self.keys.write(address, data) {
            return done;
        }
        match self.target(address)? {
            Target::Plic(offset) => self.plic.write(offset, data),
            Target::IoProcessor(device, offset) => device.mmio_write(offset, data),
        }
        Ok(())
    }
}

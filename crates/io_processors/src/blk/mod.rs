//! Block device (5.2): a disk of the guest, kept in files of the host.

mod backend;
mod hold;
mod overlay;
mod request;
mod shared;
#[cfg(test)]
mod tests;
mod vectored;

use tracing::warn;
use vm_memory::{Bytes, GuestAddress, Permissions};

use crate::access::GuestAccess;
use crate::chain::Chain;
use crate::device::VirtioDevice;
use crate::ring::{QueueFault, Ring};
pub use backend::{ClusterSize, DiskBackend, DiskMode, OpenDiskError, open_disk};
pub use hold::{Hold, HoldableDisk};
use request::{Operation, Request, SECTOR};
pub use shared::DiskControl;
pub use vectored::Buffers;

/// `VIRTIO_ID_BLOCK` (5).
const DEVICE_ID: u32 = 2;
/// The only queue; no more are offered.
const QUEUE_SIZE: u16 = 256;
/// Data descriptors in one request: a chain is no longer than its queue, and
/// two descriptors are the header and the status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of a serial number (5.2.6).
const ID_BYTES: usize = 20;

/// `VIRTIO_BLK_F_*` (5.2.3).
mod feature {
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const FLUSH: u64 = 1 << 9;
}

/// `VIRTIO_BLK_S_*` (5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// The block device.
pub struct Blk {
    disk: Box<dyn DiskBackend>,
    serial: [u8; ID_BYTES],
}

impl Blk {
    /// A block device of `disk`; the guest sees the first 20 bytes of
    /// `serial` as its serial number.
    #[must_use]
    pub fn new(disk: Box<dyn DiskBackend>, serial: &str) -> Self {
        let mut bytes = [0; ID_BYTES];
        for (target, byte) in bytes.iter_mut().zip(serial.bytes()) {
            *target = byte;
        }
        Self { disk, serial: bytes }
    }

    /// Whole sectors the guest sees; a file that ends inside a sector reads as
    /// zeros behind its end.
    fn capacity(&self) -> u64 {
        self.disk.length().div_ceil(SECTOR) * SECTOR
    }

    /// Carries `request` out; returns its status and how many bytes of its
    /// data were written.
    fn execute(&mut self, request: &Request, chain: &Chain, access: &GuestAccess) -> (Status, u32) {
        let result = match request.operation {
            Operation::Read { offset } => self.read(offset, request, access),
            Operation::Write { offset } => self.write(offset, request, access),
            Operation::Flush => self.disk.flush().map(|()| 0),
            Operation::GetId => return (Status::Ok, self.write_id(request, chain, access)),
            Operation::Unsupported => return (Status::Unsupported, 0),
            Operation::Impossible => return (Status::IoError, 0),
        };
        match result {
            Ok(written) => (Status::Ok, written),
            Err(error) => {
                warn!(%error, operation = ?request.operation, "a disk request failed");
                (Status::IoError, 0)
            }
        }
    }

    fn read(&self, at: u64, request: &Request, access: &GuestAccess) -> std::io::Result<u32> {
        let buffers = Buffers::of_guest(access, &request.data, Permissions::Write)
            .map_err(std::io::Error::other)?;
        self.disk.read(at, &buffers)?;
        Ok(u32::try_from(buffers.length()).unwrap_or(u32::MAX))
    }

    fn write(&mut self, at: u64, request: &Request, access: &GuestAccess) -> std::io::Result<u32> {
        if self.disk.read_only() {
            return Err(std::io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let buffers = Buffers::of_guest(access, &request.data, Permissions::Read)
            .map_err(std::io::Error::other)?;
        self.disk.write(at, &buffers).map(|()| 0)
    }

    fn write_id(&self, request: &Request, chain: &Chain, access: &GuestAccess) -> u32 {
        // The status byte is last; everything before it is data.
        let room = crate::chain::total(&request.data).min(ID_BYTES as u64) as usize;
        chain.write(access, &self.serial[..room])
    }
}

fn write_status(access: &GuestAccess, status: Status, at: GuestAddress) -> Result<(), QueueFault> {
    access.write_obj(status as u8, at).map_err(QueueFault::Status)
}

impl VirtioDevice for Blk {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let read_only = if self.disk.read_only() { feature::RO } else { 0 };
        feature::SEG_MAX | feature::FLUSH | read_only
    }

    /// `struct virtio_blk_config` (5.2.4).
    fn config_space(&self) -> Vec<u8> {
        let mut config = vec![0; 60];
        config[0..8].copy_from_slice(&(self.capacity() / SECTOR).to_le_bytes());
        config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
        config
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn process(&mut self, _index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        while let Some(chain) = ring.take_any()? {
            let access = ring.access();
            if chain.is_refused() {
                // Only a driver that lets no status be written needs a reset.
                write_status(access, Status::IoError, Request::status_of(&chain)?)?;
                ring.complete(&chain, 1)?;
                continue;
            }
            let request = Request::parse(&chain, access, self.capacity())?;
            let (status, written) = self.execute(&request, &chain, access);
            match (status, request.operation) {
                (Status::Ok, _) => {}
                (_, Operation::Impossible | Operation::Unsupported) => ring.count_guest_error(),
                _ => ring.count_failure(),
            }
            write_status(access, status, request.status)?;
            ring.complete(&chain, written.saturating_add(1))?;
        }
        Ok(())
    }
}

//! I/O processors: the host side of what a guest reads and writes.
//!
//! A device is a [`VirtioDevice`]: what it is, and how it works off one queue
//! ([`Rng`] is the shortest; [`Console`], [`Blk`], [`AgentChannel`], [`Mem`] and
//! [`Fs`] have the same shape). A [`Processor`] gives it a thread, its virtio-mmio registers,
//! its interrupt and its life cycle. The machine and a relocation see only an
//! [`IoProcessor`]: registers on one side; quiesce, set address limits and
//! resume on the other.
//!
//! Who drives whom: a vCPU's store to a register lands in
//! [`IoProcessor::mmio_write`], which only notes what is wanted; the
//! processor's own thread does it, hands the device one [`Ring`] at a time, and
//! raises the [`InterruptLine`]. The host's ends ([`ConsoleEnd`],
//! [`ChannelEnd`], [`MemEnd`], [`FsEnd`]) fill and drain bounded buffers, wake that thread
//! and change what the device shows of itself.
//!
//! Whatever happens to guest storage happens through [`GuestAccess`]: it
//! checks the address limits and the storage keys, and keeps the keys' reference
//! and change bits. Nothing else in this crate holds a way to guest storage.
//!
//! The standard is Virtual I/O Device (VIRTIO) Version 1.2; section numbers in
//! this crate are its.
#![expect(
    unsafe_code,
    reason = "disk transfers go straight between files and guest storage (blk::vectored)"
)]

mod access;
mod blk;
mod chain;
mod channel;
mod console;
mod device;
mod fs;
#[cfg(any(test, feature = "test-utils"))]
pub mod guest_driver;
mod keys;
mod mem;
mod processor;
mod ring;
mod rng;
mod transport;

pub use access::{AddressLimits, GuestAccess, GuestStorage};
pub use blk::{
    Blk, Buffers, ClusterSize, DiskBackend, DiskControl, DiskMode, Hold, HoldableDisk,
    OpenDiskError, open_disk,
};
pub use chain::{Chain, ChainFault, Segment};
pub use channel::{AgentChannel, ChannelEnd, ChannelState, PORT_NAME};
pub use console::{ClientRead, Console, ConsoleClient, ConsoleEnd};
pub use device::{VirtioDevice, Waker};
pub use fs::{Fs, FsEnd, FsRequest};
pub use mem::{MEM_BLOCK, Mem, MemEnd, MemRequestError, MemState};
pub use processor::{
    Acknowledged, InterruptLine, IoProcessor, IoState, IoStatistics, Processor, SaveIoError,
    SetAddressLimitsError, StartError, Told,
};
pub use ring::{QueueFault, Ring};
pub use rng::Rng;

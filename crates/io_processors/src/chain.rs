//! A descriptor chain, checked: what every request starts as.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, Permissions};

use crate::access::GuestAccess;

/// Bytes of guest storage one descriptor names. Never empty, wholly inside
/// guest storage when it comes from a [`Chain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address of the first byte.
    pub address: GuestAddress,
    /// Length in bytes.
    pub length: u32,
}

/// Why a descriptor chain cannot be used. The guest is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// No descriptor can be read at the head's index.
    #[error("the descriptor chain has no first descriptor")]
    Empty,
    /// The chain loops, leaves its table, is longer than the queue, or its
    /// indirect table is nonsense (2.7.5.3).
    #[error("the descriptor chain does not end")]
    Endless,
    /// A device-readable descriptor follows a device-writable one (2.7.4.2).
    #[error("a readable descriptor follows a writable one")]
    Disordered,
    /// A buffer is not guest storage.
    #[error("a buffer of {length} bytes at {address:#x} is outside guest storage")]
    Outside {
        /// Guest physical address of the buffer.
        address: u64,
        /// Its length in bytes.
        length: u32,
    },
}

/// A request's buffers as the driver laid them out, in order.
///
/// The fields are private because an invariant holds: the chain ended, and
/// every segment is non-empty and inside guest storage.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    is_refused: bool,
}

impl Chain {
    /// Walks the chain once, copying what it says, so that a driver that
    /// rewrites its descriptors meanwhile changes nothing.
    pub(crate) fn parse(
        mut descriptors: DescriptorChain<&GuestAccess>,
        access: &GuestAccess,
        queue_size: u16,
    ) -> Result<Self, ChainFault> {
        let mut chain = Self {
            head: descriptors.head_index(),
            readable: Vec::new(),
            writable: Vec::new(),
            is_refused: false,
        };
        let mut more = true;
        for count in 0.. {
            let Some(descriptor) = descriptors.next() else { break };
            if count == queue_size {
                return Err(ChainFault::Endless);
            }
            more = descriptor.has_next();
            chain.append(access, descriptor)?;
            if !more {
                chain.check_keys(access);
                return Ok(chain);
            }
        }
        let nothing = chain.readable.is_empty() && chain.writable.is_empty();
        Err(if more && nothing { ChainFault::Empty } else { ChainFault::Endless })
    }

    fn append(
        &mut self,
        access: &GuestAccess,
        descriptor: virtio_queue::desc::split::Descriptor,
    ) -> Result<(), ChainFault> {
        let (address, length) = (descriptor.addr(), descriptor.len());
        if length == 0 {
            return Ok(());
        }
        if !access.contains(address, u64::from(length)) {
            return Err(ChainFault::Outside { address: address.0, length });
        }
        let segment = Segment { address, length };
        if descriptor.is_write_only() {
            self.writable.push(segment);
        } else if self.writable.is_empty() {
            self.readable.push(segment);
        } else {
            return Err(ChainFault::Disordered);
        }
        Ok(())
    }

    /// Asks the storage keys about every buffer, before any is touched. One
    /// refusal is counted for all of them.
    fn check_keys(&mut self, access: &GuestAccess) {
        let check = |segments: &[Segment], transfer| {
            segments.iter().try_for_each(|segment| {
                access.check_keys(segment.address, u64::from(segment.length), transfer)
            })
        };
        let checked = check(&self.readable, Permissions::Read)
            .and_then(|()| check(&self.writable, Permissions::Write));
        if let Err(refusal) = checked {
            access.count_refusal(&refusal);
            self.is_refused = true;
        }
    }

    /// Whether the storage key of a page forbids the device one of the
    /// buffers: then none is to be used.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// The index that names this chain in the used ring.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the device may read.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        &self.readable
    }

    /// What the device may write.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        &self.writable
    }

    /// Bytes of all readable segments.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes of all writable segments.
    #[must_use]
    pub fn writable_bytes(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies the first bytes of the readable segments into `buffer`; returns
    /// how many there were, at most `buffer.len()`.
    pub fn read(&self, access: &GuestAccess, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in &self.readable {
            let count = (buffer.len() - done).min(segment.length as usize);
            let Some(target) = buffer.get_mut(done..done + count) else { break };
            // The segment was checked; a failure means there is no more.
            if count == 0 || access.read_slice(target, segment.address).is_err() {
                break;
            }
            done += count;
        }
        done
    }

    /// Copies `bytes` into the writable segments; returns how many fitted.
    pub fn write(&self, access: &GuestAccess, bytes: &[u8]) -> u32 {
        let mut done = 0;
        for segment in &self.writable {
            let count = (bytes.len() - done).min(segment.length as usize);
            let Some(source) = bytes.get(done..done + count) else { break };
            if count == 0 || access.write_slice(source, segment.address).is_err() {
                break;
            }
            done += count;
        }
        u32::try_from(done).unwrap_or(u32::MAX)
    }
}

/// Bytes of all `segments`.
pub(crate) fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.length)).sum()
}

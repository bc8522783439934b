//! What a driver asks of a disk (5.2.6): parsing, apart from executing.

use vm_memory::GuestAddress;

use crate::access::GuestAccess;
use crate::chain::{Chain, Segment, total};
use crate::ring::QueueFault;

/// Bytes of a sector, the unit of disk addresses.
pub(super) const SECTOR: u64 = 512;
/// Bytes of the header each request begins with.
const HEADER: usize = 16;
/// Bytes one request may transfer. Linux sends at most 4 MiB.
const MOST: u64 = 16 << 20;

/// `VIRTIO_BLK_T_*`.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Read from the byte `offset` of the disk into the data.
    Read { offset: u64 },
    /// Write the data from the byte `offset` of the disk on.
    Write { offset: u64 },
    /// Make everything written so far last.
    Flush,
    /// Say the disk's serial number.
    GetId,
    /// A kind that was not offered.
    Unsupported,
    /// Of a kind that was offered, but cannot be: outside the disk, not whole
    /// sectors, too long.
    Impossible,
}

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) operation: Operation,
    /// Where the data is; its direction is that of the operation.
    pub(super) data: Vec<Segment>,
    /// Where the status byte goes.
    pub(super) status: GuestAddress,
}

impl Request {
    /// Reads `chain` as a request to a disk of `capacity` bytes.
    ///
    /// How the driver cuts the request into descriptors means nothing
    /// (2.7.4.1): the header is the first 16 readable bytes, the status the
    /// last writable one.
    pub(super) fn parse(
        chain: &Chain,
        access: &GuestAccess,
        capacity: u64,
    ) -> Result<Self, QueueFault> {
        let mut header = [0; HEADER];
        if chain.read(access, &mut header) != HEADER {
            return Err(QueueFault::Incomplete("its header"));
        }
        let (input, status) = split_status(chain.writable())?;
        let (kind, sector) = header_fields(header);
        let operation = match kind {
            kind::IN => Operation::Read { offset: 0 },
            kind::OUT => Operation::Write { offset: 0 },
            kind::FLUSH => Operation::Flush,
            kind::GET_ID => Operation::GetId,
            _ => Operation::Unsupported,
        };
        let data = match operation {
            Operation::Write { .. } => skip(chain.readable(), HEADER as u64),
            _ => input,
        };
        let operation = place(operation, sector, total(&data), capacity);
        Ok(Self { operation, data, status })
    }
}

impl Request {
    /// Where the status of `chain` goes, whatever else it says.
    pub(super) fn status_of(chain: &Chain) -> Result<GuestAddress, QueueFault> {
        split_status(chain.writable()).map(|(_, status)| status)
    }
}

/// The kind and the sector (5.2.6, `struct virtio_blk_req`).
fn header_fields(header: [u8; HEADER]) -> (u32, u64) {
    let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
    (u32::from_le_bytes([k0, k1, k2, k3]), u64::from_le_bytes(sector))
}

/// Gives a transfer its place on the disk, or finds that it has none.
fn place(operation: Operation, sector: u64, length: u64, capacity: u64) -> Operation {
    let place = || {
        let offset = sector.checked_mul(SECTOR)?;
        let inside = offset.checked_add(length)? <= capacity;
        (inside && length % SECTOR == 0 && length <= MOST).then_some(offset)
    };
    match operation {
        Operation::Read { .. } => {
            place().map_or(Operation::Impossible, |offset| Operation::Read { offset })
        }
        Operation::Write { .. } => {
            place().map_or(Operation::Impossible, |offset| Operation::Write { offset })
        }
        other => other,
    }
}

/// Splits the last byte off.
fn split_status(writable: &[Segment]) -> Result<(Vec<Segment>, GuestAddress), QueueFault> {
    let mut input = writable.to_vec();
    let last = input.pop().ok_or(QueueFault::Incomplete("room for its status"))?;
    // Segments are not empty and inside storage: no underflow, no overflow.
    let length = last.length - 1;
    if length > 0 {
        input.push(Segment { address: last.address, length });
    }
    Ok((input, GuestAddress(last.address.0 + u64::from(length))))
}

/// `segments` without their first `count` bytes.
fn skip(segments: &[Segment], mut count: u64) -> Vec<Segment> {
    let mut rest = Vec::with_capacity(segments.len());
    for segment in segments {
        let gone = count.min(u64::from(segment.length));
        count -= gone;
        let length = segment.length - gone as u32;
        if length > 0 {
            rest.push(Segment { address: GuestAddress(segment.address.0 + gone), length });
        }
    }
    rest
}

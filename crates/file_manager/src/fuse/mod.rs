//! The FUSE protocol of the Linux kernel (`include/uapi/linux/fuse.h`), as much of
//! it as a session serves: requests taken apart, replies put together. Pure.
//!
//! All numbers are little-endian, as they are in the guests.

mod reply;
mod request;

pub(crate) use reply::{Attributes, Listing, Reply, Totals, failure, negotiation};
pub(crate) use request::{Body, Header, Moment, Set, parse};

/// Length of the header of a request.
pub const REQUEST_HEADER: usize = 40;
/// Length of the header of a reply.
pub const REPLY_HEADER: usize = 16;
/// Most bytes that are read or written at once: what the kernel does without
/// asking for more pages.
pub const MAX_DATA: usize = 128 << 10;
/// Longest request: a write with its two headers, and no more.
pub const MAX_REQUEST: usize = MAX_DATA + 4096;
/// Longest reply.
pub const MAX_REPLY: usize = MAX_DATA + 4096;
/// The node that the kernel knows without having looked it up.
pub(crate) const ROOT: u64 = 1;

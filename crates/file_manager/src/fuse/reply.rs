//! Replies put together.

use std::time::Duration;

use rustix::io::Errno;

use super::{MAX_DATA, MAX_REPLY, REPLY_HEADER};

/// The version of the protocol, and the oldest that a kernel may have.
const MAJOR: u32 = 7;
const MINOR: u32 = 38;
const OLDEST_MINOR: u32 = 31;
/// Requests that the kernel may have under way beside those that are waited for.
const BACKGROUND: u16 = 16;
const CONGESTED: u16 = 12;
/// What programs are told to read at once: a file is asked for at every read.
const GOOD_SIZE: u32 = 32 << 10;

/// `FUSE_*` flags of the negotiation that are wanted where the kernel has them.
/// A session serves a kernel with and one without each of them alike: this is
/// why one can begin after the negotiation.
mod flag {
    /// Reads of one file at the same time.
    const ASYNC_READ: u64 = 1;
    /// `O_TRUNC` comes with the open.
    const ATOMIC_O_TRUNC: u64 = 1 << 3;
    /// Writes of more than a page.
    const BIG_WRITES: u64 = 1 << 5;
    /// What was kept of a file is dropped when its size or time changed.
    const AUTO_INVAL_DATA: u64 = 1 << 12;
    const ASYNC_DIO: u64 = 1 << 15;
    const PARALLEL_DIROPS: u64 = 1 << 18;
    /// There are more flags.
    const INIT_EXT: u64 = 1 << 30;
    /// Files that are always read anew can be mapped shared.
    const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;

    pub(super) const WANTED: u64 = ASYNC_READ
        | ATOMIC_O_TRUNC
        | BIG_WRITES
        | AUTO_INVAL_DATA
        | ASYNC_DIO
        | PARALLEL_DIROPS
        | INIT_EXT
        | DIRECT_IO_ALLOW_MMAP;
}

/// `FOPEN_DIRECT_IO`: every read asks, nothing is kept in the guest.
const DIRECT_IO: u32 = 1;

/// What a file is like, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) accessed: Duration,
    pub(crate) modified: Duration,
    pub(crate) changed: Duration,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What a space holds and may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) bytes: u64,
    pub(crate) bytes_free: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

/// A reply without its header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply(Vec<u8>);

impl Reply {
    pub(crate) fn empty() -> Self {
        Self(vec![0; REPLY_HEADER])
    }

    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self::empty().with(bytes)
    }

    /// What was looked up or made: its node, and how it is like. Nothing of that
    /// may be believed later without asking.
    pub(crate) fn entry(node: u64, attributes: &Attributes) -> Self {
        let generation = 0_u64;
        let valid = [0_u8; 24];
        let ids = [node.to_le_bytes(), generation.to_le_bytes()].concat();
        Self::empty().with(&ids).with(&valid).attributes(attributes)
    }

    pub(crate) fn attributes_of(attributes: &Attributes) -> Self {
        Self::empty().with(&[0; 16]).attributes(attributes)
    }

    /// Adds that a file is open.
    pub(crate) fn opened(self, handle: u64) -> Self {
        self.with(&handle.to_le_bytes()).u32s(&[DIRECT_IO, 0])
    }

    /// Adds that a directory is open.
    pub(crate) fn opened_folder(self, handle: u64) -> Self {
        self.with(&handle.to_le_bytes()).u32s(&[0, 0])
    }

    pub(crate) fn written(count: u32) -> Self {
        Self::empty().u32s(&[count, 0])
    }

    /// `struct fuse_kstatfs`.
    pub(crate) fn totals(totals: &Totals) -> Self {
        const UNIT: u32 = 4096;
        let blocks = |bytes: u64| bytes / u64::from(UNIT);
        let free = blocks(totals.bytes_free);
        let numbers = [blocks(totals.bytes), free, free, totals.files, totals.files_free];
        let name = crate::names::MAX_FILE_NAME as u32;
        Self::empty().u64s(&numbers).u32s(&[UNIT, name, UNIT, 0, 0, 0, 0, 0, 0, 0])
    }

    fn attributes(self, of: &Attributes) -> Self {
        let part = |time: Duration| time.subsec_nanos();
        self.u64s(&[of.inode, of.size, of.blocks])
            .u64s(&[of.accessed.as_secs(), of.modified.as_secs(), of.changed.as_secs()])
            .u32s(&[part(of.accessed), part(of.modified), part(of.changed)])
            .u32s(&[of.mode, of.links, of.uid, of.gid, 0, GOOD_SIZE, 0])
    }

    fn with(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn u64s(self, numbers: &[u64]) -> Self {
        numbers.iter().fold(self, |reply, number| reply.with(&number.to_le_bytes()))
    }

    fn u32s(self, numbers: &[u32]) -> Self {
        numbers.iter().fold(self, |reply, number| reply.with(&number.to_le_bytes()))
    }

    /// The whole reply to the request `unique`.
    pub(crate) fn finish(mut self, unique: u64) -> Vec<u8> {
        debug_assert!(self.0.len() <= MAX_REPLY);
        put_header(&mut self.0, 0, unique);
        self.0
    }
}

/// The reply that the request `unique` failed.
pub(crate) fn failure(unique: u64, error: Errno) -> Vec<u8> {
    let mut bytes = vec![0; REPLY_HEADER];
    put_header(&mut bytes, -error.raw_os_error(), unique);
    bytes
}

fn put_header(bytes: &mut [u8], error: i32, unique: u64) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let header = [&length.to_le_bytes()[..], &error.to_le_bytes(), &unique.to_le_bytes()].concat();
    if let Some(place) = bytes.get_mut(..REPLY_HEADER) {
        place.copy_from_slice(&header);
    }
}

/// Answers `FUSE_INIT`: a function of what the kernel offers and of nothing else.
pub(crate) fn negotiation(
    major: u32,
    minor: u32,
    read_ahead: u32,
    flags: u64,
) -> Result<Reply, Errno> {
    if major > MAJOR {
        // The kernel asks again with this version (it never does any more).
        return Ok(Reply::empty().u32s(&[MAJOR, MINOR]).with(&[0; 56]));
    }
    if major < MAJOR || minor < OLDEST_MINOR {
        return Err(Errno::PROTO);
    }
    let flags = flags & flag::WANTED;
    let background = u32::from(CONGESTED) << 16 | u32::from(BACKGROUND);
    let reply = Reply::empty()
        .u32s(&[MAJOR, MINOR, read_ahead, flags as u32])
        .u32s(&[background, MAX_DATA as u32])
        // Times have nanoseconds; the pages of a request are as many as usual.
        .u32s(&[1, 0, (flags >> 32) as u32]);
    Ok(reply.with(&[0; 28]))
}

/// A part of a directory, put together as long as there is room.
pub(crate) struct Listing {
    bytes: Vec<u8>,
    room: usize,
}

impl Listing {
    pub(crate) fn new(room: usize) -> Self {
        Self { bytes: Vec::new(), room: room.min(MAX_DATA) }
    }

    /// Adds an entry; false if there is no room. A reader goes on at `next`.
    pub(crate) fn add(&mut self, inode: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        const HEAD: usize = 24;
        let length = (HEAD + name.len()).next_multiple_of(8);
        if self.bytes.len() + length > self.room {
            return false;
        }
        let end = self.bytes.len() + length;
        self.bytes.extend([inode.to_le_bytes(), next.to_le_bytes()].concat());
        self.bytes.extend([name.len() as u32, kind].map(u32::to_le_bytes).concat());
        self.bytes.extend(name);
        self.bytes.resize(end, 0);
        true
    }

    pub(crate) fn into_reply(self) -> Reply {
        Reply::bytes(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_the_kernel_s_lengths() {
        let attributes = Attributes {
            inode: 1,
            size: 2,
            blocks: 3,
            accessed: Duration::ZERO,
            modified: Duration::ZERO,
            changed: Duration::ZERO,
            mode: 4,
            links: 5,
            uid: 6,
            gid: 7,
        };
        let length = |reply: Reply| reply.finish(9).len() - REPLY_HEADER;
        assert_eq!(length(Reply::attributes_of(&attributes)), 104);
        assert_eq!(length(Reply::entry(1, &attributes)), 128);
        assert_eq!(length(Reply::entry(1, &attributes).opened(2)), 128 + 16);
        assert_eq!(length(Reply::totals(&Totals::default())), 80);
        assert_eq!(length(negotiation(7, 41, 1 << 17, u64::MAX).unwrap()), 64);
        assert_eq!(length(negotiation(8, 0, 0, 0).unwrap()), 64);
        assert_eq!(negotiation(7, 30, 0, 0), Err(Errno::PROTO));
        assert_eq!(failure(9, Errno::NOENT)[4..8], (-2_i32).to_le_bytes());
    }

    #[test]
    fn a_listing_ends_where_the_room_does() {
        let mut listing = Listing::new(64);
        assert!(listing.add(1, 1, 4, b"abc"));
        assert!(listing.add(2, 2, 8, b"12345678"));
        assert!(!listing.add(3, 3, 8, b"x"));
        assert_eq!(listing.into_reply().finish(1).len(), REPLY_HEADER + 64);
    }
}

//! Requests taken apart. Whatever the bytes are, the outcome is a request or `None`.

use std::time::Duration;

use super::{MAX_DATA, REQUEST_HEADER};

/// Who asks for what, of which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) opcode: u32,
    /// The kernel's name of the request; the reply has it too.
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A request's arguments. File names are as the guest wrote them, unchecked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Lookup {
        name: &'a [u8],
    },
    /// Nodes and how many of their lookups are forgotten. Has no reply.
    Forget(Vec<(u64, u64)>),
    GetAttributes {
        handle: Option<u64>,
    },
    SetAttributes(Set),
    ReadLink,
    MakeLink {
        name: &'a [u8],
        target: &'a [u8],
    },
    /// A node that is not a file, a directory or a link, if `mode` says so.
    MakeNode {
        name: &'a [u8],
        mode: u32,
    },
    MakeFolder {
        name: &'a [u8],
        mode: u32,
    },
    Remove {
        name: &'a [u8],
        folder: bool,
    },
    Rename {
        name: &'a [u8],
        folder: u64,
        new_name: &'a [u8],
        flags: u32,
    },
    HardLink,
    Open {
        flags: u32,
    },
    Create {
        name: &'a [u8],
        flags: u32,
        mode: u32,
    },
    Read {
        handle: u64,
        offset: u64,
        size: usize,
    },
    Write {
        handle: u64,
        offset: u64,
        append: bool,
        data: &'a [u8],
    },
    /// What the file's space holds.
    Totals,
    Release {
        handle: u64,
    },
    Sync {
        handle: u64,
        data_only: bool,
    },
    OpenFolder,
    ReadFolder {
        handle: u64,
        offset: u64,
        size: usize,
    },
    ReleaseFolder {
        handle: u64,
    },
    SyncFolder {
        handle: u64,
    },
    Init {
        major: u32,
        minor: u32,
        read_ahead: u32,
        flags: u64,
    },
    /// The file system is unmounted.
    Destroy,
    /// Another request is not wanted any more. Has no reply.
    Interrupt,
    /// One that is not served, which the kernel does without.
    Unknown,
}

/// What of a file is to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Set {
    pub(crate) handle: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) accessed: Option<Moment>,
    pub(crate) modified: Option<Moment>,
}

/// A time to be set, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Now,
    At(Duration),
}

/// `FUSE_*` of requests.
mod opcode {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const READLINK: u32 = 5;
    pub(super) const SYMLINK: u32 = 6;
    pub(super) const MKNOD: u32 = 8;
    pub(super) const MKDIR: u32 = 9;
    pub(super) const UNLINK: u32 = 10;
    pub(super) const RMDIR: u32 = 11;
    pub(super) const RENAME: u32 = 12;
    pub(super) const LINK: u32 = 13;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const STATFS: u32 = 17;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const INIT: u32 = 26;
    pub(super) const OPENDIR: u32 = 27;
    pub(super) const READDIR: u32 = 28;
    pub(super) const RELEASEDIR: u32 = 29;
    pub(super) const FSYNCDIR: u32 = 30;
    pub(super) const CREATE: u32 = 35;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const RENAME2: u32 = 45;
}

/// `FATTR_*`.
mod attribute {
    pub(super) const MODE: u32 = 1;
    pub(super) const UID: u32 = 1 << 1;
    pub(super) const GID: u32 = 1 << 2;
    pub(super) const SIZE: u32 = 1 << 3;
    pub(super) const ATIME: u32 = 1 << 4;
    pub(super) const MTIME: u32 = 1 << 5;
    pub(super) const FH: u32 = 1 << 6;
    pub(super) const ATIME_NOW: u32 = 1 << 7;
    pub(super) const MTIME_NOW: u32 = 1 << 8;
}

/// `FUSE_GETATTR_FH`.
const BY_HANDLE: u32 = 1;
/// `FUSE_FSYNC_FDATASYNC`.
const DATA_ONLY: u32 = 1;
/// `FUSE_WRITE_CACHE`, and `O_APPEND` in a guest.
const FROM_CACHE: u32 = 1;
const APPEND: u32 = 0o2000;
/// `FUSE_INIT_EXT`: there are more flags.
const INIT_EXT: u64 = 1 << 30;

/// The header of a request; `None` if there is not even that.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let mut words = Words(bytes);
    let (length, opcode) = (words.u32()?, words.u32()?);
    let (unique, node) = (words.u64()?, words.u64()?);
    let (uid, gid) = (words.u32()?, words.u32()?);
    (bytes.len() >= REQUEST_HEADER).then_some(Header { length, opcode, unique, node, uid, gid })
}

/// A request: its header, and its arguments if they make sense.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Header, Option<Body<'_>>)> {
    let header = header(bytes)?;
    let whole = header.length as usize == bytes.len();
    let arguments = bytes.get(REQUEST_HEADER..).filter(|_| whole);
    let body = arguments.and_then(|arguments| body(&header, Words(arguments)));
    Some((header, body))
}

fn body<'a>(header: &Header, mut words: Words<'a>) -> Option<Body<'a>> {
    Some(match header.opcode {
        opcode::LOOKUP => Body::Lookup { name: words.only_name()? },
        opcode::FORGET => Body::Forget(vec![(header.node, words.u64()?)]),
        opcode::BATCH_FORGET => Body::Forget(batch(words)?),
        opcode::GETATTR => {
            let by_handle = words.u32()? & BY_HANDLE != 0;
            words.u32()?;
            Body::GetAttributes { handle: Some(words.u64()?).filter(|_| by_handle) }
        }
        opcode::SETATTR => Body::SetAttributes(set(words)?),
        opcode::READLINK => Body::ReadLink,
        opcode::SYMLINK => Body::MakeLink { name: words.name()?, target: words.only_name()? },
        opcode::MKNOD => {
            let mode = words.u32()?;
            words.skip(12)?;
            Body::MakeNode { name: words.only_name()?, mode }
        }
        opcode::MKDIR => {
            let mode = words.u32()?;
            words.skip(4)?;
            Body::MakeFolder { name: words.only_name()?, mode }
        }
        opcode::UNLINK => Body::Remove { name: words.only_name()?, folder: false },
        opcode::RMDIR => Body::Remove { name: words.only_name()?, folder: true },
        opcode::RENAME | opcode::RENAME2 => {
            let folder = words.u64()?;
            let flags = if header.opcode == opcode::RENAME2 { words.u32()? } else { 0 };
            words.skip(if header.opcode == opcode::RENAME2 { 4 } else { 0 })?;
            Body::Rename { name: words.name()?, folder, new_name: words.only_name()?, flags }
        }
        opcode::LINK => Body::HardLink,
        opcode::OPEN => Body::Open { flags: words.u32()? },
        opcode::CREATE => {
            let (flags, mode) = (words.u32()?, words.u32()?);
            words.skip(8)?;
            Body::Create { name: words.only_name()?, flags, mode }
        }
        opcode::READ | opcode::READDIR => {
            let (handle, offset, size) = (words.u64()?, words.u64()?, words.u32()? as usize);
            match header.opcode {
                opcode::READ => Body::Read { handle, offset, size },
                _ => Body::ReadFolder { handle, offset, size },
            }
        }
        opcode::WRITE => {
            let (handle, offset, size) = (words.u64()?, words.u64()?, words.u32()? as usize);
            let from_cache = words.u32()? & FROM_CACHE != 0;
            words.skip(8)?;
            // What the kernel kept of a mapped file has its place.
            let append = words.u32()? & APPEND != 0 && !from_cache;
            words.skip(4)?;
            let data = Some(words.0).filter(|data| data.len() == size && size <= MAX_DATA)?;
            Body::Write { handle, offset, append, data }
        }
        opcode::STATFS => Body::Totals,
        opcode::RELEASE => Body::Release { handle: words.u64()? },
        opcode::RELEASEDIR => Body::ReleaseFolder { handle: words.u64()? },
        opcode::FSYNC => {
            Body::Sync { handle: words.u64()?, data_only: words.u32()? & DATA_ONLY != 0 }
        }
        opcode::FSYNCDIR => Body::SyncFolder { handle: words.u64()? },
        opcode::OPENDIR => Body::OpenFolder,
        opcode::INIT => {
            let (major, minor, read_ahead) = (words.u32()?, words.u32()?, words.u32()?);
            let low = u64::from(words.u32()?);
            let more = if low & INIT_EXT != 0 { u64::from(words.u32()?) << 32 } else { 0 };
            Body::Init { major, minor, read_ahead, flags: low | more }
        }
        opcode::DESTROY => Body::Destroy,
        opcode::INTERRUPT => Body::Interrupt,
        _ => Body::Unknown,
    })
}

fn batch(mut words: Words<'_>) -> Option<Vec<(u64, u64)>> {
    let count = words.u32()? as usize;
    words.skip(4)?;
    // As many as are there: the count alone allocates nothing.
    if words.0.len() / 16 < count {
        return None;
    }
    (0..count).map(|_| Some((words.u64()?, words.u64()?))).collect()
}

fn set(mut words: Words<'_>) -> Option<Set> {
    let valid = words.u32()?;
    words.skip(4)?;
    let (handle, size) = (words.u64()?, words.u64()?);
    words.skip(8)?;
    let (accessed, modified) = (words.u64()?, words.u64()?);
    words.skip(8)?;
    let (accessed_part, modified_part) = (words.u32()?, words.u32()?);
    words.skip(4)?;
    let mode = words.u32()?;
    words.skip(4)?;
    let (uid, gid) = (words.u32()?, words.u32()?);
    let moment = |set: u32, now: u32, seconds: u64, part: u32| {
        if valid & now != 0 {
            return Some(Moment::Now);
        }
        // A part of a second has less than a second; what is wrong is set to 0.
        let part = if part < 1_000_000_000 { part } else { 0 };
        (valid & set != 0).then(|| Moment::At(Duration::new(seconds, part)))
    };
    Some(Set {
        handle: Some(handle).filter(|_| valid & attribute::FH != 0),
        mode: Some(mode).filter(|_| valid & attribute::MODE != 0),
        uid: Some(uid).filter(|_| valid & attribute::UID != 0),
        gid: Some(gid).filter(|_| valid & attribute::GID != 0),
        size: Some(size).filter(|_| valid & attribute::SIZE != 0),
        accessed: moment(attribute::ATIME, attribute::ATIME_NOW, accessed, accessed_part),
        modified: moment(attribute::MTIME, attribute::MTIME_NOW, modified, modified_part),
    })
}

/// Bytes, taken from the front.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    /// A text that ends with a zero.
    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (name, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        Some(name)
    }

    /// The same, when nothing follows.
    fn only_name(&mut self) -> Option<&'a [u8]> {
        self.name().filter(|_| self.0.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, arguments: &[u8]) -> Vec<u8> {
        let length = (REQUEST_HEADER + arguments.len()) as u32;
        let mut bytes = [length, opcode, 7, 0, 1, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
        bytes.extend(arguments);
        bytes
    }

    fn body_of(opcode: u32, arguments: &[u8]) -> bool {
        let bytes = request(opcode, arguments);
        parse(&bytes).is_some_and(|(_, body)| body.is_some())
    }

    #[test]
    fn names_end_once() {
        assert!(body_of(opcode::LOOKUP, b"a\0"));
        for bad in [&b""[..], b"a", b"a\0b", b"a\0b\0"] {
            assert!(!body_of(opcode::LOOKUP, bad), "{bad:?}");
        }
        assert!(body_of(opcode::SYMLINK, b"a\0/etc/passwd\0"));
        assert!(!body_of(opcode::SYMLINK, b"a\0"));
    }

    #[test]
    fn lengths_and_counts_have_to_be_true() {
        let mut bytes = request(opcode::READLINK, &[]);
        assert_eq!(parse(&bytes).unwrap().1, Some(Body::ReadLink));
        bytes.push(0);
        assert_eq!(parse(&bytes).unwrap().1, None);
        assert_eq!(parse(&bytes[..39]), None);

        let forget = |count: u32, entries: usize| {
            let mut arguments = [count.to_le_bytes(), [0; 4]].concat();
            arguments.extend(vec![0; 16 * entries]);
            body_of(opcode::BATCH_FORGET, &arguments)
        };
        assert!(forget(2, 2) && forget(0, 0) && !forget(3, 2) && !forget(u32::MAX, 1));

        let write = |size: u32, data: usize| {
            let mut arguments = vec![0; 40 + data];
            arguments[16..20].copy_from_slice(&size.to_le_bytes());
            body_of(opcode::WRITE, &arguments)
        };
        assert!(write(5, 5) && !write(6, 5) && !write(5, 6));
        assert!(!write(MAX_DATA as u32 + 1, MAX_DATA + 1));
    }
}

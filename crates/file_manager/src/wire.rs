//! What a machine's process and the file manager say to each other: requests one
//! way and replies the other, over a stream that the host made for one session.
//!
//! ```text
//! request:  length of what follows u32 | tag u64 | room for the reply u32 | FUSE request
//! reply:    length of what follows u32 | tag u64 | FUSE reply, or nothing
//! ```
//!
//! Numbers are little-endian. A request has one reply, in any order; the tag says
//! whose it is. Whoever breaks the rules is hung up on.

use std::io::{self, Read, Write};

use crate::fuse::{MAX_REPLY, MAX_REQUEST};

/// Requests that a machine may have under way; its process fails any more.
pub const MAX_IN_FLIGHT: usize = 64;

/// A request of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose the reply is.
    pub tag: u64,
    /// Bytes that a reply may have.
    pub room: u32,
    /// The FUSE request.
    pub bytes: Vec<u8>,
}

/// A reply to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Of which request.
    pub tag: u64,
    /// The FUSE reply; empty for a request that has none.
    pub bytes: Vec<u8>,
}

impl Request {
    const HEAD: usize = 12;

    /// Writes it as one piece.
    ///
    /// # Errors
    /// What the stream says.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let head = [&self.tag.to_le_bytes()[..], &self.room.to_le_bytes()].concat();
        write(stream, &head, &self.bytes, MAX_REQUEST)
    }

    /// Reads the next one; `None` at the end of the stream.
    ///
    /// # Errors
    /// What the stream says, and [`io::ErrorKind::InvalidData`].
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(([t0, t1, t2, t3, t4, t5, t6, t7, r0, r1, r2, r3], bytes)) =
            read::<{ Self::HEAD }>(stream, MAX_REQUEST)?
        else {
            return Ok(None);
        };
        let tag = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        Ok(Some(Self { tag, room: u32::from_le_bytes([r0, r1, r2, r3]), bytes }))
    }
}

impl Reply {
    const HEAD: usize = 8;

    /// Writes it as one piece.
    ///
    /// # Errors
    /// What the stream says.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        write(stream, &self.tag.to_le_bytes(), &self.bytes, MAX_REPLY)
    }

    /// Reads the next one; `None` at the end of the stream.
    ///
    /// # Errors
    /// What the stream says, and [`io::ErrorKind::InvalidData`].
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let read = read::<{ Self::HEAD }>(stream, MAX_REPLY)?;
        Ok(read.map(|(tag, bytes)| Self { tag: u64::from_le_bytes(tag), bytes }))
    }
}

fn write(stream: &mut impl Write, head: &[u8], bytes: &[u8], most: usize) -> io::Result<()> {
    if bytes.len() > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Far below 4 GiB.
    let length = (head.len() + bytes.len()) as u32;
    stream.write_all(&[&length.to_le_bytes()[..], head, bytes].concat())
}

fn read<const HEAD: usize>(
    stream: &mut impl Read,
    most: usize,
) -> io::Result<Option<([u8; HEAD], Vec<u8>)>> {
    let mut length = [0; 4];
    match stream.read(&mut length)? {
        0 => return Ok(None),
        count => stream.read_exact(length.get_mut(count..).unwrap_or_default())?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if !(HEAD..=HEAD + most).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut head = [0; HEAD];
    stream.read_exact(&mut head)?;
    let mut bytes = vec![0; length - HEAD];
    stream.read_exact(&mut bytes)?;
    Ok(Some((head, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let request = Request { tag: 7, room: 9, bytes: b"abc".to_vec() };
        let reply = Reply { tag: 8, bytes: Vec::new() };
        let mut bytes = Vec::new();
        request.write(&mut bytes).unwrap();
        assert_eq!(Request::read(&mut &bytes[..]).unwrap(), Some(request));
        assert!(Request::read(&mut &bytes[..bytes.len() - 1]).is_err());
        bytes.clear();
        reply.write(&mut bytes).unwrap();
        assert_eq!(Reply::read(&mut &bytes[..]).unwrap(), Some(reply));
        assert_eq!(Reply::read(&mut io::empty()).unwrap(), None);
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_allocated() {
        for length in [0, 11, (MAX_REQUEST + 13) as u32, u32::MAX] {
            let bytes = [&length.to_le_bytes()[..], &[0; 64]].concat();
            assert!(Request::read(&mut &bytes[..]).is_err(), "{length}");
        }
        let long = Request { tag: 0, room: 0, bytes: vec![0; MAX_REQUEST + 1] };
        assert!(long.write(&mut io::sink()).is_err());
    }
}

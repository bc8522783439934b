//! What a machine's process and the database manager say to each other.
//!
//! A socket of packets: the machine's process sends a number to ask for a
//! connection, and is answered by the same number and a code, with one end of a
//! stream if there is one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Bytes of a question.
const QUESTION: usize = 8;
/// Bytes of an answer.
const ANSWER: usize = QUESTION + 1;

const HERE: u8 = 0;
const NONE: u8 = 1;

/// The two ends of a session: the manager's, and that of the machine's process.
///
/// # Errors
/// When the system has no sockets to give.
pub fn session_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Asks for a connection.
pub(crate) fn ask(socket: BorrowedFd<'_>, number: u64) -> io::Result<()> {
    let bytes = number.to_le_bytes();
    let sent = rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    if sent == QUESTION { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The next question; nothing at the end of the session.
pub(crate) fn question(socket: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let mut bytes = [0; QUESTION + 1];
    loop {
        return match rustix::net::recv(socket, &mut bytes, RecvFlags::empty()) {
            Ok((0, _)) => Ok(None),
            Ok((QUESTION, _)) => {
                let number = bytes.first_chunk().copied().map(u64::from_le_bytes);
                Ok(number)
            }
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// Answers a question, with a connection or without.
pub(crate) fn answer(
    socket: BorrowedFd<'_>,
    number: u64,
    stream: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.push(if stream.is_some() { HERE } else { NONE });
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = stream.map(|stream| [stream]);
    if let Some(fds) = &fds {
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    // Whoever does not take its answers is given up, not waited for.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)?;
    Ok(())
}

/// The next answer, if one is there; nothing at the end of the session.
pub(crate) fn answered(socket: BorrowedFd<'_>) -> io::Result<Option<(u64, Option<UnixStream>)>> {
    let mut bytes = [0; ANSWER + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut pieces, &mut control, flags)?;
    let mut streams = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let stream = streams.next().and_then(|mut fds| fds.next()).map(UnixStream::from);
    drop(streams);
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.bytes != ANSWER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let number = bytes.first_chunk().copied().map(u64::from_le_bytes).unwrap_or_default();
    match (bytes.get(QUESTION), stream) {
        (Some(&HERE), Some(stream)) => Ok(Some((number, Some(stream)))),
        (Some(&NONE), None) => Ok(Some((number, None))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Ends a session for whoever is at either end.
pub(crate) fn shut(socket: impl AsFd) {
    // It fails only for one that has ended.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

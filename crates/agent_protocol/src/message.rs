//! The messages and their frames.

use crate::payload::{self, ExecRequest, Reader, Ready};
use crate::pool::{self, Conversation, Renewal, ServiceRequest};
use crate::{FIRST_GUEST_STREAM, HEADER_LEN, MAX_PAYLOAD, ProtocolError};

/// Number of a stream: 0 is the connection, all others are commands.
pub type StreamId = u32;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code, 0 to 255.
    Code(u8),
    /// A signal of this number (Linux's) ended it.
    Signal(u8),
}

impl Status {
    /// The status as a shell would give it: the code, or 128 plus the signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// Which of a command's outputs bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One thing said. The comment says who says it, and on which stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Host, on a command's new stream: start this command.
    Exec(ExecRequest),
    /// Host, command: bytes for its standard input; spends credit.
    Stdin(Vec<u8>),
    /// Host, command: its standard input ends here.
    StdinEnd,
    /// Host, command: send this signal (1 to 64) to its process group.
    Signal(u8),
    /// Host, command: nobody wants it any more. The agent kills its process
    /// group and still answers `Exited`, so that the number is known free.
    Close,
    /// Either, command: the receiver's user took this many bytes; send more.
    Credit(u32),
    /// Host, connection: are you there? The number comes back in `Pong`.
    Ping(u64),
    /// Host, connection: end every process and power the guest off.
    Shutdown,
    /// Host, on a new stream: start a transaction program that waits for
    /// conversations on a socket. `ServiceReady` answers, `Exited` comes when
    /// it has ended. Its outputs spend credit as a command's do.
    StartService(ServiceRequest),
    /// Host, on a new stream: join this stream to a transaction program.
    /// `Accepted` answers; from then on the stream is like a command's: `Stdin`
    /// is what the user sends, `StdinEnd` that he is done, `Stdout` what the
    /// program sends, `Exited` with code 0 that it has ended in order, `Close`
    /// that it must end now.
    Converse(Conversation),
    /// Host, connection: this machine was made from another's state; differ
    /// from it. `Renewed` or `RenewFailed` answers.
    Renew(Renewal),
    /// Host, connection: the answer to the `MetadataRequest` of this number.
    MetadataReply {
        /// Number of the request.
        id: u32,
        /// HTTP status, 100 to 599.
        status: u16,
        /// JSON, at most [`MAX_METADATA_BODY`](crate::MAX_METADATA_BODY) bytes.
        body: Vec<u8>,
    },
    /// Guest, connection: the root is mounted and commands are served.
    Ready(Ready),
    /// Guest, command: bytes it wrote; spends credit.
    Stdout(Vec<u8>),
    /// Guest, command: bytes it wrote to standard error; spends credit.
    Stderr(Vec<u8>),
    /// Guest, command: it ended, its outputs are sent to the end.
    Exited(Status),
    /// Guest, command: it could not be started; says why, for the user.
    Failed(String),
    /// Guest, connection: the answer to `Ping`.
    Pong(u64),
    /// Guest, service: it says that it is initialised.
    ServiceReady,
    /// Guest, conversation: it is joined to its program.
    Accepted,
    /// Guest, connection: everything that `Renew` asked for is done.
    Renewed,
    /// Guest, connection: something of it is not; says what, for the operator.
    RenewFailed(String),
    /// Guest, connection: a program asks who the machine is now.
    MetadataRequest {
        /// Chosen by the guest; comes back in the reply.
        id: u32,
        /// Path and query of the request: visible ASCII, from a slash on, at
        /// most [`MAX_METADATA_PATH`](crate::MAX_METADATA_PATH) bytes.
        path: String,
    },
    /// Guest, on a new stream of the guest's own: a program has connected to the
    /// user's database. From then on the stream is like a conversation's: `Stdout`
    /// is what the program sends, `Stdin` what it gets, `StdinEnd` that it gets no
    /// more, `Exited` that it has closed, `Close` that it must.
    Connect,
}

/// The kind bytes of version 3. Host's below 0x40, guest's from 0x80, both
/// sides' between.
mod kind {
    pub(super) const EXEC: u8 = 0x01;
    pub(super) const STDIN: u8 = 0x02;
    pub(super) const STDIN_END: u8 = 0x03;
    pub(super) const SIGNAL: u8 = 0x04;
    pub(super) const CLOSE: u8 = 0x05;
    pub(super) const PING: u8 = 0x06;
    pub(super) const SHUTDOWN: u8 = 0x07;
    pub(super) const START_SERVICE: u8 = 0x08;
    pub(super) const CONVERSE: u8 = 0x09;
    pub(super) const RENEW: u8 = 0x0a;
    pub(super) const METADATA_REPLY: u8 = 0x0b;
    pub(super) const CREDIT: u8 = 0x40;
    pub(super) const READY: u8 = 0x80;
    pub(super) const STDOUT: u8 = 0x81;
    pub(super) const STDERR: u8 = 0x82;
    pub(super) const EXITED: u8 = 0x83;
    pub(super) const FAILED: u8 = 0x84;
    pub(super) const PONG: u8 = 0x85;
    pub(super) const SERVICE_READY: u8 = 0x86;
    pub(super) const ACCEPTED: u8 = 0x87;
    pub(super) const RENEWED: u8 = 0x88;
    pub(super) const RENEW_FAILED: u8 = 0x89;
    pub(super) const METADATA_REQUEST: u8 = 0x8a;
    pub(super) const CONNECT: u8 = 0x8b;
}

/// Whether a kind byte belongs to this version: checked on the header alone,
/// before anything is allocated for the payload.
pub(crate) fn known_kind(byte: u8) -> bool {
    matches!(
        byte,
        kind::EXEC..=kind::METADATA_REPLY | kind::CREDIT | kind::READY..=kind::CONNECT
    )
}

impl Message {
    /// Appends the frame of this message on `stream` to `out`.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::BadPayload`] if the message does not fit into one
    /// frame, [`ProtocolError::WrongStream`] if it has no meaning on `stream`;
    /// `out` is then as it was.
    pub fn encode(&self, stream: StreamId, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        self.check_stream(stream)?;
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&stream.to_le_bytes());
        out.push(self.kind());
        self.put_payload(out);
        let length = out.len() - start - HEADER_LEN;
        if length > MAX_PAYLOAD {
            out.truncate(start);
            let reason = "it does not fit into one frame of 64 KiB";
            return Err(ProtocolError::BadPayload { kind: self.name(), reason });
        }
        // At most MAX_PAYLOAD, so the cast loses nothing.
        out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        Ok(())
    }

    /// The message that a frame's kind and payload stand for.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] says what about the frame is wrong.
    pub fn parse(stream: StreamId, kind: u8, payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        let message = match kind {
            kind::EXEC => Self::Exec(ExecRequest::read(&mut reader)?),
            kind::STDIN => Self::Stdin(reader.rest().to_vec()),
            kind::STDIN_END => Self::StdinEnd,
            kind::SIGNAL => match reader.named("Signal").u8()? {
                signal @ 1..=64 => Self::Signal(signal),
                _ => return Err(reader.bad("the signal is not between 1 and 64")),
            },
            kind::CLOSE => Self::Close,
            kind::CREDIT => Self::Credit(reader.named("Credit").u32()?),
            kind::PING => Self::Ping(reader.named("Ping").u64()?),
            kind::SHUTDOWN => Self::Shutdown,
            kind::READY => Self::Ready(Ready::read(&mut reader)?),
            kind::STDOUT => Self::Stdout(reader.rest().to_vec()),
            kind::STDERR => Self::Stderr(reader.rest().to_vec()),
            kind::EXITED => {
                let how = reader.named("Exited").u8()?;
                let value = reader.u8()?;
                Self::Exited(match how {
                    0 => Status::Code(value),
                    1 => Status::Signal(value),
                    _ => return Err(reader.bad("neither a code nor a signal")),
                })
            }
            kind::FAILED => Self::Failed(reader.named("Failed").rest_text()?),
            kind::PONG => Self::Pong(reader.named("Pong").u64()?),
            kind::START_SERVICE => Self::StartService(ServiceRequest::read(&mut reader)?),
            kind::CONVERSE => Self::Converse(Conversation::read(&mut reader)?),
            kind::RENEW => Self::Renew(Renewal::read(&mut reader)?),
            kind::METADATA_REPLY => pool::read_metadata_reply(&mut reader)?,
            kind::SERVICE_READY => Self::ServiceReady,
            kind::ACCEPTED => Self::Accepted,
            kind::RENEWED => Self::Renewed,
            kind::RENEW_FAILED => Self::RenewFailed(reader.named("RenewFailed").rest_text()?),
            kind::METADATA_REQUEST => pool::read_metadata_request(&mut reader)?,
            kind::CONNECT => Self::Connect,
            _ => return Err(ProtocolError::UnknownKind { kind }),
        };
        reader.end(message.name())?;
        message.check_stream(stream)?;
        Ok(message)
    }

    /// The bytes of the stream's window that this message spends.
    #[must_use]
    pub fn cost(&self) -> usize {
        match self {
            Self::Stdin(bytes) | Self::Stdout(bytes) | Self::Stderr(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// The message's name, for error messages and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exec(_) => "Exec",
            Self::Stdin(_) => "Stdin",
            Self::StdinEnd => "StdinEnd",
            Self::Signal(_) => "Signal",
            Self::Close => "Close",
            Self::Credit(_) => "Credit",
            Self::Ping(_) => "Ping",
            Self::Shutdown => "Shutdown",
            Self::Ready(_) => "Ready",
            Self::Stdout(_) => "Stdout",
            Self::Stderr(_) => "Stderr",
            Self::Exited(_) => "Exited",
            Self::Failed(_) => "Failed",
            Self::Pong(_) => "Pong",
            Self::StartService(_) => "StartService",
            Self::Converse(_) => "Converse",
            Self::Renew(_) => "Renew",
            Self::MetadataReply { .. } => "MetadataReply",
            Self::ServiceReady => "ServiceReady",
            Self::Accepted => "Accepted",
            Self::Renewed => "Renewed",
            Self::RenewFailed(_) => "RenewFailed",
            Self::MetadataRequest { .. } => "MetadataRequest",
            Self::Connect => "Connect",
        }
    }

    /// Whether the message is about the connection and not a command.
    fn is_of_connection(&self) -> bool {
        matches!(
            self,
            Self::Ping(_)
                | Self::Pong(_)
                | Self::Shutdown
                | Self::Ready(_)
                | Self::Renew(_)
                | Self::Renewed
                | Self::RenewFailed(_)
                | Self::MetadataRequest { .. }
                | Self::MetadataReply { .. }
        )
    }

    fn check_stream(&self, stream: StreamId) -> Result<(), ProtocolError> {
        let own = !matches!(self, Self::Connect) || stream >= FIRST_GUEST_STREAM;
        if own && self.is_of_connection() == (stream == 0) {
            Ok(())
        } else {
            Err(ProtocolError::WrongStream { kind: self.name(), stream })
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Exec(_) => kind::EXEC,
            Self::Stdin(_) => kind::STDIN,
            Self::StdinEnd => kind::STDIN_END,
            Self::Signal(_) => kind::SIGNAL,
            Self::Close => kind::CLOSE,
            Self::Credit(_) => kind::CREDIT,
            Self::Ping(_) => kind::PING,
            Self::Shutdown => kind::SHUTDOWN,
            Self::Ready(_) => kind::READY,
            Self::Stdout(_) => kind::STDOUT,
            Self::Stderr(_) => kind::STDERR,
            Self::Exited(_) => kind::EXITED,
            Self::Failed(_) => kind::FAILED,
            Self::Pong(_) => kind::PONG,
            Self::StartService(_) => kind::START_SERVICE,
            Self::Converse(_) => kind::CONVERSE,
            Self::Renew(_) => kind::RENEW,
            Self::MetadataReply { .. } => kind::METADATA_REPLY,
            Self::ServiceReady => kind::SERVICE_READY,
            Self::Accepted => kind::ACCEPTED,
            Self::Renewed => kind::RENEWED,
            Self::RenewFailed(_) => kind::RENEW_FAILED,
            Self::MetadataRequest { .. } => kind::METADATA_REQUEST,
            Self::Connect => kind::CONNECT,
        }
    }

    fn put_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Exec(request) => request.put(out),
            Self::Ready(ready) => ready.put(out),
            Self::Stdin(bytes) | Self::Stdout(bytes) | Self::Stderr(bytes) => {
                out.extend_from_slice(bytes);
            }
            Self::Signal(signal) => out.push(*signal),
            Self::Credit(bytes) => payload::put_u32(out, *bytes),
            Self::Ping(number) | Self::Pong(number) => payload::put_u64(out, *number),
            Self::Exited(Status::Code(code)) => out.extend_from_slice(&[0, *code]),
            Self::Exited(Status::Signal(signal)) => out.extend_from_slice(&[1, *signal]),
            Self::Failed(text) | Self::RenewFailed(text) => out.extend_from_slice(text.as_bytes()),
            Self::StartService(request) => request.put(out),
            Self::Converse(conversation) => conversation.put(out),
            Self::Renew(renewal) => renewal.put(out),
            Self::MetadataReply { id, status, body } => {
                pool::put_metadata_reply(out, *id, *status, body);
            }
            Self::MetadataRequest { id, path } => pool::put_metadata_request(out, *id, path),
            Self::StdinEnd
            | Self::Close
            | Self::Shutdown
            | Self::ServiceReady
            | Self::Accepted
            | Self::Renewed
            | Self::Connect => {}
        }
    }
}

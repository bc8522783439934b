//! What the host and the guest agent say to each other.
//!
//! Both ends share one byte stream (a virtio port) and talk in [`Frame`]s: a
//! header of nine bytes and a payload of at most [`MAX_PAYLOAD`] bytes. Every
//! frame belongs to a stream; stream 0 is the connection itself, every other
//! number is one command, service or conversation, chosen by the host and used
//! once until its `Exited` or `Failed`. Numbers from [`FIRST_GUEST_STREAM`] on are
//! connections to the user's database, chosen by the guest in the same way.
//!
//! Three types do the work, none of them knows a socket, a thread or a clock:
//!
//! - [`Message`] is what is said; [`Message::encode`] turns it into a frame's
//!   bytes and [`Message::parse`] back, refusing nonsense.
//! - [`Decoder`] is fed whatever bytes arrived and hands out whole messages;
//!   it never holds more than one frame.
//! - [`SendWindow`] and [`ReceiveWindow`] are the two halves of the flow
//!   control: a sender spends credit, the receiver gives it back as its user
//!   consumes, so a command that nobody reads stops without stopping others.
//!
//! The host drives a command so: `Exec`, then `Stdin` as its window allows,
//! `StdinEnd`, and reads `Stdout`/`Stderr` (one window for both) until
//! `Exited` or `Failed`, after which the stream is gone at both ends. Frames
//! for a stream that is gone are ignored, for they may have crossed its end.
//!
//! A machine of a pool is driven by `StartService` (initialise a transaction
//! program beforehand), `Renew` (a machine made from another's state becomes
//! itself) and `Converse` (join a user to a transaction program); what a
//! program in it asks about its user comes as `MetadataRequest`, and a connection
//! to its user's database as `Connect`.

mod decoder;
mod message;
mod payload;
mod pool;
mod window;

pub use decoder::Decoder;
pub use message::{Message, OutputKind, Status, StreamId};
pub use payload::{ExecRequest, Ready};
pub use pool::{
    Conversation, MAX_METADATA_BODY, MAX_METADATA_PATH, MAX_METADATA_REQUESTS, MAX_TPN, Renewal,
    ServiceRequest, Tpn,
};
pub use window::{CreditError, ReceiveWindow, SendWindow};

use std::fmt;

/// Largest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Bytes in front of a payload: length (u32), stream (u32), kind (u8), all
/// little-endian.
pub const HEADER_LEN: usize = 9;

/// Credit that each direction of a command's stream starts with, in bytes of
/// `Stdin`, or of `Stdout` and `Stderr` together.
pub const INITIAL_CREDIT: u32 = 64 * 1024;
/// The stream number in the frames between a host's client and a worker.
pub const SESSION_STREAM: StreamId = 1;

/// Payload that a well-behaved sender puts into one data frame at most, so
/// that streams take turns on the channel.
pub const DATA_CHUNK: usize = 16 * 1024;

/// Commands that the agent runs at the same time; one more is answered with
/// `Failed`.
pub const MAX_COMMANDS: usize = 64;

/// First number of the streams that the guest begins, by `Connect`.
pub const FIRST_GUEST_STREAM: StreamId = 1 << 31;

/// Streams of a guest's own at the same time; one more is closed at once.
pub const MAX_CONNECTIONS: usize = 32;

/// Where programs of the guest connect to their user's database: the port, also in
/// the name of the Unix socket.
pub const DATABASE_PORT: u16 = 5432;

/// Version of this protocol, said in `Ready`.
pub const VERSION: u32 = 3;

/// Name of the virtio port that carries the protocol.
pub const PORT_NAME: &str = "berth.agent";

/// Why bytes from the peer are not a message. The peer is to blame; there is
/// no way to find the next frame, so the connection is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtocolError {
    /// A header announces more than [`MAX_PAYLOAD`] bytes.
    TooLong {
        /// The length in the header, in bytes.
        length: u32,
    },
    /// The kind byte is none of this version's.
    UnknownKind {
        /// The byte.
        kind: u8,
    },
    /// A payload does not have the form that its kind asks for.
    BadPayload {
        /// The kind of the frame, by name.
        kind: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A frame of a command on stream 0, or one of the connection elsewhere.
    WrongStream {
        /// The kind of the frame, by name.
        kind: &'static str,
        /// The stream in its header.
        stream: u32,
    },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length } => {
                write!(
                    f,
                    "frame of {length} bytes from the peer; at most {MAX_PAYLOAD} are allowed"
                )
            }
            Self::UnknownKind { kind } => write!(
                f,
                "frame of unknown kind {kind:#04x} from the peer; host and guest agent may be of \
                 different versions: build the image again"
            ),
            Self::BadPayload { kind, reason } => {
                write!(f, "malformed {kind} frame from the peer: {reason}")
            }
            Self::WrongStream { kind, stream } => {
                write!(f, "{kind} frame from the peer on stream {stream}, where it has no meaning")
            }
        }
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests;

//! The service's end of LU 6.2 conversations.
//!
//! A [`Gateway`] takes connections, over TLS or a local socket. Each carries one
//! conversation: its Attach is read, the user proved by an [`Authority`], a
//! program in a machine asked from a [`Service`], and the two are joined
//! ([`coupling`], the rules, which are pure; `connection`, the bytes) until one
//! of them has had enough. [`Running`] does all this on a thread of its own, for
//! a host that is threads.
//!
//! The gateway knows nothing of machines. Everything a user can make it hold is
//! bounded, in bytes ([`coupling`]) and in time ([`Limits`]).

mod attach;
mod connection;
pub mod coupling;
mod limits;
mod listen;
mod service;
pub mod tls;

pub use conversation::Sense;
pub use limits::Limits;
pub use listen::{Gateway, Running, Settings, StartError, Tcp};
pub use service::{
    AttachRequest, Authority, Conversation, Credential, Ending, Joined, NotValid, Principal,
    Refusal, Service, Why,
};

/// What a password substitute of an Attach is if the proof is a signed token,
/// which is too long for the header: the token is the first of the parameters
/// (PIP) then, and not the program's.
pub const TOKEN_IN_PIP: &[u8] = b"TOKEN";

//! What one connection, and all of them, may take.

use std::time::Duration;

/// Bounds. Memory needs none of its own: a conversation holds at most
/// `conversation::half_session::MAX_HELD` and twice
/// [`INPUT`](crate::coupling::INPUT) bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, for each listener.
    pub connections: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// From the handshake to the whole Attach.
    pub attach: Duration,
    /// For proving the user's id.
    pub authenticate: Duration,
    /// Without a byte from either side.
    pub idle: Duration,
    /// For the program to take what it was sent, when the user asks for
    /// confirmation, and to end, once it was told that no more will come.
    pub confirm: Duration,
    /// For the last bytes to reach a user who may not be reading.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections: 256,
            handshake: seconds(10),
            attach: seconds(10),
            authenticate: seconds(10),
            idle: seconds(600),
            confirm: seconds(30),
            linger: seconds(5),
        }
    }
}

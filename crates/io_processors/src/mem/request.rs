//! What a driver asks and how it is answered, in the form of 5.15.6.

/// Bytes of a request (`struct virtio_mem_req`).
pub(super) const REQUEST: usize = 24;
/// Bytes of a response (`struct virtio_mem_resp`).
pub(super) const RESPONSE: usize = 10;

/// Some blocks, as the driver names them: not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Guest physical address of the first.
    pub(super) address: u64,
    /// How many.
    pub(super) blocks: u16,
}

/// What the driver wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// To use blocks.
    Plug(Extent),
    /// To give blocks back.
    Unplug(Extent),
    /// To give all back.
    UnplugAll,
    /// To know whether blocks are plugged.
    State(Extent),
    /// Nothing the standard knows.
    Unknown,
}

/// What it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// Done.
    Acknowledged,
    /// More than is requested at the moment.
    Refused,
    /// Not now; later perhaps.
    Busy,
    /// The request made no sense.
    Error,
    /// Answers to a state request: all plugged, none, some.
    Plugged,
    /// None is.
    Unplugged,
    /// Some are.
    Mixed,
}

impl Request {
    pub(super) fn parse(bytes: &[u8; REQUEST]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let address = (8..16).rev().fold(0, |word, at| word << 8 | u64::from(bytes[at]));
        let extent = Extent { address, blocks: half(16) };
        match half(0) {
            0 => Self::Plug(extent),
            1 => Self::Unplug(extent),
            2 => Self::UnplugAll,
            3 => Self::State(extent),
            _ => Self::Unknown,
        }
    }
}

impl Response {
    pub(super) fn bytes(self) -> [u8; RESPONSE] {
        let (kind, state) = match self {
            Self::Acknowledged | Self::Plugged => (0, 0),
            Self::Refused => (1, 0),
            Self::Busy => (2, 0),
            Self::Error => (3, 0),
            Self::Unplugged => (0, 1),
            Self::Mixed => (0, 2),
        };
        let mut bytes = [0; RESPONSE];
        (bytes[0], bytes[8]) = (kind, state);
        bytes
    }
}

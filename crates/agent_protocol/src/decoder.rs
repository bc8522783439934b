//! From bytes as they arrive to messages.

use crate::message::known_kind;
use crate::{HEADER_LEN, MAX_PAYLOAD, Message, ProtocolError, StreamId};

/// Puts frames together from pieces of the byte stream.
///
/// Holds at most one frame that is not whole yet, so at most
/// `HEADER_LEN + MAX_PAYLOAD` bytes. After an error it stays in error: there is
/// no telling where the next frame begins.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The frame that is being put together. Invariant: never longer than one
    /// frame, for bytes are taken only up to what its header asks for.
    held: Vec<u8>,
    broken: Option<ProtocolError>,
}

impl Decoder {
    /// A decoder at the start of a byte stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` up to the end of the first whole
    /// frame and returns its message; `None` when `input` is used up first.
    /// Call until it returns `None`.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] when the peer sent nonsense; every later call returns
    /// the same error and takes nothing.
    pub fn next(
        &mut self,
        input: &mut &[u8],
    ) -> Result<Option<(StreamId, Message)>, ProtocolError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.step(input).inspect_err(|error| {
            self.broken = Some(error.clone());
            self.held = Vec::new();
        })
    }

    /// Bytes of an unfinished frame that are held, at most
    /// `HEADER_LEN + MAX_PAYLOAD`.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<(StreamId, Message)>, ProtocolError> {
        let Some(header) = self.header(input)? else { return Ok(None) };
        let whole = HEADER_LEN + header.length;
        self.take(input, whole);
        if self.held.len() < whole {
            return Ok(None);
        }
        let message = Message::parse(header.stream, header.kind, &self.held[HEADER_LEN..])?;
        self.held.clear();
        Ok(Some((header.stream, message)))
    }

    /// The header of the frame in hand, checked, once all of it is here.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, ProtocolError> {
        self.take(input, HEADER_LEN);
        let Some(&[l0, l1, l2, l3, s0, s1, s2, s3, kind]) = self.held.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length as usize > MAX_PAYLOAD {
            return Err(ProtocolError::TooLong { length });
        }
        if !known_kind(kind) {
            return Err(ProtocolError::UnknownKind { kind });
        }
        let stream = u32::from_le_bytes([s0, s1, s2, s3]);
        Ok(Some(Header { length: length as usize, stream, kind }))
    }

    /// Moves bytes from `input` until `upto` are held or it is used up.
    fn take(&mut self, input: &mut &[u8], upto: usize) {
        let wanted = upto.saturating_sub(self.held.len()).min(input.len());
        let (taken, rest) = input.split_at(wanted);
        self.held.extend_from_slice(taken);
        *input = rest;
    }
}

struct Header {
    length: usize,
    stream: StreamId,
    kind: u8,
}

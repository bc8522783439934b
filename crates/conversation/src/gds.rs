//! GDS variables: a length LL, an identifier ID, data; and how long ones are
//! continued.
//!
//! LL is two bytes, counts itself and the ID, and its top bit says that
//! another segment follows. Only the first segment has an ID.

use thiserror::Error;

/// Top bit of LL: the variable goes on in the next segment.
pub(crate) const CONTINUED: u16 = 0x8000;

/// Data bytes that a first segment holds at most.
pub const MAX_FIRST_SEGMENT: usize = 32_763;

/// Identifier of a GDS variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GdsId(pub u16);

impl GdsId {
    /// A record of application data.
    pub const APPLICATION_DATA: Self = Self(0x12ff);
    /// A record of user-control data.
    pub const USER_CONTROL_DATA: Self = Self(0x12f2);
    /// Program initialisation parameters; contains subfields.
    pub const PIP: Self = Self(0x12f5);
    /// One program initialisation parameter.
    pub const PIP_SUBFIELD: Self = Self(0x12e2);
    /// Text for an error log, after an FMH-7.
    pub const ERROR_LOG: Self = Self(0x12e1);
}

/// Bytes that are no GDS variable. Who wrote them is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GdsError {
    /// An LL that no record can have: it does not even count itself (and the
    /// ID, where one must follow).
    #[error("length field {ll:#06x} of a record is not valid")]
    BadLength {
        /// The length field as it came.
        ll: u16,
    },
    /// Fewer bytes than LL says.
    #[error("a record ends before the length in its length field")]
    Truncated,
    /// A variable that has no business here.
    #[error("record with identifier {found:#06x} where it is not allowed")]
    WrongId {
        /// The identifier that came.
        found: u16,
    },
    /// More data than the reader is ready to hold.
    #[error("record of more than {limit} bytes")]
    TooLong {
        /// The limit, in bytes of data.
        limit: usize,
    },
}

/// `data` as one variable, in as many segments as it needs.
pub fn encode(id: GdsId, data: &[u8]) -> Vec<u8> {
    encode_segmented(id, data, MAX_FIRST_SEGMENT)
}

/// `data` as one variable whose segments hold at most `segment` bytes of it
/// each; `segment` is brought into 1 to [`MAX_FIRST_SEGMENT`].
pub fn encode_segmented(id: GdsId, data: &[u8], segment: usize) -> Vec<u8> {
    let segment = segment.clamp(1, MAX_FIRST_SEGMENT);
    let mut out = Vec::with_capacity(encoded_len(data.len()));
    let mut rest = data;
    let mut first = true;
    loop {
        let (now, later) = rest.split_at(rest.len().min(segment));
        let header = if first { 4 } else { 2 };
        // At most MAX_FIRST_SEGMENT + 4 = 0x7fff.
        let ll = (now.len() + header) as u16;
        let more = if later.is_empty() { 0 } else { CONTINUED };
        out.extend((ll | more).to_be_bytes());
        if first {
            out.extend(id.0.to_be_bytes());
        }
        out.extend(now);
        if later.is_empty() {
            return out;
        }
        rest = later;
        first = false;
    }
}

/// Bytes that [`encode`] makes of `data` bytes.
pub fn encoded_len(data: usize) -> usize {
    let more_segments = data.saturating_sub(1) / MAX_FIRST_SEGMENT;
    data + 4 + 2 * more_segments
}

/// Splits the first variable off `bytes`: its identifier, its data put
/// together (at most `limit` bytes of it), and what follows.
///
/// # Errors
/// [`GdsError`] if `bytes` do not begin with a whole variable that fits.
pub fn decode(bytes: &[u8], limit: usize) -> Result<(GdsId, Vec<u8>, &[u8]), GdsError> {
    let (ll, rest) = take_u16(bytes)?;
    let (id, mut rest) = take_u16(rest)?;
    let mut data = Vec::new();
    let (mut ll, mut header) = (ll, 4);
    loop {
        let length = usize::from(ll & !CONTINUED);
        let length = length.checked_sub(header).ok_or(GdsError::BadLength { ll })?;
        if header == 2 && length == 0 {
            return Err(GdsError::BadLength { ll });
        }
        let (segment, after) = rest.split_at_checked(length).ok_or(GdsError::Truncated)?;
        if data.len() + length > limit {
            return Err(GdsError::TooLong { limit });
        }
        data.extend(segment);
        rest = after;
        if ll & CONTINUED == 0 {
            return Ok((GdsId(id), data, rest));
        }
        (ll, rest) = take_u16(rest)?;
        header = 2;
    }
}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), GdsError> {
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(GdsError::Truncated)?;
    Ok((u16::from_be_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ten_bytes_in_three_segments() {
        let data = [0xdd; 10];
        let bytes = [
            0x80, 0x08, 0x12, 0xff, 0xdd, 0xdd, 0xdd, 0xdd, 0x80, 0x06, 0xdd, 0xdd, 0xdd, 0xdd,
            0x00, 0x04, 0xdd, 0xdd,
        ];
        assert_eq!(encode_segmented(GdsId::APPLICATION_DATA, &data, 4), bytes);
        let (id, decoded, rest) = decode(&bytes, 10).unwrap();
        assert_eq!((id, decoded.as_slice(), rest), (GdsId::APPLICATION_DATA, &data[..], &[][..]));
        assert_eq!(decode(&bytes, 9), Err(GdsError::TooLong { limit: 9 }));
    }

    #[test]
    fn lengths_that_no_record_has_are_refused() {
        for ll in [0x0000_u16, 0x0001, 0x8000, 0x8001, 0x0003, 0x8003] {
            let mut bytes = ll.to_be_bytes().to_vec();
            bytes.extend([0x12, 0xff, 0, 0]);
            assert_eq!(decode(&bytes, 100), Err(GdsError::BadLength { ll }));
        }
        assert_eq!(decode(&[0, 5, 0x12, 0xff], 100), Err(GdsError::Truncated));
        // A continuation that adds nothing could go on for ever.
        let endless = [0x80, 0x05, 0x12, 0xff, 1, 0x80, 0x02, 0x80, 0x02];
        assert_eq!(decode(&endless, 100), Err(GdsError::BadLength { ll: 0x8002 }));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            data in proptest::collection::vec(any::<u8>(), 0..70_000),
            segment in 1000_usize..40_000,
            tail in proptest::collection::vec(any::<u8>(), 0..5),
        ) {
            let mut bytes = encode_segmented(GdsId::PIP, &data, segment);
            bytes.extend(&tail);
            let (id, decoded, rest) = decode(&bytes, data.len()).unwrap();
            prop_assert_eq!(id, GdsId::PIP);
            prop_assert_eq!(decoded, data);
            prop_assert_eq!(rest, &tail);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Ok((_, data, _)) = decode(&bytes, 50) {
                prop_assert!(data.len() <= 50);
            }
        }
    }

    #[test]
    fn the_length_is_known_before_encoding() {
        for len in [0, 1, MAX_FIRST_SEGMENT, MAX_FIRST_SEGMENT + 1, 2 * MAX_FIRST_SEGMENT + 1] {
            assert_eq!(encode(GdsId::PIP, &vec![0; len]).len(), encoded_len(len));
        }
    }
}

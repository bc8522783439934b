//! FMH-7, the error description header: what SEND_ERROR, an abnormal end and
//! the refusal of an Attach look like on the wire.

use thiserror::Error;

use crate::gds::{self, GdsId};
use crate::sense::Sense;

/// Bytes of log data that an FMH-7 may bring along.
pub const MAX_LOG: usize = 512;

/// Bytes of an FMH-7 with its log at most.
pub(crate) const MAX_LEN: usize = HEADER + 4 + MAX_LOG;

const HEADER: usize = 7;
const KIND: u8 = 0x07;
const LOG_FOLLOWS: u8 = 0x80;

/// An error, as one side tells it the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fmh7 {
    /// What went wrong.
    pub sense: Sense,
    /// Text for the log of whoever reads it; empty for none. Bytes beyond
    /// [`MAX_LOG`] are not sent.
    pub log: Vec<u8>,
}

/// Bytes that are no FMH-7. The partner is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fmh7Error {
    /// Not the seven bytes an FMH-7 begins with.
    #[error("not an error description (FMH-7)")]
    NotFmh7,
    /// The log data are announced and malformed, or there and not announced.
    #[error("malformed log data in an error description (FMH-7)")]
    BadLog,
}

impl Fmh7 {
    /// An error without log data.
    pub fn new(sense: Sense) -> Self {
        Self { sense, log: Vec::new() }
    }

    /// The bytes of the header, and of its log data if there are any.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![HEADER as u8, KIND];
        out.extend(self.sense.number().to_be_bytes());
        out.push(if self.log.is_empty() { 0 } else { LOG_FOLLOWS });
        if !self.log.is_empty() {
            let log = &self.log[..self.log.len().min(MAX_LOG)];
            out.extend(gds::encode(GdsId::ERROR_LOG, log));
        }
        out
    }

    /// Reads a header and its log data; `bytes` are exactly these.
    ///
    /// # Errors
    /// [`Fmh7Error`] if they are not.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fmh7Error> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(Fmh7Error::NotFmh7)?;
        let [length, kind, s0, s1, s2, s3, flags] = *header;
        if usize::from(length) != HEADER || kind != KIND {
            return Err(Fmh7Error::NotFmh7);
        }
        let sense = Sense::from_number(u32::from_be_bytes([s0, s1, s2, s3]));
        if flags & LOG_FOLLOWS == 0 {
            return if rest.is_empty() { Ok(Self::new(sense)) } else { Err(Fmh7Error::BadLog) };
        }
        match gds::decode(rest, MAX_LOG) {
            Ok((GdsId::ERROR_LOG, log, [])) => Ok(Self { sense, log }),
            _ => Err(Fmh7Error::BadLog),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_is_seven_bytes() {
        let error = Fmh7::new(Sense::TPN_NOT_RECOGNIZED);
        assert_eq!(error.encode(), [0x07, 0x07, 0x10, 0x08, 0x60, 0x21, 0x00]);
        assert_eq!(Fmh7::decode(&error.encode()), Ok(error));
    }

    #[test]
    fn log_data_follow_as_a_gds_variable() {
        let error = Fmh7 { sense: Sense::ABEND_PROGRAM, log: vec![0xc1] };
        let bytes = [0x07, 0x07, 0x08, 0x64, 0, 0, 0x80, 0x00, 0x05, 0x12, 0xe1, 0xc1];
        assert_eq!(error.encode(), bytes);
        assert_eq!(Fmh7::decode(&bytes), Ok(error));
        let long = Fmh7 { sense: Sense::ABEND_PROGRAM, log: vec![1; 4000] };
        assert_eq!(long.encode().len(), MAX_LEN);
        assert_eq!(Fmh7::decode(&long.encode()).unwrap().log.len(), MAX_LOG);
    }

    #[test]
    fn other_headers_are_refused() {
        for bytes in [
            &[0x07, 0x05, 0, 0, 0, 0, 0][..],
            &[0x08, 0x07, 0, 0, 0, 0, 0, 0],
            &[0x07, 0x07, 0, 0, 0, 0],
        ] {
            assert_eq!(Fmh7::decode(bytes), Err(Fmh7Error::NotFmh7));
        }
        assert_eq!(Fmh7::decode(&[7, 7, 0, 0, 0, 0, 0, 1]), Err(Fmh7Error::BadLog));
        assert_eq!(Fmh7::decode(&[7, 7, 0, 0, 0, 0, 0x80, 0, 9, 0x12]), Err(Fmh7Error::BadLog));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..40),
            honest in any::<bool>(),
        ) {
            if honest && bytes.len() > 1 {
                bytes[..2].copy_from_slice(&[7, 7]);
            }
            if let Ok(error) = Fmh7::decode(&bytes) {
                prop_assert_eq!(Fmh7::decode(&error.encode()), Ok(error));
            }
        }
    }
}

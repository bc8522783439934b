//! Records on a byte stream.
//!
//! ```text
//! bytes 0-1  length of the record, itself included, big-endian: 6 to 16,390
//!       2    version, X'01'
//!       3-5  request/response header (RH), bits as in SNA
//!       6..  request/response unit
//! ```
//!
//! | record | RH | unit |
//! |---|---|---|
//! | [`Record::Attach`]: begin bracket, FM header | `0B 90 80` | FMH-5, PIP data |
//! | [`Record::Data`], more follows (RQE1) | `03 90 00` | bytes of logical records |
//! | … CONFIRM (RQD2) | `03 20 00` | the same |
//! | … turn (CD, RQE1) | `03 90 20` | the same |
//! | … turn and CONFIRM (CD, RQD2) | `03 20 20` | the same |
//! | … end (CEB, RQE1) | `03 90 01` | the same |
//! | … end and CONFIRM (CEB, RQD2) | `03 20 01` | the same |
//! | [`Record::Error`]: FM header (RQE1) | `0B 90 00` | FMH-7, log data |
//! | … that ends the conversation (CEB) | `0B 90 01` | the same |
//! | [`Record::NegativeResponse`], sense included | `8F 90 00` | FMH-7, log data |
//! | [`Record::PositiveResponse`] (DR2) | `83 20 00` | none |
//! | [`Record::Signal`]: DFC request | `4B 80 00` | `C9 0001 0001` |
//! | [`Record::Credit`]: isolated pacing response | `83 01 00` | bytes granted, 4 bytes |
//!
//! Each record is a chain of its own. Data records are cut where it suits;
//! logical records may span them. An error found by a receiver, which a
//! session would send as a negative response 0846 and later an FMH-7, is one
//! record here: the negative response with the FMH-7 in it.

use thiserror::Error;

use crate::fmh7;

/// Bytes of a record's unit at most.
pub const MAX_UNIT: usize = 16 * 1024;
/// Bytes in front of the unit.
pub const HEADER_LEN: usize = 6;
/// Version of this format.
pub const VERSION: u8 = 1;

const SIGNAL_UNIT: [u8; 5] = [0xc9, 0, 1, 0, 1];

/// What a data record asks for behind its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Nothing: more follows.
    Nothing,
    /// A response; the sender goes on sending.
    Confirm,
    /// The receiver may send now.
    Turn,
    /// A response, then the receiver may send.
    TurnConfirm,
    /// The conversation ends.
    End,
    /// A response, then the conversation ends.
    EndConfirm,
}

impl Ends {
    const ALL: [(Self, [u8; 3]); 6] = [
        (Self::Nothing, [0x03, 0x90, 0x00]),
        (Self::Confirm, [0x03, 0x20, 0x00]),
        (Self::Turn, [0x03, 0x90, 0x20]),
        (Self::TurnConfirm, [0x03, 0x20, 0x20]),
        (Self::End, [0x03, 0x90, 0x01]),
        (Self::EndConfirm, [0x03, 0x20, 0x01]),
    ];

    /// True if the receiver is to respond.
    pub fn asks_for_response(self) -> bool {
        matches!(self, Self::Confirm | Self::TurnConfirm | Self::EndConfirm)
    }

    fn header(self) -> [u8; 3] {
        match self {
            Self::Nothing => [0x03, 0x90, 0x00],
            Self::Confirm => [0x03, 0x20, 0x00],
            Self::Turn => [0x03, 0x90, 0x20],
            Self::TurnConfirm => [0x03, 0x20, 0x20],
            Self::End => [0x03, 0x90, 0x01],
            Self::EndConfirm => [0x03, 0x20, 0x01],
        }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// First record of a conversation.
    Attach(Vec<u8>),
    /// Bytes of logical records, and what follows them.
    Data {
        /// The bytes.
        unit: Vec<u8>,
        /// What follows them.
        ends: Ends,
    },
    /// An error in its place among the data; `last` if it ends the
    /// conversation, which either side may do at any time.
    Error {
        /// FMH-7 and log data.
        unit: Vec<u8>,
        /// Whether the conversation ends with it.
        last: bool,
    },
    /// An error from the receiving side, which thereby asks for the turn.
    NegativeResponse(Vec<u8>),
    /// Confirmed.
    PositiveResponse,
    /// The receiving side would like to send.
    Signal,
    /// The receiving side can take so many more bytes.
    Credit(u32),
}

/// Bytes that are no record. The partner is to blame; where the next record
/// begins is unknown, so the stream is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A length that no record has.
    #[error("record of {length} bytes; 6 to 16390 are possible")]
    Length {
        /// The length as it came.
        length: u16,
    },
    /// Another protocol, or another version of this one.
    #[error("record of version {version}; version 1 is spoken here")]
    Version {
        /// The version as it came.
        version: u8,
    },
    /// An RH that means nothing here, or one whose unit does not go with it.
    #[error("record with header {header:02X?} and a unit of {unit} bytes means nothing")]
    Meaningless {
        /// The RH.
        header: [u8; 3],
        /// The unit's length.
        unit: usize,
    },
}

const ATTACH: [u8; 3] = [0x0b, 0x90, 0x80];
const ERROR: [u8; 3] = [0x0b, 0x90, 0x00];
const LAST_ERROR: [u8; 3] = [0x0b, 0x90, 0x01];
const NEGATIVE: [u8; 3] = [0x8f, 0x90, 0x00];
const POSITIVE: [u8; 3] = [0x83, 0x20, 0x00];
const SIGNAL: [u8; 3] = [0x4b, 0x80, 0x00];
const CREDIT: [u8; 3] = [0x83, 0x01, 0x00];

impl Record {
    /// Appends the record's bytes to `out`. A unit is at most [`MAX_UNIT`]
    /// bytes; what is beyond it is not sent.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Attach(unit) => put(out, ATTACH, unit),
            Self::Data { unit, ends } => put(out, ends.header(), unit),
            Self::Error { unit, last: false } => put(out, ERROR, unit),
            Self::Error { unit, last: true } => put(out, LAST_ERROR, unit),
            Self::NegativeResponse(unit) => put(out, NEGATIVE, unit),
            Self::PositiveResponse => put(out, POSITIVE, &[]),
            Self::Signal => put(out, SIGNAL, &SIGNAL_UNIT),
            Self::Credit(bytes) => put(out, CREDIT, &bytes.to_be_bytes()),
        }
    }

    fn decode(header: [u8; 3], unit: &[u8]) -> Result<Self, FrameError> {
        let meaningless = FrameError::Meaningless { header, unit: unit.len() };
        let of_error = || {
            let fits = unit.len() <= fmh7::MAX_LEN;
            if fits { Ok(unit.to_vec()) } else { Err(meaningless) }
        };
        match header {
            ATTACH => Ok(Self::Attach(unit.to_vec())),
            ERROR | LAST_ERROR => Ok(Self::Error { unit: of_error()?, last: header == LAST_ERROR }),
            NEGATIVE => Ok(Self::NegativeResponse(of_error()?)),
            POSITIVE if unit.is_empty() => Ok(Self::PositiveResponse),
            SIGNAL if unit == SIGNAL_UNIT => Ok(Self::Signal),
            CREDIT => {
                let bytes = unit.try_into().map_err(|_| meaningless)?;
                Ok(Self::Credit(u32::from_be_bytes(bytes)))
            }
            _ => {
                let ends = Ends::ALL.iter().find(|(_, known)| *known == header);
                let &(ends, _) = ends.ok_or(meaningless)?;
                if ends == Ends::Nothing && unit.is_empty() {
                    return Err(meaningless);
                }
                Ok(Self::Data { unit: unit.to_vec(), ends })
            }
        }
    }
}

fn put(out: &mut Vec<u8>, header: [u8; 3], unit: &[u8]) {
    let unit = &unit[..unit.len().min(MAX_UNIT)];
    let length = (HEADER_LEN + unit.len()) as u16;
    out.extend(length.to_be_bytes());
    out.push(VERSION);
    out.extend(header);
    out.extend(unit);
}

/// Finds records in bytes as they arrive; holds at most one.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    /// Takes bytes from the front of `input` until a record is complete.
    /// `None`: all of `input` was taken and more is needed.
    ///
    /// # Errors
    /// [`FrameError`]; nothing sensible comes after it.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Record>, FrameError> {
        if !self.fill(input, HEADER_LEN) {
            // The first bytes already tell another protocol.
            self.check_start()?;
            return Ok(None);
        }
        let length = self.check_start()?;
        if !self.fill(input, length) {
            return Ok(None);
        }
        let record = match self.partial.split_first_chunk::<HEADER_LEN>() {
            Some((&[_, _, _, h0, h1, h2], unit)) => Record::decode([h0, h1, h2], unit)?,
            None => return Ok(None),
        };
        self.partial.clear();
        Ok(Some(record))
    }

    /// Bytes of an unfinished record.
    pub fn held(&self) -> usize {
        self.partial.len()
    }

    /// Length of the record, as far as its first bytes are there.
    fn check_start(&self) -> Result<usize, FrameError> {
        let &[l0, l1, ref rest @ ..] = self.partial.as_slice() else { return Ok(HEADER_LEN) };
        let length = u16::from_be_bytes([l0, l1]);
        if !(HEADER_LEN..=HEADER_LEN + MAX_UNIT).contains(&usize::from(length)) {
            return Err(FrameError::Length { length });
        }
        match rest.first() {
            Some(&version) if version != VERSION => Err(FrameError::Version { version }),
            _ => Ok(usize::from(length)),
        }
    }

    /// Moves bytes over until `length` of them are here; false if `input` ran
    /// out before.
    fn fill(&mut self, input: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.partial.len());
        let (now, later) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(now);
        *input = later;
        self.partial.len() >= length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = Record> {
        let unit = || proptest::collection::vec(any::<u8>(), 1..200);
        prop_oneof![
            unit().prop_map(Record::Attach),
            (unit(), proptest::sample::select(&Ends::ALL[..]))
                .prop_map(|(unit, (ends, _))| Record::Data { unit, ends }),
            (unit(), any::<bool>()).prop_map(|(unit, last)| Record::Error { unit, last }),
            unit().prop_map(Record::NegativeResponse),
            Just(Record::PositiveResponse),
            Just(Record::Signal),
            any::<u32>().prop_map(Record::Credit),
        ]
    }

    proptest! {
        #[test]
        fn records_survive_any_cuts(
            sent in proptest::collection::vec(records(), 0..10),
            cut in 1_usize..50,
        ) {
            let mut bytes = Vec::new();
            sent.iter().for_each(|record| record.encode(&mut bytes));
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            for mut piece in bytes.chunks(cut) {
                while let Some(record) = decoder.take(&mut piece).unwrap() {
                    received.push(record);
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn any_bytes_are_records_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..100),
            honest in any::<bool>(),
        ) {
            if honest && bytes.len() > 3 {
                bytes[..3].copy_from_slice(&[0, 20, 1]);
            }
            let mut decoder = Decoder::default();
            let mut rest = bytes.as_slice();
            while let Ok(Some(_)) = decoder.take(&mut rest) {}
            prop_assert!(decoder.held() <= HEADER_LEN + MAX_UNIT);
        }
    }

    #[test]
    fn a_request_of_another_protocol_is_refused_at_once() {
        let mut decoder = Decoder::default();
        let refused = decoder.take(&mut &b"GET"[..]).unwrap_err();
        assert_eq!(refused, FrameError::Length { length: 0x4745 });
        let refused = Decoder::default().take(&mut &[0, 9, 2][..]).unwrap_err();
        assert_eq!(refused, FrameError::Version { version: 2 });
    }

    #[test]
    fn the_format_is_what_the_table_says() {
        let mut out = Vec::new();
        Record::Signal.encode(&mut out);
        Record::Data { unit: vec![0xaa], ends: Ends::TurnConfirm }.encode(&mut out);
        Record::Credit(0x0102).encode(&mut out);
        let expected = [
            &[0, 11, 1, 0x4b, 0x80, 0, 0xc9, 0, 1, 0, 1][..],
            &[0, 7, 1, 0x03, 0x20, 0x20, 0xaa],
            &[0, 10, 1, 0x83, 0x01, 0, 0, 0, 1, 2],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn a_record_that_carries_nothing_and_ends_nothing_is_refused() {
        let mut decoder = Decoder::default();
        let refused = decoder.take(&mut &[0, 6, 1, 0x03, 0x90, 0][..]).unwrap_err();
        assert_eq!(refused, FrameError::Meaningless { header: [3, 0x90, 0], unit: 0 });
    }
}

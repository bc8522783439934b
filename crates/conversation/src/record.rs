//! Finds where logical records begin and end in a stream of bytes.

use crate::fmh5::ConversationType;
use crate::gds::{CONTINUED, GdsError, GdsId};

/// Where in its logical records a stream of bytes is. On a basic conversation
/// a record is LL and data; on a mapped one it is a GDS variable, of as many
/// segments as it has.
#[derive(Debug, Clone)]
pub(crate) struct RecordTracker {
    mapped: bool,
    /// Bytes of LL and ID that have been seen.
    header: [u8; 4],
    seen: usize,
    /// Data bytes to come in the segment whose header is complete.
    left: usize,
    /// The segment is not the last of its record.
    continued: bool,
    /// A segment of the record has been finished.
    later_segment: bool,
    id: GdsId,
}

/// What the next bytes of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// How many bytes this is about.
    pub(crate) length: usize,
    /// They are the program's (on a basic conversation LL is, too).
    pub(crate) is_data: bool,
    /// The record ends behind them.
    pub(crate) ends_record: bool,
}

impl RecordTracker {
    pub(crate) fn new(conversation_type: ConversationType) -> Self {
        Self {
            mapped: conversation_type == ConversationType::Mapped,
            header: [0; 4],
            seen: 0,
            left: 0,
            continued: false,
            later_segment: false,
            id: GdsId::APPLICATION_DATA,
        }
    }

    /// Forgets an unfinished record: what comes next is a new one.
    pub(crate) fn reset(&mut self) {
        self.seen = 0;
        self.left = 0;
        self.continued = false;
        self.later_segment = false;
    }

    /// True between two records.
    pub(crate) fn at_boundary(&self) -> bool {
        self.seen == 0 && !self.later_segment
    }

    /// Identifier of the record that was entered last.
    pub(crate) fn id(&self) -> GdsId {
        self.id
    }

    /// Goes over all of `bytes`.
    pub(crate) fn advance(&mut self, mut bytes: &[u8]) -> Result<(), GdsError> {
        while !bytes.is_empty() {
            let piece = self.step(bytes)?;
            bytes = &bytes[piece.length..];
        }
        Ok(())
    }

    /// Goes over the first piece of `bytes`, which are not empty.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Piece, GdsError> {
        let header_len = if self.mapped && !self.later_segment { 4 } else { 2 };
        if self.seen < header_len {
            let length = (header_len - self.seen).min(bytes.len());
            self.header[self.seen..self.seen + length].copy_from_slice(&bytes[..length]);
            self.seen += length;
            if self.seen == header_len {
                self.enter(header_len)?;
            }
            let ends_record = self.seen == header_len && self.left == 0 && self.finish_segment();
            return Ok(Piece { length, is_data: !self.mapped, ends_record });
        }
        let length = self.left.min(bytes.len());
        self.left -= length;
        let ends_record = self.left == 0 && self.finish_segment();
        Ok(Piece { length, is_data: true, ends_record })
    }

    /// Reads a complete header.
    fn enter(&mut self, header_len: usize) -> Result<(), GdsError> {
        let [l0, l1, i0, i1] = self.header;
        let ll = u16::from_be_bytes([l0, l1]);
        let bad = GdsError::BadLength { ll };
        self.left = usize::from(ll & !CONTINUED).checked_sub(header_len).ok_or(bad)?;
        // On a basic conversation the programs may use the bit as they like.
        self.continued = self.mapped && ll & CONTINUED != 0;
        if self.later_segment && self.left == 0 {
            return Err(bad);
        }
        if self.mapped && !self.later_segment {
            self.id = GdsId(u16::from_be_bytes([i0, i1]));
            if self.id != GdsId::APPLICATION_DATA && self.id != GdsId::USER_CONTROL_DATA {
                return Err(GdsError::WrongId { found: self.id.0 });
            }
        }
        Ok(())
    }

    /// Leaves a segment; true if the record ends with it.
    fn finish_segment(&mut self) -> bool {
        self.seen = 0;
        self.later_segment = self.continued;
        !self.continued
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gds;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn data_come_out_as_they_went_in_however_they_are_cut(
            records in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..50), 0..6),
            segment in 1_usize..60,
            cut in 1_usize..20,
        ) {
            let mut bytes = Vec::new();
            for record in &records {
                bytes.extend(gds::encode_segmented(GdsId::APPLICATION_DATA, record, segment));
            }
            let mut tracker = RecordTracker::new(ConversationType::Mapped);
            let (mut found, mut now) = (Vec::new(), Vec::<u8>::new());
            for mut part in bytes.chunks(cut) {
                while !part.is_empty() {
                    let piece = tracker.step(part).unwrap();
                    let (head, rest) = part.split_at(piece.length);
                    if piece.is_data {
                        now.extend(head);
                    }
                    if piece.ends_record {
                        found.push(std::mem::take(&mut now));
                        prop_assert!(tracker.at_boundary());
                    }
                    part = rest;
                }
            }
            prop_assert_eq!(found, records);
        }
    }

    #[test]
    fn basic_records_are_ll_and_data() {
        let mut tracker = RecordTracker::new(ConversationType::Basic);
        tracker.advance(&[0, 2, 0x80, 3, 9]).unwrap();
        assert!(tracker.at_boundary());
        tracker.advance(&[0]).unwrap();
        assert!(!tracker.at_boundary());
        for ll in [[0, 0], [0, 1], [0x80, 0], [0x80, 1]] {
            let refused = RecordTracker::new(ConversationType::Basic).advance(&ll).unwrap_err();
            assert_eq!(refused, GdsError::BadLength { ll: u16::from_be_bytes(ll) });
        }
    }

    #[test]
    fn a_mapped_record_is_application_or_user_control_data() {
        let mut tracker = RecordTracker::new(ConversationType::Mapped);
        tracker.advance(&[0, 4, 0x12, 0xf2]).unwrap();
        assert_eq!(tracker.id(), GdsId::USER_CONTROL_DATA);
        let refused = tracker.advance(&[0, 4, 0x12, 0xf5]).unwrap_err();
        assert_eq!(refused, GdsError::WrongId { found: 0x12f5 });
    }
}

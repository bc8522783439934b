//! From bytes as they arrive to records.

use super::{FrameError, HEADER_LEN, MAX_UNIT, Record, VERSION};

/// Finds records in bytes as they arrive; holds at most one.
#[derive(Debug, Default, Clone)]
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

//! Flow control of one direction of one command's stream.

use std::fmt;

use crate::INITIAL_CREDIT;

/// The peer did not keep to the credit it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditError {
    /// More bytes arrived than the receiver had room for.
    Overrun,
    /// More credit was given back than had been spent.
    Overflow,
}

impl fmt::Display for CreditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overrun => "the peer sent more data than it had credit for",
            Self::Overflow => "the peer gave back more credit than was spent",
        })
    }
}

impl std::error::Error for CreditError {}

/// The sender's half: how many bytes it may still send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendWindow {
    /// Invariant: never above `INITIAL_CREDIT`.
    available: u32,
}

impl Default for SendWindow {
    fn default() -> Self {
        Self { available: INITIAL_CREDIT }
    }
}

impl SendWindow {
    /// A full window.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that may be sent now, 0 to [`INITIAL_CREDIT`].
    #[must_use]
    pub fn available(&self) -> usize {
        self.available as usize
    }

    /// Spends credit for up to `wanted` bytes and returns for how many, at
    /// most [`available`](Self::available).
    pub fn spend(&mut self, wanted: usize) -> usize {
        let spent = wanted.min(self.available());
        // Not above `available`, which is a u32.
        self.available -= spent as u32;
        spent
    }

    /// Takes credit that the receiver gave back.
    ///
    /// # Errors
    ///
    /// [`CreditError::Overflow`] if it was never spent; the window is full
    /// then.
    pub fn refill(&mut self, bytes: u32) -> Result<(), CreditError> {
        match self.available.checked_add(bytes).filter(|sum| *sum <= INITIAL_CREDIT) {
            Some(sum) => {
                self.available = sum;
                Ok(())
            }
            None => {
                self.available = INITIAL_CREDIT;
                Err(CreditError::Overflow)
            }
        }
    }
}

/// The receiver's half: how many bytes may still arrive, and how much credit
/// is worth giving back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveWindow {
    /// Bytes that the peer may still send. Invariant: with the bytes that
    /// arrived and are not consumed, and `owed`, always `INITIAL_CREDIT`.
    open: u32,
    /// Bytes consumed for which no credit has been given back yet.
    owed: u32,
}

impl Default for ReceiveWindow {
    fn default() -> Self {
        Self { open: INITIAL_CREDIT, owed: 0 }
    }
}

impl ReceiveWindow {
    /// An empty receiver with all of its window open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `bytes` that arrived.
    ///
    /// # Errors
    ///
    /// [`CreditError::Overrun`] if the window was not open that far.
    pub fn arrived(&mut self, bytes: usize) -> Result<(), CreditError> {
        let bytes = u32::try_from(bytes).map_err(|_| CreditError::Overrun)?;
        self.open = self.open.checked_sub(bytes).ok_or(CreditError::Overrun)?;
        Ok(())
    }

    /// Counts `bytes` that the user consumed and returns the credit to give
    /// back now, if any: it is saved up to a quarter of the window, so that
    /// small reads do not each cost a frame.
    pub fn consumed(&mut self, bytes: usize) -> Option<u32> {
        let held = INITIAL_CREDIT - self.open - self.owed;
        self.owed += u32::try_from(bytes).map_or(held, |bytes| bytes.min(held));
        if self.owed < INITIAL_CREDIT / 4 {
            return None;
        }
        self.open += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}

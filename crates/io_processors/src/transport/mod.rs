//! virtio over memory-mapped registers, version 2 (4.2): pure state, no thread.

mod registers;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "test-utils"))]
pub(crate) use registers::status;
pub(crate) use registers::{
    Activation, Effect, Identity, QueueLayout, Registers, RegistersState, offset,
};

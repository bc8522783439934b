//! The host's end of the agent channel: a byte stream with a session per time
//! that the guest has the port open.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::queue;
use crate::device::Waker;

/// Bytes that wait in each direction before the writing side waits. From the
/// guest, one buffer of it more.
const LIMIT: usize = 256 * 1024;
/// Bytes handed to the guest at once.
pub(super) const PIECE: u64 = 64 * 1024;

/// The device's side.
#[derive(Default)]
pub(super) struct Pipe(Arc<Inner>);

/// The host's end of an agent channel. Clones are the same end. Reading and
/// writing from different threads is meant; from one thread of each kind.
#[derive(Clone)]
pub struct ChannelEnd(Arc<Inner>);

/// Whether anybody is at the guest's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelState {
    /// Nobody has the port open.
    Closed,
    /// A program has the port open, for the `session`th time.
    Open {
        /// Counts from 1.
        session: u64,
        /// The program had it open when the machine was captured: it does not
        /// know that this is another session, and says nothing first.
        resumed: bool,
    },
    /// The device is gone, or the host hung up: nobody will come.
    Gone,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Anything below changed for the host.
    changed: Condvar,
    waker: OnceLock<Waker>,
}

#[derive(Default)]
struct State {
    for_guest: VecDeque<u8>,
    for_host: VecDeque<u8>,
    open: bool,
    resumed: bool,
    session: u64,
    /// Bytes that the host has read, ever.
    read: u64,
    /// The reader has yet to be told that a session ended.
    end_due: bool,
    gone: bool,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, index: usize) {
        if let Some(waker) = self.waker.get() {
            waker.wake(index);
        }
    }

    /// Waits for a change; an error when `deadline` has passed.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> io::Result<MutexGuard<'a, State>> {
        let Some(deadline) = deadline else {
            return Ok(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let waited = self.changed.wait_timeout(state, left);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Pipe {
    pub(super) fn end(&self) -> ChannelEnd {
        ChannelEnd(Arc::clone(&self.0))
    }

    pub(super) fn attach(&self, waker: Waker) {
        // A device is attached once; a second waker would be the same.
        let _ = self.0.waker.set(waker);
    }

    /// Bytes are handed over only while the port is open: a guest drops what
    /// comes for a closed one.
    pub(super) fn has_bytes_for_guest(&self) -> bool {
        let state = self.0.state();
        state.open && !state.for_guest.is_empty()
    }

    pub(super) fn take_for_guest(&self, most: usize) -> Vec<u8> {
        let mut state = self.0.state();
        let count = most.min(state.for_guest.len());
        let bytes = state.for_guest.drain(..count).collect();
        self.0.changed.notify_all();
        bytes
    }

    pub(super) fn has_room_for_host(&self) -> bool {
        let state = self.0.state();
        state.gone || state.for_host.len() < LIMIT
    }

    pub(super) fn put_for_host(&self, bytes: &[u8]) {
        let mut state = self.0.state();
        // Nobody reads any more: the guest must not wait for that.
        if !state.gone {
            state.for_host.extend(bytes);
            self.0.changed.notify_all();
        }
    }

    /// A program in the guest opened or closed the port.
    pub(super) fn set_open(&self, open: bool) {
        self.change(open, false);
    }

    fn change(&self, open: bool, resumed: bool) {
        let mut state = self.0.state();
        if state.open == open {
            return;
        }
        state.open = open;
        state.resumed = resumed;
        if open {
            state.session += 1;
            // What an earlier session left unread is not this one's.
            if state.end_due {
                state.for_host.clear();
            }
        } else {
            state.end_due = true;
            state.for_guest.clear();
        }
        self.0.changed.notify_all();
    }

    /// Whether the port is open; `None` while bytes are on their way.
    pub(super) fn at_rest(&self) -> Option<bool> {
        let state = self.0.state();
        (state.for_guest.is_empty() && state.for_host.is_empty()).then_some(state.open)
    }

    /// A program has the port open already, in a session that is new to the host.
    pub(super) fn resume(&self) {
        self.change(true, true);
    }

    pub(super) fn close(&self) {
        self.set_open(false);
        self.0.state().gone = true;
        self.0.changed.notify_all();
    }
}

impl ChannelEnd {
    /// Whether anybody is at the guest's end.
    #[must_use]
    pub fn state(&self) -> ChannelState {
        let state = self.0.state();
        match (state.gone, state.open) {
            (true, _) => ChannelState::Gone,
            (false, true) => ChannelState::Open { session: state.session, resumed: state.resumed },
            (false, false) => ChannelState::Closed,
        }
    }

    /// How many bytes were ever read at this end; `None` while any wait here,
    /// in either direction. What the guest was handed is in its storage.
    #[must_use]
    pub fn at_rest(&self) -> Option<u64> {
        let state = self.0.state();
        (state.for_guest.is_empty() && state.for_host.is_empty()).then_some(state.read)
    }

    /// Waits until the guest has the port open, or until `deadline`, or until
    /// it can never be; returns the state then.
    #[must_use]
    pub fn wait_open(&self, deadline: Instant) -> ChannelState {
        let mut state = self.0.state();
        while !state.open && !state.gone {
            match self.0.wait(state, Some(deadline)) {
                Ok(next) => state = next,
                Err(_) => return self.state(),
            }
        }
        drop(state);
        self.state()
    }

    /// Reads what the guest sent, waiting for it until `deadline` if there is
    /// one. `Ok(0)` ends a session, and is what a closed channel reads as.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`].
    pub fn read_until(&self, buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<usize> {
        let mut state = self.0.state();
        loop {
            let ended = state.end_due && (state.open || state.for_host.is_empty());
            if ended || buffer.is_empty() {
                state.end_due &= buffer.is_empty();
                return Ok(0);
            }
            if !state.for_host.is_empty() {
                break;
            }
            if !state.open || state.gone {
                return Ok(0);
            }
            state = self.0.wait(state, deadline)?;
        }
        let was_full = state.for_host.len() >= LIMIT;
        let count = buffer.len().min(state.for_host.len());
        for (target, byte) in buffer.iter_mut().zip(state.for_host.drain(..count)) {
            *target = byte;
        }
        let has_room = state.for_host.len() < LIMIT;
        state.read += count as u64;
        drop(state);
        if was_full && has_room {
            self.0.wake(queue::TRANSMIT);
        }
        Ok(count)
    }

    /// Sends bytes to the guest, at least one, waiting for room until
    /// `deadline` if there is one; returns how many were taken.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] while the guest does not have the port
    /// open, [`io::ErrorKind::BrokenPipe`] when it never will, and
    /// [`io::ErrorKind::TimedOut`].
    pub fn write_until(&self, bytes: &[u8], deadline: Option<Instant>) -> io::Result<usize> {
        let session = self.0.state().session;
        self.write_in(session, bytes, deadline)
    }

    /// The same for what belongs to one session: nothing of it reaches the
    /// guest in another, also if that begins while there is no room.
    ///
    /// # Errors
    /// As [`ChannelEnd::write_until`]; [`io::ErrorKind::NotConnected`] also when
    /// the session is another.
    pub fn write_in(
        &self,
        session: u64,
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> io::Result<usize> {
        let mut state = self.0.state();
        loop {
            if state.gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if !state.open || state.session != session {
                return Err(io::ErrorKind::NotConnected.into());
            }
            if state.for_guest.len() < LIMIT || bytes.is_empty() {
                break;
            }
            state = self.0.wait(state, deadline)?;
        }
        let count = bytes.len().min(LIMIT - state.for_guest.len());
        state.for_guest.extend(&bytes[..count]);
        drop(state);
        self.0.wake(queue::RECEIVE);
        Ok(count)
    }

    /// Ends the channel from the host's side, for good: whoever waits in a
    /// read or a write returns, and what the guest sends is dropped.
    pub fn hang_up(&self) {
        let mut state = self.0.state();
        state.gone = true;
        state.for_guest.clear();
        drop(state);
        self.0.changed.notify_all();
        self.0.wake(queue::TRANSMIT);
    }
}

impl io::Read for ChannelEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_until(buffer, None)
    }
}

impl io::Write for ChannelEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_until(bytes, None)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! The host's end of a console: what was said, who listens, who types.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::RECEIVE;
use crate::device::Waker;

/// Bytes of the guest's last output that are kept.
const TAIL: usize = 64 * 1024;
/// Bytes of output that wait for a client before it loses some.
const CLIENT: usize = 64 * 1024;
/// Bytes of input that wait for the guest.
const INPUT: usize = 16 * 1024;
/// Clients at once; the one after them displaces the first.
const CLIENTS: usize = 32;

/// The device's side of a console's ends.
#[derive(Default)]
pub(super) struct Hub(Arc<Inner>);

/// The host's end of a console. Clones are the same end.
#[derive(Clone)]
pub struct ConsoleEnd(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Input has room, or the console was closed.
    room: Condvar,
    waker: OnceLock<Waker>,
}

#[derive(Default)]
struct State {
    tail: VecDeque<u8>,
    clients: VecDeque<Weak<Mailbox>>,
    input: VecDeque<u8>,
    closed: bool,
}

/// One attached client: gets the guest's output from the moment it attached.
/// Dropping it detaches.
pub struct ConsoleClient(Arc<Mailbox>);

#[derive(Default)]
struct Mailbox {
    state: Mutex<Mail>,
    arrived: Condvar,
}

#[derive(Default)]
struct Mail {
    output: VecDeque<u8>,
    lost: u64,
    closed: bool,
}

/// What a client's read came back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientRead {
    /// Output, at least one byte. Where some was lost, a note is in its place.
    Output(Vec<u8>),
    /// Nothing was said in time.
    Quiet,
    /// The console is gone, and everything it said was read.
    Closed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Keeps `bytes` as the guest's last words and passes them on. Never waits.
    fn output(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        append_last(&mut state.tail, bytes, TAIL);
        state.clients.retain(|client| match client.upgrade() {
            Some(mailbox) => {
                mailbox.deliver(bytes);
                true
            }
            None => false,
        });
    }
}

impl Hub {
    pub(super) fn end(&self) -> ConsoleEnd {
        ConsoleEnd(Arc::clone(&self.0))
    }

    pub(super) fn attach(&self, waker: Waker) {
        // A device is attached once; a second waker would be the same.
        let _ = self.0.waker.set(waker);
    }

    pub(super) fn has_input(&self) -> bool {
        !lock(&self.0.state).input.is_empty()
    }

    pub(super) fn take_input(&self, most: usize) -> Vec<u8> {
        let mut state = lock(&self.0.state);
        let count = most.min(state.input.len());
        let bytes = state.input.drain(..count).collect();
        self.0.room.notify_all();
        bytes
    }

    pub(super) fn output(&self, bytes: &[u8]) {
        self.0.output(bytes);
    }

    /// Forgets what was said and typed, and lets go of those who listen.
    pub(super) fn forget(&self) {
        let mut state = lock(&self.0.state);
        state.tail.clear();
        state.input.clear();
        for mailbox in state.clients.drain(..).filter_map(|client| client.upgrade()) {
            mailbox.close();
        }
        self.0.room.notify_all();
    }

    pub(super) fn close(&self) {
        let mut state = lock(&self.0.state);
        state.closed = true;
        for mailbox in state.clients.drain(..).filter_map(|client| client.upgrade()) {
            mailbox.close();
        }
        self.0.room.notify_all();
    }
}

/// Appends `bytes`, dropping the oldest so that at most `most` stay.
fn append_last(buffer: &mut VecDeque<u8>, bytes: &[u8], most: usize) {
    let bytes = &bytes[bytes.len().saturating_sub(most)..];
    let excess = (buffer.len() + bytes.len()).saturating_sub(most);
    buffer.drain(..excess);
    buffer.extend(bytes);
}

impl ConsoleEnd {
    /// The guest's last output, at most 64 KiB.
    #[must_use]
    pub fn tail(&self) -> Vec<u8> {
        lock(&self.0.state).tail.iter().copied().collect()
    }

    /// Attaches a client. With `replay` it first gets what
    /// [`tail`](Self::tail) has.
    #[must_use]
    pub fn attach(&self, replay: bool) -> ConsoleClient {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = lock(&self.0.state);
        if replay {
            lock(&mailbox.state).output.extend(&state.tail);
        }
        if state.closed {
            mailbox.close();
        } else {
            state.clients.retain(|client| client.strong_count() > 0);
            if state.clients.len() == CLIENTS {
                let first = state.clients.pop_front().and_then(|client| client.upgrade());
                if let Some(first) = first {
                    first.close();
                }
            }
            state.clients.push_back(Arc::downgrade(&mailbox));
        }
        ConsoleClient(mailbox)
    }

    /// Adds `bytes` to what the guest said: output that reaches the host by
    /// another way than the console's queues, such as the firmware's debug
    /// console. Never waits.
    pub fn print(&self, bytes: &[u8]) {
        self.0.output(bytes);
    }

    /// Types `bytes`; returns how many were taken, fewer than all if the guest
    /// does not read them fast enough. Does not wait.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut state = lock(&self.0.state);
        if state.closed {
            return 0;
        }
        let count = bytes.len().min(INPUT - state.input.len());
        state.input.extend(&bytes[..count]);
        drop(state);
        if let Some(waker) = self.0.waker.get() {
            waker.wake(RECEIVE);
        }
        count
    }

    /// Types `bytes`, waiting for room until `deadline`; returns how many were
    /// taken.
    pub fn input_until(&self, bytes: &[u8], deadline: Instant) -> usize {
        let mut done = 0;
        loop {
            done += self.input(&bytes[done..]);
            let mut state = lock(&self.0.state);
            while done < bytes.len() && state.input.len() == INPUT && !state.closed {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return done;
                }
                let waited = self.0.room.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if done == bytes.len() || state.closed {
                return done;
            }
        }
    }
}

impl Mailbox {
    fn deliver(&self, bytes: &[u8]) {
        let mut mail = lock(&self.state);
        // Once it has lost something, a client gets no more before it has read
        // what it has: the note then stands exactly where the gap is.
        let room = if mail.lost > 0 { 0 } else { CLIENT.saturating_sub(mail.output.len()) };
        let count = bytes.len().min(room);
        mail.output.extend(&bytes[..count]);
        mail.lost += (bytes.len() - count) as u64;
        self.arrived.notify_all();
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.arrived.notify_all();
    }
}

impl ConsoleClient {
    /// Reads what the guest said, waiting for it at most `timeout`.
    #[must_use]
    pub fn read(&self, timeout: Duration) -> ClientRead {
        let deadline = Instant::now().checked_add(timeout);
        let mut mail = lock(&self.0.state);
        while mail.output.is_empty() && mail.lost == 0 && !mail.closed {
            let left = deadline
                .map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return ClientRead::Quiet;
            }
            let waited = self.0.arrived.wait_timeout(mail, left);
            mail = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut output: Vec<u8> = mail.output.drain(..).collect();
        let lost = std::mem::take(&mut mail.lost);
        if lost > 0 {
            let note =
                format!("\r\n[{lost} bytes of output lost: this client reads too slowly]\r\n");
            output.extend(note.bytes());
        }
        if output.is_empty() { ClientRead::Closed } else { ClientRead::Output(output) }
    }
}

//! A machine's end: requests go to whatever session the host has connected it to.

use std::collections::{HashSet, VecDeque};
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::wire::{MAX_IN_FLIGHT, Reply, Request};

/// How long a request waits for a session when there is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of a request: its tag, and the reply; `None` if there will be none.
pub type OnReply = Box<dyn Fn(u64, Option<Vec<u8>>) + Send + Sync>;

/// A machine's way to the file manager: what it is joined to. A thread of its own
/// waits until requests are sent. Dropped, it ends.
pub struct Client(Arc<Inner>);

/// Sends a client's requests.
#[derive(Clone)]
pub struct Sender(Weak<Inner>);

impl Sender {
    /// Sends a request; it is answered by a call of `on_reply`, unless the machine
    /// is disconnected before. Never waits.
    pub fn send(&self, request: Request) {
        let Some(inner) = self.0.upgrade() else { return };
        let tag = request.tag;
        let mut state = inner.state();
        if state.waiting.len() + state.sent.len() < MAX_IN_FLIGHT {
            state.waiting.push_back((Instant::now(), request));
            inner.changed.notify_all();
            return;
        }
        drop(state);
        (inner.on_reply)(tag, None);
    }
}

struct Inner {
    state: Mutex<State>,
    /// There is a request, a session, or the end.
    changed: Condvar,
    on_reply: OnReply,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Instant, Request)>,
    connection: Option<UnixStream>,
    /// Counts connections: what comes from an earlier one is of no interest.
    number: u64,
    /// Sent over this connection and not answered.
    sent: HashSet<u64>,
    over: bool,
}

impl Client {
    /// A client without a session; `on_reply` is called from its threads.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(on_reply: OnReply) -> io::Result<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let inner = Arc::new(Inner { state, changed, on_reply });
        let its = Arc::clone(&inner);
        std::thread::Builder::new().name("files-send".to_owned()).spawn(move || its.send_all())?;
        Ok(Self(inner))
    }

    /// A way to send requests, for as long as the client lives.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender(Arc::downgrade(&self.0))
    }

    /// Has another session from now on. What an earlier one has not answered fails.
    ///
    /// # Errors
    /// When there is no thread to be had; there is no session then.
    pub fn connect(&self, stream: UnixStream) -> io::Result<()> {
        let replies = stream.try_clone()?;
        let mut state = self.0.state();
        let lost = state.hang_up();
        state.connection = Some(stream);
        let number = state.number;
        drop(state);
        self.0.changed.notify_all();
        self.0.fail(lost);
        let its = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("files-hear".to_owned());
        let spawned = thread.spawn(move || its.hear_all(number, replies));
        spawned.map(drop).inspect_err(|_| self.disconnect())
    }

    /// Has no session any more; requests that are not answered never will be.
    pub fn disconnect(&self) {
        let mut state = self.0.state();
        state.hang_up();
        state.waiting.clear();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
        self.0.state().over = true;
        self.0.changed.notify_all();
    }
}

impl State {
    /// Ends the connection; returns the requests it has not answered.
    fn hang_up(&mut self) -> HashSet<u64> {
        if let Some(stream) = self.connection.take() {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.number += 1;
        std::mem::take(&mut self.sent)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, tags: HashSet<u64>) {
        tags.into_iter().for_each(|tag| (self.on_reply)(tag, None));
    }

    /// Sends request after request, each over the session there is then.
    fn send_all(&self) {
        while let Some(next) = self.next() {
            match next {
                Next::Send(mut stream, number, request) => {
                    if request.write(&mut stream).is_err() {
                        self.lost(number);
                    }
                }
                Next::Fail(tag) => (self.on_reply)(tag, None),
            }
        }
    }

    /// Waits for what is next; `None` at the end.
    fn next(&self) -> Option<Next> {
        let mut state = self.state();
        loop {
            if state.over {
                return None;
            }
            let Some((since, _)) = state.waiting.front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = PATIENCE.saturating_sub(since.elapsed());
            let stream = state.connection.as_ref().map(UnixStream::try_clone);
            if left.is_zero() || matches!(stream, Some(Err(_))) {
                return state.waiting.pop_front().map(|(_, request)| Next::Fail(request.tag));
            }
            if let Some(Ok(stream)) = stream {
                let (_, request) = state.waiting.pop_front()?;
                state.sent.insert(request.tag);
                return Some(Next::Send(stream, state.number, request));
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Hears reply after reply of one connection.
    fn hear_all(&self, number: u64, stream: UnixStream) {
        let mut replies = BufReader::new(stream);
        while let Ok(Some(Reply { tag, bytes })) = Reply::read(&mut replies) {
            let mut state = self.state();
            let asked = state.number == number && state.sent.remove(&tag);
            drop(state);
            if !asked {
                break;
            }
            (self.on_reply)(tag, Some(bytes));
        }
        self.lost(number);
    }

    /// A connection has ended by itself.
    fn lost(&self, number: u64) {
        let mut state = self.state();
        if state.number == number {
            let lost = state.hang_up();
            drop(state);
            self.fail(lost);
        }
    }
}

enum Next {
    Send(UnixStream, u64, Request),
    Fail(u64),
}

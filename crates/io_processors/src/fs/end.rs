//! The host's end of a file system device.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::Waker;

/// A request that the guest has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsRequest {
    /// Names it; no other request of the device has the same.
    pub number: u64,
    /// The FUSE request.
    pub bytes: Vec<u8>,
    /// Bytes that the reply may have.
    pub room: u32,
}

/// Who serves requests. It must not wait.
type Serve = dyn Fn(FsRequest) + Send + Sync;

/// The device's side.
#[derive(Default)]
pub(super) struct Desk(Arc<Inner>);

/// The host's end of a file system device. Clones are the same end.
#[derive(Clone)]
pub struct FsEnd(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
}

#[derive(Default)]
// Invariant: a request is in one of both, or done; so there are no more replies than
// the device has requests in hand.
struct State {
    /// Requests without a reply, and their queues.
    open: HashMap<u64, usize>,
    replies: VecDeque<(usize, u64, Option<Vec<u8>>)>,
    serve: Option<Arc<Serve>>,
    waker: Option<Waker>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, number: u64, reply: Option<Vec<u8>>) {
        let mut state = self.state();
        let Some(queue) = state.open.remove(&number) else { return };
        state.replies.push_back((queue, number, reply));
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake(queue);
        }
    }
}

impl Desk {
    pub(super) fn end(&self) -> FsEnd {
        FsEnd(Arc::clone(&self.0))
    }

    pub(super) fn attach(&self, waker: Waker) {
        self.0.state().waker = Some(waker);
    }

    /// Hands a request over; without anybody who serves, it fails.
    pub(super) fn hand_over(&self, queue: usize, request: FsRequest) {
        let mut state = self.0.state();
        state.open.insert(request.number, queue);
        let serve = state.serve.clone();
        drop(state);
        match serve {
            Some(serve) => serve(request),
            None => self.0.reply(request.number, None),
        }
    }

    /// The replies there are for a queue.
    pub(super) fn take(&self, queue: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut state = self.0.state();
        let all = std::mem::take(&mut state.replies);
        let (its, others) = all.into_iter().partition::<VecDeque<_>, _>(|(of, ..)| *of == queue);
        state.replies = others;
        its.into_iter().map(|(_, number, reply)| (number, reply)).collect()
    }

    /// Nobody waits for a reply any more.
    pub(super) fn clear(&self) {
        let mut state = self.0.state();
        state.open.clear();
        state.replies.clear();
    }

    /// The device is gone: whoever serves it is let go.
    pub(super) fn close(&self) {
        self.clear();
        self.0.state().serve = None;
    }
}

impl FsEnd {
    /// Has all requests from now on served by `serve`, which is called from the
    /// device's thread and must not wait: it has them [`reply`](Self::reply)ed to.
    pub fn serve(&self, serve: impl Fn(FsRequest) + Send + Sync + 'static) {
        self.0.state().serve = Some(Arc::new(serve));
    }

    /// Replies to a request, from any thread; with nothing if there is no reply to
    /// it, with `None` if it failed. A reply that nobody waits for, or another one,
    /// is dropped.
    pub fn reply(&self, number: u64, reply: Option<Vec<u8>>) {
        self.0.reply(number, reply);
    }
}

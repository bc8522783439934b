//! The worker's end of the guest agent: many clients, one channel.
//!
//! A stream is a client's command ([`session`]), a user's conversation
//! ([`conversation`]), a service of the guest's ([`service`]) or a connection of one
//! of its programs to a database ([`database`]). [`pool`] is what else makes the guest a machine of a pool.
//!
//! Each client talks in frames on a stream of its own connection; here the
//! stream numbers are exchanged and the credit of both sides is checked, so
//! that a client or guest that breaks the rules harms only its own session,
//! and what waits for a slow client is bounded by the credit it gave.

mod conversation;
mod database;
mod pool;
mod service;
mod session;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent_protocol::{
    Decoder, ExecRequest, FIRST_GUEST_STREAM, MAX_COMMANDS, Message, Ready, StreamId,
};
use io_processors::{ChannelEnd, ChannelState};

use crate::link::Report;
use agent_protocol::SESSION_STREAM;
use conversation::Conversation;
use pool::Greeting;
pub(super) use pool::Rest;
use service::Service;
use session::{Session, sound};

/// How long the guest may take to read what it is sent.
const GUEST_READS: Duration = Duration::from_secs(30);

const NO_THREAD: &str = "the host has no thread for the command; raise its limit of processes";

/// Hears whether commands are served.
pub(super) type OnReady = Box<dyn Fn(Option<Ready>) + Send + Sync>;

/// Tells the host; whether there is one.
pub(super) type Tell = Box<dyn Fn(&Report) -> bool + Send + Sync>;

/// See the module.
pub(super) struct Agent {
    channel: ChannelEnd,
    /// Held while a frame is written, so that frames stay whole.
    writing: Mutex<()>,
    state: Mutex<State>,
    /// A guest that was put back is taken to be at rest.
    resumed: Condvar,
    /// The way to the database of the guest's user.
    database: Mutex<Option<Arc<database_manager::Client>>>,
    on_ready: OnReady,
    tell: Tell,
}

#[derive(Default)]
struct State {
    /// What the guest said of itself, while it serves commands.
    ready: Option<Greeting>,
    /// Where a guest goes on that was put back.
    rest: Option<Rest>,
    /// The guest is being put back.
    awaiting: bool,
    /// The guest stands still as it was captured, or is about to: whatever it
    /// were told would wait for whoever wakes it.
    parked: bool,
    /// When it was woken last.
    woken: Option<Instant>,
    /// The channel's session that everything here is of.
    session: u64,
    /// Number of the last stream.
    last: StreamId,
    peers: HashMap<StreamId, Peer>,
    /// Streams that nobody wants any more, and whose end the guest has not
    /// said yet.
    closing: HashSet<StreamId>,
    /// The guest is to say that it is renewed.
    renewing: bool,
    /// What the guest asked and nobody has answered.
    questions: HashSet<u32>,
    /// Bytes of the guest's that were heard, and how many of them begin a
    /// frame that is not whole yet.
    heard: u64,
    held: usize,
}

/// A stream of one session of the channel. A guest that was put back counts its
/// streams from the same number again: what belongs to one session must not be
/// taken for the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    session: u64,
    id: StreamId,
}

/// What a stream is.
#[derive(Clone)]
enum Peer {
    Command(Arc<Session>),
    Conversation(Arc<Conversation>),
    Service(Arc<Service>),
}

/// What comes of a message of the guest's on a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// To be given back.
    credit: Option<u32>,
    /// For the host.
    report: Option<Report>,
}

impl Peer {
    /// The guest said this; the error says what it may not.
    fn deliver(&self, message: &Message) -> Result<Heard, &'static str> {
        match self {
            Self::Command(session) => session.deliver(message).map(|()| Heard::default()),
            Self::Conversation(conversation) => conversation.deliver(message),
            Self::Service(service) => service.deliver(message),
        }
    }

    /// The guest has said its last word on this stream.
    fn end(&self) {
        if let Self::Command(session) = self {
            session.end();
        }
    }

    /// There will be none.
    fn fail(&self, why: &str) -> Option<Report> {
        match self {
            Self::Command(session) => session.fail(why),
            Self::Conversation(conversation) => conversation.fail(why),
            Self::Service(service) => return service.fail(why),
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its data whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    pub(super) fn new(channel: ChannelEnd, on_ready: OnReady, tell: Tell) -> Arc<Self> {
        let (writing, state) = (Mutex::default(), Mutex::default());
        let (resumed, database) = (Condvar::new(), Mutex::default());
        Arc::new(Self { channel, writing, state, resumed, database, on_ready, tell })
    }

    /// Reads what the guest says until the machine is gone.
    pub(super) fn run(self: &Arc<Self>) {
        loop {
            let hour = Instant::now() + Duration::from_secs(3600);
            match self.channel.wait_open(hour) {
                ChannelState::Gone => break,
                ChannelState::Closed => continue,
                ChannelState::Open { session, resumed } => {
                    lock(&self.state).session = session;
                    if resumed {
                        self.resume();
                    }
                    self.session_of_guest(session);
                }
            }
            self.lost("the guest's agent is gone");
        }
        self.lost("the guest has ended");
    }

    /// From the guest's opening of the port to its end.
    fn session_of_guest(self: &Arc<Self>, session: u64) {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match self.channel.read_until(&mut buffer, None) {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            let mut input = &buffer[..count];
            loop {
                match decoder.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some((stream, message))) => {
                        self.hear_guest(Stream { session, id: stream }, message);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the guest's agent talks nonsense; giving it up");
                        self.channel.hang_up();
                        return;
                    }
                }
            }
            let mut state = lock(&self.state);
            state.heard += count as u64;
            state.held = decoder.held();
        }
    }

    fn hear_guest(self: &Arc<Self>, stream: Stream, message: Message) {
        match message {
            Message::Ready(ready) => {
                lock(&self.state).ready = Some(ready.clone().into());
                (self.on_ready)(Some(ready));
            }
            Message::Pong(_) => {}
            Message::Renewed => self.renewed(None),
            Message::RenewFailed(why) => self.renewed(Some(why)),
            Message::MetadataRequest { id, path } => self.question(id, path),
            Message::Connect => self.connect(stream),
            message => self.hear_peer(stream, &message),
        }
    }

    fn hear_peer(&self, stream: Stream, message: &Message) {
        let last = matches!(message, Message::Exited(_) | Message::Failed(_));
        let peer = {
            let mut state = lock(&self.state);
            if last {
                // Before its client hears of the end and gives the stream up,
                // which would be waited for in vain.
                state.closing.remove(&stream.id);
                state.peers.remove(&stream.id)
            } else {
                state.peers.get(&stream.id).cloned()
            }
        };
        // Frames may have crossed the end of their stream.
        let Some(peer) = peer else { return };
        match peer.deliver(message) {
            Err(problem) => {
                tracing::warn!(stream = stream.id, problem, "closing a stream");
                self.report(peer.fail(problem));
                self.give_up(stream);
            }
            Ok(heard) => {
                if last {
                    peer.end();
                }
                if let Some(credit) = heard.credit {
                    self.say(stream, &Message::Credit(credit));
                }
                self.report(heard.report);
            }
        }
    }

    fn report(&self, report: Option<Report>) {
        if let Some(report) = report {
            (self.tell)(&report);
        }
    }

    /// Nobody is at this stream's end any more; who was, if it is of this
    /// session.
    fn forget(&self, stream: Stream) -> Option<Peer> {
        let mut state = lock(&self.state);
        let current = state.session == stream.session;
        current.then(|| state.peers.remove(&stream.id)).flatten()
    }

    /// Nobody answers any more: every stream fails.
    fn lost(&self, why: &str) {
        let (peers, renewing) = {
            let mut state = lock(&self.state);
            state.held = 0;
            if state.ready.take().is_some() {
                (self.on_ready)(None);
            }
            state.closing.clear();
            state.questions.clear();
            (std::mem::take(&mut state.peers), std::mem::take(&mut state.renewing))
        };
        for peer in peers.into_values() {
            self.report(peer.fail(why));
        }
        if renewing {
            self.report(Some(Report::Renewed { problem: Some(why.to_owned()) }));
        }
    }

    /// Says what is of no stream.
    fn say_itself(&self, message: &Message) -> bool {
        let session = lock(&self.state).session;
        self.say(Stream { session, id: 0 }, message)
    }

    fn say(&self, stream: Stream, message: &Message) -> bool {
        let mut frame = Vec::new();
        if message.encode(stream.id, &mut frame).is_err() {
            return false;
        }
        let _writing = lock(&self.writing);
        let deadline = Instant::now() + GUEST_READS;
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match self.channel.write_in(stream.session, rest, Some(deadline)) {
                Ok(count) => rest = &rest[count..],
                Err(error) => {
                    // A frame cut off leaves the guest unable to find the next.
                    if rest.len() < frame.len() && error.kind() == io::ErrorKind::TimedOut {
                        self.channel.hang_up();
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Ends every session and the channel: the guest has ended.
    pub(super) fn hang_up(&self) {
        self.channel.hang_up();
    }

    /// Asks the guest to power itself off; whether it could be asked.
    pub(super) fn shut_down(&self) -> bool {
        let ready = lock(&self.state).ready.is_some();
        ready && self.say_itself(&Message::Shutdown)
    }

    /// Runs a command for `client`, on threads of its own.
    pub(super) fn exec(self: &Arc<Self>, request: ExecRequest, client: UnixStream) {
        let session = match Session::new(client) {
            Ok(session) => Arc::new(session),
            Err(error) => {
                tracing::warn!(%error, "a client's connection cannot be used");
                return;
            }
        };
        let admitted =
            sound(&request).and_then(|()| self.admit(Peer::Command(Arc::clone(&session))));
        match admitted {
            Ok(stream) => self.serve(stream, session, request),
            Err(why) => {
                session.fail(why);
                let writer = std::thread::Builder::new().name("exec-out".into());
                // Without a thread the client learns it from the connection's end.
                let _ = writer.spawn(move || session.write_out());
            }
        }
    }

    /// Finds a stream for a new command, or says why there is none.
    fn admit(&self, peer: Peer) -> Result<Stream, &'static str> {
        let mut state = lock(&self.state);
        if state.parked {
            return Err("the machine is being put back to what was captured; try again");
        }
        if state.ready.is_none() {
            return Err("the guest's agent does not serve commands yet; try again later");
        }
        // The guest counts those that it is still to end as well.
        if state.peers.len() + state.closing.len() >= MAX_COMMANDS {
            return Err("the guest runs as many commands as it can; wait for one to end");
        }
        // 0 is the connection itself; the upper half is the guest's.
        state.last = (state.last + 1) % FIRST_GUEST_STREAM;
        state.last = state.last.max(1);
        let stream = Stream { session: state.session, id: state.last };
        state.peers.insert(stream.id, peer);
        Ok(stream)
    }

    fn serve(self: &Arc<Self>, stream: Stream, session: Arc<Session>, request: ExecRequest) {
        let out = Arc::clone(&session);
        let agent = Arc::clone(self);
        let thread = |name: &str| std::thread::Builder::new().name(format!("{name}-{}", stream.id));
        let started = thread("exec-out").spawn(move || out.write_out()).and_then(|_| {
            thread("exec-in").spawn(move || {
                if agent.say(stream, &Message::Exec(request)) {
                    agent.hear_client(stream, &session);
                } else {
                    session.fail("the command could not be sent to the guest");
                    agent.forget(stream);
                }
            })
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for a command");
            if let Some(peer) = self.forget(stream) {
                peer.fail(NO_THREAD);
            }
        }
    }

    /// Passes on what the client says until its connection ends.
    fn hear_client(&self, stream: Stream, session: &Session) {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 32 << 10];
        loop {
            let count = match (&session.client).read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let mut input = &buffer[..count];
            loop {
                match decoder.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some((SESSION_STREAM, message))) if session.may_say(&message) => {
                        self.say(stream, &message);
                    }
                    Ok(Some(_)) | Err(_) => {
                        session.fail("the client broke the protocol");
                        self.give_up(stream);
                        return;
                    }
                }
            }
        }
        self.give_up(stream);
    }

    /// Ends a command that nobody wants any more, unless it has ended.
    fn give_up(&self, stream: Stream) {
        let open = {
            let mut state = lock(&self.state);
            let current = state.session == stream.session;
            let open = current && state.peers.remove(&stream.id).is_some();
            if open {
                state.closing.insert(stream.id);
            }
            open
        };
        if open {
            self.say(stream, &Message::Close);
        }
    }
}

#[cfg(test)]
mod tests;

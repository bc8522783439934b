//! The worker's end of the guest agent: many clients, one channel.
//!
//! Each client talks in frames on a stream of its own connection; here the
//! stream numbers are exchanged and the credit of both sides is checked, so
//! that a client or guest that breaks the rules harms only its own session,
//! and what waits for a slow client is bounded by the credit it gave.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent_protocol::{
    Decoder, ExecRequest, INITIAL_CREDIT, MAX_COMMANDS, Message, Ready, StreamId,
};
use io_processors::{ChannelEnd, ChannelState};

use crate::control::SESSION_STREAM;

/// How long the guest may take to read what it is sent.
const GUEST_READS: Duration = Duration::from_secs(30);

/// Hears whether commands are served.
pub(super) type OnReady = Box<dyn Fn(Option<Ready>) + Send + Sync>;

/// See the module.
pub(super) struct Agent {
    channel: ChannelEnd,
    /// Held while a frame is written, so that frames stay whole.
    writing: Mutex<()>,
    state: Mutex<State>,
    on_ready: OnReady,
}

struct State {
    ready: bool,
    next: StreamId,
    sessions: HashMap<StreamId, Arc<Session>>,
}

struct Session {
    client: UnixStream,
    outbox: Mutex<Outbox>,
    changed: Condvar,
}

#[derive(Default)]
struct Outbox {
    frames: VecDeque<Vec<u8>>,
    /// Nothing comes after what is in `frames`.
    ended: bool,
    /// Bytes the guest sent for which the client gave no credit back.
    output: usize,
    /// Bytes the client sent for which the guest gave no credit back.
    input: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its data whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    pub(super) fn new(channel: ChannelEnd, on_ready: OnReady) -> Arc<Self> {
        let state = State { ready: false, next: 1, sessions: HashMap::new() };
        Arc::new(Self { channel, writing: Mutex::default(), state: Mutex::new(state), on_ready })
    }

    /// Reads what the guest says until the machine is gone.
    pub(super) fn run(&self) {
        loop {
            let hour = Instant::now() + Duration::from_secs(3600);
            match self.channel.wait_open(hour) {
                ChannelState::Gone => break,
                ChannelState::Closed => continue,
                ChannelState::Open { .. } => {}
            }
            self.session_of_guest();
            self.lost("the guest's agent is gone");
        }
        self.lost("the guest has ended");
    }

    /// From the guest's opening of the port to its end.
    fn session_of_guest(&self) {
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
                    Ok(Some((stream, message))) => self.hear_guest(stream, message),
                    Err(error) => {
                        tracing::warn!(%error, "the guest's agent talks nonsense; giving it up");
                        self.channel.hang_up();
                        return;
                    }
                }
            }
        }
    }

    fn hear_guest(&self, stream: StreamId, message: Message) {
        match message {
            Message::Ready(ready) => {
                lock(&self.state).ready = true;
                (self.on_ready)(Some(ready));
            }
            Message::Pong(_) => {}
            message => {
                let session = lock(&self.state).sessions.get(&stream).cloned();
                // Frames may have crossed the end of their command.
                let Some(session) = session else { return };
                let last = matches!(message, Message::Exited(_) | Message::Failed(_));
                if let Err(problem) = session.deliver(&message) {
                    tracing::warn!(stream, problem, "closing a command's session");
                    session.fail(problem);
                    self.forget(stream);
                    self.say(stream, &Message::Close);
                } else if last {
                    session.end();
                    self.forget(stream);
                }
            }
        }
    }

    fn forget(&self, stream: StreamId) {
        lock(&self.state).sessions.remove(&stream);
    }

    /// Nobody answers any more: every session fails.
    fn lost(&self, why: &str) {
        let sessions = {
            let mut state = lock(&self.state);
            if std::mem::take(&mut state.ready) {
                (self.on_ready)(None);
            }
            std::mem::take(&mut state.sessions)
        };
        for session in sessions.into_values() {
            session.fail(why);
        }
    }

    fn say(&self, stream: StreamId, message: &Message) -> bool {
        let mut frame = Vec::new();
        if message.encode(stream, &mut frame).is_err() {
            return false;
        }
        let _writing = lock(&self.writing);
        let deadline = Instant::now() + GUEST_READS;
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match self.channel.write_until(rest, Some(deadline)) {
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
        lock(&self.state).ready && self.say(0, &Message::Shutdown)
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
        let admitted = sound(&request).and_then(|()| self.admit(&session));
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
    fn admit(&self, session: &Arc<Session>) -> Result<StreamId, &'static str> {
        let mut state = lock(&self.state);
        if !state.ready {
            return Err("the guest's agent does not serve commands yet; try again later");
        }
        if state.sessions.len() >= MAX_COMMANDS {
            return Err("the guest runs as many commands as it can; wait for one to end");
        }
        let stream = state.next;
        // 0 is the connection itself.
        state.next = state.next.checked_add(1).unwrap_or(1);
        state.sessions.insert(stream, Arc::clone(session));
        Ok(stream)
    }

    fn serve(self: &Arc<Self>, stream: StreamId, session: Arc<Session>, request: ExecRequest) {
        let out = Arc::clone(&session);
        let agent = Arc::clone(self);
        let thread = |name: &str| std::thread::Builder::new().name(format!("{name}-{stream}"));
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
            if let Some(session) = lock(&self.state).sessions.remove(&stream) {
                session
                    .fail("the host has no thread for the command; raise its limit of processes");
            }
        }
    }

    /// Passes on what the client says until its connection ends.
    fn hear_client(&self, stream: StreamId, session: &Session) {
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
    fn give_up(&self, stream: StreamId) {
        if lock(&self.state).sessions.remove(&stream).is_some() {
            self.say(stream, &Message::Close);
        }
    }
}

/// Whether the guest's agent takes this for a request. One that it does not
/// would cost it the connection, and every client its command.
fn sound(request: &ExecRequest) -> Result<(), &'static str> {
    let strings = request.argv.iter().chain(std::iter::once(&request.cwd));
    let variables = request.env.iter().flat_map(|(name, value)| [name, value]);
    if request.argv.first().is_none_or(Vec::is_empty) {
        return Err("there is no command; name one after `--`");
    }
    if strings.chain(variables).any(|text| text.contains(&0)) {
        return Err("a zero byte cannot be part of a command, a variable or a directory");
    }
    if request.env.iter().any(|(name, _)| name.is_empty() || name.contains(&b'=')) {
        return Err("a variable needs a name without `=`");
    }
    let mut frame = Vec::new();
    match Message::Exec(request.clone()).encode(SESSION_STREAM, &mut frame) {
        Ok(()) => Ok(()),
        Err(_) => Err("command and variables are longer than 64 KiB; pass them on standard input"),
    }
}

impl Session {
    fn new(client: UnixStream) -> io::Result<Self> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(None)?;
        client.set_write_timeout(None)?;
        Ok(Self { client, outbox: Mutex::default(), changed: Condvar::new() })
    }

    /// Queues what the guest said for the client.
    fn deliver(&self, message: &Message) -> Result<(), &'static str> {
        let mut frame = Vec::new();
        if message.encode(SESSION_STREAM, &mut frame).is_err() {
            return Err("the guest's agent said what cannot be passed on");
        }
        let mut outbox = lock(&self.outbox);
        match message {
            Message::Stdout(_) | Message::Stderr(_) => {
                outbox.output += message.cost();
                if outbox.output > INITIAL_CREDIT as usize {
                    return Err("the guest's agent sent more than it had credit for");
                }
                // Costs no credit, so nothing else would bound their number.
                if message.cost() == 0 {
                    return Ok(());
                }
            }
            Message::Credit(bytes) => {
                let left = outbox.input.checked_sub(*bytes as usize);
                outbox.input = left.ok_or("the guest's agent gave back credit nobody spent")?;
                if *bytes == 0 {
                    return Ok(());
                }
            }
            Message::Exited(_) | Message::Failed(_) => {}
            _ => return Err("the guest's agent said what only a host says"),
        }
        outbox.frames.push_back(frame);
        self.changed.notify_all();
        Ok(())
    }

    /// Whether the client may say this now.
    fn may_say(&self, message: &Message) -> bool {
        let mut outbox = lock(&self.outbox);
        match message {
            Message::Stdin(_) => {
                outbox.input += message.cost();
                outbox.input <= INITIAL_CREDIT as usize
            }
            Message::Credit(bytes) => match outbox.output.checked_sub(*bytes as usize) {
                Some(left) => {
                    outbox.output = left;
                    true
                }
                None => false,
            },
            Message::StdinEnd | Message::Signal(_) | Message::Close => true,
            _ => false,
        }
    }

    fn end(&self) {
        lock(&self.outbox).ended = true;
        self.changed.notify_all();
    }

    fn fail(&self, why: &str) {
        let mut frame = Vec::new();
        let encoded = Message::Failed(why.to_owned()).encode(SESSION_STREAM, &mut frame);
        let mut outbox = lock(&self.outbox);
        if !outbox.ended && encoded.is_ok() {
            outbox.frames.push_back(frame);
        }
        outbox.ended = true;
        self.changed.notify_all();
    }

    /// Writes to the client at the client's pace; then ends its connection.
    fn write_out(&self) {
        let mut outbox = lock(&self.outbox);
        loop {
            if let Some(frame) = outbox.frames.pop_front() {
                drop(outbox);
                if (&self.client).write_all(&frame).is_err() {
                    break;
                }
                outbox = lock(&self.outbox);
            } else if outbox.ended {
                break;
            } else {
                outbox = self.changed.wait(outbox).unwrap_or_else(PoisonError::into_inner);
            }
        }
        // Both ways, so that whoever reads from the client stops too.
        let _ = self.client.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Session, UnixStream) {
        let (client, peer) = UnixStream::pair().unwrap();
        (Session::new(client).unwrap(), peer)
    }

    #[test]
    fn a_request_that_the_guest_would_choke_on_is_refused_here() {
        let good = ExecRequest::new(["ls"]);
        assert_eq!(sound(&good), Ok(()));
        let with = |change: fn(&mut ExecRequest)| {
            let mut request = good.clone();
            change(&mut request);
            sound(&request).unwrap_err()
        };
        assert!(with(|r| r.argv.clear()).contains("no command"));
        assert!(with(|r| r.argv[0].clear()).contains("no command"));
        assert!(with(|r| r.argv.push(b"a\0b".to_vec())).contains("zero byte"));
        assert!(with(|r| r.cwd.push(0)).contains("zero byte"));
        assert!(with(|r| r.env.push((b"A=B".to_vec(), vec![]))).contains("without"));
        assert!(with(|r| r.argv.push(vec![b'x'; 70_000])).contains("64 KiB"));
    }

    #[test]
    fn a_guest_that_sends_more_than_it_has_credit_for_is_caught() {
        let (session, _peer) = session();
        let half = Message::Stdout(vec![0; INITIAL_CREDIT as usize / 2]);
        session.deliver(&half).unwrap();
        session.deliver(&half).unwrap();
        assert!(session.deliver(&Message::Stderr(vec![0])).is_err());
    }

    #[test]
    fn a_client_can_give_back_only_what_it_got() {
        let (session, _peer) = session();
        assert!(!session.may_say(&Message::Credit(1)));
        session.deliver(&Message::Stdout(vec![0; 100])).unwrap();
        assert!(session.may_say(&Message::Credit(100)));
        assert!(!session.may_say(&Message::Credit(1)));
    }

    #[test]
    fn a_client_can_say_only_what_clients_say_and_within_its_credit() {
        let (session, _peer) = session();
        assert!(session.may_say(&Message::Stdin(vec![0; INITIAL_CREDIT as usize])));
        assert!(!session.may_say(&Message::Stdin(vec![0])));
        assert!(session.may_say(&Message::Signal(15)));
        assert!(!session.may_say(&Message::Exec(ExecRequest::new(["ls"]))));
        assert!(!session.may_say(&Message::Stdout(vec![])));
    }

    #[test]
    fn what_was_queued_is_written_before_the_end() {
        let (session, mut peer) = session();
        session.deliver(&Message::Stdout(b"last words".to_vec())).unwrap();
        session.end();
        session.write_out();
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        assert!(got.ends_with(b"last words"));
    }
}

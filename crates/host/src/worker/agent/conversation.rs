//! One user's conversation: bytes between his connection and the guest. A
//! program's connection to its user's database is the same to the worker, but that
//! the guest begins it and nobody hears of it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use agent_protocol::{DATA_CHUNK, Message, ReceiveWindow, SendWindow};
use rustix::net::{SendFlags, send};

use super::service::{Tail, end_of};
use super::{Agent, Heard, Stream, lock};
use crate::link::{ProgramEnd, Report};

/// See the module. It is over when [`Conversation::write_out`] returns.
pub(super) struct Conversation {
    /// None of a connection to a database.
    pub(super) id: Option<u64>,
    /// When its machine was.
    woken: Option<Instant>,
    /// The other end; of a database it comes later than the guest's first bytes.
    client: OnceLock<UnixStream>,
    talk: Mutex<Talk>,
    changed: Condvar,
}

#[derive(Default)]
struct Talk {
    /// For the user; bounded by `from_guest`.
    pieces: VecDeque<Vec<u8>>,
    /// One that came before these is being written.
    writing: bool,
    from_guest: ReceiveWindow,
    to_guest: SendWindow,
    accepted: bool,
    /// How long the machine took to the program's first output.
    first_output: Option<Duration>,
    /// What the program wrote to standard error.
    words: Tail,
    end: Option<ProgramEnd>,
}

impl Talk {
    /// Something is to be written before what comes now.
    fn is_behind(&self) -> bool {
        self.writing || !self.pieces.is_empty()
    }

    /// What whoever calls this writes now.
    fn next_piece(&mut self) -> Option<Vec<u8>> {
        let piece = self.pieces.pop_front();
        self.writing = piece.is_some();
        piece
    }
}

impl Conversation {
    /// In a machine that was woken then.
    pub(super) fn new(id: u64, client: UnixStream, woken: Option<Instant>) -> io::Result<Self> {
        let conversation = Self { id: Some(id), woken, ..Self::of_database() };
        conversation.join(client).map(|()| conversation)
    }

    /// A connection to a database, which is joined to it later.
    pub(super) fn of_database() -> Self {
        let (client, talk) = (OnceLock::new(), Mutex::default());
        Self { id: None, woken: None, client, talk, changed: Condvar::new() }
    }

    /// Has the other end from now on.
    pub(super) fn join(&self, client: UnixStream) -> io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(None)?;
        client.set_write_timeout(None)?;
        self.client.set(client).map_err(|_| io::ErrorKind::AlreadyExists.into())
    }

    fn shut(&self) {
        if let Some(client) = self.client.get() {
            // It fails only if the other end was first.
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Writes as much as the other end takes without a wait: so what comes while nothing
    /// else does need not wait for a thread.
    fn write_at_once(&self, bytes: &[u8]) -> usize {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // What is wrong, the thread that waits will hear.
        self.client.get().map_or(0, |client| send(client, bytes, flags).unwrap_or(0))
    }

    /// Writes to the other end; false if it is gone.
    fn write(&self, piece: &[u8]) -> bool {
        self.client.get().is_some_and(|mut client| client.write_all(piece).is_ok())
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.client.get().map_or(Ok(0), |mut client| client.read(buffer))
    }

    /// Takes what the guest said.
    pub(super) fn deliver(&self, message: &Message) -> Result<Heard, &'static str> {
        let mut talk = lock(&self.talk);
        let mut heard = Heard::default();
        match message {
            Message::Accepted if talk.accepted => return Err("the guest accepted twice"),
            Message::Accepted => {
                let id = self.id.ok_or("the guest accepted what it had begun")?;
                talk.accepted = true;
                heard.report = Some(Report::ConversationAccepted { conversation: id });
            }
            Message::Stdout(bytes) | Message::Stderr(bytes) => {
                let room = talk.from_guest.arrived(bytes.len());
                room.map_err(|_| "the guest's agent sent more than it had credit for")?;
                if matches!(message, Message::Stderr(_)) {
                    talk.words.add(bytes);
                    heard.credit = talk.from_guest.consumed(bytes.len());
                } else if !bytes.is_empty() {
                    let first = talk.first_output.or(self.woken.map(|woken| woken.elapsed()));
                    talk.first_output = first;
                    let written = if talk.is_behind() { 0 } else { self.write_at_once(bytes) };
                    if let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
                        talk.pieces.push_back(rest.to_vec());
                    }
                    if talk.end.is_none() {
                        heard.credit = talk.from_guest.consumed(written);
                    }
                }
            }
            Message::Credit(bytes) => {
                let refilled = talk.to_guest.refill(*bytes);
                refilled.map_err(|_| "the guest's agent gave back credit nobody spent")?;
            }
            Message::Exited(_) | Message::Failed(_) => {
                let end = end_of(message);
                talk.end = talk.end.take().or(end);
            }
            _ => return Err("the guest's agent said what only a host says"),
        }
        let wake = talk.end.is_some() || talk.is_behind() || matches!(message, Message::Credit(_));
        drop(talk);
        if wake {
            self.changed.notify_all();
        }
        Ok(heard)
    }

    /// Nothing more comes from the guest.
    pub(super) fn fail(&self, why: &str) {
        let reason = why.to_owned();
        lock(&self.talk).end.get_or_insert(ProgramEnd::Failed { reason });
        self.changed.notify_all();
    }

    /// Ends it now, also if its user does not read.
    pub(super) fn cut_off(&self, why: &str) {
        lock(&self.talk).pieces.clear();
        self.fail(why);
        self.shut();
    }

    /// Writes to the user at the user's pace; at the end of it ends his
    /// connection and gives the report of the whole conversation.
    pub(super) fn write_out(&self, agent: &Agent, stream: Stream) -> Option<Report> {
        let mut talk = lock(&self.talk);
        loop {
            if let Some(piece) = talk.next_piece() {
                drop(talk);
                let gone = !self.pass_on(agent, stream, &piece);
                talk = lock(&self.talk);
                if gone {
                    break;
                }
            } else if talk.end.is_some() {
                break;
            } else {
                talk = self.changed.wait(talk).unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.shut();
        let words = talk.words.text();
        let reason = "it ended without a reason".to_owned();
        let end = talk.end.clone().unwrap_or(ProgramEnd::Failed { reason });
        let first = talk.first_output.map(|took| took.as_micros());
        let first_output_us = first.and_then(|micros| u64::try_from(micros).ok());
        drop(talk);
        self.changed.notify_all();
        self.id.map(|conversation| Report::ConversationEnded {
            conversation,
            end,
            words,
            first_output_us,
        })
    }

    /// Writes what has come until now: nobody has to wait for the thread that does
    /// the rest.
    pub(super) fn write_now(&self, agent: &Agent, stream: Stream) {
        loop {
            let piece = lock(&self.talk).next_piece();
            let Some(piece) = piece else { return };
            self.pass_on(agent, stream, &piece);
        }
    }

    /// Writes one piece and lets the guest say as much again; false if the user is gone.
    fn pass_on(&self, agent: &Agent, stream: Stream, piece: &[u8]) -> bool {
        // A program may still say something to a database that has closed; it reads why,
        // and closes too.
        let written = self.write(piece);
        let mut talk = lock(&self.talk);
        talk.writing = false;
        if !written && self.id.is_some() {
            drop(talk);
            self.fail("the user's connection is gone");
            agent.give_up(stream);
            return false;
        }
        let credit = talk.from_guest.consumed(piece.len());
        if let (Some(credit), None) = (credit, &talk.end) {
            drop(talk);
            agent.say(stream, &Message::Credit(credit));
        }
        true
    }

    /// Passes on what the user sends, as the guest takes it, to its end.
    pub(super) fn read_in(&self, agent: &Agent, stream: Stream) {
        let mut buffer = vec![0; DATA_CHUNK];
        while let Some(room) = self.room() {
            let most = room.min(DATA_CHUNK);
            match self.read(&mut buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.fail("the user's connection is gone");
                    return agent.give_up(stream);
                }
                Ok(0) => {
                    if lock(&self.talk).end.is_none() {
                        agent.say(stream, &Message::StdinEnd);
                    }
                    return;
                }
                Ok(count) => {
                    lock(&self.talk).to_guest.spend(count);
                    agent.say(stream, &Message::Stdin(buffer[..count].to_vec()));
                }
            }
        }
    }

    /// Waits for credit of the guest's; `None` when the conversation is over.
    fn room(&self) -> Option<usize> {
        let mut talk = lock(&self.talk);
        while talk.end.is_none() {
            match talk.to_guest.available() {
                0 => talk = self.changed.wait(talk).unwrap_or_else(PoisonError::into_inner),
                room => return Some(room),
            }
        }
        None
    }
}

impl Agent {
    /// Begins a conversation that has a stream, and serves it on threads of its own.
    pub(super) fn talk(
        self: &Arc<Self>,
        stream: Stream,
        conversation: &Arc<Conversation>,
        request: &Message,
    ) -> io::Result<()> {
        // The guest need not wait for the threads.
        let said = self.say(stream, request);
        let thread = |name: &str| std::thread::Builder::new().name(format!("{name}-{}", stream.id));
        let (agent, out) = (Arc::clone(self), Arc::clone(conversation));
        thread("talk-out").spawn(move || {
            let report = out.write_out(&agent, stream);
            agent.report(report);
        })?;
        if !said {
            conversation.fail("the conversation could not be sent to the guest");
            self.forget(stream);
            return Ok(());
        }
        let (agent, user) = (Arc::clone(self), Arc::clone(conversation));
        let started = thread("talk-in").spawn(move || user.read_in(&agent, stream));
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for a conversation");
            conversation.fail(super::NO_THREAD);
            self.give_up(stream);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::{INITIAL_CREDIT, Status};

    use super::*;

    fn conversation() -> (Conversation, UnixStream) {
        let (ours, user) = UnixStream::pair().unwrap();
        (Conversation::new(7, ours, None).unwrap(), user)
    }

    #[test]
    fn a_guest_that_sends_more_than_it_has_credit_for_is_caught() {
        // Nothing is taken from it yet.
        let conversation = Conversation::of_database();
        let half = vec![0; INITIAL_CREDIT as usize / 2];
        conversation.deliver(&Message::Stdout(half.clone())).unwrap();
        conversation.deliver(&Message::Stdout(half)).unwrap();
        assert!(conversation.deliver(&Message::Stdout(vec![0])).is_err());
    }

    #[test]
    fn a_guest_gives_back_only_credit_that_was_spent_and_accepts_once() {
        let (conversation, _user) = conversation();
        assert!(conversation.deliver(&Message::Credit(1)).is_err());
        let accepted = Some(Report::ConversationAccepted { conversation: 7 });
        let heard = conversation.deliver(&Message::Accepted).unwrap();
        assert_eq!(heard, Heard { credit: None, report: accepted });
        assert!(conversation.deliver(&Message::Accepted).is_err());
        assert!(conversation.deliver(&Message::ServiceReady).is_err());
        assert!(conversation.deliver(&Message::StdinEnd).is_err());
    }

    #[test]
    fn what_nobody_reads_costs_no_credit_for_long() {
        let (conversation, _user) = conversation();
        let mut given = 0;
        for _ in 0..1000 {
            let heard = conversation.deliver(&Message::Stderr(vec![b'x'; 1000])).unwrap();
            given += heard.credit.unwrap_or(0);
        }
        assert!(given >= 1_000_000 - INITIAL_CREDIT / 4);
        assert!(lock(&conversation.talk).words.text().len() < 10_000);
    }

    #[test]
    fn the_first_end_counts() {
        let (conversation, _user) = conversation();
        conversation.deliver(&Message::Exited(Status::Signal(9))).unwrap();
        conversation.fail("later");
        assert_eq!(lock(&conversation.talk).end, Some(ProgramEnd::Signal { signal: 9 }));
        assert_eq!(conversation.room(), None);
    }
}

//! One client's command: its connection and its credit.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, PoisonError};

use agent_protocol::{ExecRequest, INITIAL_CREDIT, Message};

use super::lock;
use agent_protocol::SESSION_STREAM;

pub(super) struct Session {
    pub(super) client: UnixStream,
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

/// Whether the guest's agent takes this for a request. One that it does not
/// would cost it the connection, and every client its command.
pub(super) fn sound(request: &ExecRequest) -> Result<(), &'static str> {
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
    pub(super) fn new(client: UnixStream) -> io::Result<Self> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(None)?;
        client.set_write_timeout(None)?;
        Ok(Self { client, outbox: Mutex::default(), changed: Condvar::new() })
    }

    /// Queues what the guest said for the client.
    pub(super) fn deliver(&self, message: &Message) -> Result<(), &'static str> {
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
    pub(super) fn may_say(&self, message: &Message) -> bool {
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

    pub(super) fn end(&self) {
        lock(&self.outbox).ended = true;
        self.changed.notify_all();
    }

    pub(super) fn fail(&self, why: &str) {
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
    pub(super) fn write_out(&self) {
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
    use std::io::Read;

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

//! The byte stream to the host: messages in, messages out.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use agent_protocol::{Decoder, MAX_PAYLOAD, Message, ProtocolError, StreamId};

use crate::sys::{self, POLLHUP, POLLIN, POLLOUT, PollFd};
use crate::{log, port};

/// How often to look whether the port has appeared or the host taken it up.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Bytes waiting for the host above which commands are not asked for more.
const OUTPUT_FULL: usize = MAX_PAYLOAD;

/// Bytes waiting above which the host is not listened to either: it can make
/// the agent answer, and must then take the answers.
const INPUT_HELD: usize = 4 * MAX_PAYLOAD;

/// Bytes read from the host at once.
const READ_AT_ONCE: usize = 16 * 1024;

/// Where the link's other end is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A virtio port, which may come late and whose host may come again.
    Port,
    /// A socket at standard input, which ends once.
    StandardInput,
}

/// What [`Link::look`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing new.
    None,
    /// The host has just come: greet it.
    Up,
    /// The host has gone: nobody wants what its commands do.
    Down,
}

pub(crate) struct Link {
    place: Place,
    file: Option<File>,
    /// Invariant: only true while `file` is there.
    up: bool,
    decoder: Decoder,
    /// For what is read at once.
    buffer: Box<[u8]>,
    /// Frames to be sent, of which the first `sent` bytes are.
    out: Vec<u8>,
    sent: usize,
    look_at: Instant,
}

impl Link {
    pub(crate) fn new(place: Place) -> io::Result<Self> {
        let file = match place {
            Place::Port => None,
            Place::StandardInput => Some(sys::standard_input()?),
        };
        if let Some(file) = &file {
            sys::set_nonblocking(std::os::fd::AsFd::as_fd(file))?;
        }
        Ok(Self {
            place,
            file,
            up: false,
            decoder: Decoder::new(),
            buffer: vec![0; READ_AT_ONCE].into(),
            out: Vec::new(),
            sent: 0,
            look_at: Instant::now(),
        })
    }

    pub(crate) fn is_at(&self, place: Place) -> bool {
        self.place == place
    }

    /// Looks after a link that is not up. The kernel reports a port whose
    /// host has not opened it as hung up, for ever and at once: so it is asked
    /// from time to time and not waited for.
    pub(crate) fn look(&mut self) -> Change {
        if self.up || Instant::now() < self.look_at {
            return Change::None;
        }
        self.look_at = Instant::now() + LOOK_AGAIN;
        if self.file.is_none() && self.place == Place::Port {
            self.file = port::open();
        }
        let Some(file) = &self.file else { return Change::None };
        let mut state = [PollFd::new(file, POLLIN)];
        if sys::wait_any(&mut state, Some(Duration::ZERO)).is_err() || state[0].found & POLLHUP != 0
        {
            return Change::None;
        }
        self.up = true;
        Change::Up
    }

    /// When to call [`look`](Self::look) next, if it has anything to look for.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        (!self.up).then_some(self.look_at)
    }

    /// What to wait for on this link.
    pub(crate) fn poll_fd(&self) -> Option<PollFd> {
        let file = self.file.as_ref().filter(|_| self.up)?;
        let mut events = 0;
        if self.waiting() < INPUT_HELD {
            events |= POLLIN;
        }
        if self.waiting() > 0 {
            events |= POLLOUT;
        }
        Some(PollFd::new(file, events))
    }

    fn waiting(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether there is a host.
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// Whether commands may add their output.
    pub(crate) fn has_room(&self) -> bool {
        self.up && self.waiting() < OUTPUT_FULL
    }

    /// Queues a message; dropped while there is no host.
    pub(crate) fn say(&mut self, stream: StreamId, message: &Message) {
        if self.up && message.encode(stream, &mut self.out).is_err() {
            log::error(&format!("a {} message fits no frame", message.name()));
        }
    }

    /// Sends what the channel takes.
    pub(crate) fn flush(&mut self) -> Change {
        while self.up && self.waiting() > 0 {
            let Some(file) = &mut self.file else { break };
            match file.write(&self.out[self.sent..]) {
                Ok(0) => break,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.down(),
            }
        }
        if self.waiting() == 0 {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > MAX_PAYLOAD {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Change::None
    }

    /// Reads what is there, once, and appends the messages in it to `heard`.
    pub(crate) fn hear(&mut self, heard: &mut Vec<(StreamId, Message)>) -> Change {
        let Some(file) = self.file.as_mut().filter(|_| self.up) else { return Change::None };
        match file.read(&mut self.buffer) {
            Ok(0) => self.down(),
            Ok(count) => match decode(&mut self.decoder, &self.buffer[..count], heard) {
                Ok(()) => Change::None,
                Err(error) => {
                    log::error(&format!("the host is given up and waited for again: {error}"));
                    // Closing the port tells the host.
                    self.file = None;
                    self.down()
                }
            },
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Change::None
            }
            Err(_) => self.down(),
        }
    }

    fn down(&mut self) -> Change {
        self.up = false;
        self.decoder = Decoder::new();
        self.out = Vec::new();
        self.sent = 0;
        Change::Down
    }
}

fn decode(
    decoder: &mut Decoder,
    mut bytes: &[u8],
    heard: &mut Vec<(StreamId, Message)>,
) -> Result<(), ProtocolError> {
    while let Some(message) = decoder.next(&mut bytes)? {
        heard.push(message);
    }
    Ok(())
}

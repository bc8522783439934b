//! One connection: the bytes between a user, a coupling and a program.

use std::io;
use std::time::Duration;

use conversation::{HalfSession, Sense};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout};

use crate::attach::{self, Origin};
use crate::coupling::{Coupling, PIECE, Waiting};
use crate::listen::Gateway;
use crate::service::{Joined, Refusal, Why};

/// Bytes read from a user at once.
const READ: usize = 16 * 1024;

/// What a connection is carried by.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Serves one connection to its end.
pub(crate) async fn serve(gateway: &Gateway, mut wire: impl Wire, origin: Origin) {
    let mut session = HalfSession::new();
    let arrived = timeout(gateway.limits.attach, read_attach(&mut wire, &mut session)).await;
    if !matches!(arrived, Ok(Ok(()))) {
        // A header that could not be read has its answer in the output.
        return finish(&mut wire, session.output().to_vec(), gateway.limits.linger).await;
    }
    match ask(gateway, &mut wire, &mut session, origin).await {
        Asked::Joined(joined) => converse(gateway, wire, session, joined).await,
        Asked::Refused { sense, why } => {
            // The Attach is there and nobody else answers it.
            let _ = session.reject(sense, why.as_bytes());
            let last = session.output().to_vec();
            finish(&mut wire, last, gateway.limits.linger).await;
        }
        Asked::Gone => finish(&mut wire, session.output().to_vec(), gateway.limits.linger).await,
    }
}

async fn read_attach(wire: &mut impl Wire, session: &mut HalfSession) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    while session.attach().is_none() {
        let count = wire.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        session.feed(&buffer[..count]).map_err(io::Error::other)?;
    }
    Ok(())
}

enum Asked {
    Joined(Joined),
    Refused {
        sense: Sense,
        why: String,
    },
    /// The user vanished or broke the protocol meanwhile.
    Gone,
}

/// Proves the user and asks for a machine, while the connection is watched.
async fn ask(
    gateway: &Gateway,
    wire: &mut impl Wire,
    session: &mut HalfSession,
    origin: Origin,
) -> Asked {
    let Some(attach) = session.attach().cloned() else { return Asked::Gone };
    let early = Coupling::early(session);
    let asking = async {
        let (user, tpn) = (attach.security.user().map(str::to_owned), attach.tpn.name.clone());
        let request = attach::request(attach, origin, &*gateway.authority);
        let refused = |sense: Sense| {
            gateway.service.turned_away(user.as_deref(), &tpn, sense);
            Asked::Refused { sense, why: String::new() }
        };
        let mut request = match timeout(gateway.limits.authenticate, request).await {
            Ok(Ok(request)) => request,
            Ok(Err(sense)) => return refused(sense),
            Err(_) => return refused(Sense::SECURITY_NOT_VALID),
        };
        request.early = early;
        match gateway.service.attach(request).await {
            Ok(joined) => Asked::Joined(joined),
            Err(refusal) => {
                let sense = refusal.sense();
                // The others say no more than their sense code: above all,
                // security is refused in the same words whatever was wrong.
                let why = match refusal {
                    Refusal::Retry(why) | Refusal::Never(why) => why,
                    _ => String::new(),
                };
                Asked::Refused { sense, why }
            }
        }
    };
    tokio::select! {
        // An answer that is there counts, also if the user left meanwhile: then
        // the program hears of that. A test that left it to chance hung.
        biased;
        answer = asking => answer,
        () = until_gone(wire, session) => Asked::Gone,
    }
}

/// Takes in what the user sends, until the user is gone.
async fn until_gone(wire: &mut impl Wire, session: &mut HalfSession) {
    let mut buffer = vec![0; READ];
    loop {
        let count = match wire.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if session.feed(&buffer[..count]).is_err() || session.is_over() {
            return;
        }
    }
}

/// Sends the last bytes and closes, as long as the user takes them in time.
async fn finish(wire: &mut impl Wire, last: Vec<u8>, linger: Duration) {
    let _ = timeout(linger, async {
        wire.write_all(&last).await?;
        wire.shutdown().await?;
        until_closed(wire).await
    })
    .await;
}

/// Throws away what a user sends who has not learnt of the end: closing with
/// bytes unread would reset the connection and might take the last word with
/// it.
async fn until_closed(wire: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    while wire.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Joins the conversation to the program until both are done.
async fn converse(gateway: &Gateway, wire: impl Wire, mut session: HalfSession, joined: Joined) {
    let mut program = joined.program;
    if session.accept().is_err() {
        return program.abend(Why::Gateway);
    }
    let mut streams = Streams::new(wire, joined.input, joined.output, Coupling::new(session));
    // What arrived together with the Attach, and may be with the program already.
    streams.coupling.from_user(&[]);
    if joined.handed_on > 0 {
        streams.coupling.program_took(joined.handed_on);
    }
    let mut deadline = Deadline::new(gateway);
    let mut ended = false;
    while streams.coupling.abend().is_none() {
        if streams.coupling.user_is_done() {
            if streams.coupling.program_is_done() {
                break;
            }
            streams.close_user(gateway.limits.linger).await;
        }
        deadline.look(gateway, &streams.coupling);
        tokio::select! {
            traffic = streams.move_bytes() => {
                if traffic {
                    deadline.traffic(gateway);
                }
            }
            ending = program.ended(), if !ended => {
                ended = true;
                streams.coupling.program_ended(ending);
            }
            () = tokio::time::sleep_until(deadline.at) => streams.coupling.time_out(deadline.why),
        }
    }
    if let Some(why) = streams.coupling.abend() {
        program.abend(why);
    }
    // The machine does not wait for the user's last words.
    drop(program);
    streams.close_user(gateway.limits.linger).await;
}

/// When somebody is out of time, and what they are guilty of.
struct Deadline {
    at: Instant,
    why: Why,
}

impl Deadline {
    fn new(gateway: &Gateway) -> Self {
        Self { at: Instant::now() + gateway.limits.idle, why: Why::Idle }
    }

    /// Looks whom there is to wait for.
    fn look(&mut self, gateway: &Gateway, coupling: &Coupling) {
        match (coupling.waiting(), self.why) {
            (Waiting::Program, Why::Idle) => {
                *self = Self { at: Instant::now() + gateway.limits.confirm, why: Why::Deadline };
            }
            (Waiting::Nobody, Why::Deadline) => *self = Self::new(gateway),
            _ => {}
        }
    }

    fn traffic(&mut self, gateway: &Gateway) {
        if self.why == Why::Idle {
            *self = Self::new(gateway);
        }
    }
}

/// The four streams of a conversation. Every wait may be given up and taken
/// up again.
struct Streams<W> {
    coupling: Coupling,
    /// `None` once the user's side is closed.
    user: Option<(ReadHalf<W>, WriteHalf<W>)>,
    /// Something was written to the user that is not flushed.
    dirty: bool,
    /// `None` once it is closed.
    input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    output: Box<dyn AsyncRead + Send + Unpin>,
    user_buffer: Vec<u8>,
    program_buffer: Vec<u8>,
}

impl<W: Wire> Streams<W> {
    fn new(
        wire: W,
        input: Box<dyn AsyncWrite + Send + Unpin>,
        output: Box<dyn AsyncRead + Send + Unpin>,
        coupling: Coupling,
    ) -> Self {
        Self {
            coupling,
            user: Some(tokio::io::split(wire)),
            dirty: false,
            input: Some(input),
            output,
            user_buffer: vec![0; READ],
            program_buffer: vec![0; PIECE],
        }
    }

    /// Waits for one of the streams and moves what it has; true if that was
    /// something a user or a program said.
    async fn move_bytes(&mut self) -> bool {
        let Self { coupling, user, dirty, input, output, user_buffer, program_buffer } = self;
        let wants_output = coupling.wants_output();
        let is_dirty = *dirty;
        let (from_user, to_user) = match user {
            Some((from, to)) => (Some(from), Some(to)),
            None => (None, None),
        };
        let last = coupling.to_user().to_vec();
        let feeding = Feeding::of(coupling);
        tokio::select! {
            read = read_user(from_user, user_buffer) => match read {
                Ok(count) if count > 0 => {
                    coupling.from_user(&user_buffer[..count]);
                    true
                }
                _ => {
                    coupling.user_gone();
                    false
                }
            },
            written = write_user(to_user, &last, is_dirty) => match written {
                Ok(count) => {
                    *dirty = count > 0;
                    coupling.user_took(count);
                    count > 0
                }
                Err(_) => {
                    coupling.user_gone();
                    false
                }
            },
            fed = feeding.carry_out(input) => {
                match fed {
                    Ok(Fed::Took(count)) => coupling.program_took(count),
                    Ok(Fed::Flushed) => coupling.program_flushed(),
                    // A program that closed its input is not at fault.
                    Ok(Fed::Closed) | Err(_) => {
                        *input = None;
                        coupling.input_closed();
                    }
                }
                true
            },
            read = output.read(program_buffer), if wants_output => {
                // A stream that broke has nothing more to say.
                let count = read.unwrap_or(0);
                coupling.from_program(&program_buffer[..count]);
                true
            },
        }
    }

    /// Sends the user what is left and closes.
    async fn close_user(&mut self, linger: Duration) {
        let Some((mut from_user, mut to_user)) = self.user.take() else { return };
        if self.coupling.is_cut() {
            return;
        }
        let _ = timeout(linger, async {
            while !self.coupling.to_user().is_empty() {
                let count = to_user.write(self.coupling.to_user()).await?;
                if count == 0 {
                    break;
                }
                self.coupling.user_took(count);
            }
            to_user.shutdown().await?;
            if self.coupling.user_has_ended() { Ok(()) } else { until_closed(&mut from_user).await }
        })
        .await;
    }
}

async fn read_user<W: Wire>(
    from: Option<&mut ReadHalf<W>>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn write_user<W: Wire>(
    to: Option<&mut WriteHalf<W>>,
    bytes: &[u8],
    dirty: bool,
) -> io::Result<usize> {
    match to {
        Some(to) if !bytes.is_empty() => match to.write(bytes).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        },
        Some(to) if dirty => to.flush().await.map(|()| 0),
        _ => std::future::pending().await,
    }
}

/// What is to be done to the program's input.
enum Feeding {
    Write(Vec<u8>),
    Flush,
    Close,
    Nothing,
}

enum Fed {
    Took(usize),
    Flushed,
    Closed,
}

impl Feeding {
    fn of(coupling: &mut Coupling) -> Self {
        if coupling.wants_end_of_input() {
            return Self::Close;
        }
        if coupling.wants_flush() {
            return Self::Flush;
        }
        let input = coupling.to_program();
        if input.is_empty() {
            return Self::Nothing;
        }
        Self::Write(input[..input.len().min(READ)].to_vec())
    }

    async fn carry_out(
        &self,
        input: &mut Option<Box<dyn AsyncWrite + Send + Unpin>>,
    ) -> io::Result<Fed> {
        let Some(input) = input else { return std::future::pending().await };
        match self {
            Self::Write(bytes) => match input.write(bytes).await? {
                0 => Ok(Fed::Closed),
                count => Ok(Fed::Took(count)),
            },
            Self::Flush => input.flush().await.map(|()| Fed::Flushed),
            Self::Close => input.shutdown().await.map(|()| Fed::Closed),
            Self::Nothing => std::future::pending().await,
        }
    }
}

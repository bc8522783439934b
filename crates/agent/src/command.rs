//! One stream: a process group, a connection to a service, or one of a program's to
//! its user's database; its pipes and its credit.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, Stdio};

use agent_protocol::{
    ExecRequest, Message, OutputKind, ReceiveWindow, SendWindow, Status, StreamId,
};

use crate::activate;
use crate::link::Link;
use crate::sys::{self, POLLIN, POLLOUT, PollFd, SIGKILL};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that every command starts with.
pub(crate) const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", PATH), ("HOME", "/root"), ("TERM", "linux")];

/// Nothing that a user sends may seem taken that was not.
const CUT_OFF: &str = "the service closed the conversation before it had read all of it";

/// Who is at the other end of a command's pipes.
enum Body {
    /// A process group of its own, whose first process has this number.
    Process(i32),
    /// The service whose first process has this number, over this socket.
    Service(i32, UnixStream),
    /// A program that has connected to its user's database, over this socket.
    Client(UnixStream),
}

impl Body {
    fn socket(&self) -> Option<&UnixStream> {
        match self {
            Self::Process(_) => None,
            Self::Service(_, socket) | Self::Client(socket) => Some(socket),
        }
    }
}

pub(crate) struct Command {
    stream: StreamId,
    body: Body,
    stdin: Option<File>,
    /// Bytes for `stdin`; bounded by `input_window`.
    input: VecDeque<u8>,
    input_window: ReceiveWindow,
    input_ended: bool,
    stdout: Option<File>,
    stderr: Option<File>,
    output_window: SendWindow,
    /// Where its outputs are in the list of what was waited for last.
    polled: [Option<usize>; 2],
    /// Outputs that may hold more than was taken.
    more: [bool; 2],
    status: Option<Status>,
    /// The service closed its end before it had read everything.
    cut_off: bool,
}

impl Command {
    /// Starts a command in a session of its own.
    ///
    /// The error is for the host's user.
    pub(crate) fn start(stream: StreamId, request: &ExecRequest) -> Result<Self, String> {
        let program = named(request)?;
        let mut command = prepare(program, request)?;
        command.args(arguments(request));
        command.stdin(Stdio::piped());
        Self::spawn(stream, command).map_err(|error| why_not_started(program, &error))
    }

    /// Starts a command that gets `listener` as descriptor 3 and `variables`
    /// beside its own; its standard input is empty.
    pub(crate) fn start_listening(
        stream: StreamId,
        request: &ExecRequest,
        listener: OwnedFd,
        variables: &[(&str, &OsStr)],
    ) -> Result<Self, String> {
        named(request)?;
        // Only the process itself can know its number for LISTEN_PID.
        let mut command = prepare(OsStr::new("/proc/self/exe"), request)?;
        command.arg0(activate::NAME).args(request.argv.iter().map(|part| OsStr::from_bytes(part)));
        command.envs(variables.iter().copied()).stdin(Stdio::from(listener));
        Self::spawn(stream, command).map_err(|error| format!("the guest has no process: {error}"))
    }

    fn spawn(stream: StreamId, mut command: process::Command) -> io::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::own_session(&mut command, false);
        Ok(Self::of_child(stream, command.spawn()?))
    }

    fn of_child(stream: StreamId, mut child: Child) -> Self {
        let fed = child.stdin.is_some();
        let mut started = Self::new(stream, Body::Process(child.id() as i32));
        started.stdin = pipe_end(child.stdin.take().map(OwnedFd::from));
        started.stdout = pipe_end(child.stdout.take().map(OwnedFd::from));
        started.stderr = pipe_end(child.stderr.take().map(OwnedFd::from));
        if fed != started.stdin.is_some() || started.stdout.is_none() || started.stderr.is_none() {
            started.abandon();
        }
        started
    }

    /// Joins `stream` to a service's socket; `pid` is the service's process.
    pub(crate) fn join(stream: StreamId, socket: UnixStream, pid: i32) -> io::Result<Self> {
        let (input, output) = (socket.try_clone()?, socket.try_clone()?);
        let mut joined = Self::new(stream, Body::Service(pid, socket));
        joined.stdin = pipe_end(Some(input.into()));
        joined.stdout = pipe_end(Some(output.into()));
        Ok(joined)
    }

    /// Joins `stream` to a program that has connected to a database, by a socket that
    /// never makes the agent wait.
    pub(crate) fn of_client(stream: StreamId, socket: OwnedFd) -> io::Result<Self> {
        // Also of TCP: it is only read, written and shut down, which is the same.
        let socket = UnixStream::from(socket);
        let ends = [socket.try_clone()?, socket.try_clone()?];
        let [input, output] = ends.map(|end| File::from(OwnedFd::from(end)));
        let mut joined = Self::new(stream, Body::Client(socket));
        (joined.stdin, joined.stdout) = (Some(input), Some(output));
        Ok(joined)
    }

    fn new(stream: StreamId, body: Body) -> Self {
        Self {
            stream,
            body,
            stdin: None,
            input: VecDeque::new(),
            input_window: ReceiveWindow::new(),
            input_ended: false,
            stdout: None,
            stderr: None,
            output_window: SendWindow::new(),
            polled: [None; 2],
            more: [false; 2],
            status: None,
            cut_off: false,
        }
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    /// Its process, or that of the service it is joined to; none of a client, which
    /// ends by its socket.
    pub(crate) fn pid(&self) -> Option<i32> {
        match self.body {
            Body::Process(pid) | Body::Service(pid, _) => Some(pid),
            Body::Client(_) => None,
        }
    }

    /// Whether it is a connection to a database.
    pub(crate) fn is_client(&self) -> bool {
        matches!(self.body, Body::Client(_))
    }

    /// Bytes from the host for the command's standard input.
    pub(crate) fn feed(&mut self, bytes: &[u8], link: &mut Link) {
        if self.input_window.arrived(bytes.len()).is_err() {
            // The host does not keep to its credit: it gets no such command.
            self.abandon();
            return;
        }
        if !self.input_ended {
            self.input.extend(bytes);
        }
        self.write_input(link);
    }

    pub(crate) fn end_input(&mut self, link: &mut Link) {
        self.input_ended = true;
        self.write_input(link);
    }

    /// The host's user took output; false credit ends the command.
    pub(crate) fn refill(&mut self, bytes: u32) {
        if self.output_window.refill(bytes).is_err() {
            self.abandon();
        }
    }

    /// Sends a signal to all of the command's processes, while it runs. A
    /// service is not its conversations' to signal.
    pub(crate) fn signal(&self, signal: i32) {
        // After its end the number may be somebody else's.
        if let (Body::Process(pid), None) = (&self.body, self.status) {
            let _ = sys::send_signal(-pid, signal);
        }
    }

    /// Nobody wants this command: kills it, or leaves its service, and forgets
    /// its pipes.
    pub(crate) fn abandon(&mut self) {
        self.signal(SIGKILL);
        if let Some(socket) = self.body.socket() {
            // It fails only if the other end was first.
            let _ = socket.shutdown(Shutdown::Both);
            self.status = self.status.or(Some(Status::Signal(SIGKILL as u8)));
        }
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        self.input.clear();
    }

    /// Its process has been reaped. Everything that it wrote is in the pipes;
    /// what others still write there later is nobody's.
    pub(crate) fn ended(&mut self, status: Status) {
        self.status = self.status.or(Some(status));
        self.stdin = None;
    }

    /// A service or client has closed its end: in order, unless it is just dying, as
    /// its descriptors are closed before its end can be reaped.
    fn look_after_socket(&mut self) {
        if self.stdout.is_some() || self.status.is_some() {
            return;
        }
        let in_order = match &self.body {
            Body::Process(_) => false,
            Body::Service(pid, _) => !sys::is_ending(*pid),
            Body::Client(_) => true,
        };
        if in_order {
            self.status = Some(Status::Code(0));
        }
    }

    /// The last word about this command, once its outputs are sent.
    pub(crate) fn result(&self) -> Option<Message> {
        let sent = self.stdout.is_none() && self.stderr.is_none();
        match self.status.filter(|_| sent)? {
            Status::Code(0) if self.cut_off => Some(Message::Failed(CUT_OFF.to_owned())),
            status => Some(Message::Exited(status)),
        }
    }

    /// Adds what to wait for: room in its input, output that can be sent.
    pub(crate) fn poll_fds(&mut self, room: bool, fds: &mut Vec<PollFd>) {
        if let Some(stdin) = &self.stdin {
            // Without input to write this still tells when the reader is gone,
            // which is of no use: it would be told again and again.
            if !self.input.is_empty() {
                fds.push(PollFd::new(stdin, POLLOUT));
            }
        }
        self.polled = [None; 2];
        if room && self.output_window.available() > 0 {
            for (polled, output) in self.polled.iter_mut().zip([&self.stdout, &self.stderr]) {
                let Some(output) = output else { continue };
                *polled = Some(fds.len());
                fds.push(PollFd::new(output, POLLIN));
            }
        }
    }

    /// Moves what can be moved, one piece of each output at most, so that
    /// commands take turns. `fds` are as they were waited for, `buffer` is for a
    /// piece. Says whether an output may hold more.
    pub(crate) fn turn(&mut self, link: &mut Link, fds: &[PollFd], buffer: &mut [u8]) -> bool {
        self.write_input(link);
        for (index, kind) in [OutputKind::Stdout, OutputKind::Stderr].into_iter().enumerate() {
            let found = |at: usize| fds.get(at).is_some_and(|fd| fd.found != 0);
            // Of a process that is gone there is all there will be.
            let due = self.status.is_some() || self.polled[index].is_some_and(found);
            if due || self.more[index] {
                self.more[index] = self.read_output(kind, link, buffer);
            }
        }
        self.look_after_socket();
        self.more.contains(&true)
    }

    fn write_input(&mut self, link: &mut Link) {
        let mut taken = 0;
        while let (Some(stdin), false) = (&mut self.stdin, self.input.is_empty()) {
            match stdin.write(self.input.as_slices().0) {
                Ok(count) => {
                    self.input.drain(..count);
                    taken += count;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.stdin = None,
            }
        }
        if self.stdin.is_none() {
            // The command reads no more; the host goes on as if it did.
            taken += self.input.len();
            self.input.clear();
        }
        if self.input_ended && self.input.is_empty() && self.stdin.take().is_some() {
            if let Some(socket) = self.body.socket() {
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
        if let Some(credit) = self.input_window.consumed(taken) {
            link.say(self.stream, &Message::Credit(credit));
        }
    }

    fn read_output(&mut self, kind: OutputKind, link: &mut Link, buffer: &mut [u8]) -> bool {
        let output = match kind {
            OutputKind::Stdout => &mut self.stdout,
            OutputKind::Stderr => &mut self.stderr,
        };
        let allowed = self.output_window.available().min(buffer.len());
        if allowed == 0 || !link.has_room() {
            return false;
        }
        let Some(file) = output else { return false };
        match file.read(&mut buffer[..allowed]) {
            Ok(0) => *output = None,
            Ok(count) => {
                self.output_window.spend(count);
                let bytes = buffer[..count].to_vec();
                link.say(
                    self.stream,
                    &match kind {
                        OutputKind::Stdout => Message::Stdout(bytes),
                        OutputKind::Stderr => Message::Stderr(bytes),
                    },
                );
                return true;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock && self.status.is_none() => {}
            Err(error) => {
                let client = matches!(self.body, Body::Client(_));
                self.cut_off |= error.kind() == ErrorKind::ConnectionReset && !client;
                *output = None;
            }
        }
        false
    }
}

/// The program that a request names.
fn named(request: &ExecRequest) -> Result<&OsStr, String> {
    let program = request.argv.first().ok_or_else(|| "no program was named".to_owned())?;
    Ok(OsStr::from_bytes(program))
}

fn arguments(request: &ExecRequest) -> impl Iterator<Item = &OsStr> {
    request.argv.iter().skip(1).map(|part| OsStr::from_bytes(part))
}

/// `program` with the environment and directory of a request.
fn prepare(program: &OsStr, request: &ExecRequest) -> Result<process::Command, String> {
    let directory = working_directory(&request.cwd)?;
    let mut command = process::Command::new(program);
    command.current_dir(directory).env_clear().envs(ENVIRONMENT);
    for (name, value) in &request.env {
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    Ok(command)
}

/// Our end of a pipe, set so that it never makes the agent wait.
fn pipe_end(fd: Option<OwnedFd>) -> Option<File> {
    fd.filter(|fd| sys::set_nonblocking(fd.as_fd()).is_ok()).map(File::from)
}

/// The directory asked for, or the home directory, or the root.
fn working_directory(asked: &[u8]) -> Result<&OsStr, String> {
    let asked = OsStr::from_bytes(asked);
    if asked.is_empty() {
        let home = OsStr::new("/root");
        return Ok(if Path::new(home).is_dir() { home } else { OsStr::new("/") });
    }
    if Path::new(asked).is_dir() {
        return Ok(asked);
    }
    Err(format!("{}: no such directory in the guest", asked.to_string_lossy()))
}

pub(crate) fn why_not_started(program: &OsStr, error: &io::Error) -> String {
    let name = program.to_string_lossy();
    match error.kind() {
        ErrorKind::NotFound if name.contains('/') && Path::new(program).exists() => {
            format!("{name}: its interpreter is not in the guest")
        }
        ErrorKind::NotFound => format!("{name}: not found in the guest"),
        ErrorKind::PermissionDenied => format!("{name}: not a program that the guest may execute"),
        _ => format!("{name}: the guest cannot start it: {error}"),
    }
}

//! One command of the host's: a process group, its pipes and its credit.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{self, Stdio};

use agent_protocol::{
    DATA_CHUNK, ExecRequest, Message, OutputKind, ReceiveWindow, SendWindow, Status, StreamId,
};

use crate::link::Link;
use crate::sys::{self, POLLIN, POLLOUT, PollFd, SIGKILL};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that every command starts with.
pub(crate) const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", PATH), ("HOME", "/root"), ("TERM", "linux")];

pub(crate) struct Command {
    stream: StreamId,
    pid: i32,
    stdin: Option<File>,
    /// Bytes for `stdin`; bounded by `input_window`.
    input: VecDeque<u8>,
    input_window: ReceiveWindow,
    input_ended: bool,
    stdout: Option<File>,
    stderr: Option<File>,
    output_window: SendWindow,
    status: Option<Status>,
}

impl Command {
    /// Starts a command in a session of its own.
    ///
    /// The error is for the host's user.
    pub(crate) fn start(stream: StreamId, request: &ExecRequest) -> Result<Self, String> {
        let argv: Vec<&OsStr> = request.argv.iter().map(|part| OsStr::from_bytes(part)).collect();
        let Some((program, arguments)) = argv.split_first() else {
            return Err("no program was named".to_owned());
        };
        let directory = working_directory(&request.cwd)?;
        let mut command = process::Command::new(program);
        command.args(arguments).current_dir(directory).env_clear().envs(ENVIRONMENT);
        for (name, value) in &request.env {
            command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::own_session(&mut command, false);
        let mut child = command.spawn().map_err(|error| why_not_started(program, &error))?;
        let mut started = Self {
            stream,
            pid: child.id() as i32,
            stdin: pipe_end(child.stdin.take().map(OwnedFd::from)),
            input: VecDeque::new(),
            input_window: ReceiveWindow::new(),
            input_ended: false,
            stdout: pipe_end(child.stdout.take().map(OwnedFd::from)),
            stderr: pipe_end(child.stderr.take().map(OwnedFd::from)),
            output_window: SendWindow::new(),
            status: None,
        };
        if started.stdin.is_none() || started.stdout.is_none() || started.stderr.is_none() {
            started.abandon();
        }
        Ok(started)
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
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

    /// Sends a signal to all of the command's processes, while it runs.
    pub(crate) fn signal(&self, signal: i32) {
        // After its end the number may be somebody else's.
        if self.status.is_none() {
            let _ = sys::send_signal(-self.pid, signal);
        }
    }

    /// Nobody wants this command: kills it and forgets its pipes.
    pub(crate) fn abandon(&mut self) {
        self.signal(SIGKILL);
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        self.input.clear();
    }

    /// Its process has been reaped. Everything that it wrote is in the pipes;
    /// what others still write there later is nobody's.
    pub(crate) fn ended(&mut self, status: Status) {
        self.status = Some(status);
        self.stdin = None;
    }

    /// The last word about this command, once its outputs are sent.
    pub(crate) fn result(&self) -> Option<Message> {
        let sent = self.stdout.is_none() && self.stderr.is_none();
        self.status.filter(|_| sent).map(Message::Exited)
    }

    /// Adds what to wait for: room in its input, output that can be sent.
    pub(crate) fn poll_fds(&self, room: bool, fds: &mut Vec<PollFd>) {
        if let Some(stdin) = &self.stdin {
            // Without input to write this still tells when the reader is gone,
            // which is of no use: it would be told again and again.
            if !self.input.is_empty() {
                fds.push(PollFd::new(stdin, POLLOUT));
            }
        }
        if room && self.output_window.available() > 0 {
            for output in [&self.stdout, &self.stderr].into_iter().flatten() {
                fds.push(PollFd::new(output, POLLIN));
            }
        }
    }

    /// Moves what can be moved, one piece of each output at most, so that
    /// commands take turns. Says whether an output may hold more.
    pub(crate) fn turn(&mut self, link: &mut Link) -> bool {
        self.write_input(link);
        let out = self.read_output(OutputKind::Stdout, link);
        let err = self.read_output(OutputKind::Stderr, link);
        out || err
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
        if self.input_ended && self.input.is_empty() {
            self.stdin = None;
        }
        if let Some(credit) = self.input_window.consumed(taken) {
            link.say(self.stream, &Message::Credit(credit));
        }
    }

    fn read_output(&mut self, kind: OutputKind, link: &mut Link) -> bool {
        let output = match kind {
            OutputKind::Stdout => &mut self.stdout,
            OutputKind::Stderr => &mut self.stderr,
        };
        let allowed = self.output_window.available().min(DATA_CHUNK);
        if allowed == 0 || !link.has_room() {
            return false;
        }
        let Some(file) = output else { return false };
        let mut buffer = [0; DATA_CHUNK];
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
            Err(_) => *output = None,
        }
        false
    }
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

fn why_not_started(program: &OsStr, error: &io::Error) -> String {
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

//! Transaction programs that are initialised beforehand and wait for
//! conversations on a socket.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use agent_protocol::{ServiceRequest, StreamId, Tpn};

use crate::command::Command;
use crate::sys::{self, POLLIN, PollFd};

/// Notifications heard in one turn, so that a service cannot keep the agent
/// listening.
const PER_TURN: usize = 16;

/// Bytes of a notification that are looked at.
const NOTIFICATION: usize = 4096;

/// Beside its [`Command`], which has its process and its outputs.
pub(crate) struct Service {
    stream: StreamId,
    pid: i32,
    /// Where it listens.
    path: PathBuf,
    notify: UnixDatagram,
    notify_path: PathBuf,
    ready: bool,
}

impl Service {
    /// Starts a service with its sockets under `directory`.
    ///
    /// The error is for the operator.
    pub(crate) fn start(
        stream: StreamId,
        request: &ServiceRequest,
        directory: &Path,
    ) -> Result<(Self, Command), String> {
        let path = directory.join(format!("{}.sock", request.tpn));
        let notify_path = directory.join(format!("{}.notify", request.tpn));
        let sockets = || -> io::Result<_> {
            fs::create_dir_all(directory)?;
            // What an earlier service of that name may have left.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(&notify_path);
            let (listener, notify) =
                (UnixListener::bind(&path)?, UnixDatagram::bind(&notify_path)?);
            notify.set_nonblocking(true)?;
            Ok((listener, notify))
        };
        let (listener, notify) = sockets()
            .map_err(|error| format!("{}: the guest has no socket: {error}", path.display()))?;
        let variables = [
            ("LISTEN_FDS", OsStr::new("1")),
            ("LISTEN_FDNAMES", OsStr::new(request.tpn.as_str())),
            ("BERTH_SOCKET", path.as_os_str()),
            ("NOTIFY_SOCKET", notify_path.as_os_str()),
        ];
        // Our descriptor of the listener is closed by this: when the service
        // is gone, nobody can wait at its socket in vain.
        let command = Command::start_listening(
            stream,
            &request.program,
            OwnedFd::from(listener),
            &variables,
        )?;
        let pid = command.pid().ok_or("the service has no process")?;
        let service = Self { stream, pid, path, notify, notify_path, ready: false };
        Ok((service, command))
    }

    /// Joins `stream` to a new connection to this service.
    pub(crate) fn converse(&self, stream: StreamId, tpn: &Tpn) -> Result<Command, String> {
        sys::connect_now(&self.path)
            .and_then(|socket| Command::join(stream, socket, self.pid))
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("the service of {tpn} accepts no conversations; too many wait for it")
                }
                _ => format!("the service of {tpn} cannot be reached: {error}"),
            })
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn poll_fd(&self) -> PollFd {
        PollFd::new(&self.notify, POLLIN)
    }

    /// Hears its notifications; whether it has become ready by that.
    pub(crate) fn hear(&mut self) -> bool {
        let was_ready = self.ready;
        let mut buffer = [0; NOTIFICATION];
        for _ in 0..PER_TURN {
            let Ok(count) = self.notify.recv(&mut buffer) else { break };
            self.ready |=
                buffer[..count].split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
        }
        self.ready && !was_ready
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.notify_path);
    }
}

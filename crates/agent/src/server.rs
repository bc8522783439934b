//! The loop that everything runs in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::time::{Duration, Instant};

use agent_protocol::{ExecRequest, MAX_COMMANDS, Message, Ready, StreamId, VERSION};

use crate::command::Command;
use crate::link::{Change, Link, Place};
use crate::log;
use crate::shell::Shell;
use crate::sys::{
    self, POLLERR, POLLHUP, POLLIN, PollFd, Reaped, SIGCHLD, SIGNAL_RECORD, SIGTERM, SIGUSR1,
    SIGUSR2,
};

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The host, or somebody in the guest, wants it switched off.
    PowerOff,
    /// Somebody in the guest wants it started again.
    Restart,
    /// The other end of standard input is closed.
    HostGone,
}

/// Serves one host over one link. Everything happens in [`run`](Self::run):
/// there are no threads, so no child can end between its start and its entry
/// in the table.
pub(crate) struct Server {
    link: Link,
    signals: File,
    commands: BTreeMap<StreamId, Command>,
    shell: Option<Shell>,
    end: Option<End>,
}

impl Server {
    /// For process 1 of a guest.
    pub(crate) fn for_guest() -> io::Result<Self> {
        // The last three are what the guest's own halt, poweroff and reboot
        // send to process 1.
        let signals = [SIGCHLD, SIGUSR1, SIGUSR2, SIGTERM];
        Self::new(Place::Port, &signals, Some(Shell::new()))
    }

    /// For any other process, at its standard input.
    pub(crate) fn for_standard_input() -> io::Result<Self> {
        Self::new(Place::StandardInput, &[SIGCHLD], None)
    }

    fn new(place: Place, signals: &[i32], shell: Option<Shell>) -> io::Result<Self> {
        Ok(Self {
            link: Link::new(place)?,
            signals: sys::signal_descriptor(signals)?,
            commands: BTreeMap::new(),
            shell,
            end: None,
        })
    }

    /// Serves until somebody wants an end of it.
    pub(crate) fn run(&mut self) -> End {
        let mut more = false;
        loop {
            if self.link.look() == Change::Up {
                self.greet();
            }
            if let Some(shell) = &mut self.shell {
                shell.look();
            }
            self.wait(more);
            self.take_signals();
            more = self.take_turns();
            if let Some(end) = self.end {
                return end;
            }
        }
    }

    fn greet(&mut self) {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let ready = Ready {
            version: VERSION,
            uptime_ns: sys::uptime_ns(),
            kernel: kernel.trim_end().to_owned(),
        };
        self.link.say(0, &Message::Ready(ready));
        let change = self.link.flush();
        self.note(change);
    }

    /// Waits until there is something to do, not at all if `more` is waiting
    /// already, and hears the host.
    fn wait(&mut self, more: bool) {
        let mut fds = vec![PollFd::new(&self.signals, POLLIN)];
        let link = self.link.poll_fd();
        fds.extend(link);
        let room = self.link.has_room();
        for command in self.commands.values() {
            command.poll_fds(room, &mut fds);
        }
        let timeout = if more { Some(Duration::ZERO) } else { self.time_to_wait() };
        if let Err(error) = sys::wait_any(&mut fds, timeout) {
            log::error(&format!("waiting for events: {error}"));
        }
        if link.is_some() && fds[1].found & (POLLIN | POLLHUP | POLLERR) != 0 {
            self.hear();
        }
    }

    fn time_to_wait(&self) -> Option<Duration> {
        let shell = self.shell.as_ref().and_then(Shell::wake_at);
        let wake = self.link.wake_at().into_iter().chain(shell).min()?;
        Some(wake.saturating_duration_since(Instant::now()))
    }

    fn hear(&mut self) {
        let mut heard = Vec::new();
        let change = self.link.hear(&mut heard);
        for (stream, message) in heard {
            self.handle(stream, message);
        }
        self.note(change);
    }

    fn note(&mut self, change: Change) {
        if change != Change::Down {
            return;
        }
        for command in self.commands.values_mut() {
            command.abandon();
        }
        if self.link.is_at(Place::StandardInput) {
            self.end = Some(End::HostGone);
        }
    }

    fn handle(&mut self, stream: StreamId, message: Message) {
        match message {
            Message::Exec(request) => self.start(stream, &request),
            Message::Ping(number) => self.link.say(0, &Message::Pong(number)),
            Message::Shutdown => self.end = Some(End::PowerOff),
            other => {
                // A command that has ended may still be talked to for a while.
                let Some(command) = self.commands.get_mut(&stream) else { return };
                match other {
                    Message::Stdin(bytes) => command.feed(&bytes, &mut self.link),
                    Message::StdinEnd => command.end_input(&mut self.link),
                    Message::Signal(signal) => command.signal(i32::from(signal)),
                    Message::Credit(bytes) => command.refill(bytes),
                    Message::Close => command.abandon(),
                    other => log::error(&format!("the host said {} to a guest", other.name())),
                }
            }
        }
    }

    fn start(&mut self, stream: StreamId, request: &ExecRequest) {
        if self.commands.contains_key(&stream) {
            log::error(&format!("the host used stream {stream} for two commands"));
            return;
        }
        let started = if self.commands.len() < MAX_COMMANDS {
            Command::start(stream, request)
        } else {
            Err(format!(
                "{MAX_COMMANDS} commands are running in the guest, the most it takes; try again \
                 when one has ended"
            ))
        };
        match started {
            Ok(command) => {
                self.commands.insert(stream, command);
            }
            Err(why) => self.link.say(stream, &Message::Failed(why)),
        }
    }

    fn take_signals(&mut self) {
        let mut records = [0; 8 * SIGNAL_RECORD];
        while let Ok(count) = self.signals.read(&mut records) {
            for record in records[..count].chunks_exact(SIGNAL_RECORD) {
                match i32::from(record[0]) {
                    SIGCHLD => self.reap(),
                    SIGUSR1 | SIGUSR2 => self.end = Some(End::PowerOff),
                    SIGTERM => self.end = Some(End::Restart),
                    _ => {}
                }
            }
        }
    }

    /// Takes up the end of every child: commands, the shell, and orphans that
    /// nobody else waits for.
    fn reap(&mut self) {
        while let Ok(Reaped::Child(pid, status)) = sys::reap() {
            if self.shell.as_mut().is_some_and(|shell| shell.ended(pid)) {
                continue;
            }
            if let Some(command) = self.commands.values_mut().find(|command| command.pid() == pid) {
                command.ended(status);
            }
        }
    }

    /// Lets every command move its bytes and sends what came of it. Says
    /// whether there is more to move right away.
    fn take_turns(&mut self) -> bool {
        let mut more = false;
        for command in self.commands.values_mut() {
            more |= command.turn(&mut self.link);
            if let Some(result) = command.result() {
                self.link.say(command.stream(), &result);
            }
        }
        self.commands.retain(|_, command| command.result().is_none());
        let change = self.link.flush();
        self.note(change);
        more && self.link.has_room()
    }
}

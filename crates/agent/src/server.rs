//! The loop that everything runs in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent_protocol::{
    Conversation, DATA_CHUNK, MAX_COMMANDS, MAX_CONNECTIONS, Message, Ready, Renewal,
    ServiceRequest, StreamId, Tpn, VERSION,
};

use crate::command::Command;
use crate::database::{self, Database};
use crate::link::{Change, Link, Place};
use crate::metadata::Metadata;
use crate::service::Service;
use crate::shell::Shell;
use crate::sys::{
    self, POLLERR, POLLHUP, POLLIN, PollFd, Reaped, SIGCHLD, SIGNAL_RECORD, SIGPIPE, SIGTERM,
    SIGUSR1, SIGUSR2,
};
use crate::{log, renew};

/// What the agent shows to programs in the guest.
const DIRECTORY: &str = "/run/berth";
/// Variable that names another such directory for an agent that is not the
/// first process.
const DIRECTORY_VARIABLE: &str = "BERTH_AGENT_DIRECTORY";

/// Why nobody may converse with a machine that could not be renewed.
const LIKE_ANOTHER: &str = "the machine is like another one: it could not be renewed";

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
    /// What was waited for last; signals come first.
    fds: Vec<PollFd>,
    /// For one piece of a command's output.
    buffer: Box<[u8]>,
    commands: BTreeMap<StreamId, Command>,
    /// By name, those whose process runs; each has its command as well.
    services: BTreeMap<Tpn, Service>,
    /// Whether one of them may have said that it is ready.
    services_due: bool,
    metadata: Metadata,
    /// Whether something of `metadata` can move.
    metadata_due: bool,
    /// Of a machine that was renewed.
    identity: Option<renew::Identity>,
    /// Its last renewal failed: it is still like another.
    like_another: bool,
    database: Database,
    /// Whether somebody may have connected to it.
    database_due: bool,
    directory: PathBuf,
    shell: Option<Shell>,
    end: Option<End>,
}

impl Server {
    /// For process 1 of a guest, whose user has a database if `database`.
    pub(crate) fn for_guest(database: bool) -> io::Result<Self> {
        // The last three are what the guest's own halt, poweroff and reboot
        // send to process 1.
        let signals = [SIGCHLD, SIGUSR1, SIGUSR2, SIGTERM, SIGPIPE];
        let mut server = Self::new(Place::Port, &signals, DIRECTORY.into(), Some(Shell::new()))?;
        if database {
            if let Err(error) = server.database.open(database::DIRECTORY.as_ref(), true) {
                log::error(&format!("programs cannot connect to their database: {error}"));
            }
        }
        Ok(server)
    }

    /// For any other process, at its standard input.
    pub(crate) fn for_standard_input() -> io::Result<Self> {
        let directory = std::env::var_os(DIRECTORY_VARIABLE).unwrap_or(DIRECTORY.into());
        let signals = [SIGCHLD, SIGPIPE];
        let mut server = Self::new(Place::StandardInput, &signals, directory.into(), None)?;
        server.database.open(&server.directory.join("postgresql"), false)?;
        Ok(server)
    }

    fn new(
        place: Place,
        signals: &[i32],
        directory: PathBuf,
        shell: Option<Shell>,
    ) -> io::Result<Self> {
        Ok(Self {
            link: Link::new(place)?,
            signals: sys::signal_descriptor(signals)?,
            fds: Vec::new(),
            buffer: vec![0; DATA_CHUNK].into(),
            commands: BTreeMap::new(),
            services: BTreeMap::new(),
            services_due: false,
            metadata: Metadata::default(),
            metadata_due: false,
            identity: None,
            like_another: false,
            database: Database::default(),
            database_due: false,
            directory,
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
            if self.found(0) {
                self.take_signals();
            }
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
        let mut fds = std::mem::take(&mut self.fds);
        fds.clear();
        fds.push(PollFd::new(&self.signals, POLLIN));
        let link = self.link.poll_fd();
        fds.extend(link);
        let room = self.link.has_room();
        for command in self.commands.values_mut() {
            command.poll_fds(room, &mut fds);
        }
        let services = fds.len();
        fds.extend(self.services.values().map(Service::poll_fd));
        let metadata = fds.len();
        self.metadata.poll_fds(&mut fds);
        let database = fds.len();
        self.database.poll_fds(&mut fds);
        let timeout = if more { Some(Duration::ZERO) } else { self.time_to_wait() };
        if let Err(error) = sys::wait_any(&mut fds, timeout) {
            log::error(&format!("waiting for events: {error}"));
        }
        let due = |fds: &[PollFd]| fds.iter().any(|fd| fd.found != 0);
        self.services_due = due(&fds[services..metadata]);
        self.metadata_due = due(&fds[metadata..database]);
        self.database_due = due(&fds[database..]);
        self.fds = fds;
        if link.is_some() && self.fds[1].found & (POLLIN | POLLHUP | POLLERR) != 0 {
            self.hear();
        }
    }

    fn found(&self, index: usize) -> bool {
        self.fds.get(index).is_some_and(|fd| fd.found != 0)
    }

    fn time_to_wait(&self) -> Option<Duration> {
        let shell = self.shell.as_ref().and_then(Shell::wake_at);
        let wake = self.link.wake_at().into_iter().chain(shell).chain(self.metadata.wake_at());
        let wake = wake.min()?;
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
            Message::Exec(request) => {
                let started = self.admit(stream).and_then(|()| Command::start(stream, &request));
                self.take_up(stream, started);
            }
            Message::StartService(request) => self.start_service(stream, &request),
            Message::Converse(conversation) => self.converse(stream, &conversation),
            Message::Renew(renewal) => self.renew(&renewal),
            Message::MetadataReply { id, status, body } => {
                self.metadata.answer(id, status, &body, &mut self.link);
            }
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

    /// Whether there can be one more command, or why not.
    fn admit(&self, stream: StreamId) -> Result<(), String> {
        if self.commands.contains_key(&stream) {
            return Err(format!("the host used stream {stream} for two commands"));
        }
        if self.commands.len() >= MAX_COMMANDS {
            return Err(format!(
                "{MAX_COMMANDS} commands are running in the guest, the most it takes; try again \
                 when one has ended"
            ));
        }
        Ok(())
    }

    /// Serves a new command, or says why there is none.
    fn take_up(&mut self, stream: StreamId, started: Result<Command, String>) -> bool {
        match started {
            Ok(command) => {
                self.commands.insert(stream, command);
                true
            }
            Err(why) if self.commands.contains_key(&stream) => {
                // That command must not seem to have failed.
                log::error(&why);
                false
            }
            Err(why) => {
                self.link.say(stream, &Message::Failed(why));
                false
            }
        }
    }

    /// From now on, programs can ask who the machine is.
    fn be_of_a_pool(&mut self) {
        let with_loopback = self.link.is_at(Place::Port);
        if let Err(error) = self.metadata.open(&self.directory, with_loopback) {
            log::error(&format!("programs cannot ask for their user: {error}"));
        }
    }

    /// Joins programs that have connected to their database to streams of their own.
    /// One too many, or one for which there is no host, finds its connection closed.
    fn take_connections(&mut self) {
        while let Some((stream, socket)) = self.database.accept() {
            let clients = self.commands.values().filter(|command| command.is_client()).count();
            if clients >= MAX_CONNECTIONS || self.admit(stream).is_err() || !self.link.is_up() {
                continue;
            }
            match Command::of_client(stream, socket) {
                Ok(command) => {
                    self.commands.insert(stream, command);
                    self.link.say(stream, &Message::Connect);
                }
                Err(error) => log::error(&format!("a program's connection: {error}")),
            }
        }
    }

    fn start_service(&mut self, stream: StreamId, request: &ServiceRequest) {
        self.be_of_a_pool();
        let started = self.admit(stream).and_then(|()| {
            if self.services.contains_key(&request.tpn) {
                return Err(format!("{} is started already", request.tpn));
            }
            Service::start(stream, request, &self.directory.join("tp"))
        });
        let (service, started) = match started {
            Ok((service, command)) => (Some(service), Ok(command)),
            Err(why) => (None, Err(why)),
        };
        self.take_up(stream, started);
        self.services.extend(service.map(|service| (request.tpn.clone(), service)));
    }

    fn converse(&mut self, stream: StreamId, conversation: &Conversation) {
        self.be_of_a_pool();
        let tpn = &conversation.tpn;
        // The host does not wait for a renewal before it sends this.
        let different = if self.like_another { Err(LIKE_ANOTHER.to_owned()) } else { Ok(()) };
        let admitted = different.and_then(|()| self.admit(stream));
        let joined = admitted.and_then(|()| match &conversation.program {
            Some(program) => Command::start(stream, program),
            None => match self.services.get(tpn) {
                Some(service) => service.converse(stream, tpn),
                None => Err(format!("no service of {tpn} runs in the guest")),
            },
        });
        if self.take_up(stream, joined) {
            self.link.say(stream, &Message::Accepted);
        }
    }

    fn renew(&mut self, renewal: &Renewal) {
        self.be_of_a_pool();
        let renewed = if self.link.is_at(Place::Port) {
            renew::renew(&mut self.identity, renewal, &self.directory)
        } else {
            Err("only the first process of a guest renews it".to_owned())
        };
        self.like_another = renewed.is_err();
        self.link.say(
            0,
            &match renewed {
                Ok(()) => Message::Renewed,
                Err(why) => Message::RenewFailed(why),
            },
        );
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
            // A service's end is that of its conversations as well.
            let commands = self.commands.values_mut().filter(|command| command.pid() == Some(pid));
            commands.for_each(|command| command.ended(status));
            self.services.retain(|_, service| service.pid() != pid);
        }
    }

    /// Lets every command move its bytes and sends what came of it. Says
    /// whether there is more to move right away.
    fn take_turns(&mut self) -> bool {
        let mut more = false;
        if self.services_due {
            for service in self.services.values_mut() {
                if service.hear() {
                    self.link.say(service.stream(), &Message::ServiceReady);
                }
            }
        }
        if self.metadata.expire() || self.metadata_due {
            self.metadata.turn(&mut self.link);
        }
        if self.database_due {
            self.take_connections();
        }
        for command in self.commands.values_mut() {
            more |= command.turn(&mut self.link, &self.fds, &mut self.buffer);
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

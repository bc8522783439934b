//! The link between the host and one worker.
//!
//! A `SOCK_SEQPACKET` socket: each packet is one message in JSON, with the
//! file descriptors that belong to it. The worker listens on it, so that a
//! host started later can find the worker again; it serves one host at a time.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use main_storage::StorageRange;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of a packet.
const MAX_PACKET: usize = 96 << 10;
/// File descriptors of a packet.
const MAX_FDS: usize = 5;

/// Hosts that can wait for a worker's attention.
const WAITING: i32 = 4;

/// What a worker is told to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    pub(crate) name: String,
    pub(crate) range: Place,
    pub(crate) reach: u64,
    pub(crate) vcpus: u8,
    /// Host CPUs that vCPUs are pinned to.
    pub(crate) pin: Option<Vec<usize>>,
    /// Host CPUs that everything else of the worker runs on.
    pub(crate) run_on: Vec<usize>,
    pub(crate) kernel: std::path::PathBuf,
    pub(crate) initrd: Option<std::path::PathBuf>,
    pub(crate) command_line: String,
    pub(crate) root: std::path::PathBuf,
    pub(crate) data: Option<DataDisk>,
    /// Access keys of I/O processors, 0 to 15, by name.
    pub(crate) io_keys: BTreeMap<String, u8>,
    /// Begin as a copy of a captured machine, and parked.
    pub(crate) copy: bool,
    /// With a device for the user's files.
    #[serde(default)]
    pub(crate) files: bool,
}

/// How a partition is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MoveMode {
    /// The guest runs while its storage is copied, and is stopped for a moment
    /// at the end.
    #[default]
    Live,
    /// The guest is stopped while its storage is copied.
    Stop,
}

impl From<MoveMode> for relocation::Mode {
    fn from(mode: MoveMode) -> Self {
        match mode {
            MoveMode::Live => Self::Live,
            MoveMode::Stop => Self::Stop,
        }
    }
}

/// A data disk: a template and what the guest writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DataDisk {
    pub(crate) template: std::path::PathBuf,
    /// What a copy of a captured machine has on it at first.
    #[serde(default)]
    pub(crate) captured: Option<std::path::PathBuf>,
    pub(crate) overlay: std::path::PathBuf,
}

/// A range as it is sent; checked again by whoever receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) origin: u64,
    pub(crate) size: u64,
}

impl From<StorageRange> for Place {
    fn from(range: StorageRange) -> Self {
        Self { origin: range.origin(), size: range.size() }
    }
}

impl TryFrom<Place> for StorageRange {
    type Error = main_storage::RangeError;
    fn try_from(place: Place) -> Result<Self, Self::Error> {
        Self::new(place.origin, place.size)
    }
}

/// What the host says to a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Make the machine and start it. With the files of storage and keys, and
    /// for a copy those of the captured storage and state.
    Start(Box<WorkerConfig>),
    /// Say who you are: answers [`Report::Hello`].
    Hello,
    /// Run a command. With the client's connection.
    Exec { argv: Vec<String>, env: Vec<(String, String)>, cwd: String },
    /// Attach to the console. With the client's connection.
    Console,
    /// Relocate. With the files of storage and keys.
    Move { from: Place, origin: u64, mode: MoveMode, wait_ms: u64 },
    /// Let two partitions change places. With the files of storage, keys and
    /// the exchange's record, and one end of a socket to the other worker.
    Exchange { a: [Place; 2], b: [Place; 2], side: Side, wait_ms: u64 },
    /// Grow or shrink behind the same origin. With the files of storage and
    /// keys.
    Resize { size: u64, wait_ms: u64 },
    /// The resource manager's answer to [`Report::Question`].
    Answer { refused: Option<RangeAnswer> },
    /// Ask the guest to power off; make it after `wait_ms`.
    PowerOff { wait_ms: u64 },
    /// Keep what the guest is now: answers [`Report::Captured`] or
    /// [`Report::NotCaptured`]. With the files of storage and keys and two empty
    /// ones, for storage and state.
    Capture { wait_ms: u64 },
    /// The guest's files are those of another session from now on. With a socket to
    /// the file manager.
    Files,
    /// The guest's database is that of another session from now on. With a socket
    /// to the database manager.
    Database,
    /// Let a parked copy go on.
    Wake,
    /// Make a copy what it was and park it: answers [`Report::Parked`] or
    /// [`Report::Broken`].
    Reset { wait_ms: u64 },
    /// Start a transaction program before anybody converses with it: answers
    /// [`Report::ServiceReady`] or [`Report::ServiceEnded`].
    StartService { tpn: String, program: Program, ready: ReadyWhen },
    /// Join a user to a transaction program: its service, or this program,
    /// started for it. With the user's connection: bytes both ways, and the
    /// end of each. Answers [`Report::ConversationAccepted`] and in the end
    /// [`Report::ConversationEnded`].
    Converse { conversation: u64, tpn: String, program: Option<Program> },
    /// End a conversation by force.
    Abend { conversation: u64 },
    /// Make the guest differ from the one whose state it was made from:
    /// answers [`Report::Renewed`].
    Renew(Box<Renewal>),
    /// Answers [`Report::MetadataQuestion`] with a status of HTTP and JSON.
    MetadataReply { id: u32, status: u16, body: String },
}

/// A program to start in the guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Empty for the home directory.
    pub(crate) cwd: String,
}

/// When a transaction program is initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReadyWhen {
    /// It says so as in sd_notify(3); it takes conversations on its socket.
    Notify,
    /// It exits with status 0; a program is started for each conversation.
    Exit,
}

/// As [`agent_protocol::Renewal`].
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Renewal {
    /// 32 to 256 bytes.
    pub(crate) entropy: Vec<u8>,
    pub(crate) wall_clock_ns: u64,
    pub(crate) hostname: String,
    pub(crate) machine_id: [u8; 16],
    pub(crate) boot_id: [u8; 16],
    pub(crate) generation: u64,
}

impl std::fmt::Debug for Renewal {
    /// Without the entropy, which is nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

/// Which part a worker has in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// The first partition's: swaps both storages.
    Leader,
    /// The other one's.
    Follower,
}

/// Why the resource manager refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RangeAnswer {
    pub(crate) message: String,
    pub(crate) in_the_way: Vec<String>,
}

/// What a worker says to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum Report {
    /// Who it is and where.
    Hello(Introduction),
    /// The guest was entered.
    Started,
    /// The guest's agent serves commands.
    Ready { uptime_ns: u64, kernel: String },
    /// The guest's agent is gone.
    NotReady,
    /// A relocation asks the resource manager; `reserve` for the first time.
    Question { origin: u64, reserve: bool },
    /// How far the copy is, in bytes.
    Copying { done: u64, total: u64 },
    /// A relocation or an exchange has ended.
    Moved(MoveReport),
    /// A resize has ended.
    Resized(ResizeReport),
    /// The machine has ended; the worker does so next.
    Ended(Ended),
    /// The guest was captured.
    Captured(Captured),
    /// It was not.
    NotCaptured { reason: String },
    /// A copy is as it was captured, and parked.
    Parked(PutBack),
    /// It is not, and must not be used.
    Broken { reason: String },
    /// A transaction program is initialised.
    ServiceReady { tpn: String },
    /// A transaction program has ended, or never was one; one that is ready
    /// when it exits is not reported when it has. With the last of what it
    /// wrote.
    ServiceEnded { tpn: String, end: ProgramEnd, words: String },
    /// A conversation is joined to its program.
    ConversationAccepted { conversation: u64 },
    /// A conversation is over: code 0 is in order. Everything that the program
    /// sent has been written to the user's connection, if he is there. With
    /// the last of what the program wrote to standard error, and the microseconds
    /// from the machine's waking to the program's first output, if it had one.
    ConversationEnded {
        conversation: u64,
        end: ProgramEnd,
        words: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_output_us: Option<u64>,
    },
    /// The guest is renewed, or why not.
    Renewed { problem: Option<String> },
    /// A program in the guest asks who the machine is: path and query of its
    /// request. Wants [`Order::MetadataReply`] of the same number.
    MetadataQuestion { id: u32, path: String },
}

/// What a capture has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Captured {
    /// Bytes of storage that are not zero.
    pub(crate) bytes: u64,
    pub(crate) micros: u64,
}

/// What it took to make a copy what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PutBack {
    /// Pages that got their content back.
    pub(crate) copied: u64,
    /// Pages that are zero again.
    pub(crate) cleared: u64,
    pub(crate) micros: u64,
}

/// How a program in the guest ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub(crate) enum ProgramEnd {
    Exited { code: u8 },
    Signal { signal: u8 },
    Failed { reason: String },
}

/// What a worker says of itself to a host that finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Introduction {
    /// Its partition.
    pub(crate) name: String,
    /// Where its storage is, unless that is being changed.
    pub(crate) range: Place,
    /// Whether its guest serves commands.
    pub(crate) ready: bool,
    /// Whether it is being moved, exchanged or resized. [`Report::Moved`] or
    /// [`Report::Resized`] follows when that ends.
    pub(crate) changing: bool,
}

/// How a relocation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum MoveReport {
    Moved {
        bytes: u64,
        nanos: u64,
        pause_us: u64,
        not_cleared: Option<String>,
        out_of_service: Vec<String>,
    },
    Stayed {
        reason: String,
        in_the_way: Vec<String>,
        busy_devices: Vec<String>,
        out_of_service: Vec<String>,
    },
    Lost {
        reason: String,
    },
}

impl MoveReport {
    /// Nothing has happened.
    pub(crate) fn stayed(reason: String) -> Self {
        let (in_the_way, busy_devices, out_of_service) = (vec![], vec![], vec![]);
        Self::Stayed { reason, in_the_way, busy_devices, out_of_service }
    }
}

/// How a resize ended. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum ResizeReport {
    Resized {
        size: u64,
        /// What the guest has of it.
        guest_bytes: u64,
        /// What the guest did not give back.
        kept: u64,
        pause_us: u64,
        out_of_service: Vec<String>,
    },
    Stayed {
        size: u64,
        reason: String,
        busy_devices: Vec<String>,
    },
}

/// Begins the last line of the log of a worker whose machine has ended; JSON of
/// [`Ended`] follows.
pub(crate) const LAST_WORD: &str = "ended ";

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub(crate) enum Ended {
    PowerOff,
    Reboot,
    ShutDown,
    Failed { reason: String },
}

/// One end of a link.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(path)?)
}

fn socket() -> io::Result<OwnedFd> {
    let kind = SocketType::SEQPACKET;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

/// Listens at `path`, taking the place of what a dead worker left there.
pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket()?;
    rustix::net::bind(&socket, &address(path)?)?;
    rustix::net::listen(&socket, WAITING)?;
    Ok(socket)
}

/// Makes this process the one that [`Link::peer_pid`] names to whoever
/// connects from now on: it is whoever called `listen` last (unix(7)).
pub(crate) fn adopt(listener: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::listen(listener, WAITING)?)
}

/// Waits for a host to connect.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Link> {
    loop {
        match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
            accepted => return Ok(Link(accepted?)),
        }
    }
}

impl From<OwnedFd> for Link {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl Link {
    /// Two ends of a new link.
    pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
    }

    /// Connects to the worker that listens at `path`.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::connect(&socket, &address(path)?)?;
        Ok(Self(socket))
    }

    /// The process at the other end, as the kernel knows it.
    pub(crate) fn peer_pid(&self) -> Option<i32> {
        let peer = rustix::net::sockopt::socket_peercred(&self.0).ok()?;
        Some(peer.pid.as_raw_nonzero().get())
    }

    /// Sends one message, unless that would mean waiting.
    pub(crate) fn send_now<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.send_with(message, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Sends one message.
    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(message, fds, SendFlags::NOSIGNAL)
    }

    fn send_with<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        if packet.len() > MAX_PACKET || fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            let parts = [IoSlice::new(&packet)];
            match rustix::net::sendmsg(&self.0, &parts, &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return sent.map(|_| ()).map_err(Into::into),
            }
        }
    }

    /// Waits for the next message and its file descriptors; `None` when the
    /// other end is gone.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut packet = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut packet)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                received => break received?,
            }
        };
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let fds: Vec<OwnedFd> = fds.collect();
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
        }
        Ok(Some((serde_json::from_slice(&packet[..received.bytes])?, fds)))
    }

    /// As [`Link::receive`], but waits no longer than `limit`.
    pub(crate) fn receive_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut waited = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut waited, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return self.receive(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The user whose process is at the other end, as the kernel knows it.
    pub(crate) fn peer_uid(&self) -> Option<u32> {
        Some(rustix::net::sockopt::socket_peercred(&self.0).ok()?.uid.as_raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, Link, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.sock");
        let listener = listen(&path).unwrap();
        let host = Link::connect(&path).unwrap();
        (host, accept(listener.as_fd()).unwrap(), dir)
    }

    #[test]
    fn messages_and_their_files_arrive_together() {
        let (host, worker, dir) = pair();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        host.send(&Order::Console, &[file.as_fd()]).unwrap();
        host.send(&Order::PowerOff { wait_ms: 1 }, &[]).unwrap();
        let (order, fds) = worker.receive::<Order>().unwrap().unwrap();
        assert!(matches!(order, Order::Console) && fds.len() == 1);
        let (order, fds) = worker.receive::<Order>().unwrap().unwrap();
        assert!(matches!(order, Order::PowerOff { wait_ms: 1 }) && fds.is_empty());
        assert_eq!(host.peer_pid(), Some(std::process::id().cast_signed()));
    }

    #[test]
    fn the_other_ends_death_is_the_end() {
        let (host, worker, _dir) = pair();
        drop(worker);
        assert!(host.receive::<Report>().unwrap().is_none());
        assert!(host.send(&Order::Console, &[]).is_err());
    }

    #[test]
    fn a_message_too_long_is_refused_and_the_link_lives() {
        let (host, worker, _dir) = pair();
        let cwd = "x".repeat(MAX_PACKET);
        assert!(host.send(&Order::Exec { argv: vec![], env: vec![], cwd }, &[]).is_err());
        host.send(&Order::Console, &[]).unwrap();
        assert!(worker.receive::<Order>().unwrap().is_some());
    }

    #[test]
    fn waiting_has_an_end_and_the_link_lives() {
        let (one, other) = Link::pair().unwrap();
        let (one, other) = (Link::from(one), Link::from(other));
        let waited = one.receive_within::<Order>(Duration::from_millis(1));
        assert_eq!(waited.unwrap_err().kind(), io::ErrorKind::TimedOut);
        other.send(&Order::Console, &[]).unwrap();
        assert!(one.receive_within::<Order>(Duration::from_secs(60)).unwrap().is_some());
    }

    #[test]
    fn a_left_over_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.sock");
        drop(listen(&path).unwrap());
        let _listener = listen(&path).unwrap();
        assert!(Link::connect(&path).is_ok());
    }
}

//! What is said on the host's control socket.
//!
//! A client sends one [`Request`], a line of JSON of at most [`MAX_LINE`]
//! bytes. The host answers with lines of [`Reply`]: any number of
//! [`Reply::Note`] and [`Reply::Copying`], then one of the others. After
//! [`Reply::Attached`] the connection is the session's: frames of
//! [`agent_protocol`] on [`SESSION_STREAM`] for a command, plain bytes for a
//! console. The client sends nothing between its request and that reply.

use std::io::{self, Read, Write};

use database_manager::Login;
use file_manager::{SpaceName, SpacePath, Subject};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host_file::Engine;
pub use crate::outcomes::{CompactOutcome, ExchangeOutcome, Plan, Relocated, ResizeOutcome};

/// Bytes of a request or reply, its line end included.
pub const MAX_LINE: usize = 1 << 20;
/// The stream number in the frames between a client and a worker.
pub const SESSION_STREAM: u32 = 1;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The table: answers [`Reply::Status`].
    Status,
    /// Make a partition: answers [`Reply::Created`].
    Create(NewPartition),
    /// Delete a partition that does not run, with its data disk.
    Delete {
        /// The partition.
        name: String,
    },
    /// Start a partition: answers when its guest is entered.
    Start {
        /// The partition.
        name: String,
    },
    /// Stop a partition: the guest is asked, and made to after a while.
    Stop {
        /// The partition.
        name: String,
        /// Do not ask the guest.
        now: bool,
    },
    /// Stop and start.
    Restart {
        /// The partition.
        name: String,
        /// Do not ask the guest.
        now: bool,
    },
    /// Relocate a partition: answers [`Reply::Move`].
    Move {
        /// The partition.
        name: String,
        /// New origin in bytes.
        to: u64,
        /// Whether its guest runs meanwhile.
        mode: MoveMode,
        /// Only say what would happen.
        dry_run: bool,
    },
    /// Let two partitions change places: answers [`Reply::Exchange`].
    Exchange {
        /// The partitions.
        names: [String; 2],
        /// Only say what would happen.
        dry_run: bool,
    },
    /// Give a partition another size: answers [`Reply::Resize`].
    Resize {
        /// The partition.
        name: String,
        /// How large.
        size: NewSize,
        /// Move neighbours out of the way first.
        make_room: bool,
        /// Only say what would happen.
        dry_run: bool,
    },
    /// Move partitions so that there is one free range: answers
    /// [`Reply::Compact`]. Stops after the move in hand when the client closes
    /// its side of the connection.
    Compact {
        /// Bytes of the range; without, all that is free.
        free: Option<u64>,
        /// Only say what would happen.
        dry_run: bool,
    },
    /// Run a command in the guest.
    Exec {
        /// The partition.
        name: String,
        /// Program and arguments.
        argv: Vec<String>,
        /// Variables as (name, value).
        env: Vec<(String, String)>,
        /// Directory to start in; empty for the home directory.
        cwd: String,
    },
    /// Attach to the guest's console.
    Console {
        /// The partition.
        name: String,
    },
    /// Answer when every partition that starts with the host serves commands
    /// or has failed.
    WaitUp,
    /// Every pool and its machines: answers [`Reply::Pools`].
    PoolStatus,
    /// Let a pool that stopped building try again.
    PoolResume {
        /// The pool.
        name: String,
    },
    /// Give a pool other bounds.
    PoolResize {
        /// The pool.
        name: String,
        /// Fewest machines.
        min: u16,
        /// Most machines; at most what the host file says.
        max: u16,
    },
    /// See and change who may reach which users' files.
    Files {
        /// What of it.
        request: FilesRequest,
    },
    /// See and change who is which role of which database.
    Database {
        /// What of it.
        request: DatabaseRequest,
    },
    /// A link that lets a browser on this host in: answers [`Reply::Link`].
    OpenConsole {
        /// What it may do.
        role: identity::Role,
    },
    /// End every partition, then the host.
    Down,
}

/// What an operator wants with users' databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case", deny_unknown_fields)]
pub enum DatabaseRequest {
    /// Show who is what: answers [`Reply::Databases`].
    List,
    /// Give a login, in the place of what the subject had.
    Grant {
        /// To whom.
        to: Subject,
        /// As which role of which database.
        login: Login,
    },
    /// Take it back.
    Revoke {
        /// From whom.
        from: Subject,
    },
}

/// Who is which role of which database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseLogin {
    /// Who.
    pub of: Subject,
    /// What.
    #[serde(flatten)]
    pub login: Login,
}

/// What an operator wants with users' file spaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case", deny_unknown_fields)]
pub enum FilesRequest {
    /// Show them, or one: answers [`Reply::Files`].
    List {
        /// Only this one, and what it holds.
        space: Option<SpaceName>,
    },
    /// Have a space: a user's own, or one with a name only.
    Add {
        /// Its name; a user's own is called as the user is.
        space: SpaceName,
        /// Whose own it is.
        owner: Option<String>,
    },
    /// Let somebody reach a directory in a space.
    Grant {
        /// The space.
        space: SpaceName,
        /// To whom.
        to: Subject,
        /// The directory; all of the space if it is empty.
        path: SpacePath,
        /// To change it, not only to read.
        write: bool,
    },
    /// Take that back.
    Revoke {
        /// The space.
        space: SpaceName,
        /// From whom.
        to: Subject,
        /// The directory.
        path: SpacePath,
    },
    /// Bound a space; with neither, as the host file bounds all.
    Quota {
        /// The space.
        space: SpaceName,
        /// Bytes it may hold.
        bytes: Option<u64>,
        /// Files it may hold.
        files: Option<u64>,
    },
}

/// A space of users' files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpace {
    /// Its name.
    pub name: SpaceName,
    /// Whose own it is.
    pub owner: Option<String>,
    /// Bytes it may hold.
    pub most_bytes: u64,
    /// Files it may hold.
    pub most_files: u64,
    /// Bytes it holds, if that was asked for.
    pub bytes: Option<u64>,
    /// Files it holds, if that was asked for.
    pub files: Option<u64>,
    /// Who else may reach it.
    pub grants: Vec<FileGrant>,
}

/// Who may reach what of a space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileGrant {
    /// Who.
    pub to: Subject,
    /// The directory; all of it if it is empty.
    pub path: SpacePath,
    /// To change it, not only to read.
    pub write: bool,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Fewest machines.
    pub min: u16,
    /// Most machines.
    pub max: u16,
    /// Claims that wait for one.
    pub waiting: usize,
    /// Why it builds no more machines, if so.
    pub alarm: Option<String>,
    /// Its machines, by number.
    pub members: Vec<PoolMember>,
}

/// A machine of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolMember {
    /// Its primary id.
    pub name: String,
    /// `free`, `in use`, `cleaning` and so on.
    pub state: String,
    /// Whether somebody used it by its primary id: it is put back before it
    /// serves a conversation.
    pub visited: bool,
    /// The program it serves.
    pub tpn: Option<String>,
    /// The alternate user id it wears.
    pub user: Option<String>,
    /// The conversation.
    pub conversation: Option<String>,
    /// Since when it is in this state, in seconds since 1970.
    pub since: u64,
    /// What the last putting back took.
    pub put_back: Option<MemberPutBack>,
}

/// What it took to make a machine of a pool again what was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPutBack {
    /// Bytes that were put back, those that are zero again included.
    pub bytes: u64,
    /// Microseconds from the host's order to the worker's report.
    pub micros: u64,
    /// How often it was put back since the host started, this time included.
    pub times: u64,
    /// Microseconds that the machine had taken in the conversation before, from its
    /// waking to its program's first output. The rest of what its user waited for
    /// was the host's part.
    pub first_output_us: Option<u64>,
}

/// A partition to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPartition {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Bytes before it; the best fit without.
    pub origin: Option<u64>,
    /// Its guest's image, which is built.
    pub image: String,
    /// Its vCPUs.
    pub vcpus: u8,
    /// Bytes of its data disk.
    pub disk: Option<u64>,
}

/// What size a partition should get, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewSize {
    /// So much more.
    By(u64),
    /// So much, which is more than now.
    UpTo(u64),
    /// So much, which is less than now.
    DownTo(u64),
}

/// How a partition is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveMode {
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

/// What the host answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Something to tell the user; more follows.
    Note {
        /// In words.
        text: String,
    },
    /// How far a copy is; more follows.
    Copying {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Done.
    Done,
    /// The partition is made.
    Created {
        /// Bytes before it.
        origin: u64,
    },
    /// The table.
    Status(HostStatus),
    /// The pools.
    Pools {
        /// In the order of the host file.
        pools: Vec<PoolStatus>,
    },
    /// Spaces of users' files.
    Files {
        /// By name.
        spaces: Vec<FileSpace>,
        /// Whether there are more.
        more: bool,
    },
    /// Who is which role of which database.
    Databases {
        /// Users first, by name.
        logins: Vec<DatabaseLogin>,
        /// Whether there are more.
        more: bool,
    },
    /// How a move ended.
    Move(MoveOutcome),
    /// How an exchange ended.
    Exchange(ExchangeOutcome),
    /// How a resize ended.
    Resize(ResizeOutcome),
    /// What a compaction is going to do; more follows.
    Plan(Plan),
    /// How a compaction ended.
    Compact(CompactOutcome),
    /// A link for a browser, good once and soon.
    Link {
        /// The link.
        url: String,
    },
    /// The session is open.
    Attached,
    /// Refused or failed.
    Refused {
        /// Cause and remedy.
        message: String,
    },
}

/// Main storage and who is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Bytes of main storage.
    pub main_storage: u64,
    /// By ascending origin.
    pub partitions: Vec<PartitionStatus>,
}

/// One partition's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Its name.
    pub name: String,
    /// Bytes before it.
    pub origin: u64,
    /// Its bytes.
    pub size: u64,
    /// Unassigned bytes behind it.
    pub gap: u64,
    /// What it is doing.
    pub state: PartitionState,
    /// Its vCPUs.
    pub vcpus: u8,
    /// What executes it.
    pub engine: Engine,
    /// Why it failed or stopped, if there is more to say.
    pub reason: Option<String>,
    /// Whether its guest serves commands.
    pub ready: bool,
    /// Its worker's process id.
    pub pid: Option<u32>,
}

/// What a partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionState {
    /// Its guest runs.
    Running,
    /// Nothing runs; its range is kept for it.
    Stopped,
    /// It is being relocated.
    Moving,
    /// Its guest or worker ended as it should not; its range is kept.
    Failed,
}

impl PartitionState {
    /// As `berth status` writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Moving => "moving",
            Self::Failed => "failed",
        }
    }
}

/// How a `move` ended; as JSON it is what `berth move --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum MoveOutcome {
    /// The partition is at its new origin.
    Moved {
        /// Old origin in bytes.
        from: u64,
        /// New origin in bytes.
        to: u64,
        /// Bytes copied; pages without content are not.
        bytes: u64,
        /// `"down"` or `"up"`: the order of the copy.
        direction: String,
        /// Microseconds for which the guest was stopped.
        pause_us: u64,
        /// Bytes copied per second of copying.
        copy_bytes_per_second: u64,
    },
    /// What `--dry-run` found possible.
    WouldMove {
        /// Old origin in bytes.
        from: u64,
        /// New origin in bytes.
        to: u64,
        /// Bytes to copy at most.
        bytes: u64,
        /// `"down"` or `"up"`.
        direction: String,
    },
    /// Nothing has changed.
    Refused {
        /// Cause and remedy.
        reason: String,
        /// Partitions that use the range.
        in_the_way: Vec<String>,
        /// Devices still busy when the limit ran out.
        busy_devices: Vec<String>,
    },
}

/// Why a line could not be read. The peer is to blame, or the connection.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection failed or timed out.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// It ended before a whole line.
    #[error("the connection ended in the middle of a message")]
    Ended,
    /// The line is longer than [`MAX_LINE`].
    #[error("a message has at most 1M; this one is longer")]
    TooLong,
    /// The line is not a message.
    #[error("not a message of this version of berth: {0}; use the same program as the host")]
    Form(#[from] serde_json::Error),
}

/// Reads messages, one a line, from a stream.
#[derive(Debug)]
pub struct Lines<R> {
    stream: R,
    /// Bytes read and not handed out; never more than [`MAX_LINE`].
    buffer: Vec<u8>,
}

impl<R: Read> Lines<R> {
    /// Reads from `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The stream.
    pub fn stream(&self) -> &R {
        &self.stream
    }

    /// The next message; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`LineError`]; the stream is then of no further use.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=searched + at).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            searched = self.buffer.len();
            let room = MAX_LINE - searched;
            if room == 0 {
                return Err(LineError::TooLong);
            }
            self.buffer.resize(searched + room.min(4096), 0);
            let read = self.stream.read(&mut self.buffer[searched..]);
            self.buffer.truncate(searched + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) if searched == 0 => return Ok(None),
                Ok(0) => return Err(LineError::Ended),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The stream, and what was read of it beyond the last message.
    pub fn into_rest(self) -> (R, Vec<u8>) {
        (self.stream, self.buffer)
    }
}

/// Writes one message as a line.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for one that is too long, or what the
/// stream says.
pub fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    if line.len() > MAX_LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message has at most 64K"));
    }
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);
    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn a_line_too_long_is_refused_before_it_ends() {
        let long = vec![b'x'; MAX_LINE + 1];
        let result = Lines::new(&long[..]).receive::<Request>();
        assert!(matches!(result, Err(LineError::TooLong)), "{result:?}");
    }

    #[test]
    fn half_a_line_is_an_error_and_no_line_is_the_end() {
        assert!(matches!(Lines::new(&b"{\"comm"[..]).receive::<Request>(), Err(LineError::Ended)));
        assert!(matches!(Lines::new(&b""[..]).receive::<Request>(), Ok(None)));
    }

    #[test]
    fn fields_nobody_knows_are_refused() {
        let line = b"{\"command\":\"start\",\"name\":\"a\",\"nmae\":1}\n";
        assert!(matches!(Lines::new(&line[..]).receive::<Request>(), Err(LineError::Form(_))));
    }

    #[test]
    fn what_follows_the_last_message_is_not_lost() {
        let mut lines = Lines::new(&b"{\"reply\":\"attached\"}\nframes"[..]);
        assert_eq!(lines.receive::<Reply>().unwrap(), Some(Reply::Attached));
        assert_eq!(lines.into_rest().1, b"frames");
    }

    #[test]
    fn a_moves_json_is_the_promised_one() {
        let moved = MoveOutcome::Moved {
            from: 1,
            to: 2,
            bytes: 3,
            direction: "down".into(),
            pause_us: 4,
            copy_bytes_per_second: 5,
        };
        assert_eq!(
            serde_json::to_string(&moved).unwrap(),
            r#"{"result":"moved","from":1,"to":2,"bytes":3,"direction":"down","pause_us":4,"copy_bytes_per_second":5}"#
        );
        let refused = MoveOutcome::Refused {
            reason: "r".into(),
            in_the_way: vec!["a".into()],
            busy_devices: vec![],
        };
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"result":"refused","reason":"r","in_the_way":["a"],"busy_devices":[]}"#
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_grow(bytes: Vec<u8>, step in 1usize..9) {
            let mut lines = Lines::new(Trickle(&bytes, step));
            while let Ok(Some(_)) = lines.receive::<Request>() {}
            proptest::prop_assert!(lines.buffer.len() <= MAX_LINE);
        }

        #[test]
        fn what_is_sent_arrives(name in "[a-z]{1,9}", to: u64, argv: Vec<String>, step in 1usize..9) {
            let sent = [
                Request::Move { name: name.clone(), to, mode: MoveMode::Live, dry_run: true },
                Request::Exec { name, argv, env: vec![], cwd: String::new() },
            ];
            let mut bytes = Vec::new();
            for request in &sent {
                send(&mut bytes, request).unwrap();
            }
            let mut lines = Lines::new(Trickle(&bytes, step));
            for request in sent {
                proptest::prop_assert_eq!(lines.receive::<Request>().unwrap(), Some(request));
            }
        }
    }
}

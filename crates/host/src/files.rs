//! The file manager: the process that has the users' files.
//!
//! [`main`] is what the program does when the host runs it again for that.
//! Standard input is one end of a pair of sockets of which the host has the other:
//! nobody else can ask it for anything. For each session the host passes one end of
//! another pair, and the other to the machine's worker.
//!
//! ```text
//! host ── Ask ──► file manager ◄── FUSE requests ── worker ◄── guest
//!    └─────────── one end of a pair each ────────────┘
//! ```
//!
//! It ends when the host does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use file_manager::{FileManager, Grant, Quota, Service, SpaceName, SpacePath, Subject};
use serde::{Deserialize, Serialize};
use service_pool::{Group, UserId};

use crate::link::Link;
use crate::{in_full, lockdown};

/// Files that the process may have open, if the system allows it.
const OPEN_FILES: u64 = 1 << 17;

/// What the host says to the file manager. Every one has an [`Answer`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Serve these; always first. With the link on which operators' wishes come,
    /// which may take long.
    Serve { directory: PathBuf, table: PathBuf, quota: Quota },
    /// Begin a session for a machine. With its socket.
    Begin { machine: String, who: Option<Who> },
    /// End it.
    End { machine: String },
    /// Have a space.
    Space { name: SpaceName, owner: Option<String> },
    /// Grant.
    Grant { space: SpaceName, grant: Grant },
    /// Take a grant back.
    Revoke { space: SpaceName, to: Subject, path: SpacePath },
    /// Bound a space.
    Quota { space: SpaceName, quota: Option<Quota> },
    /// What does it hold?
    Usage { space: SpaceName },
}

/// Whose a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Who {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
}

/// What the file manager answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    /// What a space holds.
    Usage {
        bytes: u64,
        files: u64,
    },
    Refused {
        reason: String,
    },
}

/// Runs a file manager for the host at standard input.
#[must_use]
pub fn main() -> ExitCode {
    // A session of its own: what ends the host's terminal does not end it.
    if let Err(error) = rustix::process::setsid() {
        tracing::warn!(%error, "no session of its own");
    }
    let host = match io::stdin().as_fd().try_clone_to_owned().map(Link::from) {
        Ok(link) => link,
        Err(error) => return failed(&format!("no socket at standard input: {error}")),
    };
    let Ok(Some((Ask::Serve { directory, table, quota }, fds))) = host.receive::<Ask>() else {
        return failed("only the host starts the file manager; use `berth up`");
    };
    allow_open_files(OPEN_FILES);
    let service = match FileManager::open(&directory, &table, quota) {
        Ok(manager) => Arc::new(Service::new(Arc::new(manager))),
        Err(error) => {
            let reason = in_full(&error);
            let _ = host.send(&Answer::Refused { reason: reason.clone() }, &[]);
            return failed(&reason);
        }
    };
    let Some(operators) = fds.into_iter().next().map(Link::from) else {
        return failed("the host passed no second link");
    };
    let theirs = Arc::clone(&service);
    let thread = std::thread::Builder::new().name("operators".to_owned());
    if let Err(error) = thread.spawn(move || hear(&operators, &theirs)) {
        return failed(&format!("no thread to be had: {error}"));
    }
    if let Err(error) = lockdown::lock_down_file_manager() {
        let reason = error.to_string();
        let _ = host.send(&Answer::Refused { reason: reason.clone() }, &[]);
        return failed(&reason);
    }
    if host.send(&Answer::Done, &[]).is_ok() {
        hear(&host, &service);
    }
    ExitCode::SUCCESS
}

fn failed(why: &str) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::FAILURE
}

/// Every file, or connection, that a guest has open is one of this process.
pub(crate) fn allow_open_files(most: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if maximum.is_some_and(|maximum| maximum < most) {
        let what = "guests may have more files open than this process; raise its hard limit";
        tracing::warn!(limit = maximum, wanted = most, what);
    }
    let wanted = maximum.map_or(most, |maximum| maximum.min(most));
    if current.is_some_and(|current| current < wanted) {
        let limit = Rlimit { current: Some(wanted), maximum };
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "no more files can be open than usual");
        }
    }
}

/// Does what is asked on a link until its other end is gone.
fn hear(link: &Link, service: &Service) {
    loop {
        let answer = match link.receive::<Ask>() {
            Ok(Some((ask, fds))) => act(service, ask, fds),
            Ok(None) => return,
            Err(error) => Answer::Refused { reason: error.to_string() },
        };
        if link.send(&answer, &[]).is_err() {
            return;
        }
    }
}

fn act(service: &Service, ask: Ask, fds: Vec<OwnedFd>) -> Answer {
    let manager = service.manager();
    let done = match ask {
        Ask::Serve { .. } => Err("it serves already".to_owned()),
        Ask::Begin { machine, who } => begin(service, &machine, who, fds),
        Ask::End { machine } => match service.end(&machine) {
            true => Ok(()),
            false => Err("its last request does not end".to_owned()),
        },
        Ask::Space { name, owner } => {
            owner.map(|owner| UserId::new(&owner)).transpose().map_err(|e| e.to_string()).and_then(
                |owner| {
                    let added = manager.change(|table| table.add_space(&name, owner.as_ref()));
                    added.map(drop).map_err(|error| in_full(&error))
                },
            )
        }
        Ask::Grant { space, grant } => {
            manager.change(|table| table.grant(&space, grant)).map_err(|error| in_full(&error))
        }
        Ask::Revoke { space, to, path } => {
            let revoked = manager.change(|table| table.revoke(&space, &to, &path));
            revoked.map_err(|error| in_full(&error))
        }
        Ask::Quota { space, quota } => {
            manager.change(|table| table.set_quota(&space, quota)).map_err(|error| in_full(&error))
        }
        Ask::Usage { space } => match manager.usage(&space) {
            Ok((usage, _)) => return Answer::Usage { bytes: usage.bytes, files: usage.files },
            Err(error) => Err(in_full(&error)),
        },
    };
    match done {
        Ok(()) => Answer::Done,
        Err(reason) => Answer::Refused { reason },
    }
}

fn begin(
    service: &Service,
    machine: &str,
    who: Option<Who>,
    fds: Vec<OwnedFd>,
) -> Result<(), String> {
    let stream = fds.into_iter().next().map(UnixStream::from).ok_or("no socket came with it")?;
    let named = |Who { user, groups }: Who| {
        let groups = groups.iter().map(|group| Group::new(group)).collect::<Result<_, _>>()?;
        Ok((UserId::new(&user)?, groups))
    };
    let who = who.map(named).transpose();
    let who = who.map_err(|error: service_pool::NameError| error.to_string())?;
    service.begin(machine, who, stream).map_err(|error| in_full(&error))
}

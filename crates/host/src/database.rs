//! The database manager: the process that connects to the users' databases.
//!
//! [`main`] is what the program does when the host runs it again for that. As with
//! the file manager ([`crate::files`]), standard input is one end of a pair of sockets
//! of which the host has the other; for each session the host passes one end of
//! another pair, and the other to the machine's worker.
//!
//! ```text
//! host ── Ask ──► database manager ◄── connections ── worker ◄── guest
//!    └──────────── one end of a pair each ─────────────┘
//! ```
//!
//! It ends when the host does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use database_manager::{Broker, Login, ServerSpec, Service, Subject, Used, UsedLogin};
use serde::{Deserialize, Serialize};
use service_pool::{Group, UserId};

use crate::files::{Who, allow_open_files};
use crate::link::Link;
use crate::{in_full, lockdown};

/// Files that the process may have open, if the system allows it.
const OPEN_FILES: u64 = 1 << 14;
/// Threads that pass bytes.
const THREADS: usize = 2;

/// What the host says to the database manager. Every one has an [`Answer`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Serve these; always first. With the link on which operators' wishes come.
    Serve { server: ServerSpec, table: PathBuf },
    /// Begin a session for a machine. With its socket.
    Begin { machine: String, who: Option<Who> },
    /// End it: answers [`Answer::Ended`].
    End { machine: String },
    /// Give a login.
    Grant { to: Subject, login: Login },
    /// Take a login back.
    Revoke { from: Subject },
}

/// What the database manager answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    /// What was used in the session: database, role and number of connections, and
    /// how many were refused.
    Ended {
        logins: Vec<(String, String, u64)>,
        refused: u64,
    },
    Refused {
        reason: String,
    },
}

/// Runs a database manager for the host at standard input.
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
    let Ok(Some((Ask::Serve { server, table }, fds))) = host.receive::<Ask>() else {
        return failed("only the host starts the database manager; use `berth up`");
    };
    allow_open_files(OPEN_FILES);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("connections")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("no threads to be had: {error}")),
    };
    let service = match Broker::open(server, &table) {
        Ok(broker) => Arc::new(Service::new(Arc::new(broker), runtime.handle().clone())),
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
    if let Err(error) = lockdown::lock_down_database_manager() {
        let reason = error.to_string();
        let _ = host.send(&Answer::Refused { reason: reason.clone() }, &[]);
        return failed(&reason);
    }
    if host.send(&Answer::Done, &[]).is_ok() {
        hear(&host, &service);
    }
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

fn failed(why: &str) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::FAILURE
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
    let broker = service.broker();
    let done = match ask {
        Ask::Serve { .. } => Err("it serves already".to_owned()),
        Ask::Begin { machine, who } => begin(service, &machine, who, fds),
        Ask::End { machine } => match service.end(&machine) {
            Ok(used) => return ended(used.unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        },
        Ask::Grant { to, login } => {
            broker.change(|table| table.grant(to, login)).map_err(|error| in_full(&error))
        }
        Ask::Revoke { from } => {
            broker.change(|table| table.revoke(&from)).map_err(|error| in_full(&error))
        }
    };
    match done {
        Ok(()) => Answer::Done,
        Err(reason) => Answer::Refused { reason },
    }
}

fn ended(used: Used) -> Answer {
    let login = |UsedLogin { database, role, connections }| (database, role, connections);
    Answer::Ended { logins: used.logins.into_iter().map(login).collect(), refused: used.refused }
}

fn begin(
    service: &Service,
    machine: &str,
    who: Option<Who>,
    fds: Vec<OwnedFd>,
) -> Result<(), String> {
    let socket = fds.into_iter().next().ok_or("no socket came with it")?;
    let named = |Who { user, groups }: Who| {
        let groups = groups.iter().map(|group| Group::new(group)).collect::<Result<_, _>>()?;
        Ok((UserId::new(&user)?, groups))
    };
    let who = who.map(named).transpose();
    let who = who.map_err(|error: service_pool::NameError| error.to_string())?;
    service.begin(machine, who, socket).map_err(|error| in_full(&error))
}

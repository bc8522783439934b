//! The keeper: the process in which main storage outlives its host.
//!
//! Main storage is files in memory: they are there as long as somebody has
//! them. Workers close them and the host may die, so one small process holds
//! them and does nothing else but hand them to a host that asks.
//!
//! ```text
//! host ── Keep + files ──► keeper ◄── Give ── the next host
//! ```
//!
//! [`main`] is what the program does when the host runs it again as the
//! keeper. Standard input is the socket on which it listens. It answers
//! processes of its own user only, and ends when it is told to.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use storage_window::MainStorage;

use crate::link::{self, Link};
use crate::lockdown;
use crate::state_dir::StateDir;

/// Connections at once; a host has one.
const MAX_LINKS: usize = 8;
/// How long a keeper may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What a host says to the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Ask {
    /// Hold these two files, the storage and its keys.
    Keep,
    /// Pass me the files.
    Give,
    /// End.
    End,
}

/// What the keeper answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Answer {
    /// It holds files; with them if it was asked to give.
    Holding,
    /// It was given none.
    Empty,
}

/// Runs a keeper on the listening socket at standard input.
#[must_use]
pub fn main() -> ExitCode {
    // A session of its own: what ends the host's terminal does not end it.
    if let Err(error) = rustix::process::setsid() {
        tracing::warn!(%error, "no session of its own");
    }
    let user = rustix::process::geteuid().as_raw();
    let kept = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|listener| link::adopt(listener.as_fd()).map(|()| listener))
        .map_err(|error| format!("only the host starts the keeper; use `berth up`: {error}"))
        .and_then(|listener| {
            lockdown::lock_down_keeper().map_err(|error| error.to_string())?;
            keep(&listener, user).map_err(|error| error.to_string())
        });
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Serves hosts until one of them says that it is the end.
fn keep(listener: &OwnedFd, user: u32) -> io::Result<()> {
    let mut links: Vec<Link> = Vec::new();
    let mut files: Option<[OwnedFd; 2]> = None;
    loop {
        let mut waited = vec![PollFd::new(listener, PollFlags::IN)];
        waited.extend(links.iter().map(|link| PollFd::new(link, PollFlags::IN)));
        match poll(&mut waited, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ready: Vec<_> = waited.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(waited);
        let mut ready = ready.into_iter();
        let newcomer = ready.next().unwrap_or(false);
        let mut heard = Vec::new();
        for (link, ready) in links.into_iter().zip(ready) {
            match if ready { hear(&link, &mut files) } else { Heard::More } {
                Heard::More => heard.push(link),
                Heard::Gone => {}
                Heard::End => return Ok(()),
            }
        }
        links = heard;
        if newcomer {
            let link = link::accept(listener.as_fd())?;
            if link.peer_uid() == Some(user) && links.len() < MAX_LINKS {
                links.push(link);
            } else {
                tracing::warn!(uid = link.peer_uid(), "turned away");
            }
        }
    }
}

enum Heard {
    More,
    Gone,
    End,
}

/// Does what one host asks. Whoever breaks the rules is hung up on.
fn hear(link: &Link, files: &mut Option<[OwnedFd; 2]>) -> Heard {
    let answer = match link.receive::<Ask>() {
        Ok(Some((Ask::Keep, fds))) => match <[OwnedFd; 2]>::try_from(fds) {
            Ok(pair) => {
                *files = Some(pair);
                link.send_now(&Answer::Holding, &[])
            }
            Err(_) => return Heard::Gone,
        },
        Ok(Some((Ask::Give, _))) => match files {
            Some([storage, keys]) => {
                link.send_now(&Answer::Holding, &[storage.as_fd(), keys.as_fd()])
            }
            None => link.send_now(&Answer::Empty, &[]),
        },
        Ok(Some((Ask::End, _))) => return Heard::End,
        Ok(None) => return Heard::Gone,
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => Heard::More,
        Err(error) => {
            tracing::warn!(%error, "hanging up on a host");
            Heard::Gone
        }
    }
}

/// A keeper, from the host's side.
#[derive(Debug)]
pub(crate) struct Keeper {
    link: Link,
    /// If this host started it.
    child: Option<Child>,
}

impl Keeper {
    /// Starts a keeper that holds the files of `storage`.
    pub(crate) fn start(dir: &StateDir, storage: &MainStorage) -> io::Result<Self> {
        let socket = dir.keeper_socket();
        let listener = link::listen(&socket)?;
        let log = File::create(dir.keeper_log())?;
        // The same program, even if its file was replaced meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg0("berth: storage")
            .arg("keeper")
            .env_clear()
            .stdin(Stdio::from(listener))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        match Self::give_to(&socket, storage) {
            Ok(keeper) => Ok(Self { child: Some(child), ..keeper }),
            Err(error) => {
                // Whatever it is, it keeps nothing that matters.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Has the keeper that listens at `socket` keep `storage`.
    fn give_to(socket: &Path, storage: &MainStorage) -> io::Result<Self> {
        let mut keeper = Self { link: Link::connect(socket)?, child: None };
        let files = [storage.storage_fd(), storage.keys_fd()];
        match keeper.ask(&Ask::Keep, &files)?.0 {
            Answer::Holding => Ok(keeper),
            Answer::Empty => Err(io::Error::other("it does not keep what it was given")),
        }
    }

    /// The keeper of an earlier host and what it keeps; `None` if there is no
    /// keeper, or one that was given nothing (which is then ended).
    pub(crate) fn find(dir: &StateDir) -> io::Result<Option<(Self, MainStorage)>> {
        let link = match Link::connect(&dir.keeper_socket()) {
            Ok(link) => link,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
                _ => return Err(error),
            },
        };
        let mut keeper = Self { link, child: None };
        match keeper.ask(&Ask::Give, &[]) {
            Ok((Answer::Holding, fds)) => {
                let [storage, keys] = <[OwnedFd; 2]>::try_from(fds)
                    .map_err(|_| io::Error::other("it did not pass two files"))?;
                Ok(Some((keeper, MainStorage::of(storage, keys)?)))
            }
            Ok((Answer::Empty, _)) => keeper.end().map(|()| None),
            // Nobody accepts: what the dead keeper had not taken yet.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, ask: &Ask, files: &[BorrowedFd<'_>]) -> io::Result<(Answer, Vec<OwnedFd>)> {
        self.link.send(ask, files)?;
        let answer = self.link.receive_within::<Answer>(ANSWER)?;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The process. Of the link to one that this process started, the kernel knows only
    /// who made it.
    pub(crate) fn pid(&self) -> Option<i32> {
        let started = self.child.as_ref().map(Child::id);
        started.map_or_else(|| self.link.peer_pid(), |pid| i32::try_from(pid).ok())
    }

    /// Waits until it is gone.
    pub(crate) fn wait(&mut self) {
        // It says nothing of its own accord, so whatever comes is the end.
        while let Ok(Some(_)) = self.link.receive::<Answer>() {}
        if let Some(child) = &mut self.child {
            // It fails only for a child that was waited for already.
            let _ = child.wait();
        }
    }

    /// Tells it to end, and waits for that.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        end(&self.link)?;
        self.wait();
        Ok(())
    }
}

fn end(link: &Link) -> io::Result<()> {
    match link.send(&Ask::End, &[]) {
        // It is gone already.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent,
    }
}

/// Ends the keeper of `dir` if there is one; for another thread than the one
/// that waits for it.
pub(crate) fn end_keeper_of(dir: &StateDir) -> io::Result<()> {
    match Link::connect(&dir.keeper_socket()) {
        Ok(link) => Keeper { link, child: None }.end(),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;

//! The host's side of the file manager: it starts it, and tells it which machine is
//! whose.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use file_manager::{AccessTable, Grant, Quota, Right, SpaceEntry, SpaceName};
use main_storage::PartitionName;
use operator_api::model::{FileGrant, FileRevoke, FileSpace, FileSpaces, NewSpace, SpaceBounds};
use service_pool::{Group, UserId};

use super::Shared;
use super::board::CommandError;
use super::process::Process;
use crate::files::{Answer, Ask, Who};
use crate::in_full;
use crate::link::{Link, Order};

/// How long the file manager may take to begin or end a session.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to count a space.
const COUNT: Duration = Duration::from_secs(120);
/// Between its end, or a start in vain, and the next start.
const AGAIN: Duration = Duration::from_millis(200);
const IN_VAIN: Duration = Duration::from_secs(10);
/// About as many bytes of spaces go into one answer.
const MOST_LISTED: usize = 256 << 10;

/// The file manager as the host has it.
#[derive(Default)]
pub(super) struct Files {
    state: Mutex<State>,
    /// The link for what may take long.
    operators: Mutex<Option<Link>>,
}

#[derive(Default)]
struct State {
    manager: Option<Running>,
    /// The machines that have sessions, and whose: a manager that comes back is
    /// told again.
    sessions: BTreeMap<PartitionName, Option<Who>>,
}

struct Running {
    link: Link,
    process: OwnedFd,
}

impl Running {
    fn kill(&self) {
        // It fails only for a process that has ended.
        let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
    }
}

fn ask(link: &Link, ask: &Ask, fds: &[BorrowedFd<'_>], limit: Duration) -> io::Result<Answer> {
    link.send(ask, fds)?;
    let answer = link.receive_within::<Answer>(limit)?;
    answer.map(|(answer, _)| answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Files {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operators(&self) -> MutexGuard<'_, Option<Link>> {
        self.operators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Asks the manager; one that does not answer is ended, and comes back.
    fn ask(&mut self, what: &Ask, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        let Some(running) = &self.manager else {
            return Err("the file manager is not there".to_owned());
        };
        match ask(&running.link, what, fds, ANSWER) {
            Ok(Answer::Refused { reason }) => Err(reason),
            Ok(_) => Ok(()),
            Err(error) => {
                running.kill();
                self.manager = None;
                Err(format!("the file manager does not answer: {error}"))
            }
        }
    }

    /// Begins a session of `who`, or of nobody, and gives the machine its socket.
    fn connect(&mut self, process: &Process, who: Option<Who>) -> Result<(), String> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        let machine = process.name.to_string();
        self.ask(&Ask::Begin { machine, who }, &[ours.as_fd()])?;
        let given = process.give(&Order::Files, &[theirs.as_fd()]);
        given.map_err(|error| format!("its worker cannot be reached: {error}"))
    }

    /// The same for a session that lost its manager; whoever cannot have files any
    /// more goes on without.
    fn begin_again(&mut self, process: &Process, who: Option<Who>) {
        let connected = self.connect(process, who.clone());
        let Err(reason) = connected else { return };
        let machine = &process.name;
        tracing::error!(%machine, user = who.as_ref().map(|who| &*who.user), reason, "no files");
        if who.is_some() && self.manager.is_some() {
            // Empty rather than out of order.
            let _ = self.connect(process, None);
        }
    }
}

impl Shared {
    fn has_files(&self) -> bool {
        self.config.file.pools.iter().any(|pool| pool.user_files)
    }

    /// The machine's files are this user's, or nobody's, from now on. Says why they
    /// are not.
    pub(super) fn begin_files(
        &self,
        process: &Process,
        who: Option<(&UserId, &[Group])>,
    ) -> Result<(), String> {
        if !self.config.file.pool_of(&process.name).is_some_and(|pool| pool.user_files) {
            return Ok(());
        }
        let who = who.map(|(user, groups)| Who {
            user: user.to_string(),
            groups: groups.iter().map(ToString::to_string).collect(),
        });
        let mut state = self.files.state();
        state.sessions.insert(process.name.clone(), who.clone());
        state.connect(process, who)
    }

    /// The machine has no files any more: nothing that it asked for is done after
    /// this.
    pub(super) fn end_files(&self, machine: &PartitionName) {
        let mut state = self.files.state();
        if state.sessions.remove(machine).is_none() {
            return;
        }
        if let Err(reason) = state.ask(&Ask::End { machine: machine.to_string() }, &[]) {
            tracing::warn!(%machine, reason, "the session of its files");
        }
    }

    /// Has a file manager as long as the host lives, if a pool needs one.
    pub(super) fn keep_files(&self) {
        while self.has_files() && !self.board().closing {
            let pause = match self.start_file_manager() {
                Ok(mut child) => {
                    let ended = child.wait();
                    self.files.state().manager = None;
                    *self.files.operators() = None;
                    if !self.board().closing {
                        tracing::error!(?ended, "the file manager has ended; starting another");
                    }
                    AGAIN
                }
                Err(reason) => {
                    tracing::error!(reason, "no file manager: machines have no files");
                    IN_VAIN
                }
            };
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.board().closing {
                std::thread::sleep(AGAIN / 4);
            }
        }
    }

    /// Ends the file manager; the host ends.
    pub(super) fn end_file_manager(&self) {
        // It ends when it has no host.
        self.files.state().manager = None;
        *self.files.operators() = None;
    }

    fn start_file_manager(&self) -> Result<Child, String> {
        let failed = |error: io::Error| error.to_string();
        let (link, its_link) = Link::pair().map_err(failed)?;
        let (operators, its_operators) = Link::pair().map_err(failed)?;
        let log = File::create(self.dir.files_log()).map_err(failed)?;
        // The same program, even if its file was replaced meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg0("berth: files")
            .arg("file-manager")
            .env_clear()
            .stdin(Stdio::from(its_link))
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let link = Link::from(link);
        let spec = &self.config.file.files;
        let serve = Ask::Serve {
            directory: spec.directory.clone().unwrap_or_else(|| self.dir.spaces()),
            table: self.dir.access_table(),
            quota: spec.quota,
        };
        let served = ask(&link, &serve, &[its_operators.as_fd()], ANSWER).map_err(failed);
        if served != Ok(Answer::Done) {
            // It fails only for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
            return Err(match served {
                Ok(Answer::Refused { reason }) | Err(reason) => reason,
                Ok(_) => "it does not serve".to_owned(),
            });
        }
        let process = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let process = process.ok_or("it has no process id")?;
        let flags = rustix::process::PidfdFlags::empty();
        let process = rustix::process::pidfd_open(process, flags).map_err(|e| e.to_string())?;
        let mut state = self.files.state();
        if self.board().closing {
            return Ok(child);
        }
        state.manager = Some(Running { link, process });
        *self.files.operators() = Some(Link::from(operators));
        for (name, who) in state.sessions.clone() {
            let process = self.board().partitions.get(&name).and_then(|one| one.running().ok());
            if let Some(process) = process {
                state.begin_again(&process, who);
            }
        }
        Ok(child)
    }

    /// Has a space.
    pub(super) fn add_space(&self, new: &NewSpace) -> Result<(), CommandError> {
        let (name, owner) = (named(&new.name)?, new.owner.clone());
        self.operate_files(&Ask::Space { name, owner }).map(drop)
    }

    /// Lets somebody reach a space.
    pub(super) fn grant_space(&self, space: &str, grant: &FileGrant) -> Result<(), CommandError> {
        let right = if grant.write { Right::Write } else { Right::Read };
        let grant = Grant { to: named(&grant.to)?, path: named(&grant.path)?, right };
        self.operate_files(&Ask::Grant { space: named(space)?, grant }).map(drop)
    }

    /// Takes that back.
    pub(super) fn revoke_space(&self, space: &str, what: &FileRevoke) -> Result<(), CommandError> {
        let (to, path) = (named(&what.from)?, named(&what.path)?);
        self.operate_files(&Ask::Revoke { space: named(space)?, to, path }).map(drop)
    }

    /// Bounds a space; without bounds, as the host file bounds all.
    pub(super) fn bound_space(&self, space: &str, by: &SpaceBounds) -> Result<(), CommandError> {
        let default = self.config.file.files.quota;
        let some = by.bytes.is_some() || by.files.is_some();
        let quota = some.then(|| Quota {
            bytes: by.bytes.unwrap_or(default.bytes),
            files: by.files.unwrap_or(default.files),
        });
        self.operate_files(&Ask::Quota { space: named(space)?, quota }).map(drop)
    }

    fn operate_files(&self, wish: &Ask) -> Result<Answer, CommandError> {
        let operators = self.files.operators();
        let Some(link) = &*operators else {
            let why = if self.has_files() {
                "the file manager is not there just now; try again"
            } else {
                "no pool of this host has `files = true`"
            };
            return Err(CommandError::Refused(why.to_owned()));
        };
        match ask(link, wish, &[], COUNT) {
            Ok(Answer::Refused { reason }) => Err(CommandError::Refused(reason)),
            Ok(answer) => Ok(answer),
            Err(error) => {
                let why = format!("the file manager does not answer: {error}");
                // Its answer would be taken for the next one's.
                drop(operators);
                if let Some(running) = &self.files.state().manager {
                    running.kill();
                }
                Err(CommandError::Refused(why))
            }
        }
    }

    /// Spaces, or one and what it holds.
    pub(super) fn list_spaces(&self, only: Option<&str>) -> Result<FileSpaces, CommandError> {
        let only = only.map(named::<SpaceName>).transpose()?;
        let only = only.as_ref();
        let table = AccessTable::load(&self.dir.access_table())
            .map_err(|error| CommandError::Refused(in_full(&error)))?;
        let default = self.config.file.files.quota;
        let listed = table.spaces().filter(|(name, _)| only.is_none_or(|only| only == *name));
        let mut left = MOST_LISTED;
        let fitting = listed.take_while(|(_, entry)| {
            let paths = entry.grants.iter().map(|grant| grant.path.to_string().len() + 200);
            let fits = left > 0;
            left = left.saturating_sub(paths.sum::<usize>() + 400);
            fits
        });
        let mut spaces: Vec<_> =
            fitting.map(|(name, entry)| described(name, entry, default)).collect();
        if let (Some(name), [space]) = (only, &mut *spaces) {
            if let Answer::Usage { bytes, files } =
                self.operate_files(&Ask::Usage { space: name.clone() })?
            {
                (space.bytes, space.files) = (Some(bytes), Some(files));
            }
        } else if let Some(name) = only {
            return Err(CommandError::Missing(format!("there is no space {name}")));
        }
        let more = only.is_none() && table.spaces().count() > spaces.len();
        Ok(FileSpaces { spaces, more })
    }
}

/// A name that an operator wrote.
pub(super) fn named<T: FromStr<Err: Display>>(text: &str) -> Result<T, CommandError> {
    text.parse().map_err(|error: T::Err| CommandError::Invalid(error.to_string()))
}

fn described(name: &SpaceName, entry: &SpaceEntry, default: Quota) -> FileSpace {
    let quota = entry.quota.unwrap_or(default);
    let grant = |grant: &Grant| FileGrant {
        to: grant.to.to_string(),
        path: grant.path.to_string(),
        write: grant.right == Right::Write,
    };
    FileSpace {
        name: name.to_string(),
        owner: entry.owner.as_ref().map(ToString::to_string),
        most_bytes: quota.bytes,
        most_files: quota.files,
        bytes: None,
        files: None,
        grants: entry.grants.iter().map(grant).collect(),
    }
}

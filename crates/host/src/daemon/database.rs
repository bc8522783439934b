//! The host's side of the database manager: it starts it, and tells it which machine
//! is whose.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use database_manager::{Limits, Login, LoginTable, ServerSpec, Subject, session_pair};
use main_storage::PartitionName;
use operator_api::model::{DatabaseLogin, DatabaseLogins};
use service_pool::{ConversationId, Group, UserId};

use super::Shared;
use super::board::CommandError;
use super::files::named;
use super::process::Process;
use crate::database::{Answer, Ask};
use crate::files::Who;
use crate::host_file::PoolSpec;
use crate::in_full;
use crate::link::{Link, Order};

/// How long the database manager may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Between its end, or a start in vain, and the next start.
const AGAIN: Duration = Duration::from_millis(200);
const IN_VAIN: Duration = Duration::from_secs(10);
/// Rows in one answer.
const MOST_LISTED: usize = 1000;

/// The database manager as the host has it.
#[derive(Default)]
pub(super) struct Databases {
    state: Mutex<State>,
    /// The link for operators' wishes.
    operators: Mutex<Option<Link>>,
}

#[derive(Default)]
struct State {
    manager: Option<Running>,
    /// The machines that have sessions, and whose: a manager that comes back is
    /// told again.
    sessions: BTreeMap<PartitionName, Option<User>>,
}

/// Whose a machine is, and by which conversation.
#[derive(Clone)]
struct User {
    conversation: ConversationId,
    user: UserId,
    groups: Vec<Group>,
}

/// What a user's programs used of databases in a conversation.
pub(super) struct UsedBy {
    pub(super) user: UserId,
    pub(super) conversation: ConversationId,
    /// Database, role and number of connections.
    pub(super) logins: Vec<(String, String, u64)>,
    pub(super) refused: u64,
}

struct Running {
    link: Link,
    process: OwnedFd,
}

fn ask(link: &Link, ask: &Ask, fds: &[BorrowedFd<'_>]) -> io::Result<Answer> {
    link.send(ask, fds)?;
    let answer = link.receive_within::<Answer>(ANSWER)?;
    answer.map(|(answer, _)| answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Databases {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operators(&self) -> MutexGuard<'_, Option<Link>> {
        self.operators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Asks the manager; one that does not answer is ended, and comes back.
    fn ask(&mut self, what: &Ask, fds: &[BorrowedFd<'_>]) -> Result<Answer, String> {
        let Some(running) = &self.manager else {
            return Err("the database manager is not there".to_owned());
        };
        match ask(&running.link, what, fds) {
            Ok(Answer::Refused { reason }) => Err(reason),
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.kill();
                Err(format!("the database manager does not answer: {error}"))
            }
        }
    }

    /// Whatever connections it has end with it.
    fn kill(&mut self) {
        if let Some(running) = self.manager.take() {
            // It fails only for a process that has ended.
            let signal = rustix::process::Signal::KILL;
            let _ = rustix::process::pidfd_send_signal(&running.process, signal);
        }
    }

    /// Begins a session of `who`, or of nobody, and gives the machine its socket.
    /// One for which that cannot be done has no database.
    fn begin(&mut self, process: &Process, who: Option<User>) {
        let user = who.as_ref().map(|who| who.user.clone());
        let connected = session_pair().map_err(|error| error.to_string()).and_then(|pair| {
            let (ours, theirs) = pair;
            let who = who.map(|User { user, groups, .. }| Who {
                user: user.to_string(),
                groups: groups.iter().map(ToString::to_string).collect(),
            });
            let machine = process.name.to_string();
            self.ask(&Ask::Begin { machine, who }, &[ours.as_fd()])?;
            let given = process.give(&Order::Database, &[theirs.as_fd()]);
            given.map_err(|error| format!("its worker cannot be reached: {error}"))
        });
        if let Err(reason) = connected {
            tracing::error!(machine = %process.name, ?user, reason, "no database");
        }
    }
}

impl Shared {
    /// The server, if machines of a pool have databases in it.
    fn server(&self) -> Option<&ServerSpec> {
        let server = self.config.file.database.as_ref();
        server.filter(|_| self.config.file.pools.iter().any(|pool| pool.user_database))
    }

    /// Whether a machine's programs connect to a server for their user's database.
    pub(super) fn has_server(&self, machine: &PartitionName) -> bool {
        let pool = self.config.file.pool_of(machine);
        self.config.file.database.is_some() && pool.is_some_and(|pool| pool.user_database)
    }

    /// Where programs of a pool find their user's database, as a URL.
    pub(super) fn database_url(&self, pool: &PoolSpec, user: &UserId) -> Option<String> {
        match &self.config.file.database {
            _ if !pool.user_database => None,
            Some(_) => Some("postgresql://database/".to_owned()),
            None => Some(format!("sqlite:////files/{user}/database.sqlite")),
        }
    }

    /// The machine's database is this user's, or nobody's, from now on.
    pub(super) fn begin_database(
        &self,
        process: &Process,
        who: Option<(ConversationId, &UserId, &[Group])>,
    ) {
        if !self.has_server(&process.name) {
            return;
        }
        let who = who.map(|(conversation, user, groups)| User {
            conversation,
            user: user.clone(),
            groups: groups.to_vec(),
        });
        let mut state = self.databases.state();
        state.sessions.insert(process.name.clone(), who.clone());
        state.begin(process, who);
    }

    /// The machine has no database any more: no program of it has a connection after
    /// this. What its user's programs used.
    pub(super) fn end_database(&self, machine: &PartitionName) -> Option<UsedBy> {
        let mut state = self.databases.state();
        let who = state.sessions.remove(machine)?;
        let ended = state.ask(&Ask::End { machine: machine.to_string() }, &[]);
        if let Err(reason) = &ended {
            tracing::warn!(%machine, reason, "the session of its database");
            // One that does not end its connections must not go on with them.
            state.kill();
        }
        let (User { conversation, user, .. }, Ok(Answer::Ended { logins, refused })) =
            (who?, ended)
        else {
            return None;
        };
        let used = UsedBy { user, conversation, logins, refused };
        (!used.logins.is_empty() || refused > 0).then_some(used)
    }

    /// Has a database manager as long as the host lives, if a pool needs one.
    pub(super) fn keep_database(&self) {
        let Some(server) = self.server() else { return };
        while !self.board().closing {
            let pause = match self.start_database_manager(server) {
                Ok(mut child) => {
                    let ended = child.wait();
                    self.databases.state().manager = None;
                    *self.databases.operators() = None;
                    if !self.board().closing {
                        tracing::error!(?ended, "the database manager has ended; starting another");
                    }
                    AGAIN
                }
                Err(reason) => {
                    tracing::error!(reason, "no database manager: machines have no databases");
                    IN_VAIN
                }
            };
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.board().closing {
                std::thread::sleep(AGAIN / 4);
            }
        }
    }

    /// Ends the database manager; the host ends.
    pub(super) fn end_database_manager(&self) {
        // It ends when it has no host.
        self.databases.state().manager = None;
        *self.databases.operators() = None;
    }

    fn start_database_manager(&self, server: &ServerSpec) -> Result<Child, String> {
        let failed = |error: io::Error| error.to_string();
        let (link, its_link) = Link::pair().map_err(failed)?;
        let (operators, its_operators) = Link::pair().map_err(failed)?;
        let log = File::create(self.dir.database_log()).map_err(failed)?;
        // The same program, even if its file was replaced meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg0("berth: database")
            .arg("database-manager")
            .env_clear()
            .stdin(Stdio::from(its_link))
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let link = Link::from(link);
        let serve = Ask::Serve { server: server.clone(), table: self.dir.login_table() };
        let served = ask(&link, &serve, &[its_operators.as_fd()]).map_err(failed);
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
        let mut state = self.databases.state();
        if self.board().closing {
            return Ok(child);
        }
        state.manager = Some(Running { link, process });
        *self.databases.operators() = Some(Link::from(operators));
        for (name, who) in state.sessions.clone() {
            let process = self.board().partitions.get(&name).and_then(|one| one.running().ok());
            if let Some(process) = process {
                state.begin(&process, who);
            }
        }
        Ok(child)
    }

    /// Gives a login, in the place of what its owner had.
    pub(super) fn grant_login(&self, row: &DatabaseLogin) -> Result<(), CommandError> {
        let DatabaseLogin { of, database, role, connections, idle, lifetime } = row;
        let (connections, idle, lifetime) = (*connections, *idle, *lifetime);
        let limits = Limits { connections, idle, lifetime };
        let login = Login { database: named(database)?, role: named(role)?, limits };
        self.operate_databases(&Ask::Grant { to: named(of)?, login })
    }

    /// Takes a login back.
    pub(super) fn revoke_login(&self, from: &str) -> Result<(), CommandError> {
        self.operate_databases(&Ask::Revoke { from: named(from)? })
    }

    fn operate_databases(&self, wish: &Ask) -> Result<(), CommandError> {
        let operators = self.databases.operators();
        let Some(link) = &*operators else {
            let why = if self.server().is_some() {
                "the database manager is not there just now; try again"
            } else {
                "this host has no [database] with a server, or no pool with `database = true`"
            };
            return Err(CommandError::Refused(why.to_owned()));
        };
        match ask(link, wish, &[]) {
            Ok(Answer::Refused { reason }) => Err(CommandError::Refused(reason)),
            Ok(_) => Ok(()),
            Err(error) => {
                // Its answer would be taken for the next one's.
                drop(operators);
                self.databases.state().kill();
                let why = format!("the database manager does not answer: {error}");
                Err(CommandError::Refused(why))
            }
        }
    }

    /// Who is which role of which database.
    pub(super) fn list_logins(&self) -> Result<DatabaseLogins, CommandError> {
        let table = LoginTable::load(&self.dir.login_table())
            .map_err(|error| CommandError::Refused(in_full(&error)))?;
        let row = |(of, login): (&Subject, &Login)| DatabaseLogin {
            of: of.to_string(),
            database: login.database.to_string(),
            role: login.role.to_string(),
            connections: login.limits.connections,
            idle: login.limits.idle,
            lifetime: login.limits.lifetime,
        };
        let logins = table.rows().take(MOST_LISTED).map(row).collect();
        Ok(DatabaseLogins { logins, more: table.rows().count() > MOST_LISTED })
    }
}

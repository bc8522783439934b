//! Carries out what operators ask.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use operator_api::model::{
    AuditPage, AuditQuery, Command, CompactPlan, DatabaseLogins, Exchange, ExchangePlan,
    FileSpaces, MoveMode, MovePlan, NewPartition, Outcome, ResizePlan,
};
use operator_api::{Console, NewSize, Operator, Progress, Refusal, WayIn, Why, Wish};

use super::news::About;
use super::{audit, convert};
use crate::daemon::Shared;
use crate::daemon::board::CommandError;
use crate::daemon::resize::Wanted;
use crate::link;
use crate::outcomes::Said;

/// How long whoever ended the host has to hear that it has.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The host, as its operators see it.
pub(super) struct Host(pub(super) Arc<Shared>);

/// Passes on what a command says meanwhile.
fn hearing(progress: &Progress) -> impl FnMut(&Said) + '_ {
    |said| match said {
        Said::Note(text) => progress.note(text),
        Said::Copying { done, total } => progress.copying(*done, *total),
        Said::Plan(plan) => progress.plan(convert::plan(plan.clone())),
    }
}

fn done(result: Result<(), CommandError>) -> Result<Outcome, Refusal> {
    result.map(|()| Outcome::Done).map_err(|error| convert::refusal(&error))
}

const fn mode(mode: MoveMode) -> link::MoveMode {
    match mode {
        MoveMode::Live => link::MoveMode::Live,
        MoveMode::Stop => link::MoveMode::Stop,
    }
}

impl Host {
    fn create(&self, new: &NewPartition) -> Result<Outcome, Refusal> {
        let made = self.0.create(new).map_err(|error| convert::refusal(&error));
        let origin = made?;
        if new.start {
            done(self.0.start(&new.name))?;
        }
        Ok(Outcome::Created { origin })
    }

    fn resize(&self, wanted: &Wanted<'_>, progress: &Progress) -> Result<Outcome, Refusal> {
        let left = || progress.is_cancelled();
        let outcome = self.0.resize(wanted, &left, &mut hearing(progress));
        convert::resized(outcome.map_err(|error| convert::refusal(&error))?)
    }

    fn down(&self, progress: &Progress) -> Outcome {
        progress.note("every guest is asked to power off");
        self.0.end_all();
        let shared = Arc::clone(&self.0);
        let last = std::thread::Builder::new().name("last-words".into()).spawn(move || {
            std::thread::sleep(LAST_WORDS);
            shared.stop();
        });
        if last.is_err() {
            self.0.stop();
        }
        Outcome::Done
    }

    fn carry(&self, command: &Command, progress: &Progress) -> Result<Outcome, Refusal> {
        let (shared, dry_run) = (&self.0, false);
        let refused = |error: CommandError| convert::refusal(&error);
        match command {
            Command::Create { partition } => self.create(partition),
            Command::Delete { name } => done(shared.delete(name)),
            Command::Start { name } => done(shared.start(name)),
            Command::Stop { name, now } => done(shared.stop_partition(name, *now)),
            Command::Restart { name, now } => done(shared.restart(name, *now)),
            Command::Move { name, to, mode: how } => {
                let to = (*to, mode(*how));
                let outcome = shared.relocate(name, to, dry_run, &mut hearing(progress));
                convert::moved(outcome.map_err(refused)?)
            }
            Command::Exchange { a, b } => {
                let outcome = shared.exchange([a, b], dry_run, &mut hearing(progress));
                convert::exchanged(outcome.map_err(refused)?)
            }
            Command::Expand { name, to, by, make_room } => {
                let size = to.map_or(NewSize::By(by.unwrap_or(0)), NewSize::UpTo);
                let make_room = *make_room;
                self.resize(&Wanted { name, size, make_room, dry_run }, progress)
            }
            Command::Shrink { name, to } => {
                let (size, make_room) = (NewSize::DownTo(*to), false);
                self.resize(&Wanted { name, size, make_room, dry_run }, progress)
            }
            Command::Compact { free } => {
                let left = || progress.is_cancelled();
                let hear = &mut hearing(progress);
                convert::compacted(shared.compact(*free, dry_run, &left, hear))
            }
            Command::PoolResume { name } => {
                done(shared.pools.resume(name).map_err(CommandError::Refused))
            }
            Command::PoolResize { name, min, max } => {
                done(shared.pools.resize(name, (*min, *max)).map_err(CommandError::Refused))
            }
            Command::FilesAdd { space } => done(shared.add_space(space)),
            Command::FilesGrant { space, grant } => done(shared.grant_space(space, grant)),
            Command::FilesRevoke { space, revoke } => done(shared.revoke_space(space, revoke)),
            Command::FilesQuota { space, bounds } => done(shared.bound_space(space, bounds)),
            Command::DatabaseGrant { login } => done(shared.grant_login(login)),
            Command::DatabaseRevoke { from } => done(shared.revoke_login(from)),
            Command::Await => done(shared.wait_up(progress)),
            Command::Down => Ok(self.down(progress)),
        }
    }
}

impl Operator for Host {
    fn refresh(&self) {
        self.0.tell();
    }

    fn refresh_after(&self, command: &Command) {
        self.0.tell_about(About::Only(command));
    }

    fn carry_out(&self, command: &Command, progress: &Progress) -> Result<Outcome, Refusal> {
        let Some(ids) = self.0.telemetry.trace() else { return self.carry(command, progress) };
        let from = SystemTime::now();
        let outcome = self.carry(command, progress);
        let what = vec![("berth.operation", progress.id().to_string())];
        let problem = outcome.as_ref().err().map(ToString::to_string);
        self.0.telemetry.whole(ids, command.kind(), from, what, problem);
        outcome
    }

    fn plan_move(&self, name: &str, to: u64) -> Result<MovePlan, Refusal> {
        let outcome = self.0.relocate(name, (to, link::MoveMode::Live), true, &mut |_| {});
        convert::would_move(outcome.map_err(|error| convert::refusal(&error))?)
    }

    fn plan_exchange(&self, exchange: &Exchange) -> Result<ExchangePlan, Refusal> {
        let outcome = self.0.exchange([&exchange.a, &exchange.b], true, &mut |_| {});
        convert::would_exchange(outcome.map_err(|error| convert::refusal(&error))?)
    }

    fn plan_resize(
        &self,
        name: &str,
        size: NewSize,
        make_room: bool,
    ) -> Result<ResizePlan, Refusal> {
        let wanted = Wanted { name, size, make_room, dry_run: true };
        let outcome = self.0.resize(&wanted, &|| false, &mut |_| {});
        convert::would_resize(outcome.map_err(|error| convert::refusal(&error))?)
    }

    fn plan_compact(&self, free: Option<u64>) -> Result<CompactPlan, Refusal> {
        convert::would_compact(self.0.compact(free, true, &|| false, &mut |_| {}))
    }

    fn audit(&self, query: &AuditQuery) -> Result<AuditPage, Refusal> {
        audit::page(&self.0.dir.audit_log(), query).map_err(|error| {
            Refusal::new(Why::Failed, format!("the audit log cannot be read: {error}"))
        })
    }

    fn way_in(&self, name: &str, wish: &Wish) -> Result<WayIn, Refusal> {
        self.0.way_in(name, wish).map_err(|error| convert::refusal(&error))
    }

    fn file_spaces(&self, only: Option<&str>) -> Result<FileSpaces, Refusal> {
        self.0.list_spaces(only).map_err(|error| convert::refusal(&error))
    }

    fn database_logins(&self) -> Result<DatabaseLogins, Refusal> {
        self.0.list_logins().map_err(|error| convert::refusal(&error))
    }

    fn console(&self, name: &str) -> Result<Console, Refusal> {
        self.0.console(name).map_err(|error| convert::refusal(&error))
    }
}

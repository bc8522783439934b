//! Carries out what operators ask by HTTP.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use operator_api::model::{
    AuditPage, AuditQuery, Command, CompactPlan, Exchange, ExchangePlan, MoveMode, MovePlan,
    NewPartition, Outcome, ResizePlan,
};
use operator_api::{Console, Operator, Progress, Refusal, Why};

use super::{audit, convert};
use crate::control::{self, NewSize, Reply};
use crate::daemon::Shared;
use crate::daemon::board::CommandError;
use crate::daemon::resize::Wanted;

/// How long whoever ended the host has to hear that it has.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The host, as its operators see it.
pub(super) struct Host(pub(super) Arc<Shared>);

/// Passes on what a command says meanwhile.
fn hearing(progress: &Progress) -> impl FnMut(&Reply) + '_ {
    |reply| match reply {
        Reply::Note { text } => progress.note(text),
        Reply::Copying { done, total } => progress.copying(*done, *total),
        Reply::Plan(plan) => progress.plan(convert::plan(plan.clone())),
        _ => {}
    }
}

fn done(result: Result<(), CommandError>) -> Result<Outcome, Refusal> {
    result.map(|()| Outcome::Done).map_err(|error| convert::refusal(&error))
}

const fn mode(mode: MoveMode) -> control::MoveMode {
    match mode {
        MoveMode::Live => control::MoveMode::Live,
        MoveMode::Stop => control::MoveMode::Stop,
    }
}

impl Host {
    fn create(&self, new: &NewPartition) -> Result<Outcome, Refusal> {
        let NewPartition { name, size, origin, image, vcpus, disk, start } = new.clone();
        let new = control::NewPartition { name, size, origin, image, vcpus, disk };
        let made = self.0.create(&new).map_err(|error| convert::refusal(&error));
        let origin = made?;
        if start {
            done(self.0.start(&new.name))?;
        }
        Ok(Outcome::Created { origin })
    }

    fn resize(&self, wanted: &Wanted<'_>, progress: &Progress) -> Result<Outcome, Refusal> {
        let left = || progress.is_cancelled();
        let outcome = self.0.resize(wanted, &left, &mut hearing(progress));
        convert::resized(outcome.map_err(|error| convert::refusal(&error))?)
    }

    fn down(&self) -> Outcome {
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
            Command::Expand { name, to, make_room } => {
                let (size, make_room) = (NewSize::UpTo(*to), *make_room);
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
                done(shared.pools.resume(name).map_err(CommandError::Pool))
            }
            Command::PoolResize { name, min, max } => {
                done(shared.pools.resize(name, (*min, *max)).map_err(CommandError::Pool))
            }
            Command::Down => Ok(self.down()),
        }
    }
}

impl Operator for Host {
    fn refresh(&self) {
        self.0.tell();
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
        let outcome = self.0.relocate(name, (to, control::MoveMode::Live), true, &mut |_| {});
        convert::would_move(outcome.map_err(|error| convert::refusal(&error))?)
    }

    fn plan_exchange(&self, exchange: &Exchange) -> Result<ExchangePlan, Refusal> {
        let outcome = self.0.exchange([&exchange.a, &exchange.b], true, &mut |_| {});
        convert::would_exchange(outcome.map_err(|error| convert::refusal(&error))?)
    }

    fn plan_resize(&self, name: &str, to: u64, make_room: bool) -> Result<ResizePlan, Refusal> {
        let has = self.0.station().snapshot();
        let has = has.state().host.partitions.iter().find(|one| one.name == name);
        let grows = has.is_none_or(|one| one.size <= to);
        let size = if grows { NewSize::UpTo(to) } else { NewSize::DownTo(to) };
        let wanted = Wanted { name, size, make_room: make_room && grows, dry_run: true };
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

    fn console(&self, name: &str) -> Result<Console, Refusal> {
        self.0.console(name).map_err(|error| convert::refusal(&error))
    }
}

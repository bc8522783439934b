//! Two partitions change places.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use main_storage::{ExchangePlan, MovePlan, PartitionName, StorageRange};
use storage_window::Exchange;

use super::Shared;
use super::board::{Board, Busy, Command, CommandError, Run};
use super::process::Process;
use crate::in_full;
use crate::journal::CommandRecord;
use crate::link::{Link, MoveMode, MoveReport, Order, Place, Report, Side};
use crate::outcomes::{ExchangeOutcome, Relocated, Said};

impl Shared {
    /// Lets two partitions change places, or only says what that would do.
    pub(super) fn exchange(
        self: &Arc<Self>,
        names: [&str; 2],
        dry_run: bool,
        hear: &mut dyn FnMut(&Said),
    ) -> Result<ExchangeOutcome, CommandError> {
        let (busy, plan) = {
            let mut board = self.board();
            let found = [board.find(names[0])?, board.find(names[1])?];
            let plan = match board.map.plan_exchange(&found[0], &found[1]) {
                Ok(plan) => plan,
                Err(refusal) => return Ok(refused(&refusal)),
            };
            if dry_run {
                return Ok(ExchangeOutcome::WouldExchange { partitions: sides(&found, plan) });
            }
            let first = Busy::claim(self, &mut board, names[0], Command::Exchange);
            let second = Busy::claim(self, &mut board, names[1], Command::Exchange);
            let held = match (&first, &second) {
                (Ok(_), Ok(_)) => board.map.begin_exchange(&found[0], &found[1]),
                _ => Ok(plan),
            };
            // A claim takes the board's lock when it is dropped.
            drop(board);
            let busy = [first?, second?];
            match held {
                Ok(plan) => (busy, plan),
                Err(refusal) => return Ok(refused(&refusal)),
            }
        };
        self.changed.notify_all();
        self.begin_exchange(&busy, plan)?;
        let reports = self.exchange_running(&busy, plan, hear);
        let outcome = self.end_exchange(&busy, plan, reports);
        if let ExchangeOutcome::Exchanged { bytes, pause_us, copy_bytes_per_second, .. } = outcome {
            self.measure_copy(&busy[0].name, bytes, copy_bytes_per_second, pause_us);
        }
        self.close_all(&busy);
        Ok(outcome)
    }

    /// Records an exchange that the map has; takes it off the map when it
    /// cannot.
    fn begin_exchange(&self, busy: &[Busy<'_>; 2], plan: ExchangePlan) -> Result<(), CommandError> {
        let [a, b] = busy;
        let command = CommandRecord::Exchange {
            name: a.name.to_string(),
            from: plan.a().from().origin(),
            to: plan.a().to().origin(),
            with: b.name.to_string(),
            with_from: plan.b().from().origin(),
            with_to: plan.b().to().origin(),
        };
        let begun = self.begin(a, command);
        if begun.is_err() {
            // It is under way: it was begun under both claims.
            let _ = self.board().map.abandon_exchange(&a.name);
        }
        begun
    }

    /// Has the workers exchange themselves; `None` for one that does not run.
    fn exchange_running(
        self: &Arc<Self>,
        busy: &[Busy<'_>; 2],
        plan: ExchangePlan,
        hear: &mut dyn FnMut(&Said),
    ) -> [Option<Result<MoveReport, String>>; 2] {
        let processes = busy.each_ref().map(|busy| {
            let mut board = self.board();
            board.get(busy.name.as_str()).ok().and_then(|partition| partition.running().ok())
        });
        match processes {
            [Some(a), Some(b)] => match self.order_exchange([&a, &b], plan) {
                Ok([from_a, from_b]) => [Some(outcome(&a, &from_a)), Some(outcome(&b, &from_b))],
                // A worker that has its order learns from its peer's absence.
                Err(reason) => {
                    [reason.clone(), reason].map(|why| Some(Ok(MoveReport::stayed(why))))
                }
            },
            // The other one has no content: this one just moves there.
            [Some(a), None] => [Some(self.move_running(&a, &plan.a(), MoveMode::Live, hear)), None],
            [None, Some(b)] => [None, Some(self.move_running(&b, &plan.b(), MoveMode::Live, hear))],
            [None, None] => [None, None],
        }
    }

    fn order_exchange(
        &self,
        processes: [&Arc<Process>; 2],
        plan: ExchangePlan,
    ) -> Result<[Receiver<Report>; 2], String> {
        let no = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let record = Exchange::record(&plan).map_err(no("no memory for its record"))?;
        let (one, other) = Link::pair().map_err(no("no socket between the workers"))?;
        let wait_ms = u64::try_from(self.config.file.device_wait.as_millis()).unwrap_or(u64::MAX);
        let places = |plan: MovePlan| [Place::from(plan.from()), plan.to().into()];
        let (a, b) = (places(plan.a()), places(plan.b()));
        let mut reports = Vec::new();
        let peers = [(processes[0], one, Side::Leader), (processes[1], other, Side::Follower)];
        for (process, peer, side) in peers {
            let (mover, heard) = channel();
            process.set_mover(Some(mover));
            let order = Order::Exchange { a, b, side, wait_ms };
            let [storage, keys] = super::process::files(&self.storage);
            let given = process.give(&order, &[storage, keys, record.as_fd(), peer.as_fd()]);
            // Dropping the other end tells the worker that has its order already.
            given.map_err(no("a worker cannot be reached"))?;
            reports.push(heard);
        }
        <[_; 2]>::try_from(reports).map_err(|_| "no reports".to_owned())
    }

    fn end_exchange(
        &self,
        busy: &[Busy<'_>; 2],
        plan: ExchangePlan,
        reports: [Option<Result<MoveReport, String>>; 2],
    ) -> ExchangeOutcome {
        let names = busy.each_ref().map(|busy| busy.name.clone());
        let mut board = self.board();
        let moved = |report: &Option<_>| matches!(report, Some(Ok(MoveReport::Moved { .. })));
        let none_runs = reports.iter().all(Option::is_none);
        let happened = none_runs || reports.iter().any(moved);
        // Only a partition that was deleted meanwhile is not there any more.
        let _ = if happened {
            board.map.commit_exchange(&names[0])
        } else {
            board.map.abandon_exchange(&names[0])
        };
        self.clear_after_exchange(&board, &names, plan, happened);
        let failed = || {
            reports.iter().zip(&names).filter_map(|(report, name)| match report {
                Some(Err(reason) | Ok(MoveReport::Lost { reason })) => {
                    Some(format!("\"{name}\": {reason}"))
                }
                Some(Ok(MoveReport::Stayed { reason, .. })) => Some(reason.clone()),
                Some(Ok(MoveReport::Moved { .. })) | None => None,
            })
        };
        let reason = failed().collect::<std::collections::BTreeSet<_>>();
        if !happened || !reason.is_empty() {
            let reason = reason.into_iter().collect::<Vec<_>>().join("; ");
            tracing::warn!(a = %names[0], b = %names[1], reason, "exchange failed");
            let busy_devices = reports.iter().flatten().find_map(|report| match report {
                Ok(MoveReport::Stayed { busy_devices, .. }) => Some(busy_devices.clone()),
                _ => None,
            });
            let busy_devices = busy_devices.unwrap_or_default();
            return ExchangeOutcome::Refused { reason, in_the_way: vec![], busy_devices };
        }
        tracing::info!(a = %names[0], b = %names[1], "exchanged");
        let (mut bytes, mut nanos, mut pause_us) = (0, 0, 0);
        for report in reports.iter().flatten().flatten() {
            if let MoveReport::Moved { bytes: b, nanos: n, pause_us: p, .. } = report {
                (bytes, nanos, pause_us) = (bytes + b, nanos + n, pause_us.max(*p));
            }
        }
        let speed = u128::from(bytes) * 1_000_000_000 / u128::from(nanos.max(1));
        ExchangeOutcome::Exchanged {
            partitions: sides(&names, plan),
            bytes,
            pause_us,
            copy_bytes_per_second: u64::try_from(speed).unwrap_or(u64::MAX),
        }
    }

    /// Gives back what nobody has any more: what lies between the partitions,
    /// and the range of one whose worker has died meanwhile.
    fn clear_after_exchange(
        &self,
        board: &Board,
        names: &[PartitionName; 2],
        plan: ExchangePlan,
        happened: bool,
    ) {
        let runs = |name| {
            let run = board.partitions.get(name).map(|partition| &partition.run);
            matches!(run, Some(Run::Running(_)))
        };
        let all = [plan.a(), plan.b()].map(|plan| [plan.from(), plan.to()]);
        let now = all.map(|[from, to]| if happened { to } else { from });
        let kept: Vec<StorageRange> =
            now.into_iter().zip(names).filter(|(_, name)| runs(name)).map(|(now, _)| now).collect();
        for range in all.into_iter().flatten() {
            for free in kept.iter().fold(vec![range], |parts, kept| {
                parts.into_iter().flat_map(|part| part.without(*kept)).collect()
            }) {
                if let Err(error) = self.storage.discard(free) {
                    // It is tried again before the range is used.
                    tracing::error!(error = in_full(&error), "memory not given back");
                }
            }
        }
    }
}

/// What a worker says in the end.
fn outcome(process: &Process, reports: &Receiver<Report>) -> Result<MoveReport, String> {
    loop {
        match reports.recv() {
            Ok(Report::Moved(report)) => {
                process.set_mover(None);
                return Ok(report);
            }
            Ok(_) => {}
            Err(_) => {
                return Err("its worker ended during the exchange; it has failed".to_owned());
            }
        }
    }
}

fn sides(names: &[PartitionName; 2], plan: ExchangePlan) -> Vec<Relocated> {
    let side = |name: &PartitionName, plan: MovePlan| Relocated {
        name: name.to_string(),
        from: plan.from().origin(),
        to: plan.to().origin(),
        size: plan.from().size(),
    };
    vec![side(&names[0], plan.a()), side(&names[1], plan.b())]
}

fn refused(refusal: &main_storage::Refusal) -> ExchangeOutcome {
    let in_the_way = refusal.in_the_way().iter().map(|by| by.name.to_string()).collect();
    ExchangeOutcome::Refused { reason: refusal.to_string(), in_the_way, busy_devices: vec![] }
}

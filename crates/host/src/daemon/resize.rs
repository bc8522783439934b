//! Partitions that grow and shrink, and main storage that is compacted.

use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError};

use main_storage::{CompactPlan, PartitionName, Refusal, ResizePlan, StorageMap, StorageRange};
use operator_api::NewSize;

use super::Shared;
use super::board::{Busy, Command, CommandError};
use super::process::{Process, files};
use crate::in_full;
use crate::journal::CommandRecord;
use crate::link::{MoveMode, Order, Report, ResizeReport};
use crate::outcomes::{CompactOutcome, MoveOutcome, Plan, Relocated, ResizeOutcome, Said};

/// What `expand` and `shrink` ask for.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) size: NewSize,
    /// Move neighbours out of the way first.
    pub(super) make_room: bool,
    pub(super) dry_run: bool,
}

impl Shared {
    /// Gives a partition another size, or only says what that would take.
    pub(super) fn resize(
        self: &Arc<Self>,
        wanted: &Wanted<'_>,
        left: &dyn Fn() -> bool,
        hear: &mut dyn FnMut(&Said),
    ) -> Result<ResizeOutcome, CommandError> {
        let name = self.board().find(wanted.name)?;
        let (map, busy) = self.to_plan_on();
        let from = map.get(&name).map_or(0, |on_map| on_map.range().size());
        let size = match new_size(wanted.size, from) {
            Ok(size) => size,
            Err(reason) => return Ok(stayed(reason, &[], Vec::new())),
        };
        let room = if wanted.make_room && size > from {
            map.plan_make_room(&name, size, &busy).map(Some)
        } else {
            map.plan_resize(&name, size).map(|_| None)
        };
        let moves = match room {
            Ok(room) => room.map_or_else(Vec::new, |plan| relocated(&plan)),
            Err(refusal) => return Ok(refused(&refusal, Vec::new())),
        };
        if wanted.dry_run {
            let name = name.to_string();
            return Ok(ResizeOutcome::WouldResize { name, from, to: size, moves });
        }
        let (moved, stopped) = self.carry_out(&moves, left, hear);
        if let Some(reason) = stopped {
            return Ok(stayed(reason, &[], moved));
        }
        self.resize_claimed(&name, size, moved)
    }

    fn resize_claimed(
        self: &Arc<Self>,
        name: &PartitionName,
        size: u64,
        moved: Vec<Relocated>,
    ) -> Result<ResizeOutcome, CommandError> {
        let (busy, plan, process) = {
            let mut board = self.board();
            let busy = Busy::claim(self, &mut board, name.as_str(), Command::Resize)?;
            let process = board.get(name.as_str()).map(|partition| partition.running().ok());
            let held = match &process {
                Ok(Some(_)) => board.map.begin_resize(name, size),
                // It is started with the new size.
                _ => board.map.resize(name, size),
            };
            // A claim takes the board's lock when it is dropped.
            drop(board);
            match held {
                Ok(plan) => (busy, plan, process?),
                Err(refusal) => return Ok(refused(&refusal, moved)),
            }
        };
        self.changed.notify_all();
        let (from, to) = (plan.from().size(), size);
        let begun = self.begin(&busy, CommandRecord::Resize { name: name.to_string(), from, to });
        if let Err(error) = begun {
            self.board().settle_size(name, from);
            return Err(error);
        }
        let report = match process {
            None => Ok(None),
            Some(process) => self.resize_running(&process, plan).map(Some),
        };
        let outcome = self.end_resize(name, plan, report, moved);
        if let ResizeOutcome::Resized { pause_us, guest_bytes: Some(_), .. } = outcome {
            self.measure_pause(name, pause_us);
        }
        self.close(&busy);
        Ok(outcome)
    }

    fn resize_running(&self, process: &Process, plan: ResizePlan) -> Result<ResizeReport, String> {
        let size = plan.to().size();
        // One at a time, so that none counts on what another was just promised.
        let admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        if plan.grows() {
            if let Err(reason) = self.admit_more(plan.difference().size()) {
                let (size, busy_devices) = (plan.from().size(), Vec::new());
                return Ok(ResizeReport::Stayed { size, reason, busy_devices });
            }
        }
        let (mover, reports) = channel();
        process.set_mover(Some(mover));
        let wait_ms = u64::try_from(self.config.file.device_wait.as_millis()).unwrap_or(u64::MAX);
        process
            .give(&Order::Resize { size, wait_ms }, &files(&self.storage))
            .map_err(|error| format!("its worker cannot be reached: {error}"))?;
        drop(admission);
        loop {
            match reports.recv() {
                Ok(Report::Resized(report)) => {
                    process.set_mover(None);
                    return Ok(report);
                }
                Ok(_) => {}
                Err(_) => return Err("its worker ended meanwhile; the partition has failed".into()),
            }
        }
    }

    /// `Ok(None)`: it does not run, and the map has its new size already.
    fn end_resize(
        &self,
        name: &PartitionName,
        plan: ResizePlan,
        report: Result<Option<ResizeReport>, String>,
        moved: Vec<Relocated>,
    ) -> ResizeOutcome {
        let mut board = self.board();
        let (size, outcome) = match report {
            Ok(None) => (plan.to().size(), None),
            Ok(Some(ResizeReport::Stayed { size, reason, busy_devices })) => {
                (size, Some((reason, busy_devices)))
            }
            Err(reason) => (plan.from().size(), Some((reason, vec![]))),
            Ok(Some(ResizeReport::Resized { size, guest_bytes, kept, pause_us, .. })) => {
                board.settle_size(name, size);
                self.clear_tail(plan, size);
                tracing::info!(partition = %name, size, "resized");
                let (name, from) = (name.to_string(), plan.from().size());
                let guest_bytes = Some(guest_bytes);
                let to = size;
                return ResizeOutcome::Resized {
                    name,
                    from,
                    to,
                    guest_bytes,
                    kept,
                    moved,
                    pause_us,
                };
            }
        };
        board.settle_size(name, size);
        self.clear_tail(plan, size);
        match outcome {
            Some((reason, busy_devices)) => {
                tracing::warn!(partition = %name, reason, "not resized");
                ResizeOutcome::Refused { reason, in_the_way: vec![], busy_devices, moved }
            }
            None => ResizeOutcome::Resized {
                name: name.to_string(),
                from: plan.from().size(),
                to: size,
                guest_bytes: None,
                kept: 0,
                moved,
                pause_us: 0,
            },
        }
    }

    /// Gives back what lies behind `size` bytes of the larger of the two ranges.
    fn clear_tail(&self, plan: ResizePlan, size: u64) {
        let large = if plan.grows() { plan.to() } else { plan.from() };
        let Ok(kept) = StorageRange::new(large.origin(), size) else { return };
        for tail in large.without(kept) {
            if let Err(error) = self.storage.discard(tail) {
                // It is tried again before the range is used.
                tracing::error!(error = in_full(&error), "memory not given back");
            }
        }
    }

    /// Makes one free range of `free` bytes, or of all there is, by moving
    /// partitions; or only says how.
    pub(super) fn compact(
        self: &Arc<Self>,
        free: Option<u64>,
        dry_run: bool,
        left: &dyn Fn() -> bool,
        hear: &mut dyn FnMut(&Said),
    ) -> CompactOutcome {
        // Planning may take long, so not with the board's lock: each move is
        // asked for again when its time has come.
        let (map, busy) = self.to_plan_on();
        let plan = match map.plan_compact(free, &busy) {
            Ok(plan) => to_say(&plan),
            Err(refusal) => {
                let in_the_way = by_name(&refusal);
                return CompactOutcome::Refused { reason: refusal.to_string(), in_the_way };
            }
        };
        if dry_run {
            return CompactOutcome::WouldCompact { plan };
        }
        hear(&Said::Plan(plan.clone()));
        let (moved, stopped) = self.carry_out(&plan.moves, left, hear);
        match stopped {
            None => CompactOutcome::Compacted { plan },
            Some(reason) => {
                let left = plan.moves.len() - moved.len();
                CompactOutcome::Stopped { reason, moved, left }
            }
        }
    }

    /// The map as it is, and who must not be moved now.
    fn to_plan_on(&self) -> (StorageMap, Vec<PartitionName>) {
        let board = self.board();
        (board.map.clone(), board.busy_partitions())
    }

    /// Carries out planned moves one by one, until `left` says that nobody waits
    /// for more; says which were done, and why it stopped if it did.
    fn carry_out(
        self: &Arc<Self>,
        moves: &[Relocated],
        left: &dyn Fn() -> bool,
        hear: &mut dyn FnMut(&Said),
    ) -> (Vec<Relocated>, Option<String>) {
        let mut done = Vec::new();
        for (index, one) in moves.iter().enumerate() {
            if left() {
                let reason = "it was interrupted; what was moved stays where it is".to_owned();
                return (done, Some(reason));
            }
            let count = moves.len();
            let text = format!(
                "move {} of {count}: {} from {} to {}",
                index + 1,
                one.name,
                main_storage::Size(one.from),
                main_storage::Size(one.to)
            );
            hear(&Said::Note(text));
            let result = self.relocate(&one.name, (one.to, MoveMode::Live), false, hear);
            let stopped = match result {
                Ok(MoveOutcome::Moved { .. }) => None,
                Ok(MoveOutcome::Refused { reason, .. }) => Some(reason),
                Ok(MoveOutcome::WouldMove { .. }) => Some("it was only planned".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(reason) = stopped {
                return (done, Some(format!("\"{}\" was not moved: {reason}", one.name)));
            }
            done.push(one.clone());
        }
        (done, None)
    }
}

fn new_size(size: NewSize, from: u64) -> Result<u64, String> {
    let past = || "no partition can be that large".to_owned();
    let now = main_storage::Size(from);
    match size {
        NewSize::By(0) => Err("expanding it by 0 changes nothing; choose more".to_owned()),
        NewSize::By(more) => from.checked_add(more).ok_or_else(past),
        NewSize::UpTo(size) if size <= from => {
            Err(format!("it has {now} already; `berth shrink` makes it smaller"))
        }
        NewSize::DownTo(size) if size >= from => {
            Err(format!("it has only {now}; `berth expand` makes it larger"))
        }
        NewSize::Exactly(size) if size == from => Err(format!("it has {now} already")),
        NewSize::UpTo(size) | NewSize::DownTo(size) | NewSize::Exactly(size) => Ok(size),
    }
}

fn relocated(plan: &CompactPlan) -> Vec<Relocated> {
    let one = |planned: &main_storage::PlannedMove| Relocated {
        name: planned.name.to_string(),
        from: planned.plan.from().origin(),
        to: planned.plan.to().origin(),
        size: planned.plan.from().size(),
    };
    plan.moves().iter().map(one).collect()
}

fn to_say(plan: &CompactPlan) -> Plan {
    Plan {
        moves: relocated(plan),
        bytes: plan.bytes(),
        free_origin: plan.free().origin(),
        free_size: plan.free().size(),
        least: plan.is_least(),
    }
}

fn by_name(refusal: &Refusal) -> Vec<String> {
    match refusal {
        Refusal::Fixed { fixed, .. } => fixed.iter().map(ToString::to_string).collect(),
        other => other.in_the_way().iter().map(|by| by.name.to_string()).collect(),
    }
}

fn refused(refusal: &Refusal, moved: Vec<Relocated>) -> ResizeOutcome {
    stayed(refusal.to_string(), &by_name(refusal), moved)
}

fn stayed(reason: String, in_the_way: &[String], moved: Vec<Relocated>) -> ResizeOutcome {
    let in_the_way = in_the_way.to_vec();
    ResizeOutcome::Refused { reason, in_the_way, busy_devices: vec![], moved }
}

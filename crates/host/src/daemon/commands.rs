//! What changes the board: start, stop, move, and the ends of workers.

use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use main_storage::{MovePlan, PartitionName};

use super::Shared;
use super::board::{Busy, Command, CommandError, Run};
use super::pools::Input;
use super::process::{Process, files, obituary};
use crate::host_file::{CpuAssignment, PartitionSpec};
use crate::in_full;
use crate::journal::{Change, CommandRecord};
use crate::link::{
    DataDisk, Ended, MoveMode, MoveReport, Order, RangeAnswer, Report, WorkerConfig,
};
use crate::outcomes::{MoveOutcome, Said};

/// How long a worker may take from its start to the guest's.
const START: Duration = Duration::from_secs(60);
/// How long a guest may take to power itself off.
const POWER_OFF: Duration = Duration::from_secs(10);
/// How long a worker may take beyond that.
const LAST: Duration = Duration::from_secs(10);

impl Shared {
    /// Ends every partition; no command is taken from now on.
    pub(super) fn end_all(self: &Arc<Self>) {
        let names: Vec<_> = {
            let mut board = self.board();
            if !std::mem::replace(&mut board.closing, true) {
                if let Err(error) = self.journal.record(&[Change::Ending]) {
                    // If this host is killed now, the next goes on with it.
                    tracing::error!("{}", in_full(&error));
                }
            }
            board.partitions.keys().cloned().collect()
        };
        std::thread::scope(|scope| {
            for name in names {
                scope.spawn(move || self.end(&name));
            }
        });
    }

    fn end(self: &Arc<Self>, name: &PartitionName) {
        // Whatever is under way has a limit of its own; a move's is the longest.
        let limit = self.config.file.device_wait + Duration::from_secs(60);
        let claimed = self.wait_for(Instant::now() + limit, |board| {
            Busy::claim_while_closing(self, board, name.as_str(), Command::Stop).ok()
        });
        let Some(busy) = claimed else {
            tracing::error!(partition = %name, "the command under way does not end; killing the guest");
            if let Some(partition) = self.board().partitions.get(name) {
                partition.process().inspect(|process| process.kill());
            }
            return;
        };
        if let Err(error) = self.stop_claimed(&busy, false) {
            tracing::error!("{error}");
        }
    }

    /// Starts a partition; returns when its guest was entered.
    pub(super) fn start(self: &Arc<Self>, name: &str) -> Result<(), CommandError> {
        let busy = {
            let mut board = self.board();
            let busy = Busy::claim(self, &mut board, name, Command::Start)?;
            let run = board.partitions.get(&busy.name).map(|partition| &partition.run);
            let running = matches!(run, Some(Run::Running(_)));
            // A claim takes the board's lock when it is dropped.
            drop(board);
            if running {
                return Err(CommandError::Running(busy.name.clone()));
            }
            busy
        };
        self.begin(&busy, CommandRecord::Start { name: busy.name.to_string() })?;
        self.start_begun(&busy)
    }

    /// The start of a claimed partition that is in the journal.
    pub(super) fn start_begun(self: &Arc<Self>, busy: &Busy<'_>) -> Result<(), CommandError> {
        let started = self.start_claimed(busy);
        self.close(busy);
        started
    }

    /// Records that a command begins, or enters its next phase. When it fails
    /// nothing must be done.
    pub(super) fn begin(
        &self,
        busy: &Busy<'_>,
        command: CommandRecord,
    ) -> Result<(), CommandError> {
        let change = Change::Command(busy.id, command);
        self.journal.record(std::slice::from_ref(&change)).map_err(CommandError::Journal)?;
        tracing::debug!(?change, "in the journal");
        Ok(())
    }

    /// Records that a command has ended, and what its partition is now.
    pub(super) fn close(&self, busy: &Busy<'_>) {
        self.close_all(std::slice::from_ref(busy));
    }

    /// The same for a command on several partitions.
    pub(super) fn close_all(&self, busy: &[Busy<'_>]) {
        let board = self.board();
        let ended = busy.iter().flat_map(|busy| {
            let record = board.record(&busy.name);
            let partition = record.map(|record| Change::Partition(busy.name.clone(), record));
            partition.into_iter().chain([Change::Ended(busy.id)])
        });
        if let Err(error) = self.journal.record(&ended.collect::<Vec<_>>()) {
            // A host that comes later asks the worker how it ended.
            tracing::error!("{}", in_full(&error));
        }
    }

    fn start_claimed(self: &Arc<Self>, busy: &Busy<'_>) -> Result<(), CommandError> {
        let name = &busy.name;
        let result = self.start_worker(busy);
        if let Err(reason) = &result {
            let mut board = self.board();
            if let Some(partition) = board.partitions.get_mut(name) {
                if !matches!(partition.run, Run::Running(_)) {
                    partition.run = Run::Failed;
                    partition.reason = Some(reason.clone());
                }
            }
        }
        self.changed.notify_all();
        result.map_err(|reason| CommandError::Start { name: name.clone(), reason })
    }

    fn start_worker(self: &Arc<Self>, busy: &Busy<'_>) -> Result<(), String> {
        let name = &busy.name;
        let (range, spec) = {
            let board = self.board();
            let range = board.map.get(name).map(main_storage::Partition::range);
            let spec = board.partitions.get(name).map(|partition| partition.spec.clone());
            range.zip(spec).ok_or_else(|| "it is not on the map".to_owned())?
        };
        // The guest before may have been cut off in the middle of a command.
        self.storage.discard(range).map_err(|error| in_full(&error))?;
        // One at a time, so that none counts on what another was just promised.
        let admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        self.admit(name, range)?;
        let mut config = self.worker_config(&spec, range)?;
        let capture = self.capture_of(name);
        if let (Some(capture), Some(data)) = (&capture, &mut config.data) {
            data.captured = Some(capture.disk());
        }
        let capture = capture.map(|capture| capture.open()).transpose();
        let capture = capture.map_err(|error| format!("its pool's capture: {error}"))?;
        config.copy = capture.is_some();
        let mut fds = files(&self.storage).to_vec();
        fds.extend(capture.iter().flatten().map(|file| file.as_fd()));
        let process = Process::start(&self.dir, name, config, &fds)
            .map_err(|error| format!("its worker could not be started: {error}"))?;
        let process = Arc::new(process);
        {
            let mut board = self.board();
            if let Some(partition) = board.partitions.get_mut(name) {
                partition.run = Run::Running(Arc::clone(&process));
                partition.reason = None;
            }
        }
        drop(admission);
        let (started, is_started) = channel();
        let (shared, watched) = (Arc::clone(self), Arc::clone(&process));
        let thread = std::thread::Builder::new().name(format!("watch-{name}"));
        let watch = thread.spawn(move || {
            shared.watch(&watched, || {
                // Nobody waits any more if the start took too long.
                let _ = started.send(());
            });
        });
        if let Err(error) = watch {
            process.kill();
            self.settle(
                &process,
                Ended::Failed { reason: format!("no thread to be had: {error}") },
            );
            return Err(format!("no thread to watch its worker: {error}"));
        }
        match is_started.recv_timeout(START) {
            Ok(()) => {
                tracing::info!(partition = %name, pid = process.pid(), at = %range, "started");
                Ok(())
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                process.kill();
                Err(format!("its worker did not answer within {} s", START.as_secs()))
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                let board = self.board();
                let reason = board.partitions.get(name).and_then(|p| p.reason.clone());
                Err(reason.unwrap_or_else(|| "its guest ended at once".to_owned()))
            }
        }
    }

    fn worker_config(
        &self,
        spec: &PartitionSpec,
        range: main_storage::StorageRange,
    ) -> Result<WorkerConfig, String> {
        let image = self.config.images.find(&spec.image)?;
        let exclusive = self.board().exclusive_cpus();
        let (pin, run_on) = match &spec.cpus {
            CpuAssignment::Exclusive(cpus) | CpuAssignment::TimeShared(cpus) => {
                (Some(cpus.clone()), cpus.clone())
            }
            CpuAssignment::Floating if exclusive.is_empty() => (None, Vec::new()),
            CpuAssignment::Floating => {
                let free = self.online.iter().filter(|cpu| !exclusive.contains(cpu));
                (None, free.copied().collect())
            }
        };
        let data = spec.disk.map(|_| DataDisk {
            template: image.scratch.clone(),
            captured: None,
            overlay: self.dir.disk_overlay(&spec.name),
        });
        let mut command_line = image.command_line.clone();
        if data.is_some() {
            command_line.push_str(" berth.disk=/dev/vdb");
        }
        if self.has_server(&spec.name) {
            command_line.push_str(" berth.database=on");
        }
        // A kernel that panicked resets at once, so that its end is noticed.
        if !command_line.contains("panic=") {
            command_line.push_str(" panic=-1");
        }
        Ok(WorkerConfig {
            name: spec.name.to_string(),
            range: range.into(),
            // A machine of a pool keeps its size, and has no device to change it.
            reach: match self.config.file.pool_of(&spec.name) {
                Some(_) => range.size(),
                None => self.storage.size(),
            },
            vcpus: spec.vcpus,
            pin,
            run_on,
            kernel: image.kernel.clone(),
            initrd: Some(image.initrd.clone()),
            command_line,
            root: image.root.clone(),
            data,
            copy: false,
            files: self.config.file.pool_of(&spec.name).is_some_and(|pool| pool.user_files),
            io_keys: spec.io_keys.iter().map(|(name, key)| (name.clone(), key.number())).collect(),
        })
    }

    /// Hears a worker until it is gone, and settles what it leaves.
    pub(super) fn watch(self: &Arc<Self>, process: &Arc<Process>, started: impl FnOnce()) {
        let mut started = Some(started);
        let mut last = None;
        let name = &process.name;
        while let Ok(Some((report, _))) = process.link.receive::<Report>() {
            match report {
                Report::Started => {
                    started.take().into_iter().for_each(|started| started());
                }
                Report::Ready { uptime_ns, kernel } => {
                    let uptime_ms = uptime_ns / 1_000_000;
                    tracing::info!(partition = %name, uptime_ms, kernel, "ready");
                    self.set_ready(process, true);
                }
                Report::NotReady => self.set_ready(process, false),
                Report::Question { origin, reserve } => self.answer(process, origin, reserve),
                report @ (Report::Copying { .. } | Report::Moved(_) | Report::Resized(_)) => {
                    process.tell_mover(report);
                }
                report @ (Report::Captured(_)
                | Report::NotCaptured { .. }
                | Report::ServiceReady { .. }
                | Report::ServiceEnded { .. }) => process.tell_builder(report),
                report @ Report::Renewed { .. } if process.has_builder() => {
                    process.tell_builder(report);
                }
                report @ (Report::Parked(_)
                | Report::Broken { .. }
                | Report::Renewed { .. }
                | Report::ConversationAccepted { .. }
                | Report::ConversationEnded { .. }) => {
                    self.pools.tell(Input::Report { member: name.clone(), report });
                }
                report @ Report::MetadataQuestion { id, .. } => {
                    if self.config.file.pool_of(name).is_some() {
                        self.pools.tell(Input::Report { member: name.clone(), report });
                    } else {
                        // This guest is no machine of a pool: it is nobody.
                        let body = "{\"error\":\"this machine has no user\"}\n".to_owned();
                        let reply = Order::MetadataReply { id, status: 404, body };
                        if let Err(error) = process.give(&reply, &[]) {
                            tracing::warn!(partition = %name, %error, "the worker cannot be answered");
                        }
                    }
                }
                // Heard when the worker was adopted.
                Report::Hello(_) => {}
                Report::Ended(ended) => last = Some(ended),
            }
        }
        let status = process.reap();
        let ended = last.unwrap_or_else(|| obituary(&status, &self.dir.worker_log(name)));
        // Nobody listens there any more; a new worker makes its own.
        let _ = std::fs::remove_file(self.dir.worker_socket(name));
        let why = format!("its machine has ended: {ended:?}");
        let again = self.settle(process, ended);
        process.set_builder(None);
        let expected = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let news = self.config.file.pool_of(name).is_some() && !expected.contains(name);
        drop(expected);
        if news {
            self.pools.tell(Input::Gone { member: name.clone(), why });
        }
        // Only now does whoever waits for the start learn that there is none.
        drop(started);
        if again && self.config.file.pool_of(name).is_none() {
            tracing::info!(partition = %name, "the guest asked to be started anew");
            if let Err(error) = self.start(name.as_str()) {
                tracing::error!("{error}");
            }
        }
    }

    fn set_ready(&self, process: &Process, ready: bool) {
        // With the board's lock, so that nobody misses the change between
        // looking and waiting.
        let _board = self.board();
        process.set_ready(ready);
        self.changed.notify_all();
    }

    /// The resource manager's answer to a worker (step 203).
    fn answer(&self, process: &Process, origin: u64, reserve: bool) {
        let held = {
            let board = self.board();
            let held = board.map.get(&process.name).and_then(main_storage::Partition::moving_to);
            held.is_some_and(|to| to.origin() == origin) && !(board.closing && reserve)
        };
        let refused = (!held).then(|| RangeAnswer {
            message: "the range is not held for this move; the host may be ending".to_owned(),
            in_the_way: Vec::new(),
        });
        if let Err(error) = process.give(&Order::Answer { refused }, &[]) {
            tracing::warn!(partition = %process.name, %error, "the worker cannot be answered");
        }
    }

    /// A worker is gone: its memory is given back, its range stays its
    /// partition's. Whether the guest asked to be started anew.
    fn settle(&self, process: &Process, ended: Ended) -> bool {
        let name = &process.name;
        let mut board = self.board();
        for range in board.settle_change(name) {
            if let Err(error) = self.storage.discard(range) {
                // It is tried again before the range is used.
                tracing::error!(partition = %name, error = in_full(&error), "memory not given back");
            }
        }
        process.set_mover(None);
        let closing = board.closing;
        let Some(partition) = board.partitions.get_mut(name) else { return false };
        let stopping = partition.busy == Some(Command::Stop);
        let (run, reason) = match ended {
            Ended::PowerOff if stopping => (Run::Stopped, None),
            Ended::PowerOff => (Run::Stopped, Some("the guest powered itself off".to_owned())),
            Ended::ShutDown | Ended::Reboot => (Run::Stopped, None),
            Ended::Failed { ref reason } => (Run::Failed, Some(reason.clone())),
        };
        match &reason {
            Some(reason) if matches!(run, Run::Failed) => {
                tracing::error!(partition = %name, reason, "failed");
            }
            _ => tracing::info!(partition = %name, reason, "stopped"),
        }
        (partition.run, partition.reason) = (run, reason);
        if let Some(record) = board.record(name).filter(|_| !closing) {
            if let Err(error) = self.journal.record(&[Change::Partition(name.clone(), record)]) {
                // A host that comes later finds no worker, and says so.
                tracing::error!(partition = %name, "{}", in_full(&error));
            }
        }
        self.changed.notify_all();
        ended == Ended::Reboot && !stopping && !closing
    }

    /// Stops a partition: asks its guest first, unless `now`.
    pub(super) fn stop_partition(
        self: &Arc<Self>,
        name: &str,
        now: bool,
    ) -> Result<(), CommandError> {
        let busy = {
            let mut board = self.board();
            let busy = Busy::claim(self, &mut board, name, Command::Stop);
            let running = board.get(name).and_then(|partition| partition.running());
            drop(board);
            let busy = busy?;
            running?;
            busy
        };
        self.begin(&busy, CommandRecord::Stop { name: busy.name.to_string() })?;
        self.stop_begun(&busy, now)
    }

    /// The stop of a claimed partition that is in the journal.
    pub(super) fn stop_begun(&self, busy: &Busy<'_>, now: bool) -> Result<(), CommandError> {
        let stopped = self.stop_claimed(busy, now);
        self.close(busy);
        stopped
    }

    pub(super) fn restart(self: &Arc<Self>, name: &str, now: bool) -> Result<(), CommandError> {
        let busy = {
            let mut board = self.board();
            Busy::claim(self, &mut board, name, Command::Stop)?
        };
        self.begin(&busy, CommandRecord::Restart { name: busy.name.to_string() })?;
        self.restart_begun(&busy, now)
    }

    /// The restart of a claimed partition that is in the journal.
    pub(super) fn restart_begun(
        self: &Arc<Self>,
        busy: &Busy<'_>,
        now: bool,
    ) -> Result<(), CommandError> {
        let name = busy.name.to_string();
        let stopped = self.stop_claimed(busy, now);
        if let Err(error) = stopped.and_then(|()| self.begin(busy, CommandRecord::Start { name })) {
            self.close(busy);
            return Err(error);
        }
        self.start_begun(busy)
    }

    /// Stops what runs in a claimed partition, if anything does.
    fn stop_claimed(&self, busy: &Busy<'_>, now: bool) -> Result<(), CommandError> {
        let name = &busy.name;
        let process = match self.board().get(name.as_str())?.running() {
            Ok(process) => process,
            Err(_) => return Ok(()),
        };
        // A machine of a pool has nothing to lose, and stands still if nobody uses
        // it.
        let now = now || self.config.file.pool_of(name).is_some();
        let limit = if now || !process.is_ready() { Duration::ZERO } else { POWER_OFF };
        let wait_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        if process.give(&Order::PowerOff { wait_ms }, &[]).is_err() {
            process.kill();
        }
        let gone = |board: &mut super::Board| {
            let run = &board.partitions.get(name)?.run;
            (!matches!(run, Run::Running(_))).then_some(())
        };
        if self.wait_for(Instant::now() + limit + LAST, gone).is_some() {
            return Ok(());
        }
        process.kill();
        self.wait_for(Instant::now() + LAST, gone).ok_or_else(|| CommandError::Stop {
            name: name.clone(),
            reason: format!("its worker (process {}) cannot be killed", process.pid()),
        })
    }

    /// Moves a partition, or only says what that would do. `hear` gets the
    /// progress.
    pub(super) fn relocate(
        self: &Arc<Self>,
        name: &str,
        (to, mode): (u64, MoveMode),
        dry_run: bool,
        hear: &mut dyn FnMut(&Said),
    ) -> Result<MoveOutcome, CommandError> {
        let (busy, plan, process) = {
            let mut board = self.board();
            let found = board.find(name)?;
            let plan = match board.map.plan_move(&found, to) {
                Ok(plan) => plan,
                Err(refusal) => return Ok(refused(&refusal)),
            };
            if dry_run {
                return Ok(would_move(&plan));
            }
            let busy = Busy::claim(self, &mut board, name, Command::Move)?;
            let process = board.get(name).map(|partition| partition.running().ok());
            // A partition in which nothing runs moves on the map alone.
            let held = match &process {
                Ok(Some(_)) => board.map.begin_move(&found, to),
                _ => board.map.relocate(&found, to),
            };
            // A claim takes the board's lock when it is dropped.
            drop(board);
            match held {
                Ok(_) => (busy, plan, process?),
                Err(refusal) => return Ok(refused(&refusal)),
            }
        };
        self.changed.notify_all();
        self.begin_move(&busy, &plan, process.is_some())?;
        let Some(process) = process else { return Ok(moved(&plan, 0, 0, 0)) };
        let report = self.move_running(&process, &plan, mode, hear);
        let outcome = self.end_move(&busy, &plan, report);
        self.forget_copying(&busy.name);
        if let MoveOutcome::Moved { bytes, pause_us, copy_bytes_per_second, .. } = outcome {
            self.measure_copy(&busy.name, bytes, copy_bytes_per_second, pause_us);
        }
        self.close(&busy);
        Ok(outcome)
    }

    /// Records a move that the map has; takes it off the map when it cannot.
    fn begin_move(
        &self,
        busy: &Busy<'_>,
        plan: &MovePlan,
        running: bool,
    ) -> Result<(), CommandError> {
        let name = &busy.name;
        let (from, to) = (plan.from().origin(), plan.to().origin());
        let recorded = if running {
            self.begin(busy, CommandRecord::Move { name: name.to_string(), from, to })
        } else {
            let record = self.board().record(name);
            let change = record.map(|record| Change::Partition(name.clone(), record));
            let changes: Vec<_> = change.into_iter().collect();
            self.journal.record(&changes).map_err(CommandError::Journal)
        };
        if recorded.is_err() {
            let map = &mut self.board().map;
            // Either the one or the other was done; the old range is still free.
            if map.abandon_move(name).is_err() {
                let _ = map.relocate(name, from);
            }
        }
        recorded
    }

    /// Has the worker move itself and waits for its report.
    pub(super) fn move_running(
        &self,
        process: &Process,
        plan: &MovePlan,
        mode: MoveMode,
        hear: &mut dyn FnMut(&Said),
    ) -> Result<MoveReport, String> {
        let (mover, reports) = channel();
        process.set_mover(Some(mover));
        self.note_copying(&process.name, 0, 0);
        let wait = self.config.file.device_wait.as_millis();
        let order = Order::Move {
            from: plan.from().into(),
            origin: plan.to().origin(),
            mode,
            wait_ms: u64::try_from(wait).unwrap_or(u64::MAX),
        };
        process
            .give(&order, &files(&self.storage))
            .map_err(|error| format!("its worker cannot be reached: {error}"))?;
        loop {
            match reports.recv() {
                Ok(Report::Copying { done, total }) => {
                    self.note_copying(&process.name, done, total);
                    hear(&Said::Copying { done, total });
                }
                Ok(Report::Moved(report)) => {
                    process.set_mover(None);
                    return Ok(report);
                }
                Ok(_) => {}
                Err(_) => {
                    return Err(
                        "its worker ended during the move; the partition has failed".to_owned()
                    );
                }
            }
        }
    }

    fn end_move(
        &self,
        busy: &Busy<'_>,
        plan: &MovePlan,
        report: Result<MoveReport, String>,
    ) -> MoveOutcome {
        let name = &busy.name;
        let mut board = self.board();
        let refused =
            |reason| MoveOutcome::Refused { reason, in_the_way: vec![], busy_devices: vec![] };
        match report {
            Ok(MoveReport::Moved { bytes, nanos, pause_us, not_cleared, .. }) => {
                // If the worker died since, the move was abandoned with it.
                if let Err(error) = board.map.commit_move(name) {
                    return refused(format!("{error}: the partition ended just after the move"));
                }
                if let Some(why) = not_cleared {
                    // Whoever gets the range next clears it first.
                    tracing::warn!(partition = %name, why, "old range not given back");
                }
                tracing::info!(partition = %name, from = %plan.from(), to = %plan.to(), pause_us, "moved");
                moved(plan, bytes, nanos, pause_us)
            }
            Ok(MoveReport::Stayed { reason, in_the_way, busy_devices, out_of_service }) => {
                let _ = board.map.abandon_move(name);
                let out = match out_of_service.as_slice() {
                    [] => String::new(),
                    out => format!(
                        "; out of service until the partition is restarted: {}",
                        out.join(", ")
                    ),
                };
                let reason = reason + &out;
                tracing::warn!(partition = %name, reason, "not moved");
                MoveOutcome::Refused { reason, in_the_way, busy_devices }
            }
            Ok(MoveReport::Lost { reason }) | Err(reason) => {
                let _ = board.map.abandon_move(name);
                tracing::error!(partition = %name, reason, "move failed");
                refused(reason)
            }
        }
    }
}

fn refused(refusal: &main_storage::Refusal) -> MoveOutcome {
    let in_the_way = refusal.in_the_way().iter().map(|by| by.name.to_string()).collect();
    MoveOutcome::Refused { reason: refusal.to_string(), in_the_way, busy_devices: vec![] }
}

fn would_move(plan: &MovePlan) -> MoveOutcome {
    MoveOutcome::WouldMove {
        from: plan.from().origin(),
        to: plan.to().origin(),
        bytes: plan.from().size(),
        direction: plan.direction().as_str().to_owned(),
    }
}

fn moved(plan: &MovePlan, bytes: u64, nanos: u64, pause_us: u64) -> MoveOutcome {
    let per_second = u128::from(bytes) * 1_000_000_000 / u128::from(nanos.max(1));
    MoveOutcome::Moved {
        from: plan.from().origin(),
        to: plan.to().origin(),
        bytes,
        direction: plan.direction().as_str().to_owned(),
        pause_us,
        copy_bytes_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
    }
}

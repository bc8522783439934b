//! A relocation's actions, done to the machine of this worker.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use io_processors::{AddressLimits, IoProcessor, SetAddressLimitsError, Told};
use machine::Machine;
use main_storage::{MovePlan, PAGE_SIZE, StorageRange};
use relocation::{Action, Device, Driver, Event, Outcome, RangeRefused, Request};
use storage_window::{Committed, Prepared, RelocateError, Slid, StorageWindow};

use super::{ACKNOWLEDGE, ToHost, placement};
use crate::in_full;
use crate::link::{MoveReport, RangeAnswer, Report};

/// What the worker's main thread knows of a relocation under way: where the
/// resource manager's answer goes.
pub(super) type Answers = Sender<Option<RangeAnswer>>;

/// Files of main storage and its keys, held for one relocation.
pub(super) struct Files {
    pub(super) storage: OwnedFd,
    pub(super) keys: OwnedFd,
}

/// See [`relocation::Driver`].
pub(super) struct Worker {
    machine: Arc<Machine>,
    window: Arc<StorageWindow>,
    files: Files,
    host: Arc<ToHost>,
    answers: Receiver<Option<RangeAnswer>>,
    events: (Sender<Event>, Receiver<Event>),
    from: StorageRange,
    prepared: Option<Prepared>,
    moved: Option<Moved>,
    /// Limits that devices have not acknowledged yet.
    told: VecDeque<(Device, StorageRange, Told)>,
    limits: relocation::Limits,
    started: Instant,
}

/// Storage that is at its new place.
enum Moved {
    Copied(Committed),
    Slid(Slid),
}

/// How long the resource manager may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

impl Worker {
    pub(super) fn new(
        machine: Arc<Machine>,
        window: Arc<StorageWindow>,
        files: Files,
        host: Arc<ToHost>,
        from: StorageRange,
        answers: Receiver<Option<RangeAnswer>>,
    ) -> Self {
        Self {
            machine,
            window,
            files,
            host,
            answers,
            events: channel(),
            from,
            prepared: None,
            moved: None,
            told: VecDeque::new(),
            limits: relocation::Limits::default(),
            started: Instant::now(),
        }
    }

    /// Runs the relocation to its end and says how it ended.
    pub(super) fn run(
        mut self,
        origin: u64,
        mode: relocation::Mode,
        limits: relocation::Limits,
    ) -> MoveReport {
        self.limits = limits;
        let devices = self.machine.io_processors().iter().map(|device| device.name().to_owned());
        let devices = devices.collect();
        let request = Request { from: self.from, origin, devices, limits, mode };
        let report = relocation::drive(request, &mut self);
        let pause_us = u64::try_from(report.pause.as_micros()).unwrap_or(u64::MAX);
        match report.outcome {
            Outcome::Moved { copied, not_cleared, .. } => MoveReport::Moved {
                bytes: copied.bytes,
                nanos: copied.nanos,
                pause_us,
                not_cleared,
                out_of_service: vec![],
            },
            Outcome::ResumedWhereItWas { reason, out_of_service } => MoveReport::Stayed {
                reason: reason.to_string(),
                in_the_way: reason.in_the_way().to_vec(),
                busy_devices: reason.busy_devices().to_vec(),
                out_of_service,
            },
            Outcome::Lost(reason) => MoveReport::Lost { reason },
        }
    }

    fn emit(&self, event: Event) {
        // The receiver is in `self`.
        let _ = self.events.0.send(event);
    }

    /// Waits for what may take long on a thread of its own, so that the
    /// relocation's limits hold meanwhile.
    fn aside(&self, work: impl FnOnce() -> Option<Event> + Send + 'static) {
        let events = self.events.0.clone();
        let thread = std::thread::Builder::new().name("move".into()).spawn(move || {
            if let Some(event) = work() {
                // Nobody listens if the relocation ended meanwhile.
                let _ = events.send(event);
            }
        });
        if let Err(error) = thread {
            // The event does not come, and the limit undoes the relocation.
            tracing::error!(%error, "no thread to wait in");
        }
    }

    fn device(&self, device: Device) -> Option<Arc<dyn IoProcessor>> {
        self.machine.io_processors().get(device.0).cloned()
    }

    fn ask(&self, origin: u64, reserve: bool) -> Result<(), RangeRefused> {
        self.host.say(&Report::Question { origin, reserve });
        match self.answers.recv_timeout(ANSWER) {
            Ok(None) => Ok(()),
            Ok(Some(RangeAnswer { message, in_the_way })) => {
                Err(RangeRefused { message, in_the_way })
            }
            Err(_) => Err(RangeRefused {
                message: "the host does not answer; is it still running?".to_owned(),
                in_the_way: Vec::new(),
            }),
        }
    }

    /// Before work that takes long while the guest runs.
    fn step_aside(&self) {
        placement::step_aside(&self.machine.host_cpus_in_use());
    }

    fn reserve(&self, origin: u64) -> Event {
        match MovePlan::new(self.from, origin) {
            Ok(plan) => match self.ask(origin, true) {
                Ok(()) => Event::Reserved(plan),
                Err(refused) => Event::RangeRefused(refused),
            },
            Err(error) => {
                let message = error.to_string();
                Event::RangeRefused(RangeRefused { message, in_the_way: Vec::new() })
            }
        }
    }

    fn prepare(&mut self, plan: &MovePlan) -> Event {
        self.step_aside();
        let files = &self.files;
        match self.window.prepare(files.storage.as_fd(), files.keys.as_fd(), plan) {
            Ok(prepared) => {
                self.prepared = Some(prepared);
                Event::Prepared
            }
            Err(error) => Event::StorageFailed(in_full(&error)),
        }
    }

    /// Copies while the guest is stopped, or slides while it runs.
    fn copy(&mut self, mode: relocation::Mode) -> Event {
        let Some(prepared) = self.prepared.take() else {
            return Event::StorageFailed("nothing was prepared".to_owned());
        };
        self.step_aside();
        let total = self.from.size();
        let step = (total / 20).max(1 << 22);
        let mut next = step;
        let host = Arc::clone(&self.host);
        let mut progress = |pages: u64| {
            if mode == relocation::Mode::Live {
                placement::give_way();
            }
            let done = pages * PAGE_SIZE;
            if done >= next {
                next = done + step;
                host.say_if_room(&Report::Copying { done, total });
            }
            ControlFlow::Continue(())
        };
        placement::come_first();
        let moved = match mode {
            relocation::Mode::Stop => prepared
                .copy(&mut progress)
                .and_then(storage_window::Copied::commit)
                .map(Moved::Copied),
            relocation::Mode::Live => prepared.slide(&mut progress).map(Moved::Slid),
        };
        placement::fall_back();
        match moved {
            Ok(moved) => {
                let copied = moved.copied();
                self.moved = Some(moved);
                Event::Copied(copied)
            }
            Err(error @ RelocateError::Lost(_)) => Event::StorageLost(in_full(&error)),
            Err(error) => Event::StorageFailed(in_full(&error)),
        }
    }

    fn stop_vcpus(&self) {
        // After the limit the relocation takes the stop back.
        if self.machine.stop_vcpus(Instant::now() + self.limits.quiesce) {
            self.emit(Event::VcpusStopped);
        }
    }

    fn set_limits(&mut self, device: Device, range: StorageRange) {
        let Some(processor) = self.device(device) else { return };
        let limits = AddressLimits { origin: range.origin(), size: range.size() };
        match processor.tell_address_limits(limits) {
            Ok(told) => self.told.push_back((device, range, told)),
            Err(error) => self.limits_failed(device, range, &error),
        }
    }

    fn limits_failed(&self, device: Device, range: StorageRange, error: &SetAddressLimitsError) {
        self.emit(Event::LimitsFailed(device, range, error.to_string()));
    }

    /// Waits for one of the acknowledgements that are outstanding. All devices
    /// were told at once, so it does not matter which is waited for first.
    fn await_acknowledgement(&mut self, deadline: Instant) {
        let Some((device, range, told)) = self.told.pop_front() else { return };
        let Some(processor) = self.device(device) else { return };
        match processor.acknowledgement(&told, Some(deadline)) {
            Some(Ok(_)) => self.emit(Event::Acknowledged(device, range)),
            Some(Err(error)) => self.limits_failed(device, range, &error),
            None => self.told.push_front((device, range, told)),
        }
    }

    fn quiesce(&self, device: Device) {
        let Some(processor) = self.device(device) else { return };
        processor.quiesce();
        if processor.is_idle() {
            return self.emit(Event::Idle(device));
        }
        self.aside(move || {
            // Longer than any limit: the relocation decides when to stop waiting.
            let deadline = Instant::now() + Duration::from_secs(2 * 3600);
            processor.wait_idle(deadline).then_some(Event::Idle(device))
        });
    }

    fn take_back(&mut self) -> Event {
        let undone = self.moved.take().map(|moved| match moved {
            Moved::Copied(committed) => committed.undo(),
            Moved::Slid(slid) => slid.undo(),
        });
        match undone {
            Some(Ok(())) => Event::TakenBack,
            Some(Err(error)) => Event::StorageLost(in_full(&error)),
            None => Event::StorageLost("nothing was copied".to_owned()),
        }
    }

    fn finish(&mut self) -> Event {
        self.step_aside();
        let finished = self.moved.take().map_or(Ok(()), |moved| match moved {
            Moved::Copied(committed) => committed.finish().map(drop),
            Moved::Slid(slid) => slid.finish().map(drop),
        });
        Event::Finished(finished.map_err(|error| in_full(&error)))
    }
}

impl Moved {
    fn copied(&self) -> relocation::Copied {
        let (bytes, nanos) = match self {
            Self::Copied(committed) => (committed.report().bytes, committed.report().nanos),
            Self::Slid(slid) => (slid.report().bytes, slid.report().nanos),
        };
        relocation::Copied { bytes, nanos }
    }
}

impl Driver for Worker {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Reserve { origin } => self.emit(self.reserve(origin)),
            Action::Prepare(plan) => {
                let event = self.prepare(&plan);
                self.emit(event);
            }
            Action::StopVcpus => self.stop_vcpus(),
            Action::Quiesce(device) => self.quiesce(device),
            Action::CheckRange(plan) => self.emit(match self.ask(plan.to().origin(), false) {
                Ok(()) => Event::RangeGranted,
                Err(refused) => Event::RangeRefused(refused),
            }),
            Action::Copy => {
                let event = self.copy(relocation::Mode::Stop);
                self.emit(event);
            }
            Action::Slide => {
                let event = self.copy(relocation::Mode::Live);
                self.emit(event);
            }
            Action::SetAddressLimits(device, range) => self.set_limits(device, range),
            Action::TakeBack => {
                let event = self.take_back();
                self.emit(event);
            }
            Action::Unprepare => self.prepared = None,
            Action::TakeOutOfService(device) => {
                let name = self.device(device).map(|device| device.name().to_owned());
                tracing::error!(?name, "device out of service: it does not know its storage");
            }
            Action::ResumeIo(device) => {
                if let Some(processor) = self.device(device) {
                    processor.resume();
                }
            }
            Action::ResumeVcpus => self.machine.resume_vcpus(),
            Action::Finish => {
                let event = self.finish();
                self.emit(event);
            }
            // `drive` returns it.
            Action::Report(_) => {}
        }
    }

    fn next_event(&mut self, deadline: Option<Duration>) -> Event {
        if let Ok(event) = self.events.1.try_recv() {
            return event;
        }
        if !self.told.is_empty() {
            let deadline = deadline.map_or(ACKNOWLEDGE, |at| at.saturating_sub(self.now()));
            self.await_acknowledgement(Instant::now() + deadline);
            return self.events.1.try_recv().unwrap_or(Event::Tick);
        }
        let Some(deadline) = deadline else {
            // `self` holds a sender, so the channel cannot end.
            return self.events.1.recv().unwrap_or(Event::Tick);
        };
        match self.events.1.recv_timeout(deadline.saturating_sub(self.now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Event::Tick,
        }
    }
}

//! A relocation's actions, done to the machine of this worker.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use io_processors::{AddressLimits, IoProcessor};
use machine::Machine;
use main_storage::{MovePlan, PAGE_SIZE, StorageRange};
use relocation::{Action, Device, Driver, Event, Outcome, RangeRefused, Request};
use storage_window::{Committed, Prepared, RelocateError, StorageWindow};

use super::ToHost;
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
    committed: Option<Committed>,
    started: Instant,
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
        let (events, started) = (channel(), Instant::now());
        let (prepared, committed) = (None, None);
        Self { machine, window, files, host, answers, events, from, prepared, committed, started }
    }

    /// Runs the relocation to its end and says how it ended.
    pub(super) fn run(mut self, origin: u64, limits: relocation::Limits) -> MoveReport {
        let devices = self.machine.io_processors().iter().map(|device| device.name().to_owned());
        let request = Request { from: self.from, origin, devices: devices.collect(), limits };
        let report = relocation::drive(request, &mut self);
        let pause_us = u64::try_from(report.pause.as_micros()).unwrap_or(u64::MAX);
        match report.outcome {
            Outcome::Moved { copied, not_cleared, .. } => MoveReport::Moved {
                bytes: copied.bytes,
                nanos: copied.nanos,
                pause_us,
                not_cleared,
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
        let files = &self.files;
        match self.window.prepare(files.storage.as_fd(), files.keys.as_fd(), plan) {
            Ok(prepared) => {
                self.prepared = Some(prepared);
                Event::Prepared
            }
            Err(error) => Event::StorageFailed(in_full(&error)),
        }
    }

    fn copy(&mut self) -> Event {
        let Some(prepared) = self.prepared.take() else {
            return Event::StorageFailed("nothing was prepared".to_owned());
        };
        let total = self.from.size();
        let step = (total / 20).max(1 << 22);
        let mut next = step;
        let host = Arc::clone(&self.host);
        let mut progress = |pages: u64| {
            let done = pages * PAGE_SIZE;
            if done >= next {
                next = done + step;
                host.say_if_room(&Report::Copying { done, total });
            }
            ControlFlow::Continue(())
        };
        match prepared.copy(&mut progress).and_then(storage_window::Copied::commit) {
            Ok(committed) => {
                let report = committed.report();
                self.committed = Some(committed);
                Event::Copied(relocation::Copied { bytes: report.bytes, nanos: report.nanos })
            }
            Err(error @ RelocateError::Lost(_)) => Event::StorageLost(in_full(&error)),
            Err(error) => Event::StorageFailed(in_full(&error)),
        }
    }

    fn set_limits(&self, device: Device, range: StorageRange) {
        let Some(processor) = self.device(device) else { return };
        let limits = AddressLimits { origin: range.origin(), size: range.size() };
        self.aside(move || {
            Some(match processor.set_address_limits(limits) {
                Ok(acknowledged) if acknowledged.limits == limits => {
                    Event::Acknowledged(device, range)
                }
                Ok(other) => {
                    let what = format!("it acknowledged other limits: {:?}", other.limits);
                    Event::LimitsFailed(device, range, what)
                }
                Err(error) => Event::LimitsFailed(device, range, error.to_string()),
            })
        });
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
        match self.committed.take().map(Committed::undo) {
            Some(Ok(())) => Event::TakenBack,
            Some(Err(error)) => Event::StorageLost(in_full(&error)),
            None => Event::StorageLost("nothing was copied".to_owned()),
        }
    }

    fn finish(&mut self) -> Event {
        Event::Finished(match self.committed.take().map(Committed::finish) {
            Some(Err(error)) => Err(in_full(&error)),
            Some(Ok(_)) | None => Ok(()),
        })
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
            Action::StopVcpus => {
                let machine = Arc::clone(&self.machine);
                self.aside(move || {
                    machine.stop_vcpus();
                    Some(Event::VcpusStopped)
                });
            }
            Action::Quiesce(device) => self.quiesce(device),
            Action::CheckRange(plan) => self.emit(match self.ask(plan.to().origin(), false) {
                Ok(()) => Event::RangeGranted,
                Err(refused) => Event::RangeRefused(refused),
            }),
            Action::Copy => {
                let event = self.copy();
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

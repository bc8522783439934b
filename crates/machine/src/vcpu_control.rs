//! vCPU control: starts, stops and resumes the vCPUs of one partition.
//!
//! Every vCPU has a thread of its own which passes this gate before each guest
//! entry. There are three reasons to wait at it, and they are independent:
//!
//! ```text
//! the partition   Stopped ⇄ Running → Ended        (operator, relocation)
//! a machine kept  Parked ⇄ not                     (a captured machine in wait)
//! each hart       Stopped → StartPending → Started (guest, SBI HSM)
//!                    ↑__________________________|
//! ```
//!
//! Invariant: a vCPU executes guest instructions, and the firmware reads guest
//! storage on its behalf, only between `enter` and the next `leave`, and `stop`
//! returns only when no vCPU is between the two.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use engine::VcpuHandle;
use engine_soft::SoftVcpu;
use serde::{Deserialize, Serialize};

use crate::MachineEnd;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Stopped,
    Running,
    Ended(MachineEnd),
}

/// A hart's state as the guest sees it (SBI specification 2.0, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HartState {
    Started,
    Stopped,
    StartPending(HartStart),
}

/// Where a hart starts, and what it finds in `a1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HartStart {
    pub(crate) entry: u64,
    pub(crate) opaque: u64,
}

/// Something to be done to a vCPU by its own thread.
pub(crate) struct Errand(pub(crate) Box<dyn FnOnce(&mut SoftVcpu) + Send>);

impl PartialEq for Errand {
    /// No two are the same.
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errand")
    }
}

/// What a vCPU thread does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Pass {
    /// Enter the guest where it left off.
    Go,
    /// Do this to the vCPU, outside the guest.
    Errand(Errand),
    /// Start the hart first.
    Start(HartStart),
    /// The machine has ended: leave the thread.
    End,
}

struct State {
    mode: Mode,
    parked: bool,
    errands: Vec<VecDeque<Errand>>,
    harts: Vec<HartState>,
    inside: Vec<bool>,
}

/// See the module.
pub(crate) struct VcpuControl {
    state: Mutex<State>,
    changed: Condvar,
    handles: Vec<Arc<dyn VcpuHandle>>,
}

impl VcpuControl {
    /// Every hart stopped, the partition stopped.
    pub(crate) fn new(handles: Vec<Arc<dyn VcpuHandle>>) -> Self {
        let harts = handles.len();
        Self {
            state: Mutex::new(State {
                mode: Mode::Stopped,
                parked: false,
                errands: (0..harts).map(|_| VecDeque::new()).collect(),
                harts: vec![HartState::Stopped; harts],
                inside: vec![false; harts],
            }),
            changed: Condvar::new(),
            handles,
        }
    }

    pub(crate) fn handles(&self) -> &[Arc<dyn VcpuHandle>] {
        &self.handles
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each critical section is one assignment or a wait: a panic in one
        // cannot leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops every vCPU; whether all of them are outside the guest by
    /// `deadline`. Those that are not still leave it.
    pub(crate) fn stop(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        if state.mode == Mode::Running {
            state.mode = Mode::Stopped;
        }
        // Under the lock, so that no vCPU passes the gate after its kick.
        self.handles.iter().for_each(|handle| handle.kick());
        while state.inside.contains(&true) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Lets the vCPUs go on where they stopped. No effect on an ended machine.
    pub(crate) fn resume(&self) {
        let mut state = self.lock();
        if state.mode == Mode::Stopped {
            state.mode = Mode::Running;
            self.changed.notify_all();
        }
    }

    /// Ends the machine; the first reason stands.
    pub(crate) fn end(&self, why: MachineEnd) {
        let mut state = self.lock();
        if !matches!(state.mode, Mode::Ended(_)) {
            state.mode = Mode::Ended(why);
        }
        // Whoever waits for an errand waits in vain.
        state.errands.iter_mut().for_each(VecDeque::clear);
        self.handles.iter().for_each(|handle| handle.kick());
        self.changed.notify_all();
    }

    /// Waits for the machine's end.
    pub(crate) fn wait_for_end(&self) -> MachineEnd {
        let mut state = self.lock();
        loop {
            if let Mode::Ended(why) = &state.mode {
                return why.clone();
            }
            state = self.wait(state);
        }
    }

    /// Waits until vCPU `hart` may enter the guest, or never will.
    pub(crate) fn enter(&self, hart: usize) -> Pass {
        let mut state = self.lock();
        loop {
            if let Mode::Ended(_) = state.mode {
                return Pass::End;
            }
            if let Some(errand) = state.errands[hart].pop_front() {
                return Pass::Errand(errand);
            }
            match (&state.mode, state.harts[hart]) {
                _ if state.parked => {}
                (Mode::Running, HartState::Started) => {
                    state.inside[hart] = true;
                    return Pass::Go;
                }
                (Mode::Running, HartState::StartPending(start)) => {
                    state.harts[hart] = HartState::Started;
                    state.inside[hart] = true;
                    return Pass::Start(start);
                }
                (Mode::Stopped | Mode::Ended(_), _) | (Mode::Running, HartState::Stopped) => {}
            }
            state = self.wait(state);
        }
    }

    /// Has every vCPU's thread do an errand and waits for all of them; false if
    /// one has ended. Called while no vCPU is in the guest.
    pub(crate) fn all_do<T: Send + 'static>(
        &self,
        errand: impl Fn(usize, &mut SoftVcpu) -> T + Clone + Send + 'static,
    ) -> Option<Vec<T>> {
        let (done, dones) = channel();
        let mut state = self.lock();
        if let Mode::Ended(_) = state.mode {
            return None;
        }
        for (hart, errands) in state.errands.iter_mut().enumerate() {
            let (errand, done) = (errand.clone(), done.clone());
            errands.push_back(Errand(Box::new(move |vcpu| {
                // Nobody waits any more.
                let _ = done.send((hart, errand(hart, vcpu)));
            })));
        }
        drop(done);
        let harts = state.harts.len();
        self.changed.notify_all();
        drop(state);
        let mut results: Vec<_> = dones.iter().take(harts).collect();
        results.sort_by_key(|(hart, _)| *hart);
        (results.len() == harts).then(|| results.into_iter().map(|(_, result)| result).collect())
    }

    /// How each hart stands for the guest.
    pub(crate) fn harts(&self) -> Vec<HartState> {
        self.lock().harts.clone()
    }

    /// Sets how each hart stands, as many as there are. Called while no vCPU is
    /// in the guest.
    pub(crate) fn set_harts(&self, harts: Vec<HartState>) {
        self.lock().harts = harts;
    }

    /// Keeps the vCPUs out of the guest, whatever else is resumed. Called while
    /// none is in it.
    pub(crate) fn park(&self) {
        self.lock().parked = true;
    }

    /// Takes [`VcpuControl::park`] back.
    pub(crate) fn unpark(&self) {
        self.lock().parked = false;
        self.changed.notify_all();
    }

    /// vCPU `hart` is outside the guest.
    pub(crate) fn leave(&self, hart: usize) {
        self.lock().inside[hart] = false;
        self.changed.notify_all();
    }

    /// Asks for a start of `hart`; refused with its state unless it is stopped.
    pub(crate) fn start_hart(&self, hart: usize, start: HartStart) -> Result<(), HartState> {
        let mut state = self.lock();
        match state.harts[hart] {
            HartState::Stopped => {
                state.harts[hart] = HartState::StartPending(start);
                self.changed.notify_all();
                Ok(())
            }
            other => Err(other),
        }
    }

    /// `hart` stops itself: it waits at the gate until somebody starts it.
    pub(crate) fn stop_hart(&self, hart: usize) {
        self.lock().harts[hart] = HartState::Stopped;
    }

    pub(crate) fn hart_state(&self, hart: usize) -> Option<HartState> {
        self.lock().harts.get(hart).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Fence, FenceTicket, Interrupt};
    use std::time::Duration;

    struct NoVcpu;
    impl VcpuHandle for NoVcpu {
        fn set_interrupt(&self, _: Interrupt, _: bool) {}
        fn kick(&self) {}
        fn request_fence(&self, _: Fence) -> FenceTicket {
            FenceTicket(0)
        }
        fn fence_done(&self, _: FenceTicket) -> bool {
            true
        }
    }

    const START: HartStart = HartStart { entry: 0x8020_0000, opaque: 7 };

    fn control() -> VcpuControl {
        VcpuControl::new(vec![Arc::new(NoVcpu), Arc::new(NoVcpu)])
    }

    #[test]
    fn a_hart_enters_only_when_started_and_the_partition_runs() {
        let control = control();
        control.start_hart(0, START).unwrap();
        assert_eq!(control.start_hart(0, START), Err(HartState::StartPending(START)));
        control.resume();
        assert_eq!(control.enter(0), Pass::Start(START));
        control.leave(0);
        assert_eq!(control.enter(0), Pass::Go);
        assert_eq!(control.hart_state(1), Some(HartState::Stopped));
        assert_eq!(control.hart_state(2), None);
    }

    #[test]
    fn stop_waits_for_the_vcpu_that_is_inside_and_holds_it_at_the_gate() {
        let control = control();
        control.start_hart(0, START).unwrap();
        control.resume();
        assert_eq!(control.enter(0), Pass::Start(START));
        let (stopped, is_stopped) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(control.stop(Instant::now() + Duration::from_secs(60)));
                stopped.send(()).unwrap();
            });
            assert!(is_stopped.try_recv().is_err(), "the vCPU has not left yet");
            control.leave(0);
            is_stopped.recv().unwrap();
            let vcpu = scope.spawn(|| control.enter(0));
            control.resume();
            assert_eq!(vcpu.join().unwrap(), Pass::Go);
        });
    }

    #[test]
    fn the_first_end_stands_and_frees_everybody_who_waits() {
        let control = control();
        std::thread::scope(|scope| {
            let vcpu = scope.spawn(|| control.enter(1));
            control.end(MachineEnd::PowerOff);
            control.end(MachineEnd::Reboot);
            assert_eq!(vcpu.join().unwrap(), Pass::End);
        });
        control.resume();
        assert_eq!(control.wait_for_end(), MachineEnd::PowerOff);
    }
}

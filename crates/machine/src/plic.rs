//! The platform-level interrupt controller (RISC-V PLIC specification 1.0.0).
//!
//! One context per vCPU, for supervisor external interrupts. [`State`] is the
//! pure controller; [`Plic`] puts a lock around it and carries what it decides
//! to the vCPUs.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::{Interrupt, VcpuHandle};
use serde::{Deserialize, Serialize};

/// Sources 1 to 31; one word of pending and enable bits.
const SOURCES: usize = 32;
/// Priorities 0 (never) to 7.
const PRIORITY_MASK: u32 = 7;

const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;

/// What one vCPU has told the controller.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Context {
    enabled: u32,
    threshold: u32,
}

/// A register of the controller, decoded from its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Register {
    Priority(usize),
    Pending,
    Enable(usize),
    Threshold(usize),
    Claim(usize),
}

/// The controller's registers and gateways, without lock or vCPUs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    priority: [u32; SOURCES],
    /// The lines as the I/O processors hold them.
    level: u32,
    /// Waiting to be claimed.
    pending: u32,
    /// Claimed and not yet completed: the gateway lets nothing more through.
    in_service: u32,
    contexts: Vec<Context>,
}

impl State {
    fn new(contexts: usize) -> Self {
        Self {
            priority: [0; SOURCES],
            level: 0,
            pending: 0,
            in_service: 0,
            contexts: vec![Context::default(); contexts],
        }
    }

    fn register(&self, offset: u64) -> Option<Register> {
        let context = |base: u64, stride: u64| {
            let index = usize::try_from((offset - base) / stride).ok()?;
            (index < self.contexts.len()).then_some((index, (offset - base) % stride))
        };
        match offset {
            0..PENDING => {
                let source = usize::try_from(offset / 4).ok()?;
                (source < SOURCES).then_some(Register::Priority(source))
            }
            PENDING => Some(Register::Pending),
            ENABLE..CONTEXT => match context(ENABLE, ENABLE_STRIDE)? {
                (index, 0) => Some(Register::Enable(index)),
                _ => None,
            },
            CONTEXT.. => match context(CONTEXT, CONTEXT_STRIDE)? {
                (index, 0) => Some(Register::Threshold(index)),
                (index, 4) => Some(Register::Claim(index)),
                _ => None,
            },
            _ => None,
        }
    }

    fn set_level(&mut self, source: u32, level: bool) {
        let bit = 1u32 << source;
        if level {
            self.level |= bit;
            self.pending |= bit & !self.in_service;
        } else {
            self.level &= !bit;
            self.pending &= !bit;
        }
    }

    /// The source `context` would claim now: highest priority, then lowest
    /// number (PLIC specification, section 5).
    fn best(&self, context: usize) -> Option<usize> {
        let Context { enabled, threshold } = self.contexts[context];
        (1..SOURCES)
            .filter(|&source| self.pending & enabled & (1 << source) != 0)
            .filter(|&source| self.priority[source] > threshold)
            .max_by_key(|&source| (self.priority[source], SOURCES - source))
    }

    fn claim(&mut self, context: usize) -> u32 {
        let Some(source) = self.best(context) else { return 0 };
        self.pending &= !(1 << source);
        self.in_service |= 1 << source;
        source as u32
    }

    /// A completion for a source that is not enabled for the context is
    /// ignored (PLIC specification, section 9).
    fn complete(&mut self, context: usize, source: u32) {
        let Some(bit) = 1u32.checked_shl(source) else { return };
        if self.contexts[context].enabled & self.in_service & bit != 0 {
            self.in_service &= !bit;
            self.pending |= self.level & bit;
        }
    }

    fn read(&mut self, offset: u64) -> u32 {
        match self.register(offset) {
            Some(Register::Priority(source)) => self.priority[source],
            Some(Register::Pending) => self.pending,
            Some(Register::Enable(context)) => self.contexts[context].enabled,
            Some(Register::Threshold(context)) => self.contexts[context].threshold,
            Some(Register::Claim(context)) => self.claim(context),
            None => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        match self.register(offset) {
            // Source 0 does not exist: its priority stays 0.
            Some(Register::Priority(0) | Register::Pending) | None => {}
            Some(Register::Priority(source)) => self.priority[source] = value & PRIORITY_MASK,
            Some(Register::Enable(context)) => self.contexts[context].enabled = value & !1,
            Some(Register::Threshold(context)) => {
                self.contexts[context].threshold = value & PRIORITY_MASK;
            }
            Some(Register::Claim(context)) => self.complete(context, value),
        }
    }
}

/// The controller as I/O processors and vCPUs use it.
pub(crate) struct Plic {
    state: Mutex<State>,
    vcpus: OnceLock<Vec<Arc<dyn VcpuHandle>>>,
}

impl Plic {
    pub(crate) fn new(vcpus: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new(vcpus)), vcpus: OnceLock::new() })
    }

    /// Joins the controller to the vCPUs it interrupts; the second call is
    /// ignored.
    pub(crate) fn connect(&self, vcpus: Vec<Arc<dyn VcpuHandle>>) {
        let _ = self.vcpus.set(vcpus);
        self.deliver(&self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code path panics while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called with the lock held, so that two changes reach a vCPU in the
    /// order in which they were made.
    fn deliver(&self, state: &State) {
        let Some(vcpus) = self.vcpus.get() else { return };
        for (context, vcpu) in vcpus.iter().enumerate() {
            vcpu.set_interrupt(Interrupt::External, state.best(context).is_some());
        }
    }

    pub(crate) fn save(&self) -> State {
        self.lock().clone()
    }

    /// Whether `state` is one of such a controller.
    pub(crate) fn fits(&self, state: &State) -> bool {
        self.lock().contexts.len() == state.contexts.len()
    }

    /// Goes on from `state`, and tells every vCPU how its line stands.
    pub(crate) fn restore(&self, state: State) {
        let mut held = self.lock();
        *held = state;
        self.deliver(&held);
    }

    /// A load by the guest. Registers are words; other widths read as zero.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            let mut state = self.lock();
            *word = state.read(offset).to_le_bytes();
            self.deliver(&state);
        }
    }

    /// A store by the guest. Registers are words; other widths are ignored.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        if let Ok(word) = <[u8; 4]>::try_from(data) {
            let mut state = self.lock();
            state.write(offset, u32::from_le_bytes(word));
            self.deliver(&state);
        }
    }

    /// The interrupt line of `source`, for its I/O processor.
    pub(crate) fn line(self: &Arc<Self>, source: u32) -> PlicLine {
        PlicLine { plic: Arc::clone(self), source }
    }
}

/// One level-triggered interrupt line into the controller.
pub(crate) struct PlicLine {
    plic: Arc<Plic>,
    source: u32,
}

impl io_processors::InterruptLine for PlicLine {
    fn set_level(&self, level: bool) {
        let mut state = self.plic.lock();
        state.set_level(self.source, level);
        self.plic.deliver(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Source 3 at priority 1, enabled for context 0.
    fn ready() -> State {
        let mut plic = State::new(2);
        plic.write(3 * 4, 1);
        plic.write(ENABLE, 1 << 3);
        plic
    }

    #[test]
    fn a_line_is_claimed_once_and_again_after_completion_while_it_stays_high() {
        let mut plic = ready();
        plic.set_level(3, true);
        assert_eq!(plic.best(0), Some(3));
        assert_eq!(plic.best(1), None, "not enabled there");
        assert_eq!(plic.read(CONTEXT + 4), 3);
        assert_eq!(plic.read(CONTEXT + 4), 0, "claimed already");
        plic.write(CONTEXT + 4, 3);
        assert_eq!(plic.best(0), Some(3), "the line is still high");
        plic.set_level(3, false);
        assert_eq!(plic.best(0), None);
    }

    #[test]
    fn a_line_raised_while_in_service_waits_for_completion() {
        let mut plic = ready();
        plic.set_level(3, true);
        assert_eq!(plic.read(CONTEXT + 4), 3);
        plic.set_level(3, false);
        plic.set_level(3, true);
        assert_eq!(plic.best(0), None);
        plic.write(CONTEXT + 4, 3);
        assert_eq!(plic.best(0), Some(3));
    }

    #[test]
    fn priority_then_lowest_number_then_threshold_decide() {
        let mut plic = ready();
        plic.write(ENABLE, 0b1111_1110);
        for (source, priority) in [(1u32, 1), (2, 2), (4, 2)] {
            plic.write(u64::from(source) * 4, priority);
            plic.set_level(source, true);
        }
        assert_eq!(plic.best(0), Some(2));
        plic.write(CONTEXT, 2);
        assert_eq!(plic.best(0), None, "nothing above the threshold");
    }

    proptest! {
        #[test]
        fn nothing_a_guest_writes_panics_or_invents_an_interrupt(
            writes in proptest::collection::vec((0u64..0x40_0000, any::<u32>()), 0..64),
            offsets in proptest::collection::vec(any::<u64>(), 0..16),
        ) {
            let mut plic = State::new(3);
            for (offset, value) in writes {
                plic.write(offset, value);
                plic.read(offset);
            }
            for offset in offsets {
                plic.write(offset, u32::MAX);
                plic.read(offset);
            }
            for context in 0..3 {
                prop_assert_eq!(plic.best(context), None);
            }
        }
    }
}

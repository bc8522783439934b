//! What an I/O processor's thread and everybody else share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::interrupt::{CONFIGURATION, Interrupt, USED_BUFFER};
use super::state::{Restore, Saved};
use super::statistics::{Counters, IoStatistics, add};
use super::{Acknowledged, InterruptLine, SetAddressLimitsError, Told};
use crate::access::AddressLimits;
use crate::keys::KeyCheck;
use crate::transport::{Activation, Effect, Registers, RegistersState, offset};

/// What the thread does before anything else, also while quiesced: none of it
/// transfers data.
#[derive(Debug)]
pub(super) enum Message {
    /// The driver said `DRIVER_OK`.
    Activate(Activation),
    /// The driver reset the device.
    Reset,
    /// The storage has moved.
    SetAddressLimits(AddressLimits),
    /// Say what you know.
    Save(SyncSender<Saved>),
    /// Know this instead.
    Restore(Box<Restore>),
}

/// What the thread is to do next.
pub(super) enum Work {
    /// A message.
    Message(Message),
    /// Look at these queues, one bit each. The processor is busy until
    /// [`Shared::worked`].
    Queues(u64),
    /// End.
    Stop,
}

/// The life cycle, under one lock.
///
/// Invariant: `busy` is set only by the thread, only together with taking
/// `pending` while neither `quiesced` nor `parked`; so once a caller sees one of
/// them and `!busy`, no queue is looked at before `resume` and `unpark`.
struct Control {
    registers: Registers,
    /// Queues to look at, one bit each: a storm of notifications costs a bit.
    pending: u64,
    /// The driver said `DRIVER_OK` and the device can go on.
    active: bool,
    quiesced: bool,
    /// As `quiesced`, for as long as the machine waits to be woken.
    parked: bool,
    busy: bool,
    stopping: bool,
    /// The thread is gone.
    ended: bool,
    /// At most one per thread that waits for it, and one activation per reset.
    messages: VecDeque<Message>,
    /// Messages put in and messages done, ever: a message's number tells
    /// whoever sent it when it is done.
    sent: u64,
    done: u64,
    limits: Option<AddressLimits>,
}

/// Everything of an I/O processor but its device and its storage.
pub(crate) struct Shared {
    name: String,
    keys: Arc<KeyCheck>,
    control: Mutex<Control>,
    /// The thread waits here for work.
    work: Condvar,
    /// Others wait here for the thread.
    changed: Condvar,
    /// A copy of "there is something more urgent than the next request", for
    /// the thread to look at between two requests.
    pause: AtomicBool,
    interrupt: Interrupt,
    counters: Counters,
}

impl Shared {
    pub(super) fn new(name: String, registers: Registers, line: Arc<dyn InterruptLine>) -> Self {
        Self {
            keys: Arc::new(KeyCheck::new(name.clone())),
            name,
            control: Mutex::new(Control {
                registers,
                pending: 0,
                active: false,
                quiesced: false,
                parked: false,
                busy: false,
                stopping: false,
                ended: false,
                messages: VecDeque::new(),
                sent: 0,
                done: 0,
                limits: None,
            }),
            work: Condvar::new(),
            changed: Condvar::new(),
            pause: AtomicBool::new(false),
            interrupt: Interrupt::new(line),
            counters: Counters::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn keys(&self) -> &Arc<KeyCheck> {
        &self.keys
    }

    pub(super) fn pause(&self) -> &AtomicBool {
        &self.pause
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // Every change under the lock is a plain assignment: there is no
        // half-done state that a panic could have left.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update_pause(&self, control: &Control) {
        let pause = control.stands_still() || control.stopping || !control.messages.is_empty();
        self.pause.store(pause, Ordering::Release);
    }

    // ---- the vCPUs' side

    pub(super) fn mmio_read(&self, at: u64, data: &mut [u8]) {
        if at == offset::INTERRUPT_STATUS {
            data.fill(0);
            if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
                *data = self.interrupt.status().to_le_bytes();
            }
            return;
        }
        if !self.control().registers.read(at, data) {
            add(&self.counters.guest_errors, 1);
        }
    }

    pub(super) fn mmio_write(&self, at: u64, data: &[u8]) {
        if let (offset::INTERRUPT_ACK, Ok(causes)) = (at, <[u8; 4]>::try_from(data)) {
            self.interrupt.acknowledge(u32::from_le_bytes(causes));
            return;
        }
        let mut control = self.control();
        match control.registers.write(at, data) {
            Effect::None => {}
            Effect::Nonsense => add(&self.counters.guest_errors, 1),
            Effect::Notify(index) => {
                add(&self.counters.notifications, 1);
                control.pending |= 1 << index;
                self.work.notify_one();
            }
            Effect::Activate(activation) => {
                self.send(&mut control, Message::Activate(activation));
            }
            Effect::Reset => {
                control.active = false;
                control.pending = 0;
                let number = self.send(&mut control, Message::Reset);
                // The driver may use the queues' storage for something else as
                // soon as the store is done (2.4.1).
                drop(self.wait_done(control, number, None));
            }
        }
    }

    fn send(&self, control: &mut Control, message: Message) -> u64 {
        control.messages.push_back(message);
        control.sent += 1;
        self.update_pause(control);
        self.work.notify_one();
        control.sent
    }

    fn wait_done<'a>(
        &self,
        mut control: MutexGuard<'a, Control>,
        number: u64,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, Control> {
        while control.done < number && !control.ended {
            let Some(deadline) = deadline else {
                control = self.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(control, left);
            control = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        control
    }

    // ---- the host's side

    pub(crate) fn wake(&self, index: usize) {
        self.control().pending |= 1 << (index & 63);
        self.work.notify_one();
    }

    pub(crate) fn configure(&self, config: Vec<u8>, tell: bool) {
        let ready = self.control().registers.configure(config);
        if ready && tell {
            self.interrupt.raise(CONFIGURATION);
        }
    }

    pub(super) fn quiesce(&self) {
        let mut control = self.control();
        control.quiesced = true;
        self.update_pause(&control);
    }

    pub(super) fn resume(&self) {
        let mut control = self.control();
        control.quiesced = false;
        self.update_pause(&control);
        self.work.notify_one();
    }

    pub(super) fn park(&self, parked: bool) {
        let mut control = self.control();
        control.parked = parked;
        self.update_pause(&control);
        self.work.notify_one();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.control().is_idle()
    }

    pub(super) fn wait_idle(&self, deadline: Instant) -> bool {
        let mut control = self.control();
        while !control.is_idle() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(control, left);
            control = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn tell_address_limits(
        &self,
        limits: AddressLimits,
    ) -> Result<Told, SetAddressLimitsError> {
        let processor = || self.name.clone();
        let mut control = self.control();
        if control.ended {
            return Err(SetAddressLimitsError::Ended { processor: processor() });
        }
        if !control.quiesced || !control.is_idle() {
            return Err(SetAddressLimitsError::NotIdle { processor: processor() });
        }
        let number = self.send(&mut control, Message::SetAddressLimits(limits));
        Ok(Told { limits, number })
    }

    pub(super) fn acknowledgement(
        &self,
        told: &Told,
        deadline: Option<Instant>,
    ) -> Option<Result<Acknowledged, SetAddressLimitsError>> {
        let (processor, limits) = (self.name.clone(), told.limits);
        let control = self.wait_done(self.control(), told.number, deadline);
        if control.done < told.number {
            let ended = control.ended;
            return ended.then_some(Err(SetAddressLimitsError::Ended { processor }));
        }
        if control.limits != Some(limits) {
            let present = control.limits.map_or(0, |limits| limits.size);
            let size = limits.size;
            return Some(Err(SetAddressLimitsError::Size { processor, size, present }));
        }
        Some(Ok(Acknowledged { processor, limits }))
    }

    /// Sends a message if the processor is quiesced and idle, and says whether
    /// it is; `None` if its thread is gone.
    pub(super) fn send_idle(&self, message: Message) -> Option<bool> {
        let mut control = self.control();
        if control.ended {
            return None;
        }
        let idle = control.quiesced && control.is_idle();
        if idle {
            self.send(&mut control, message);
        }
        Some(idle)
    }

    /// The registers, the queues to look at, and whether they are in use.
    pub(super) fn facts(&self) -> (RegistersState, u64, bool) {
        let control = self.control();
        (control.registers.save(), control.pending, control.active)
    }

    pub(super) fn fits(&self, registers: &RegistersState) -> bool {
        self.control().registers.fits(registers)
    }

    pub(super) fn set_facts(&self, registers: &RegistersState, pending: u64, active: bool) {
        let mut control = self.control();
        control.registers.restore(registers);
        // Somebody may have woken it since; to look in vain does no harm.
        control.pending |= pending;
        control.active = active;
    }

    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    pub(super) fn statistics(&self) -> IoStatistics {
        let limits = self.control().limits;
        IoStatistics { limits, key_refusals: self.keys.refusals(), ..self.counters.read() }
    }

    pub(super) fn stop(&self) {
        let mut control = self.control();
        control.stopping = true;
        self.update_pause(&control);
        self.work.notify_one();
    }

    // ---- the thread's side

    /// Waits for something to do.
    pub(super) fn next_work(&self) -> Work {
        let mut control = self.control();
        loop {
            if control.stopping {
                return Work::Stop;
            }
            if let Some(message) = control.messages.pop_front() {
                return Work::Message(message);
            }
            if control.active && !control.stands_still() && control.pending != 0 {
                control.busy = true;
                return Work::Queues(std::mem::take(&mut control.pending));
            }
            control = self.work.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The queues were looked at; those in `again` are not done.
    pub(super) fn worked(&self, again: u64) {
        let mut control = self.control();
        control.pending |= again;
        control.busy = false;
        self.changed.notify_all();
    }

    /// A message was dealt with. `active`: whether the queues can be used now.
    pub(super) fn message_done(&self, active: Option<bool>) {
        let mut control = self.control();
        if let Some(active) = active {
            // A reset sent meanwhile is in the messages and will undo it.
            control.active = active;
            // What came before the device was ready counts from now.
            control.pending = if active { u64::MAX >> 1 } else { 0 };
        }
        control.done += 1;
        self.update_pause(&control);
        self.changed.notify_all();
    }

    pub(super) fn acknowledge_limits(&self, limits: AddressLimits) {
        self.control().limits = Some(limits);
    }

    pub(super) fn raise_used(&self) {
        add(&self.counters.interrupts, 1);
        self.interrupt.raise(USED_BUFFER);
    }

    pub(super) fn clear_interrupt(&self) {
        self.interrupt.acknowledge(u32::MAX);
    }

    /// The device can do no more until the driver resets it.
    pub(super) fn needs_reset(&self) {
        add(&self.counters.guest_errors, 1);
        add(&self.counters.needed_resets, 1);
        let mut control = self.control();
        // A reset that is on its way already is the cure.
        let cured = control.messages.iter().any(|message| matches!(message, Message::Reset));
        control.active = false;
        let tell = !cured && control.registers.needs_reset();
        drop(control);
        if tell {
            self.interrupt.raise(CONFIGURATION);
        }
    }

    pub(super) fn ended(&self) {
        let mut control = self.control();
        control.ended = true;
        control.busy = false;
        self.changed.notify_all();
    }
}

impl Control {
    fn stands_still(&self) -> bool {
        self.quiesced || self.parked
    }

    fn is_idle(&self) -> bool {
        let waiting = self.active && self.pending != 0 || !self.messages.is_empty();
        self.ended || !self.busy && (self.stands_still() || !waiting)
    }
}

//! The thread of an I/O processor.

use std::sync::Arc;

use tracing::{debug, warn};
use virtio_queue::{Queue, QueueT};

use super::IoState;
use super::control::{Message, Shared, Work};
use super::state::{QueueState, Saved};
use super::statistics::add;
use crate::access::{AddressLimits, GuestAccess};
use crate::device::VirtioDevice;
use crate::ring::{After, QueueFault, Ring};
use crate::transport::{Activation, QueueLayout};

/// `VIRTIO_F_EVENT_IDX` (2.7.10).
const F_EVENT_IDX: u64 = 1 << 29;

/// What only the thread has: the device, its queues, the way to storage.
pub(super) struct Worker {
    shared: Arc<Shared>,
    device: Box<dyn VirtioDevice>,
    access: GuestAccess,
    /// `None` for a queue the driver does not use.
    queues: Vec<Option<Queue>>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        device: Box<dyn VirtioDevice>,
        access: GuestAccess,
    ) -> Self {
        Self { shared, device, access, queues: Vec::new() }
    }

    pub(super) fn run(mut self) {
        // Whoever waits for this thread learns of its end even if it panics.
        let _guard = Ended(Arc::clone(&self.shared));
        loop {
            match self.shared.next_work() {
                Work::Stop => return,
                Work::Message(message) => self.obey(message),
                Work::Queues(mask) => {
                    let again = self.serve(mask);
                    self.shared.worked(again);
                }
            }
        }
    }

    fn obey(&mut self, message: Message) {
        let active = match message {
            Message::Activate(activation) => Some(self.activate(&activation)),
            Message::Reset => {
                self.queues.clear();
                self.device.reset();
                self.shared.clear_interrupt();
                add(&self.shared.counters().resets, 1);
                Some(false)
            }
            Message::SetAddressLimits(limits) => {
                self.set_limits(limits);
                None
            }
            Message::Save(answer) => {
                // Whoever asked may have given up.
                let _ = answer.send(self.save());
                None
            }
            Message::Restore(restore) => {
                let _ = restore.answer.send(self.restore(&restore.state));
                None
            }
        };
        self.shared.message_done(active);
    }

    fn save(&self) -> Saved {
        let queues = self.queues.iter().map(|queue| queue.as_ref().map(QueueState::of)).collect();
        Ok((queues, self.device.save()?))
    }

    fn restore(&mut self, state: &IoState) -> Result<(), String> {
        self.queues.clear();
        self.device.reset();
        if state.active {
            let activation = state.registers.activation();
            if !self.activate(&activation) || self.queues.len() != state.queues.len() {
                return Err("its queues are not in storage".to_owned());
            }
            for (queue, state) in self.queues.iter_mut().zip(&state.queues) {
                if let (Some(queue), Some(state)) = (queue, state) {
                    state.put_into(queue);
                }
            }
        }
        self.device.restore(&state.device)
    }

    fn set_limits(&mut self, limits: AddressLimits) {
        // What is acknowledged is what is in use; a refusal shows as a
        // difference to what was asked for.
        let _ = self.access.set_limits(limits);
        let unset = AddressLimits { origin: 0, size: self.access.size() };
        self.shared.acknowledge_limits(self.access.limits().unwrap_or(unset));
    }

    /// Takes the driver's queues into use; `false` if one is not in storage.
    fn activate(&mut self, activation: &Activation) -> bool {
        let event_idx = activation.features & F_EVENT_IDX != 0;
        self.queues.clear();
        for layout in &activation.queues {
            let queue = match layout.ready {
                false => None,
                true => match build_queue(layout, event_idx, &self.access) {
                    Some(queue) => Some(queue),
                    None => {
                        warn!(processor = self.shared.name(), ?layout, "queue outside storage");
                        self.shared.needs_reset();
                        return false;
                    }
                },
            };
            self.queues.push(queue);
        }
        self.device.activate(activation.features);
        debug!(processor = self.shared.name(), "the driver is ready");
        true
    }

    /// Looks at every queue of `mask`; returns those to look at again.
    fn serve(&mut self, mask: u64) -> u64 {
        let mut again = 0;
        for index in 0..self.queues.len() {
            if mask & 1 << index == 0 {
                continue;
            }
            match self.serve_queue(index) {
                Ok(after) => {
                    again |= u64::from(after.again) << index;
                    if after.interrupt {
                        self.shared.raise_used();
                    }
                }
                Err(fault) => {
                    let processor = self.shared.name();
                    warn!(processor, queue = index, %fault, "the guest broke a queue");
                    self.shared.needs_reset();
                    return 0;
                }
            }
        }
        again
    }

    fn serve_queue(&mut self, index: usize) -> Result<After, QueueFault> {
        let Some(Some(queue)) = self.queues.get_mut(index) else {
            return Ok(After { again: false, interrupt: false });
        };
        queue.disable_notification(&self.access).map_err(QueueFault::Used)?;
        let (pause, counters) = (self.shared.pause(), self.shared.counters());
        let mut ring = Ring::new(queue, &self.access, pause, counters);
        self.device.process(index, &mut ring)?;
        ring.finish()
    }
}

fn build_queue(layout: &QueueLayout, event_idx: bool, access: &GuestAccess) -> Option<Queue> {
    let low = |address: u64| Some((address & 0xffff_ffff) as u32);
    let high = |address: u64| Some((address >> 32) as u32);
    let size = u16::try_from(layout.size).ok()?;
    let mut queue = Queue::new(size).ok()?;
    queue.set_desc_table_address(low(layout.descriptors), high(layout.descriptors));
    queue.set_avail_ring_address(low(layout.driver), high(layout.driver));
    queue.set_used_ring_address(low(layout.device), high(layout.device));
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    queue.is_valid(access).then_some(queue)
}

/// Says that the thread has ended when it goes out of scope.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended();
    }
}

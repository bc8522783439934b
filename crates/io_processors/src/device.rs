//! The template every device follows.

use std::sync::Weak;

use serde_json::Value;

use crate::processor::Shared;
use crate::ring::{QueueFault, Ring};

/// What one kind of device is and does.
///
/// The device belongs to its I/O processor's thread: no method is called from
/// two threads, and none while the processor is quiesced. A device holds no
/// guest storage; it gets it with each [`Ring`] and keeps nothing of it.
pub trait VirtioDevice: Send {
    /// The device type (section 5).
    fn device_id(&self) -> u32;

    /// Feature bits of this device type that it offers. The processor adds
    /// those of rings and transport.
    fn features(&self) -> u64 {
        0
    }

    /// The device configuration space at the start; [`Waker::configure`]
    /// changes it.
    fn config_space(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The largest size of each queue, each a power of two, at most 63 queues.
    fn queue_sizes(&self) -> &[u16];

    /// Called once, before anything else, with the handle by which the host's
    /// side of the device gets a queue looked at.
    fn attach(&mut self, _waker: Waker) {}

    /// The driver is ready (`DRIVER_OK`) and accepted `features`.
    fn activate(&mut self, _features: u64) {}

    /// Works off what is in queue `index`, as far as the device can now.
    ///
    /// The device takes chains from `ring` until it says there are none, or
    /// until it has nothing to do with them, and completes each it took. An
    /// error of the host (a disk that fails) is answered inside the request.
    ///
    /// # Errors
    /// [`QueueFault`] when the driver broke the rules so that the device
    /// cannot go on: it then needs a reset (2.1.1).
    fn process(&mut self, index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault>;

    /// The driver reset the device: as after `attach`.
    fn reset(&mut self) {}

    /// What the device knows beyond its registers and queues, as JSON. No
    /// request is in hand.
    ///
    /// # Errors
    /// Why its state cannot be kept, for the operator.
    fn save(&self) -> Result<Value, String> {
        Ok(Value::Null)
    }

    /// Takes up `state`, which a device like it saved. Nothing is left of what
    /// went through the device before.
    ///
    /// # Errors
    /// Why that is not a state of such a device; it may be in no sensible state
    /// then.
    fn restore(&mut self, _state: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// Tells an I/O processor of something on the host's side: input arrived, a
/// buffer has room again, the device is to be another size.
#[derive(Clone)]
pub struct Waker(pub(crate) Weak<Shared>);

impl Waker {
    /// Has queue `index` looked at soon; while quiesced, after the resume.
    pub fn wake(&self, index: usize) {
        if let Some(shared) = self.0.upgrade() {
            shared.wake(index);
        }
    }

    /// Shows the driver `config` as the device configuration space from now
    /// on, of the same length as before; with `tell`, an interrupt tells a
    /// driver that is ready to look at it.
    pub fn configure(&self, config: Vec<u8>, tell: bool) {
        if let Some(shared) = self.0.upgrade() {
            shared.configure(config, tell);
        }
    }
}

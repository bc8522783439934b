//! One thread, one set of registers, one interrupt: what every device has.

mod control;
mod interrupt;
mod state;
mod statistics;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use main_storage::AccessKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::{AddressLimits, GuestAccess, GuestStorage};
use crate::device::{VirtioDevice, Waker};
use crate::transport::{Identity, Registers, RegistersState};
pub(crate) use control::Shared;
pub use interrupt::InterruptLine;
use state::QueueState;
pub use statistics::IoStatistics;
pub(crate) use statistics::{Counters, add};
use worker::Worker;

/// What the transport offers on every device's behalf: indirect descriptors
/// (2.7.5.3), event indexes (2.7.10) and this version of the standard.
const COMMON_FEATURES: u64 = 1 << 28 | 1 << 29 | 1 << 32;
/// Queues are bits of a word.
const MAX_QUEUES: usize = 63;

/// An I/O processor as the machine and a relocation see it.
///
/// Life cycle: it works from the start. After [`quiesce`](Self::quiesce), once
/// [`is_idle`](Self::is_idle), nothing of it touches guest storage until
/// [`resume`](Self::resume); what the host's side sends meanwhile is kept in
/// bounded buffers. Every method may be called from any thread.
pub trait IoProcessor: Send + Sync {
    /// What messages call it: "console", "blk0", "rng", "agent".
    fn name(&self) -> &str;

    /// A vCPU loads `data.len()` bytes `offset` bytes after the first register.
    fn mmio_read(&self, offset: u64, data: &mut [u8]);

    /// A vCPU stores `data` there. Returns without waiting for I/O, but for a
    /// reset, which first lets the request in hand end.
    fn mmio_write(&self, offset: u64, data: &[u8]);

    /// Takes up no further request. Does not wait for the one in hand.
    fn quiesce(&self);

    /// No request is in hand and, unless quiesced, none waits.
    fn is_idle(&self) -> bool;

    /// Waits until idle; `false` if still busy at `deadline`.
    fn wait_idle(&self, deadline: Instant) -> bool;

    /// "Set address limits": the partition's storage is at `limits` now, of
    /// which there must be as much; the processor reaches for nothing outside
    /// once it has acknowledged them. Does not wait: [`acknowledgement`](Self::acknowledgement) does, so that many
    /// processors can be told at once.
    ///
    /// # Errors
    /// [`SetAddressLimitsError`]; the processor keeps its old limits then.
    fn tell_address_limits(&self, limits: AddressLimits) -> Result<Told, SetAddressLimitsError>;

    /// Waits until the processor's own thread has taken in what it was told;
    /// `None` if it has not at `deadline` (without one it waits for ever).
    fn acknowledgement(
        &self,
        told: &Told,
        deadline: Option<Instant>,
    ) -> Option<Result<Acknowledged, SetAddressLimitsError>>;

    /// Tells the limits and waits for the acknowledgement.
    ///
    /// # Errors
    /// [`SetAddressLimitsError`]; the processor keeps its old limits then.
    fn set_address_limits(
        &self,
        limits: AddressLimits,
    ) -> Result<Acknowledged, SetAddressLimitsError> {
        let told = self.tell_address_limits(limits)?;
        let ended = || SetAddressLimitsError::Ended { processor: self.name().to_owned() };
        self.acknowledgement(&told, None).unwrap_or_else(|| Err(ended()))
    }

    /// Takes requests up again, those that came meanwhile first.
    fn resume(&self);

    /// Takes up no further request before [`unpark`](Self::unpark), whoever quiesces
    /// and resumes it meanwhile: its machine waits to be woken, and its storage
    /// stays as it is.
    fn park(&self);

    /// The machine was woken: requests are taken up unless it is quiesced.
    fn unpark(&self);

    /// From the next transfer on it is made under `key`, 0 at first: a page of
    /// guest storage is written only if its storage key has that access key,
    /// and read only so or without fetch protection. Under 0 all is allowed.
    fn set_access_key(&self, key: AccessKey);

    /// What happened so far.
    fn statistics(&self) -> IoStatistics;

    /// All that a processor like this one needs to go on for the guest, which
    /// is stopped. Quiesced and idle.
    ///
    /// # Errors
    /// [`SaveIoError`].
    fn save(&self) -> Result<IoState, SaveIoError>;

    /// Becomes one that goes on from `state`; quiesced and idle, on storage that
    /// is as it was then. Nothing is left of what went through it before.
    ///
    /// # Errors
    /// [`SaveIoError`]; the guest must not go on then.
    fn restore(&self, state: &IoState) -> Result<(), SaveIoError>;
}

/// Address limits on their way to an I/O processor's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "nobody knows the new limits before they are acknowledged"]
pub struct Told {
    limits: AddressLimits,
    /// The message's number.
    number: u64,
}

/// An I/O processor's word that it uses the new limits from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Acknowledged {
    /// The processor's name.
    pub processor: String,
    /// The limits it uses.
    pub limits: AddressLimits,
}

/// Why an I/O processor refused new address limits. The host is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetAddressLimitsError {
    /// It was not quiesced, or a request was in hand.
    #[error("I/O processor {processor} is not idle: quiesce it and wait before setting limits")]
    NotIdle {
        /// Its name.
        processor: String,
    },
    /// There is less storage than the limits say.
    #[error("I/O processor {processor} keeps its {present} bytes of storage: there are not {size}")]
    Size {
        /// Its name.
        processor: String,
        /// Size in the refused limits, in bytes.
        size: u64,
        /// Size in the limits it keeps, in bytes.
        present: u64,
    },
    /// Its thread has ended.
    #[error("I/O processor {processor} has ended: restart the partition")]
    Ended {
        /// Its name.
        processor: String,
    },
}

/// What an I/O processor knows of its guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IoState {
    name: String,
    registers: RegistersState,
    interrupt: u32,
    /// Queues to look at, a bit each.
    pending: u64,
    active: bool,
    queues: Vec<Option<QueueState>>,
    device: Value,
}

/// Why the state of an I/O processor could not be had or given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaveIoError {
    /// It was not quiesced, or a request was in hand. The host is to blame.
    #[error("I/O processor {processor} is not idle: quiesce it and wait")]
    NotIdle {
        /// Its name.
        processor: String,
    },
    /// The state is not one of such a processor, or cannot be kept.
    #[error("the state of I/O processor {processor} cannot be kept or taken up: {reason}")]
    State {
        /// Its name.
        processor: String,
        /// Why.
        reason: String,
    },
    /// Its thread has ended.
    #[error("I/O processor {processor} has ended: restart the partition")]
    Ended {
        /// Its name.
        processor: String,
    },
}

/// Why an I/O processor could not be started. The host is to blame.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The device has no queues, too many, or one of an impossible size.
    #[error("the queue sizes {0:?} of a device are not 1 to 63 powers of two")]
    Queues(Vec<u16>),
    /// No thread could be had.
    #[error("cannot start a thread for I/O processor {name}: raise the limit of processes")]
    Thread {
        /// Its name.
        name: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The I/O processor of any [`VirtioDevice`]. Dropping it ends its thread.
pub struct Processor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Processor {
    /// Starts the I/O processor `name` of `device` on a guest's `storage`;
    /// `line` is its interrupt.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        name: impl Into<String>,
        mut device: impl VirtioDevice + 'static,
        storage: Arc<dyn GuestStorage>,
        line: Arc<dyn InterruptLine>,
    ) -> Result<Self, StartError> {
        let name = name.into();
        let queue_sizes = device.queue_sizes().to_vec();
        let possible = |size: &u16| size.is_power_of_two() && *size <= 32768;
        if queue_sizes.is_empty()
            || queue_sizes.len() > MAX_QUEUES
            || !queue_sizes.iter().all(possible)
        {
            return Err(StartError::Queues(queue_sizes));
        }
        let identity = Identity {
            device_id: device.device_id(),
            features: device.features() | COMMON_FEATURES,
            queue_sizes,
            config: device.config_space(),
        };
        let shared = Arc::new(Shared::new(name.clone(), Registers::new(identity), line));
        device.attach(Waker(Arc::downgrade(&shared)));
        let access = GuestAccess::new(storage, Arc::clone(shared.keys()));
        let worker = Worker::new(Arc::clone(&shared), Box::new(device), access);
        let thread = std::thread::Builder::new()
            .name(format!("io-{name}"))
            .spawn(move || worker.run())
            .map_err(|source| StartError::Thread { name, source })?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl IoProcessor for Processor {
    fn name(&self) -> &str {
        self.shared.name()
    }

    fn mmio_read(&self, offset: u64, data: &mut [u8]) {
        self.shared.mmio_read(offset, data);
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) {
        self.shared.mmio_write(offset, data);
    }

    fn quiesce(&self) {
        self.shared.quiesce();
    }

    fn is_idle(&self) -> bool {
        self.shared.is_idle()
    }

    fn wait_idle(&self, deadline: Instant) -> bool {
        self.shared.wait_idle(deadline)
    }

    fn tell_address_limits(&self, limits: AddressLimits) -> Result<Told, SetAddressLimitsError> {
        self.shared.tell_address_limits(limits)
    }

    fn acknowledgement(
        &self,
        told: &Told,
        deadline: Option<Instant>,
    ) -> Option<Result<Acknowledged, SetAddressLimitsError>> {
        self.shared.acknowledgement(told, deadline)
    }

    fn resume(&self) {
        self.shared.resume();
    }

    fn park(&self) {
        self.shared.park(true);
    }

    fn unpark(&self) {
        self.shared.park(false);
    }

    fn set_access_key(&self, key: AccessKey) {
        self.shared.keys().set_access(key);
    }

    fn statistics(&self) -> IoStatistics {
        self.shared.statistics()
    }

    fn save(&self) -> Result<IoState, SaveIoError> {
        self.shared.save()
    }

    fn restore(&self, state: &IoState) -> Result<(), SaveIoError> {
        self.shared.restore(state)
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

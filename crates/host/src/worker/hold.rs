//! A partition that is held: no vCPU is in its guest, every I/O processor is
//! idle, and nobody uses its storage.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_processors::AddressLimits;
use machine::Machine;
use main_storage::StorageRange;

use super::ACKNOWLEDGE;

/// Holds a partition; it goes on when this is released or dropped.
pub(super) struct Held {
    machine: Arc<Machine>,
    since: Instant,
    /// I/O processors, by index, that do not know where their storage is. They
    /// must not go on.
    out_of_service: BTreeSet<usize>,
}

/// Why a partition could not be held. It goes on as before.
#[derive(Debug, thiserror::Error)]
pub(super) enum HoldError {
    #[error("the vCPUs did not stop within {} s; the host may be overloaded, try again later", .0.as_secs_f64())]
    Vcpus(Duration),
    #[error(
        "still busy after {} s: {}; wait for their transfers to end, or allow more time",
        .1.as_secs_f64(),
        .0.join(", ")
    )]
    Devices(Vec<String>, Duration),
}

impl HoldError {
    /// Devices that were still busy, if that is the reason.
    pub(super) fn busy_devices(self) -> Vec<String> {
        match self {
            Self::Devices(devices, _) => devices,
            Self::Vcpus(_) => Vec::new(),
        }
    }
}

impl Held {
    /// Waits for the I/O processors while the guest runs, and then for its
    /// vCPUs, each for at most `limit`.
    pub(super) fn hold(machine: &Arc<Machine>, limit: Duration) -> Result<Self, HoldError> {
        let (machine, out_of_service) = (Arc::clone(machine), BTreeSet::new());
        // Dropped on any way out but the last, it lets the partition go on.
        let mut held = Self { machine, since: Instant::now(), out_of_service };
        let processors = held.machine.io_processors();
        processors.iter().for_each(|processor| processor.quiesce());
        let deadline = held.since + limit;
        let busy = processors.iter().filter(|processor| !processor.wait_idle(deadline));
        let busy: Vec<_> = busy.map(|processor| processor.name().to_owned()).collect();
        if !busy.is_empty() {
            return Err(HoldError::Devices(busy, limit));
        }
        held.since = Instant::now();
        if !held.machine.stop_vcpus(held.since + limit) {
            return Err(HoldError::Vcpus(limit));
        }
        Ok(held)
    }

    /// Tells every I/O processor where the storage is now (SALE) and waits for
    /// their acknowledgements. Names those that are out of service from now
    /// on, because they did not acknowledge it.
    pub(super) fn set_address_limits(&mut self, range: StorageRange) -> Vec<String> {
        let limits = AddressLimits { origin: range.origin(), size: range.size() };
        let processors = self.machine.io_processors();
        let told: Vec<_> =
            processors.iter().map(|processor| processor.tell_address_limits(limits)).collect();
        let deadline = Instant::now() + ACKNOWLEDGE;
        let mut silent = Vec::new();
        for (index, (processor, told)) in processors.iter().zip(told).enumerate() {
            let answer =
                told.map(|told| processor.acknowledgement(&told, Some(deadline)).transpose());
            let why = match answer {
                Ok(Ok(Some(_))) => continue,
                Ok(Ok(None)) => "no answer".to_owned(),
                Ok(Err(error)) | Err(error) => error.to_string(),
            };
            tracing::error!(
                device = processor.name(),
                why,
                "out of service: it does not know its storage"
            );
            silent.push(processor.name().to_owned());
            self.out_of_service.insert(index);
        }
        silent
    }

    /// For how long the guest has been stopped.
    pub(super) fn pause(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // I/O processors first: a guest that runs may need them at once.
        let processors = self.machine.io_processors().iter().enumerate();
        let in_service = processors.filter(|(index, _)| !self.out_of_service.contains(index));
        in_service.for_each(|(_, processor)| processor.resume());
        self.machine.resume_vcpus();
    }
}

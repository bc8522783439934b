//! A machine's state: what it needs beside its storage to go on, in this
//! process or in another one.

use engine_soft::{Clock, SoftState, SoftVcpu};
use io_processors::{IoState, SaveIoError};
use serde::{Deserialize, Serialize};

use crate::vcpu_control::HartState;
use crate::{Machine, plic};

/// What a machine knows beside its storage. To be kept together with the
/// storage as it was at the same moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineState {
    /// Guest time, in ticks of the `time` CSR.
    ticks: u64,
    vcpus: Vec<SoftState>,
    harts: Vec<HartState>,
    plic: plic::State,
    io_processors: Vec<IoState>,
}

/// Why a machine's state could not be had or taken up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An I/O processor's.
    #[error(transparent)]
    Io(#[from] SaveIoError),
    /// The state is not one of such a machine. The host is to blame.
    #[error("the state is another machine's: it has other vCPUs or devices")]
    Other,
    /// The machine has ended.
    #[error("the machine has ended")]
    Ended,
}

impl Machine {
    /// The machine's state. No vCPU is in the guest and every I/O processor is
    /// quiesced and idle.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn save(&self) -> Result<MachineState, StateError> {
        let vcpus = self.control.all_do(|_, vcpu| (vcpu.save(), vcpu.ticks()));
        let (vcpus, ticks): (Vec<_>, Vec<_>) = vcpus.ok_or(StateError::Ended)?.into_iter().unzip();
        let io_processors = self.bus.io_processors.iter().map(|processor| processor.save());
        Ok(MachineState {
            ticks: ticks.into_iter().max().unwrap_or_default(),
            vcpus,
            harts: self.control.harts(),
            plic: self.bus.plic.save(),
            io_processors: io_processors.collect::<Result<_, _>>()?,
        })
    }

    /// Goes on from `state`, on storage that is as it was then, and parks the
    /// machine: its vCPUs stay out of the guest, its I/O processors idle, and guest
    /// time stands still, until [`Machine::unpark`]. Called with no vCPU in the guest and every I/O
    /// processor quiesced and idle.
    ///
    /// # Errors
    /// [`StateError`]; the guest must not go on then.
    pub fn restore(&self, state: &MachineState) -> Result<(), StateError> {
        self.go_back(state, SoftVcpu::restore)
    }

    /// The same for storage that was put back ([`storage_window::Capture::put_back`])
    /// to what it was at the last [`restore`](Self::restore), which takes less.
    ///
    /// # Errors
    /// [`StateError`]; the guest must not go on then.
    pub fn put_back(&self, state: &MachineState) -> Result<(), StateError> {
        self.go_back(state, SoftVcpu::put_back)
    }

    fn go_back(
        &self,
        state: &MachineState,
        restore: fn(&mut SoftVcpu, &SoftState, Clock),
    ) -> Result<(), StateError> {
        let processors = &self.bus.io_processors;
        let fits = state.vcpus.len() == self.control.harts().len()
            && state.harts.len() == state.vcpus.len()
            && state.io_processors.len() == processors.len()
            && self.bus.plic.fits(&state.plic);
        if !fits {
            return Err(StateError::Other);
        }
        self.control.park();
        processors.iter().for_each(|processor| processor.park());
        let (vcpus, clock) = (state.vcpus.clone(), Clock::at(state.ticks));
        self.control
            .all_do(move |hart, vcpu| vcpus.get(hart).map(|state| restore(vcpu, state, clock)))
            .ok_or(StateError::Ended)?;
        self.control.set_harts(state.harts.clone());
        for (processor, state) in processors.iter().zip(&state.io_processors) {
            processor.restore(state)?;
        }
        // Last: it knows the lines' levels, and tells the vCPUs.
        self.bus.plic.restore(state.plic.clone());
        Ok(())
    }

    /// Lets a machine that [`Machine::restore`] parked go on: guest time goes on
    /// from the moment of `state`.
    ///
    /// # Errors
    /// [`StateError::Ended`].
    pub fn unpark(&self, state: &MachineState) -> Result<(), StateError> {
        let clock = Clock::at(state.ticks);
        self.control.all_do(move |_, vcpu| vcpu.set_clock(clock)).ok_or(StateError::Ended)?;
        self.bus.io_processors.iter().for_each(|processor| processor.unpark());
        self.control.unpark();
        Ok(())
    }
}

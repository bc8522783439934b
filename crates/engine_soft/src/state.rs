//! A vCPU's state, to be put into another vCPU or back into this one.

use riscv::csr::Csrs;
use riscv::trap::Privilege;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::cpu::Reservation;
use crate::vcpu::SoftVcpu;

/// Everything architectural of a hart but its time: what it needs to go on at
/// its next instruction. A reservation is not kept: `sc` may always fail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SoftState {
    x: [u64; 32],
    f: [u64; 32],
    pc: u64,
    privilege: Privilege,
    csrs: Csrs,
    retired: u64,
}

impl SoftVcpu {
    /// The state of the vCPU, which is outside the guest. What others asked of
    /// it is served first.
    pub fn save(&mut self) -> SoftState {
        // A kick has done what it is for: the vCPU is outside.
        let _ = self.serve();
        let mut x = [0; 32];
        x.copy_from_slice(&self.cpu.x[..32]);
        let cpu = &self.cpu;
        let (f, pc, privilege, csrs) = (cpu.f, cpu.pc, cpu.privilege(), cpu.csrs.clone());
        SoftState { x, f, pc, privilege, csrs, retired: cpu.retired }
    }

    /// Makes this vCPU, which is outside the guest, one that goes on from
    /// `state`. Its storage may be another than before. Nothing is left of what
    /// it did or was asked; the interrupt controller says again how its line
    /// stands.
    pub fn restore(&mut self, state: &SoftState, clock: Clock) {
        let _ = self.serve();
        self.cpu.x = [0; 256];
        self.cpu.x[..32].copy_from_slice(&state.x);
        self.cpu.f = state.f;
        self.cpu.csrs = state.csrs.clone();
        self.cpu.csrs.set_external(false);
        self.cpu.retired = state.retired;
        self.cpu.reservation = Reservation::NONE;
        self.trapped_in_handler = None;
        self.set_clock(clock);
        self.cpu.go((state.privilege, state.pc));
        self.cpu.forget_translations(None);
        self.code.forget_stale(&mut self.cpu);
        self.code.fence(&mut self.cpu);
    }

    /// Guest time now, in ticks of the `time` CSR.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.config.clock.now()
    }

    /// Counts by `clock` from now on. All vCPUs of a machine have the same.
    pub fn set_clock(&mut self, clock: Clock) {
        self.config.clock = clock;
        self.cpu.clock = clock;
    }
}

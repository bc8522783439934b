//! Control and status registers of one hart.
//!
//! [`Csrs`] holds them. An access is three steps, kept apart: [`Csrs::check`]
//! says whether the instruction may (no side effect), [`Csrs::read`] gives the
//! old value (no side effect), [`Csrs::write`] puts the legal part of the new
//! one (WARL) and never refuses.
//!
//! PMP has no entries (all its registers are WARL zero), so that every mode
//! reaches all physical memory; there are no debug triggers and no hardware
//! performance counters beyond `cycle`, `time` and `instret`.

mod access;
pub mod number;

pub use access::IllegalAccess;

use serde::{Deserialize, Serialize};

use crate::mmu;
use crate::trap::{Privilege, interrupt};

/// Bits of `mstatus` and `sstatus`.
pub mod status {
    #![expect(missing_docs, reason = "each constant is the field of that name in the standard")]
    pub const SIE: u64 = 1 << 1;
    pub const MIE: u64 = 1 << 3;
    pub const SPIE: u64 = 1 << 5;
    pub const MPIE: u64 = 1 << 7;
    pub const SPP: u64 = 1 << 8;
    pub const MPP_SHIFT: u32 = 11;
    pub const MPP: u64 = 3 << MPP_SHIFT;
    pub const FS: u64 = 3 << 13;
    pub const MPRV: u64 = 1 << 17;
    pub const SUM: u64 = 1 << 18;
    pub const MXR: u64 = 1 << 19;
    pub const TVM: u64 = 1 << 20;
    pub const TW: u64 = 1 << 21;
    pub const TSR: u64 = 1 << 22;
    pub const UXL_64: u64 = 2 << 32;
    pub const SXL_64: u64 = 2 << 34;
    pub const SD: u64 = 1 << 63;
}

/// Bits of `menvcfg`.
mod envcfg {
    pub(super) const FIOM: u64 = 1 << 0;
    pub(super) const ADUE: u64 = 1 << 61;
    pub(super) const STCE: u64 = 1 << 63;
}

/// `mcounteren`, `scounteren`: cycle, time, instret.
const COUNTERS: u64 = 7;
const COUNTER_TIME: u64 = 2;

const SSIP: u64 = 1 << interrupt::SUPERVISOR_SOFTWARE;
const STIP: u64 = 1 << interrupt::SUPERVISOR_TIMER;
const SEIP: u64 = 1 << interrupt::SUPERVISOR_EXTERNAL;
const SUPERVISOR_INTERRUPTS: u64 = SSIP | STIP | SEIP;
const MACHINE_INTERRUPTS: u64 = 1 << interrupt::MACHINE_SOFTWARE
    | 1 << interrupt::MACHINE_TIMER
    | 1 << interrupt::MACHINE_EXTERNAL;

/// What counting CSRs show; kept by the executor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// The `time` CSR.
    pub time: u64,
    /// Instructions retired before the one that asks.
    pub retired: u64,
}

/// The control and status registers of one hart.
///
/// Fields are private to this crate because every value in them is a legal
/// one: [`Csrs::write`] and trap entry are the only ways in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Csrs {
    pub(crate) mstatus: u64,
    pub(crate) medeleg: u64,
    pub(crate) mideleg: u64,
    pub(crate) mie: u64,
    pub(crate) mtvec: u64,
    pub(crate) mepc: u64,
    pub(crate) mcause: u64,
    pub(crate) mtval: u64,
    pub(crate) stvec: u64,
    pub(crate) sepc: u64,
    pub(crate) scause: u64,
    pub(crate) stval: u64,
    hart_id: u64,
    mscratch: u64,
    mcounteren: u64,
    menvcfg: u64,
    sscratch: u64,
    scounteren: u64,
    senvcfg: u64,
    satp: u64,
    stimecmp: u64,
    /// SSIP, and what M-mode software wrote to STIP and SEIP.
    software_pending: u64,
    /// The interrupt controller's line.
    external_line: bool,
    /// `time >= stimecmp` when last looked.
    timer_reached: bool,
    cycle_base: u64,
    instret_base: u64,
    fflags: u8,
    frm: u8,
}

impl Csrs {
    /// The state after reset of a hart that begins in M-mode.
    #[must_use]
    pub fn new(hart_id: u64) -> Self {
        Self {
            mstatus: status::UXL_64 | status::SXL_64,
            medeleg: 0,
            mideleg: 0,
            mie: 0,
            mtvec: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            stvec: 0,
            sepc: 0,
            scause: 0,
            stval: 0,
            hart_id,
            mscratch: 0,
            mcounteren: 0,
            menvcfg: 0,
            sscratch: 0,
            scounteren: 0,
            senvcfg: 0,
            satp: 0,
            stimecmp: u64::MAX,
            software_pending: 0,
            external_line: false,
            timer_reached: false,
            cycle_base: 0,
            instret_base: 0,
            fflags: 0,
            frm: 0,
        }
    }

    /// The state in which firmware hands a hart to S-mode: every trap meant
    /// for an operating system is delegated, its timer (Sstc) and hardware
    /// updating of A and D bits (Svadu) are on, counters are readable by its
    /// programs too.
    #[must_use]
    pub fn for_supervisor(hart_id: u64) -> Self {
        let mut csrs = Self::new(hart_id);
        csrs.write(number::MEDELEG, u64::MAX, Counters::default());
        csrs.write(number::MIDELEG, u64::MAX, Counters::default());
        csrs.menvcfg = envcfg::ADUE | envcfg::STCE;
        csrs.mcounteren = COUNTERS;
        // Not every kernel enables `rdtime` for its programs, whose C library
        // reads the clock by it: OpenSBI and KVM hand over with it enabled.
        csrs.scounteren = COUNTERS;
        csrs
    }

    /// `mip` as it reads now: software bits, lines and timer together.
    #[must_use]
    #[inline]
    pub fn pending(&self) -> u64 {
        let mut pending = self.software_pending;
        if self.menvcfg & envcfg::STCE != 0 {
            pending &= !STIP;
            pending |= u64::from(self.timer_reached) << interrupt::SUPERVISOR_TIMER;
        }
        pending | u64::from(self.external_line) << interrupt::SUPERVISOR_EXTERNAL
    }

    /// Whether `wfi` has nothing to wait for: some enabled interrupt is
    /// pending, whatever the global enables say (section 3.3.3).
    #[must_use]
    pub fn wakes(&self) -> bool {
        self.pending() & self.mie != 0
    }

    /// Sets the interrupt controller's line into SEIP.
    pub fn set_external(&mut self, level: bool) {
        self.external_line = level;
    }

    /// Sets or clears SSIP from outside, e.g. for another hart.
    pub fn set_software(&mut self, level: bool) {
        if level {
            self.software_pending |= SSIP;
        } else {
            self.software_pending &= !SSIP;
        }
    }

    /// Lets the supervisor timer see the present `time`.
    #[inline]
    pub fn update_timer(&mut self, time: u64) {
        self.timer_reached = time >= self.stimecmp;
    }

    /// The deadline of the supervisor timer, in ticks of `time`; none if its
    /// interrupt could not wake the hart anyway.
    #[must_use]
    pub fn timer_deadline(&self) -> Option<u64> {
        let armed = self.menvcfg & envcfg::STCE != 0 && self.mie & STIP != 0;
        (armed && self.stimecmp != u64::MAX).then_some(self.stimecmp)
    }

    /// As a write of `stimecmp`.
    pub fn set_stimecmp(&mut self, deadline: u64) {
        self.stimecmp = deadline;
    }

    /// Whether FP instructions may execute (`mstatus.FS` is not Off).
    #[must_use]
    #[inline]
    pub fn fp_enabled(&self) -> bool {
        self.mstatus & status::FS != 0
    }

    /// Whether the FP state is marked as changed, so that marking it again
    /// does nothing.
    #[must_use]
    #[inline]
    pub fn fp_dirty(&self) -> bool {
        self.mstatus & status::FS == status::FS
    }

    /// Marks the FP state as changed (`mstatus.FS` = Dirty).
    #[inline]
    pub fn set_fp_dirty(&mut self) {
        self.mstatus |= status::FS;
    }

    /// The dynamic rounding mode, `frm`; 5 to 7 are invalid.
    #[must_use]
    #[inline]
    pub fn frm(&self) -> u8 {
        self.frm
    }

    /// The accrued exception flags, `fflags`.
    #[must_use]
    #[inline]
    pub fn fflags(&self) -> u8 {
        self.fflags
    }

    /// Accrues exception flags (NV 16, DZ 8, OF 4, UF 2, NX 1).
    #[inline]
    pub fn raise_fflags(&mut self, flags: u8) {
        self.fflags |= flags & 31;
    }

    /// `satp`.
    #[must_use]
    pub fn satp(&self) -> u64 {
        self.satp
    }

    /// The mode whose rights a load or store by a hart in `privilege` has:
    /// its own, or `mstatus.MPP` under MPRV (section 3.1.6.3).
    #[must_use]
    pub fn data_privilege(&self, privilege: Privilege) -> Privilege {
        if privilege == Privilege::Machine && self.mstatus & status::MPRV != 0 {
            Privilege::from_bits(self.mstatus >> status::MPP_SHIFT)
        } else {
            privilege
        }
    }

    /// How addresses are translated for an access with the rights of
    /// `privilege`.
    #[must_use]
    pub fn translation(&self, privilege: Privilege) -> mmu::Context {
        mmu::Context {
            satp: self.satp,
            privilege,
            user_memory: self.mstatus & status::SUM != 0,
            executable_readable: self.mstatus & status::MXR != 0,
            hardware_update: self.menvcfg & envcfg::ADUE != 0,
        }
    }

    /// Whether `wfi` is an illegal instruction for `privilege`: in U-mode
    /// always, in S-mode under TW (section 3.1.6.5).
    #[must_use]
    pub fn wfi_is_illegal(&self, privilege: Privilege) -> bool {
        privilege == Privilege::User
            || privilege == Privilege::Supervisor && self.mstatus & status::TW != 0
    }

    /// Whether `sret` is an illegal instruction for `privilege` (TSR).
    #[must_use]
    pub fn sret_is_illegal(&self, privilege: Privilege) -> bool {
        privilege == Privilege::User
            || privilege == Privilege::Supervisor && self.mstatus & status::TSR != 0
    }

    /// Whether `sfence.vma` is an illegal instruction for `privilege` (TVM).
    #[must_use]
    pub fn sfence_is_illegal(&self, privilege: Privilege) -> bool {
        privilege == Privilege::User
            || privilege == Privilege::Supervisor && self.mstatus & status::TVM != 0
    }
}

#[cfg(test)]
mod tests;
